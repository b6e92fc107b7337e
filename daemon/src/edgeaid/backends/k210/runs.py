"""A run of a model on the board: ask for it, then fetch its result piece by piece."""

from __future__ import annotations

import struct
import time
import zlib
from dataclasses import dataclass, field
from typing import Final

from .frames import MAX_SHIFT, MIN_SHIFT, Frame, Type
from .line import OVERHEAD, RESEND, TRIES, Line
from .messages import Result, parse_error, parse_result
from .port import LineLost

#: Seconds for fetching a result once it is announced.
FETCH: Final = 60.0


class _Fetch:
    """Which pieces of a result were asked for last."""

    shift = MAX_SHIFT
    asked = due = 0

    def expect(self, result: Result, shift: int, bits: int) -> None:
        """Pieces of 2^shift bytes: those of `bits` that exist; 0 = forget the earlier ones."""
        self.shift = shift
        self.asked = min(self.asked + bits.bit_count(), (len(result.data) + (1 << shift) - 1) >> shift) if bits else 0
        self.due = self.asked

    @property
    def bytes(self) -> int:
        """Bytes of them on the line."""
        return self.asked * ((1 << self.shift) + OVERHEAD)


@dataclass(slots=True)
class _Run:
    """A RUN under way: when it was accepted, when to ask again, and what has come of its result."""

    seq: int
    #: Payload of the RUN frame's piece size, 2^shift bytes.
    shift: int
    begin: float
    progress: float
    ask: float = 0.0
    accepted: float = 0.0
    result: Result | None = None
    fetch: _Fetch = field(default_factory=_Fetch)


class Runs:
    """The runs of a session, one at a time."""

    def __init__(self, line: Line) -> None:
        self.line = line
        #: Limit for the bytes of one result.
        self.max_result = 8 << 20
        #: Seconds that the newest run took on the KPU, a little less.
        self._run_time = 0.0
        self._asks = 0

    def run(self, slot: int, mask: int, *, timeout: float = 10.0, watchdog_ms: int = 0) -> Result:
        """Run the model on the newest input and fetch the outputs in `mask`. Raises BoardError, LineLost.

        `watchdog_ms` > 0: the board resets itself when KPU.forward takes longer (MaixPy itself waits for ever).
        """
        seq = self.line.next_seq()
        frame = Frame(Type.RUN, 0, seq, slot, struct.pack("<BBH", mask, self.line.shift, watchdog_ms))
        now = time.monotonic()
        run = _Run(seq, self.line.shift, begin=now, progress=now)
        tries = 0
        while True:
            now = time.monotonic()
            self._give_up(run, now, timeout)
            if now >= run.ask:
                if run.result is None:
                    self.line.send(frame)
                    early = run.accepted and now - run.accepted < self._run_time
                    run.ask = now + (RESEND if early or not run.accepted else max(0.05, self.line.rto))
                else:
                    run.ask = now + self._pull(seq, run.result, run.fetch)
                tries += 1
                self.line.counters.resent += tries > 1
            for got in self.line.frames(min(run.ask, now + RESEND) - time.monotonic()):
                if got.seq == seq:
                    self._take(run, got)
            result = run.result
            if result is not None and 0 not in result.marks:
                self.line.judge((1 << run.fetch.shift) + OVERHEAD, 0, run.fetch.asked)
                if zlib.crc32(result.data) != result.crc:
                    raise LineLost(f"{self.line.port.path}: result with a wrong checksum")
                return result

    def _give_up(self, run: _Run, now: float, timeout: float) -> None:
        """Raise LineLost when waiting any longer is of no use."""
        if now - run.begin > timeout + (FETCH if run.result else 0.0):
            what = "the result did not come through" if run.result else "does the model hang on the KPU?"
            raise LineLost(f"{self.line.port.path}: no result within {now - run.begin:.1f} s; {what}")
        silent = now - run.progress > RESEND * TRIES
        if run.accepted and not run.result and silent and self.line.strange >= 32 and self.line.copies(32) == 1:
            raise LineLost(f"{self.line.port.path}: the board sends something else than an answer; it was reset")
        if (run.result or not run.accepted) and self.line.dead(run.progress, now):
            raise LineLost(f"{self.line.port.path}: no answer to RUN within {now - run.progress:.1f} s")

    def _take(self, run: _Run, got: Frame) -> None:
        """One frame that belongs to the run. Raises BoardError when the board refuses."""
        run.progress = time.monotonic()
        if got.type == Type.ERR:
            raise parse_error(got)
        if got.type == Type.ACK:
            run.accepted = run.accepted or run.progress
        elif got.type == Type.OUT and run.result is None:
            run.result = parse_result(got, self.max_result)
            if run.result is not None:
                self._run_time = 0.9 * run.result.kpu_us / 1e6
                run.fetch.expect(run.result, run.shift, (1 << 64) - 1)
                run.ask = run.progress + self.line.rto + self.line.line_time(run.fetch.bytes)
        elif got.type == Type.DATA and run.result is not None and run.result.put(got):
            run.fetch.due -= 1
            # What is on its way comes without a pause; when the pause is there, the rest was lost.
            pause = min(self.line.rto, 0.05) + self.line.line_time(1100) if run.fetch.due > 0 else 0.0
            run.ask = run.progress + pause

    def _pull(self, seq: int, result: Result, fetch: _Fetch) -> float:
        """Ask for missing pieces; seconds until asking again makes sense."""
        lost = max(0, fetch.due)
        self.line.judge((1 << fetch.shift) + OVERHEAD, lost, fetch.asked - lost)
        fetch.expect(result, self.line.shift, 0)
        start = 0
        self._asks = (self._asks + 1) & 0xFF
        for _ in range(
            4 if self.line.shift == MIN_SHIFT else 1
        ):  # little of it will arrive on a bad line: ask for more
            first, bits = result.missing(self.line.shift, start)
            if not bits:
                break
            fetch.expect(result, self.line.shift, bits)
            wish = struct.pack("<BII", self.line.shift, bits & 0xFFFFFFFF, bits >> 32)
            self.line.send(Frame(Type.NAK, self._asks, seq, first, wish))
            start = first + 64
        return self.line.rto + self.line.line_time(fetch.bytes + 40)
