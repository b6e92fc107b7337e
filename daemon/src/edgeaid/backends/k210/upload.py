"""One object on its way to the board, in pieces."""

from __future__ import annotations

import time
from typing import Protocol

from .frames import LAST, MIN_SHIFT, Frame, Type
from .messages import parse_error
from .port import LineLost, Port


class Counters(Protocol):
    """Totals that an upload adds to."""

    resent: int
    timeouts: int


class Line(Protocol):
    """What an upload needs of the session that carries it (`link.Link`)."""

    port: Port
    shift: int

    @property
    def counters(self) -> Counters: ...
    @property
    def rto(self) -> float: ...
    def dead(self, progress: float, now: float) -> bool: ...
    def frames(self, timeout: float) -> list[Frame]: ...
    def send(self, frame: Frame) -> int: ...
    def window(self) -> int: ...
    def line_time(self, size: int) -> float: ...
    def measure(self, seconds: float) -> None: ...
    def judge(self, size: int, lost: int, arrived: int = 0) -> None: ...


class Upload:
    """The pieces of one transfer to the board: any order, resent one by one, of changing size."""

    def __init__(self, link: Line, seq: int, data: memoryview, end: float, patience: float) -> None:
        self.link = link
        self.seq = seq
        self.data = data
        self.end = end
        self.patience = patience
        #: Per 16 bytes: 0 to send, 1 acknowledged, 2 on its way.
        self.marks = bytearray((len(data) + 15) >> MIN_SHIFT)
        #: (shift, index) -> (when it counts as lost, when it was sent, bytes on the line).
        self.flying: dict[tuple[int, int], tuple[float, float, int]] = {}
        self.busy = 0
        self.complete = False

    def run(self) -> None:
        link = self.link
        progress = time.monotonic()
        while not self.complete:
            now = time.monotonic()
            if now > self.end or (link.dead(progress, now) and now - progress > self.patience):
                link.counters.timeouts += 1
                raise LineLost(f"{link.port.path}: transfer of {len(self.data)} bytes stopped; the board is silent")
            self.expire(now)
            self.fill(now)
            until = min((f[0] for f in self.flying.values()), default=now)
            for got in link.frames(max(0.0, min(until, self.end) - time.monotonic())):
                if got.seq == self.seq and self.take(got):
                    progress = time.monotonic()

    def take(self, got: Frame) -> bool:
        if got.type == Type.ERR:
            raise parse_error(got)
        if got.type != Type.ACK:
            return False
        if got.flags & LAST:
            self.complete = True
        shift = (got.flags >> 4) + MIN_SHIFT
        known = self.flying.pop((shift, got.index), None)
        if known:
            self.busy -= known[2]
            self.link.measure(time.monotonic() - known[1])
            self.link.judge(known[2], 0, 1)
        self.mark(shift, got.index, 1)
        return True

    def mark(self, shift: int, index: int, value: int) -> None:
        step = shift - MIN_SHIFT
        first, end = index << step, min((index + 1) << step, len(self.marks))
        if value:
            self.marks[first:end] = bytes([value]) * max(0, end - first)
        else:  # lost: what another piece brought stays
            self.marks[first:end] = self.marks[first:end].replace(b"\2", b"\0")

    def expire(self, now: float) -> None:
        for key, (late, _, n) in list(self.flying.items()):
            if now >= late:
                del self.flying[key]
                self.busy -= n
                self.mark(*key, 0)
                self.link.counters.resent += 1
                self.link.judge(n, 1)

    def fill(self, now: float) -> None:
        link = self.link
        while True:
            unit = self.marks.find(0)
            if unit < 0:
                if self.flying:
                    return
                unit = len(self.marks) - 1  # all arrived, but the word that it is complete got lost
            shift = max(link.shift, (len(self.marks) >> 16).bit_length() + MIN_SHIFT)
            index = unit >> (shift - MIN_SHIFT)
            piece = bytes(self.data[index << shift : (index + 1) << shift])
            size = len(piece) + len(piece) // 254 + 16
            if self.flying and self.busy + size > link.window():
                return
            if (shift, index) in self.flying:
                return
            last = (index + 1) << shift >= len(self.data)
            link.send(Frame(Type.DATA, (shift - MIN_SHIFT) << 4 | last, self.seq, index, piece))
            self.busy += size
            self.flying[shift, index] = (now + link.rto + link.line_time(self.busy + 40), now, size)
            self.mark(shift, index, 2)
