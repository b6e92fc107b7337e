"""Readers of model files: bytes in, frozen dataclasses out. No runtime is loaded and no file is opened."""
