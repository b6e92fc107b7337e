"""MaixPy's uzlib for CPython."""

import zlib


def decompress(data, wbits=0):
    return zlib.decompress(data)


class DecompIO:
    def __init__(self, stream, wbits=0):
        self.inner = zlib.decompressobj()
        self.stream = stream

    def read(self, n=-1):
        return self.inner.decompress(self.inner.unconsumed_tail or self.stream.read(), max(0, n))
