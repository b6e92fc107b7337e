"""Models compiled for the Edge TPU: the executables inside edgetpu-custom-op."""
