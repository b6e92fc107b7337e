"""What the payloads of the K210 protocol mean, seen from the host; no I/O."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from ...errors import DeviceError
from .frames import MIN_SHIFT, PROTOCOL, Frame

_ABOUT: Final = struct.Struct("<BBIIHI")
_OUT: Final = struct.Struct("<IIIIB")
_ENTRY: Final = struct.Struct("<BBHHHI")

#: Error numbers of the agent; MaixPy's own are 2001 to 2015.
E_REQUEST: Final = -1
E_TYPE: Final = -2
E_TRANSFER: Final = -3
E_SLOT: Final = -4
E_CRC: Final = -5
E_MEMORY: Final = -6
E_FILE: Final = -7
E_CAMERA: Final = -8
E_OTHER: Final = -10


class BoardError(DeviceError):
    """The board answered a request with an error; the session is intact."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the K210 board says {code}: {text}")
        #: MaixPy's number (2001-2015) or the agent's (negative).
        self.code = code


@dataclass(frozen=True, slots=True)
class About:
    """What the board said of itself."""

    #: True, False or None (no KPU module): whether kmodel v4 is understood.
    v4: bool | None
    #: Free bytes of the system heap, where models are kept; 0 = unknown.
    free_heap: int
    free_gc: int
    #: Bytes of the board's receive buffer.
    rx: int
    baud: int


@dataclass(frozen=True, slots=True)
class OutputEntry:
    """One output in a result, as MaixPy described it."""

    index: int
    #: "u8" or "f32", MaixPy's opinion; v4 always says f32.
    kind: str
    width: int
    height: int
    channels: int
    size: int


@dataclass(slots=True)
class Result:
    """The outputs of one run, one after the other in `data`."""

    data: bytearray
    entries: tuple[OutputEntry, ...]
    #: Microseconds that KPU.forward took.
    kpu_us: int
    #: Number of the camera frame, from 1; 0 for a run.
    number: int
    crc: int
    marks: bytearray = field(repr=False)

    @property
    def whole(self) -> bool:
        """Whether every piece is here and the checksum is right."""
        return 0 not in self.marks and zlib.crc32(self.data) == self.crc

    def put(self, frame: Frame) -> bool:
        """Take a DATA frame; False when it does not fit."""
        shift = (frame.flags >> 4) + MIN_SHIFT
        at, n = frame.index << shift, len(frame.payload)
        if at + n > len(self.data) or (n != 1 << shift and at + n != len(self.data)):
            return False
        self.data[at : at + n] = frame.payload
        first, end = at >> MIN_SHIFT, (at + n + 15) >> MIN_SHIFT
        self.marks[first:end] = b"\1" * (end - first)
        return True

    def missing(self, shift: int, start: int = 0) -> tuple[int, int]:
        """Number of the first missing piece of 2^shift bytes from `start` on, and bits for it and the 63 behind it."""
        step = shift - MIN_SHIFT
        unit = self.marks.find(0, start << step)
        if unit < 0:
            return start, 0
        first = unit >> step
        bits = 0
        for i in range(64):
            if 0 in self.marks[(first + i) << step : (first + i + 1) << step]:
                bits |= 1 << i
        return first, bits


def parse_result(frame: Frame, limit: int) -> Result | None:
    """What an OUT frame announces; None when it makes no sense or is over `limit` bytes."""
    if len(frame.payload) < _OUT.size:
        return None
    size, crc, micros, number, count = _OUT.unpack_from(frame.payload)
    if size > limit or len(frame.payload) != _OUT.size + count * _ENTRY.size:
        return None
    entries = []
    for i in range(count):
        index, kind, w, h, c, n = _ENTRY.unpack_from(frame.payload, _OUT.size + i * _ENTRY.size)
        entries.append(OutputEntry(index, "f32" if kind else "u8", w, h, c, n))
    if sum(e.size for e in entries) != size:
        return None
    return Result(bytearray(size), tuple(entries), micros, number, crc, bytearray((size + 15) >> MIN_SHIFT))


def parse_about(frame: Frame) -> About:
    """What a HELLO of the board says. Raises DeviceError for another protocol version."""
    if not frame.payload or frame.payload[0] != PROTOCOL or len(frame.payload) < _ABOUT.size:
        version = frame.payload[0] if frame.payload else "none"
        raise DeviceError(f"the agent on the board has protocol {version}, this host {PROTOCOL}; reset the board")
    _, v4, heap, gc, rx, baud = _ABOUT.unpack_from(frame.payload)
    return About(None if v4 == 255 else bool(v4), heap, gc, rx, baud)


def parse_error(frame: Frame) -> BoardError:
    code = struct.unpack_from("<h", frame.payload)[0] if len(frame.payload) >= 2 else 0
    return BoardError(code, frame.payload[2:].decode("utf-8", "replace"))
