"""The daemon: models and devices in the middle (`plane`), one module per protocol around them."""
