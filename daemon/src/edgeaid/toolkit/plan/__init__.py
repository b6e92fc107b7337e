"""Which Edge TPU models to compile together, and what one inference then costs."""
