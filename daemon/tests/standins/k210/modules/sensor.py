# ruff: noqa: PLW0603  one board has one camera, as in MaixPy
"""Shim of MaixPy's sensor: a camera whose n-th frame is pixel i = (7 i + 13 n) mod 256, gray or gray in all three."""

import hw
import image

RGB565 = 2
GRAYSCALE = 1
QVGA = 8

_format = RGB565
_size = (320, 240)
_count = 0


def reset(freq=24000000):
    global _count
    if hw.call(b"C") != b"1":
        raise OSError("[MAIXPY]: no sensor")
    _count = 0


def set_pixformat(value):
    global _format
    _format = value


def set_framesize(value):
    global _size
    _size = (320, 240)


def set_windowing(size):
    global _size
    _size = tuple(size)


def set_hmirror(on):
    pass


def set_vflip(on):
    pass


def run(on):
    pass


def snapshot():
    global _count
    hw.call(b"C")  # waits for the frame: the line process keeps the camera's pace
    img = image.Image(size=_size)
    n = _size[0] * _size[1]
    start = 13 * _count
    _count += 1
    if _format == GRAYSCALE:
        img.pixels = bytearray(n)
        img.gray = True
        for i in range(n):
            img.pixels[i] = (7 * i + start) & 255
        img._place()
    else:
        for i in range(n):
            v = (7 * i + start) & 255
            img[i] = (v, v, v)
    return img
