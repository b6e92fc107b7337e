"""uctypes for CPython: addresses of buffers, and images with their pixels' address."""

import ctypes


def real_addressof(thing):
    return ctypes.addressof((ctypes.c_char * len(thing)).from_buffer(thing))


def addressof(thing):
    return real_addressof(thing.pixels if hasattr(thing, "pixels") else thing)


def bytearray_at(address, n):
    return memoryview((ctypes.c_ubyte * n).from_address(address)).cast("B")
