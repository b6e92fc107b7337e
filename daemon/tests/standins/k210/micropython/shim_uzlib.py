"""MaixPy's uzlib on top of today's deflate module."""

import io

import deflate


def decompress(data, wbits=0):
    return deflate.DeflateIO(io.BytesIO(data), deflate.ZLIB).read()


class DecompIO:
    def __init__(self, stream, wbits=0):
        self.inner = deflate.DeflateIO(stream, deflate.ZLIB)

    def read(self, n=-1):
        return self.inner.read(n)
