"""A session with the agent on a K210 board: requests, transfers in both directions, camera streams.

Only this side has clocks: whatever is not answered is sent again, the board answers a repetition without running it
again. Pieces shrink on a noisy line (down to 16 bytes) and grow again on a clean one. The protocol is in docs/k210.md.
"""

from __future__ import annotations

import math
import random
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ...errors import DeviceError
from .frames import (
    MAX_SHIFT,
    MIN_SHIFT,
    PROTOCOL,
    Decoder,
    Frame,
    Type,
    encode,
)
from .messages import (
    About,
    BoardError,
    Result,
    parse_about,
    parse_error,
    parse_result,
)
from .port import LineLost, Port
from .upload import Upload

#: An unanswered frame is sent again after this long at the latest (the board's buffer is 14 ms at 1.5 Mbaud).
RESEND: Final = 0.3
#: So many times that long without a sign of progress, then the session is broken.
TRIES: Final = 5
#: The same limit while now and then a valid frame does arrive: a noisy line is slow, not dead.
NOISY: Final = 5.0
#: Bytes of a DATA frame beside its piece.
OVERHEAD: Final = 16
#: Seconds for fetching a result once it is announced.
FETCH: Final = 60.0
#: Texts that only a board without a running agent sends: it was reset, or the agent died.
_TALK: Final = (b"[MAIXPY] Pll0", b"[MaixPy] init end", b"raw REPL; CTRL-B", b"\r\n>>> ")


@dataclass(slots=True)
class Counters:
    """Losses and repetitions on the line. Totals of a session."""

    resent: int = 0
    sent: int = 0
    timeouts: int = 0


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


class Link:
    """One side of a running session; the other side is the agent."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.decoder = Decoder()
        self.counters = Counters()
        self.about: About | None = None
        #: Limit for the bytes of one result.
        self.max_result = 8 << 20
        self._seq = random.randrange(1, 0xFF00)  # noqa: S311 a fresh start, not a secret
        self.rto = RESEND
        self._srtt = 0.0
        self.shift = MAX_SHIFT
        #: Recent losses and the bytes they are out of, fading; the line counts as good at first.
        self._lost, self._count, self._bytes = 0.0, 40.0, 40000.0
        self._tail = b""
        self._run_time = 0.0
        self._asks = 0
        #: Bytes since the newest valid frame: on a clean line a board that talks at another rate, so it was reset.
        self._strange = 0
        self._stream: int | None = None
        self._shot: Result | None = None
        self._shots: list[Result] = []
        self._stream_error: BoardError | None = None
        #: Monotonic time of the newest valid frame.
        self.heard = time.monotonic()

    # the bottom: frames in and out

    def next_seq(self) -> int:
        self._seq = self._seq % 0xFEFF + 1  # 0xFFFF is the agent's own, for the HELLO that nobody asked for
        return self._seq

    def send(self, frame: Frame) -> int:
        data = encode(frame)
        self.port.write(data if frame.type == Type.DATA else data * self.copies(len(data)))
        self.counters.sent += 1
        return len(data)

    def line_time(self, n: int) -> float:
        """Seconds that `n` bytes take at the rate in force, 8N1."""
        return n * 10 / self.port.baud

    def frames(self, timeout: float) -> list[Frame]:
        """Frames that came within `timeout`, those of a stream already taken out; LineLost after a reset."""
        data = self.port.read(timeout)
        if not data:
            return []
        talk = self._tail + data
        self._tail = talk[-20:]
        if any(text in talk for text in _TALK):
            self._tail = b""
            raise LineLost(f"{self.port.path}: the board was reset, or its agent ended")
        frames = self.decoder.feed(data)
        self._strange = 0 if frames else self._strange + len(data)
        if frames:
            self.heard = time.monotonic()
        if self._stream is None:
            return frames
        return [frame for frame in frames if not self._streamed(frame)]

    def _streamed(self, frame: Frame) -> bool:
        if frame.seq != self._stream or frame.type not in (Type.OUT, Type.DATA, Type.ERR):
            return False
        if frame.type == Type.OUT:
            self._shot = parse_result(frame, self.max_result)
        elif frame.type == Type.ERR:
            self._stream_error = parse_error(frame)
        elif self._shot is not None:
            self._shot.put(frame)
            if self._shot.whole:
                self._shots = [*self._shots[-7:], self._shot]
                self._shot = None
        return True

    def dead(self, since: float, now: float) -> bool:
        """Whether waiting since `since` without progress is enough. Nothing valid at all is worse than noise."""
        limit = NOISY if self.heard > now - RESEND * TRIES else RESEND * TRIES
        return now - since > max(limit, TRIES * self.rto)

    def measure(self, took: float) -> None:
        self._srtt = took if not self._srtt else 0.8 * self._srtt + 0.2 * took
        self.rto = min(RESEND, max(0.02, 4 * self._srtt))

    # requests

    def request(
        self, kind: Type, payload: bytes = b"", *, index: int = 0, timeout: float = 3.0, slow: bool = False
    ) -> Frame:
        """Send, again if need be, until the board answers. `slow`: it may take all of `timeout` (loading a model).

        Raises BoardError for an error answer, LineLost for none.
        """
        frame = Frame(kind, 0, self.next_seq(), index, payload)
        begin = time.monotonic()
        sent, tries, n = 0.0, 0, 0
        while True:
            now = time.monotonic()
            if now - begin > timeout or (not slow and self.dead(begin, now)):
                self.counters.timeouts += 1
                raise LineLost(f"{self.port.path}: no answer to {kind.name} within {now - begin:.1f} s")
            if now >= sent:
                n = self.send(frame)
                tries += 1
                if tries > 1:
                    self.counters.resent += 1
                    if not slow:
                        self.judge(n, 1)
                pause = self.rto if not slow else RESEND if tries <= TRIES else 1.0
                sent = now + pause + self.line_time(n + 64)
            for got in self.frames(min(sent, begin + timeout) - time.monotonic()):
                if got.seq != frame.seq:
                    continue
                if got.type == Type.ERR:
                    raise parse_error(got)
                if got.type in (Type.ACK, kind):
                    if tries == 1 and not slow:
                        self.measure(time.monotonic() - now)
                        self.judge(n, 0, 1)
                    return got

    def hello(self, idle: int = 10, timeout: float = 3.0) -> About:
        """Begin a session: the board forgets models and streams. `idle` s without a frame and the agent leaves."""
        answer = self.request(Type.HELLO, struct.pack("<BH", PROTOCOL, idle), timeout=timeout)
        self.about = parse_about(answer)
        return self.about

    def text(self) -> dict[str, str]:
        """Firmware and agent version, best effort."""
        try:
            answer = self.request(Type.HELLO, struct.pack("<BH", PROTOCOL, 0), index=1)
        except (LineLost, BoardError):
            return {}
        fields = answer.payload.decode("utf-8", "replace").split(";")
        return dict(field.partition("=")[::2] for field in fields if "=" in field)

    def ping(self, timeout: float = 3.0) -> None:
        """Ask for a sign of life."""
        self.request(Type.PING, timeout=timeout)

    def set_baud(self, baud: int, rx: int = 8192) -> bool:
        """Move both ends to `baud` and the board to a receive buffer of `rx` bytes; False when that failed and both
        are back at the old rate. Raises LineLost when the board is lost altogether."""
        old = self.port.baud
        try:
            self.request(Type.BAUD, struct.pack("<IH", baud, rx), timeout=1.5)
            switched = True
        except BoardError:
            return False
        except LineLost:
            switched = False  # perhaps only its answers were lost: then the board waits at the new rate
        # The board waits until its ACK has left: 5 ms and 40 bytes at the old rate, then it changes.
        time.sleep(0.02 + 440 / old)
        begin = time.monotonic()
        try:
            self.port.set_baud(baud)
            self.decoder.reset()
            self.ping(0.8)
        except LineLost:
            self.port.set_baud(old)
            self.decoder.reset()
            # Another second and the board is back, too.
            time.sleep(max(0.0, begin + 1.2 - time.monotonic()))
            self.port.clear()
            self.ping(3.0)
            return False
        self._srtt, self.rto = 0.0, RESEND
        if self.about and switched:
            self.about = About(self.about.v4, self.about.free_heap, self.about.free_gc, rx, baud)
        return True

    # to the board

    def transfer(
        self, kind: Type, head: bytes, data: bytes | memoryview, *, index: int = 0, timeout: float = 60.0
    ) -> None:
        """Announce with `kind` and `head`, then send `data` in pieces. Raises BoardError, LineLost."""
        data = memoryview(data).cast("B")
        end = time.monotonic() + timeout
        self.request(kind, head, index=index)
        Upload(self, self._seq, data, end, patience=NOISY if kind == Type.PUT else 0.0).run()

    def window(self) -> int:
        """Bytes that may be on their way to the board without overrunning its buffer."""
        return (self.about.rx if self.about else 2048) - 64

    def judge(self, n: int, lost: int, arrived: int = 0) -> None:
        """Of pieces of `n` bytes on the line some were lost and some arrived: choose the size that wastes least."""
        faded = 0.97 ** (lost + arrived)
        self._lost = faded * self._lost + lost
        self._count = faded * self._count + lost + arrived
        self._bytes = faded * self._bytes + n * (lost + arrived)

        def useful(shift: int) -> float:
            size = 1 << shift
            return size / (size + OVERHEAD) / self._sends(size + OVERHEAD)

        self.shift = max(range(MIN_SHIFT, MAX_SHIFT + 1), key=useful)

    def copies(self, n: int) -> int:
        """How often to send a frame of `n` bytes at once so that one probably arrives; 1 on any sane line."""
        return min(8, round(self._sends(n)))

    def _sends(self, n: int) -> float:
        """How often `n` bytes must be sent until they arrive, as far as the recent past tells."""
        arrived = max(0.02, 1 - self._lost / self._count)
        return math.exp(min(20.0, -math.log(arrived) * self._count / self._bytes * n))

    # from the board

    def run(self, slot: int, mask: int, *, timeout: float = 10.0, watchdog_ms: int = 0) -> Result:
        """Run the model on the newest input and fetch the outputs in `mask`. Raises BoardError, LineLost.

        `watchdog_ms` > 0: the board resets itself when KPU.forward takes longer (MaixPy itself waits for ever).
        """
        seq = self.next_seq()
        frame = Frame(Type.RUN, 0, seq, slot, struct.pack("<BBH", mask, self.shift, watchdog_ms))
        now = time.monotonic()
        run = _Run(seq, self.shift, begin=now, progress=now)
        tries = 0
        while True:
            now = time.monotonic()
            self._give_up(run, now, timeout)
            if now >= run.ask:
                if run.result is None:
                    self.send(frame)
                    early = run.accepted and now - run.accepted < self._run_time
                    run.ask = now + (RESEND if early or not run.accepted else max(0.05, self.rto))
                else:
                    run.ask = now + self._pull(seq, run.result, run.fetch)
                tries += 1
                self.counters.resent += tries > 1
            for got in self.frames(min(run.ask, now + RESEND) - time.monotonic()):
                if got.seq == seq:
                    self._take(run, got)
            result = run.result
            if result is not None and 0 not in result.marks:
                self.judge((1 << run.fetch.shift) + OVERHEAD, 0, run.fetch.asked)
                if zlib.crc32(result.data) != result.crc:
                    raise LineLost(f"{self.port.path}: result with a wrong checksum")
                return result

    def _give_up(self, run: _Run, now: float, timeout: float) -> None:
        """Raise LineLost when waiting any longer is of no use."""
        if now - run.begin > timeout + (FETCH if run.result else 0.0):
            what = "the result did not come through" if run.result else "does the model hang on the KPU?"
            raise LineLost(f"{self.port.path}: no result within {now - run.begin:.1f} s; {what}")
        silent = now - run.progress > RESEND * TRIES
        if run.accepted and not run.result and silent and self._strange >= 32 and self.copies(32) == 1:
            raise LineLost(f"{self.port.path}: the board sends something else than an answer; it was reset")
        if (run.result or not run.accepted) and self.dead(run.progress, now):
            raise LineLost(f"{self.port.path}: no answer to RUN within {now - run.progress:.1f} s")

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
                run.ask = run.progress + self.rto + self.line_time(run.fetch.bytes)
        elif got.type == Type.DATA and run.result is not None and run.result.put(got):
            run.fetch.due -= 1
            # What is on its way comes without a pause; when the pause is there, the rest was lost.
            pause = min(self.rto, 0.05) + self.line_time(1100) if run.fetch.due > 0 else 0.0
            run.ask = run.progress + pause

    def _pull(self, seq: int, result: Result, fetch: _Fetch) -> float:
        """Ask for missing pieces; seconds until asking again makes sense."""
        lost = max(0, fetch.due)
        self.judge((1 << fetch.shift) + OVERHEAD, lost, fetch.asked - lost)
        fetch.expect(result, self.shift, 0)
        start = 0
        self._asks = (self._asks + 1) & 0xFF
        for _ in range(4 if self.shift == MIN_SHIFT else 1):  # little of it will arrive on a bad line: ask for more
            first, bits = result.missing(self.shift, start)
            if not bits:
                break
            fetch.expect(result, self.shift, bits)
            wish = struct.pack("<BII", self.shift, bits & 0xFFFFFFFF, bits >> 32)
            self.send(Frame(Type.NAK, self._asks, seq, first, wish))
            start = first + 64
        return self.rto + self.line_time(fetch.bytes + 40)

    # camera

    def stream(
        self,
        slot: int,
        mask: int,
        size: tuple[int, int, int],
        *,
        interval_ms: int = 0,
        mirror: bool = False,
        flip: bool = False,
    ) -> None:
        """Let the board's camera feed the model; `size` = width, height, channels of its input."""
        self._stream, self._shots, self._shot, self._stream_error = None, [], None, None
        w, h, c = size
        flags = mirror | flip << 1
        payload = struct.pack("<BBHHBBHB", 1, mask, w, h, c, flags, interval_ms, self.shift)
        self.request(Type.STREAM, payload, index=slot, timeout=8.0, slow=True)
        self._stream = self._seq

    def next_shot(self, timeout: float = 10.0) -> Result:
        """The camera's newest result that was not yet taken, without damaged ones; LineLost after `timeout`."""
        begin = time.monotonic()
        asked = 0.0
        while not self._shots:
            if self._stream_error:
                error, self._stream_error, self._stream = self._stream_error, None, None
                raise error
            now = time.monotonic()
            if now - begin > timeout:
                raise LineLost(f"{self.port.path}: no picture from the board's camera within {timeout:.1f} s")
            if now - asked > 2.0:
                self.send(Frame(Type.PING, 0, self.next_seq(), 0))
                asked = now
            self.frames(min(0.2, begin + timeout - now))
        shot = self._shots[-1]
        self._shots = []
        return shot

    def end_stream(self) -> None:
        """Stop the camera."""
        self.request(Type.STREAM, struct.pack("<BBHHBBHB", 0, 1, 0, 0, 0, 0, 0, MIN_SHIFT), timeout=8.0, slow=True)
        self._stream = None

    # files

    def stat(self, path: str) -> tuple[int, int] | None:
        """(bytes, crc32) of a file on the board, or None."""
        answer = self.request(Type.STAT, path.encode(), timeout=20.0, slow=True)
        size, crc = struct.unpack("<II", answer.payload)
        return None if size == 0xFFFFFFFF else (size, crc)

    def names(self, directory: str) -> Sequence[str]:
        """Names in a directory of the board (the first 1024 bytes of the list)."""
        answer = self.request(Type.STAT, (directory.rstrip("/") + "/").encode(), timeout=10.0, slow=True)
        return [n for n in answer.payload.decode("utf-8", "replace").split("\n") if n]

    def remove(self, path: str) -> None:
        """Delete a file; one that is not there is fine."""
        self.request(Type.REMOVE, path.encode(), timeout=10.0, slow=True)

    def put_file(self, path: str, data: bytes, *, timeout: float = 600.0) -> None:
        """Write a file in blocks of 8 KiB and check it. Raises BoardError, LineLost."""
        end = time.monotonic() + timeout
        for at in range(0, len(data), 8192):
            block = data[at : at + 8192]
            head = struct.pack("<III", at, len(block), zlib.crc32(block)) + path.encode()
            self.transfer(Type.PUT, head, block, timeout=end - time.monotonic())
        if self.stat(path) != (len(data), zlib.crc32(data)):
            self.remove(path)
            raise DeviceError(f"{self.port.path}: {path} reads back differently; is the board's flash worn or full?")

    def bye(self) -> None:
        """End the session: the agent gives UART and Ctrl-C back, the REPL becomes the friendly one again."""
        self.request(Type.BYE, timeout=1.5)
        time.sleep(0.1)  # the agent waits 20 ms for its answer to leave, then sets the rate
        self.port.set_baud(115200)
        self.port.write(b"\x02")
