"""Shim of MaixPy's image: RGB565 or gray pixels, and the AI plane that the KPU reads."""

import hw
import uctypes
import ustruct


class Image:
    def __init__(self, data=None, size=None, from_bytes=False):
        self.ai = None
        self.gray = False
        if data is None:
            self.size = size
            self.pixels = bytearray(2 * size[0] * size[1])
        elif from_bytes:
            got = hw.call(b"J" + bytes(data))
            if len(got) < 5:
                raise OSError("Image: format not supported")
            self.size = ustruct.unpack("<HH", got[:4])
            self.pixels = bytearray(got[4:])
        else:
            raise OSError("the stand-in has no picture files")
        self._place()

    def _place(self):
        # What id() points at in MaixPy: type, w, h, bpp, pointer to the pixels, pointer to the AI plane.
        real = uctypes.real_addressof
        word = ustruct.calcsize("P")
        head = ustruct.pack("P", 0) + ustruct.pack("<III", self.size[0], self.size[1], 1 if self.gray else 2)
        head += bytes(-len(head) % word)
        head += ustruct.pack("PP", real(self.pixels), real(self.ai) if self.ai is not None else 0)
        self.head = bytearray(head + bytes(8 * word - len(head)))

    def width(self):
        return self.size[0]

    def height(self):
        return self.size[1]

    def to_grayscale(self):
        n = self.size[0] * self.size[1]
        out = bytearray(n)
        for i in range(n):
            r, g, b = self._rgb(i)
            out[i] = (r * 77 + g * 150 + b * 29) >> 8
        self.pixels = out
        self.gray = True
        self.ai = None
        self._place()
        return self

    def _rgb(self, i):
        p = self.pixels[2 * i] | self.pixels[2 * i + 1] << 8
        r, g, b = p >> 11, p >> 5 & 63, p & 31
        return r << 3 | r >> 2, g << 2 | g >> 4, b << 3 | b >> 2

    def __setitem__(self, i, rgb):
        r, g, b = rgb
        p = (r >> 3) << 11 | (g >> 2) << 5 | b >> 3
        self.pixels[2 * i] = p & 255
        self.pixels[2 * i + 1] = p >> 8

    def pix_to_ai(self):
        n = self.size[0] * self.size[1]
        if self.ai is None:
            self.ai = bytearray(n if self.gray else 3 * n)
            self._place()
        if self.gray:
            self.ai[:] = self.pixels
            return
        for i in range(n):
            self.ai[i], self.ai[n + i], self.ai[2 * n + i] = self._rgb(i)
