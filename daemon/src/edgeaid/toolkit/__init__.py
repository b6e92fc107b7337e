"""The host's side: inspect, check, convert, compile and bundle models. A device does not need this package."""
