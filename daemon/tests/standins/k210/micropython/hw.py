"""The hardware as the shims see it, from MicroPython: JavaScript functions that take addresses."""

import _board
import uctypes

_address = uctypes.addressof


def any():
    return _board.any()


def read(n):
    out = bytearray(n)
    return bytes(out[: _board.take(_address(out), n)])


def write(data):
    data = bytes(data)
    if data:
        _board.give(_address(data), len(data))


def init(baud, rx):
    call(b"B" + str(baud).encode())
    _board.init(rx)


def call(request):
    n = _board.call(_address(request), len(request))
    out = bytearray(n)
    if n:
        _board.result(_address(out))
    return bytes(out)


def sleep_ms(ms):
    _board.sleep(ms)
