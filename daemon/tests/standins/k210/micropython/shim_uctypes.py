# ruff: noqa: F401  what is imported is what the module offers
"""uctypes of the real MicroPython, and images with their pixels' address."""

from uctypes import addressof as real_addressof
from uctypes import bytearray_at


def addressof(thing):
    return real_addressof(thing.pixels if hasattr(thing, "pixels") else thing)
