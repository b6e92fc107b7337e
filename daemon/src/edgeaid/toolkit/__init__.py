"""The host's side: look at, check, convert, compile and bundle models. A device does not need this package."""
