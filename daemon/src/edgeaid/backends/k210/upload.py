"""One object on its way to the board, in pieces."""

from __future__ import annotations

import time

from .frames import LAST, MIN_SHIFT, Frame, Type
from .line import Line
from .messages import parse_error
from .port import LineLost


class Upload:
    """The pieces of one transfer to the board: any order, resent one by one, of changing size."""

    def __init__(self, line: Line, seq: int, data: memoryview, end: float, patience: float) -> None:
        self.line = line
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
        line = self.line
        progress = time.monotonic()
        while not self.complete:
            now = time.monotonic()
            if now > self.end or (line.dead(progress, now) and now - progress > self.patience):
                raise LineLost(f"{line.port.path}: transfer of {len(self.data)} bytes stopped; the board is silent")
            self.expire(now)
            self.fill(now)
            until = min((f[0] for f in self.flying.values()), default=now)
            for got in line.frames(max(0.0, min(until, self.end) - time.monotonic())):
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
            self.line.measure(time.monotonic() - known[1])
            self.line.judge(known[2], 0, 1)
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
                self.line.counters.resent += 1
                self.line.judge(n, 1)

    def fill(self, now: float) -> None:
        line = self.line
        while True:
            unit = self.marks.find(0)
            if unit < 0:
                if self.flying:
                    return
                unit = len(self.marks) - 1  # all arrived, but the word that it is complete got lost
            shift = max(line.shift, (len(self.marks) >> 16).bit_length() + MIN_SHIFT)
            index = unit >> (shift - MIN_SHIFT)
            piece = bytes(self.data[index << shift : (index + 1) << shift])
            size = len(piece) + len(piece) // 254 + 16
            if self.flying and self.busy + size > line.window():
                return
            if (shift, index) in self.flying:
                return
            last = (index + 1) << shift >= len(self.data)
            line.send(Frame(Type.DATA, (shift - MIN_SHIFT) << 4 | last, self.seq, index, piece))
            self.busy += size
            self.flying[shift, index] = (now + line.rto + line.line_time(self.busy + 40), now, size)
            self.mark(shift, index, 2)
