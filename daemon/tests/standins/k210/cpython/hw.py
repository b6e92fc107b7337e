# ruff: noqa: PLW0603  one process is one board
"""The hardware as the shims see it, from CPython."""

import os
import select
import time

UART, CALL = int(os.environ["STANDIN_UART"]), int(os.environ["STANDIN_CALL"])
_ring = bytearray()
_room = 2048
interrupt = 3
#: True while a program runs: byte 3 then interrupts it instead of being read.
running = False


def pump(wait=0.0):
    while select.select([UART], [], [], wait)[0]:
        wait = 0.0
        data = os.read(UART, 4096)
        if not data:
            raise SystemExit
        stop = running and interrupt >= 0 and bytes([interrupt]) in data
        if stop:
            data = data[data.rindex(bytes([interrupt])) + 1 :]
        _ring.extend(data[: max(0, _room - len(_ring))])
        if stop:
            raise KeyboardInterrupt


def any():
    pump()
    return len(_ring)


def read(n):
    part = bytes(_ring[:n])
    del _ring[:n]
    return part


def write(data):
    data = memoryview(bytes(data))
    while data:
        select.select([], [UART], [])
        data = data[os.write(UART, data) :]


def _exactly(n):
    out = b""
    while len(out) < n:
        part = os.read(CALL, n - len(out))
        if not part:
            raise SystemExit
        out += part
    return out


def call(request):
    request = memoryview(len(request).to_bytes(4, "little") + bytes(request))
    while request:
        request = request[os.write(CALL, request) :]
    return _exactly(int.from_bytes(_exactly(4), "little"))


def init(baud, rx):
    global _room
    call(b"B%d" % baud)
    _room = rx
    _ring.clear()


def sleep_ms(ms):
    end = time.monotonic() + ms / 1000
    while True:
        left = end - time.monotonic()
        if left <= 0:
            pump()
            return
        if running:
            pump(min(left, 0.002))
        else:
            time.sleep(left)
