"""Coral Edge TPU through libedgetpu's delegate."""
