"""A session with the agent on a K210 board: requests, transfers in both directions, camera streams.

Only this side has clocks: whatever is not answered is sent again, the board answers a repetition without running it
again. Pieces shrink on a noisy line (down to 16 bytes) and grow again on a clean one. The protocol is in docs/k210.md.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..errors import DeviceError
from .k210_frames import LAST, MAX_SHIFT, MIN_SHIFT, PROTOCOL, STREAMED, Decoder, Frame, Type, encode
from .k210_port import LineLost, Port

#: An unanswered frame is sent again after this long at the latest (the board's buffer is 14 ms at 1.5 Mbaud).
RESEND: Final = 0.3
#: So many times that long without a sign of progress, then the session is broken.
TRIES: Final = 5
#: The same limit while bytes, though damaged ones, do arrive: a noisy line is slow, not dead.
NOISY: Final = 5.0
#: Texts that only a board without a running agent sends: it was reset, or the agent died.
_TALK: Final = (b"[MAIXPY] Pll0", b"[MaixPy] init end", b"raw REPL; CTRL-B", b"\r\n>>> ")
_ABOUT: Final = struct.Struct("<BBIIHI")
_OUT: Final = struct.Struct("<IIIIB")
_ENTRY: Final = struct.Struct("<BBHHHI")

E_TRANSFER: Final = -3


class BoardError(DeviceError):
    """The board answered a request with an error; the session is intact."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the K210 board says {code}: {text}")
        #: MaixPy's number (2001-2015) or the agent's (negative).
        self.code = code


@dataclass(slots=True)
class Counters:
    """What the line did to us. Totals of a session."""

    resent: int = 0
    sent: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True)
class About:
    """What the board said of itself."""

    #: True, False or None (no KPU module): whether kmodel v4 is understood.
    v4: bool | None
    #: Free bytes of the system heap, where models live; 0 = not told.
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

    def missing(self, shift: int) -> tuple[int, int]:
        """Number of the first missing piece of 2^shift bytes, and bits for it and the 63 pieces behind it."""
        step = shift - MIN_SHIFT
        first = self.marks.find(0) >> step
        bits = 0
        for i in range(64):
            if 0 in self.marks[(first + i) << step : (first + i + 1) << step]:
                bits |= 1 << i
        return first, bits


def _result(frame: Frame, limit: int) -> Result | None:
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
        self._rto = RESEND
        self._srtt = 0.0
        self._shift = MAX_SHIFT
        self._clean = 0
        self._tail = b""
        self._run_time = 0.0
        self._stream: int | None = None
        self._shot: Result | None = None
        self._shots: list[Result] = []
        self._stream_error: BoardError | None = None
        #: Monotonic time of the newest valid frame and of the newest byte.
        self.heard = self.noise = time.monotonic()

    # the bottom: frames in and out

    def _next_seq(self) -> int:
        self._seq = self._seq % 0xFEFF + 1  # 0xFFFF is the agent's own, for the HELLO that nobody asked for
        return self._seq

    def _send(self, frame: Frame) -> int:
        data = encode(frame)
        self.port.write(data)
        self.counters.sent += 1
        return len(data)

    def line_time(self, n: int) -> float:
        """Seconds that `n` bytes take at the rate in force, 8N1."""
        return n * 10 / self.port.baud

    def _frames(self, timeout: float) -> list[Frame]:
        """Frames that came within `timeout`, those of a stream already taken out; LineLost after a reset."""
        data = self.port.read(timeout)
        if not data:
            return []
        self.noise = time.monotonic()
        talk = self._tail + data
        self._tail = talk[-20:]
        if any(text in talk for text in _TALK):
            self._tail = b""
            raise LineLost(f"{self.port.path}: the board was reset, or its agent ended")
        found = self.decoder.feed(data)
        if found:
            self.heard = self.noise
        if self._stream is None:
            return found
        return [frame for frame in found if not self._streamed(frame)]

    def _streamed(self, frame: Frame) -> bool:
        if frame.seq != self._stream or frame.type not in (Type.OUT, Type.DATA, Type.ERR):
            return False
        if frame.type == Type.OUT:
            self._shot = _result(frame, self.max_result)
        elif frame.type == Type.ERR:
            self._stream_error = _error(frame)
        elif self._shot is not None:
            self._shot.put(frame)
            if self._shot.whole:
                self._shots = [*self._shots[-7:], self._shot]
                self._shot = None
        return True

    def _dead(self, since: float, now: float) -> bool:
        """Whether waiting since `since` without progress is enough, silence being worse than noise."""
        limit = NOISY if self.noise > now - RESEND else RESEND * TRIES
        return now - since > max(limit, TRIES * self._rto)

    def _measure(self, took: float) -> None:
        self._srtt = took if not self._srtt else 0.8 * self._srtt + 0.2 * took
        self._rto = min(RESEND, max(0.02, 4 * self._srtt))

    # requests

    def request(
        self, kind: Type, payload: bytes = b"", *, index: int = 0, timeout: float = 3.0, slow: bool = False
    ) -> Frame:
        """Send, again if need be, until the board answers. `slow`: it may take all of `timeout` (loading a model).

        Raises BoardError for an error answer, LineLost for none.
        """
        frame = Frame(kind, 0, self._next_seq(), index, payload)
        begin = time.monotonic()
        sent, tries = 0.0, 0
        while True:
            now = time.monotonic()
            if now - begin > timeout or (not slow and self._dead(begin, now)):
                self.counters.timeouts += 1
                raise LineLost(f"{self.port.path}: no answer to {kind.name} within {now - begin:.1f} s")
            if now >= sent:
                n = self._send(frame)
                tries += 1
                self.counters.resent += tries > 1
                pause = self._rto if not slow else RESEND if tries <= TRIES else 1.0
                sent = now + pause + self.line_time(n + 64)
            for got in self._frames(min(sent, begin + timeout) - time.monotonic()):
                if got.seq != frame.seq:
                    continue
                if got.type == Type.ERR:
                    raise _error(got)
                if got.type in (Type.ACK, kind):
                    if tries == 1 and not slow:
                        self._measure(time.monotonic() - now)
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
        self._srtt, self._rto = 0.0, RESEND
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
        _Upload(self, self._seq, data, end, patience=NOISY if kind == Type.PUT else 0.0).run()

    def window(self) -> int:
        """Bytes that may be on their way to the board without overrunning its buffer."""
        return (self.about.rx if self.about else 2048) - 64

    def judge(self, lost: bool) -> None:
        """A piece arrived or was lost: grow or shrink the pieces."""
        if lost:
            self._clean = 0
            self._shift = max(MIN_SHIFT, self._shift - 1)
        else:
            self._clean += 1
            # A big piece costs more when it is lost, so the way up is slow.
            if self._clean >= 24 and self._shift < MAX_SHIFT:
                self._shift += 1
                self._clean = 12

    # from the board

    def run(self, slot: int, mask: int, *, timeout: float = 10.0, watchdog_ms: int = 0) -> Result:
        """Run the model on the newest input and fetch the outputs in `mask`. Raises BoardError, LineLost.

        `watchdog_ms` > 0: the board resets itself when KPU.forward takes longer (MaixPy itself waits for ever).
        """
        seq = self._next_seq()
        frame = Frame(Type.RUN, 0, seq, slot, struct.pack("<BBH", mask, self._shift, watchdog_ms))
        begin = progress = time.monotonic()
        ask = 0.0
        accepted = 0.0
        result: Result | None = None
        tries = 0
        while True:
            now = time.monotonic()
            if now - begin > timeout:
                raise LineLost(f"{self.port.path}: no result within {timeout:.1f} s; does the model hang on the KPU?")
            if (result or not accepted) and self._dead(progress, now):
                raise LineLost(f"{self.port.path}: no answer to RUN within {now - progress:.1f} s")
            if now >= ask:
                if result is None:
                    self._send(frame)
                    early = accepted and now - accepted < self._run_time
                    ask = now + (RESEND if early or not accepted else max(0.05, self._rto))
                else:
                    ask = now + self._pull(seq, result)
                tries += 1
                self.counters.resent += tries > 1
            for got in self._frames(min(ask, begin + timeout) - time.monotonic()):
                if got.seq != seq:
                    continue
                if got.type == Type.ERR:
                    raise _error(got)
                if got.type == Type.ACK:
                    accepted = accepted or time.monotonic()
                elif got.type == Type.OUT and result is None:
                    result = _result(got, self.max_result)
                    if result is not None:
                        self._run_time = 0.9 * result.kpu_us / 1e6
                        part = min(len(result.data), 64 << self._shift)
                        ask = time.monotonic() + self._rto + self.line_time(part + part // 8)
                elif got.type == Type.DATA and result is not None and result.put(got):
                    self.judge(False)
                    ask = max(ask, time.monotonic() + min(self._rto, 0.05) + self.line_time(1100))
                else:
                    continue
                progress = time.monotonic()
            if result is not None and 0 not in result.marks:
                if zlib.crc32(result.data) != result.crc:
                    raise LineLost(f"{self.port.path}: result with a wrong checksum")
                return result

    def _pull(self, seq: int, result: Result) -> float:
        """Ask for missing pieces; seconds until asking again makes sense."""
        self.judge(True)
        first, bits = result.missing(self._shift)
        # Few at a time on a bad line: what is lost must be asked for again anyway.
        count = 64 if self._shift == MAX_SHIFT else 32
        bits &= (1 << count) - 1
        payload = struct.pack("<BII", self._shift, bits & 0xFFFFFFFF, bits >> 32)
        self._send(Frame(Type.NAK, 0, seq, first, payload))
        wanted = bits.bit_count() * ((1 << self._shift) + 16)
        return self._rto + self.line_time(wanted + 40)

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
        payload = struct.pack("<BBHHBBHB", 1, mask, w, h, c, flags, interval_ms, self._shift)
        self.request(Type.STREAM, payload, index=slot, timeout=8.0, slow=True)
        self._stream = self._seq

    def next_shot(self, timeout: float = 10.0) -> Result:
        """The newest result of the camera that was not yet taken; damaged ones are skipped. LineLost after `timeout`."""
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
                self._send(Frame(Type.PING, 0, self._next_seq(), 0))
                asked = now
            self._frames(min(0.2, begin + timeout - now))
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

    def names(self, folder: str) -> Sequence[str]:
        """Names in a folder of the board (the first 1024 bytes of the list)."""
        answer = self.request(Type.STAT, (folder.rstrip("/") + "/").encode(), timeout=10.0, slow=True)
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
        """End the session: the agent gives UART and Ctrl-C back."""
        self.request(Type.BYE, timeout=1.5)


class _Upload:
    """The pieces of one transfer to the board: any order, resent one by one, of changing size."""

    def __init__(self, link: Link, seq: int, data: memoryview, end: float, patience: float) -> None:
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
            if now > self.end or (link._dead(progress, now) and now - progress > self.patience):
                link.counters.timeouts += 1
                raise LineLost(f"{link.port.path}: transfer of {len(self.data)} bytes stopped; the board is silent")
            self.expire(now)
            self.fill(now)
            until = min((f[0] for f in self.flying.values()), default=now)
            for got in link._frames(max(0.0, min(until, self.end) - time.monotonic())):
                if got.seq == self.seq and self.take(got):
                    progress = time.monotonic()

    def take(self, got: Frame) -> bool:
        if got.type == Type.ERR:
            raise _error(got)
        if got.type != Type.ACK:
            return False
        if got.flags & LAST:
            self.complete = True
        shift = (got.flags >> 4) + MIN_SHIFT
        known = self.flying.pop((shift, got.index), None)
        if known:
            self.busy -= known[2]
            self.link._measure(time.monotonic() - known[1])
            self.link.judge(False)
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
                self.link.judge(True)

    def fill(self, now: float) -> None:
        link = self.link
        while True:
            unit = self.marks.find(0)
            if unit < 0:
                if self.flying:
                    return
                unit = len(self.marks) - 1  # all arrived, but the word that it is complete got lost
            shift = max(link._shift, (len(self.marks) >> 16).bit_length() + MIN_SHIFT)
            index = unit >> (shift - MIN_SHIFT)
            piece = bytes(self.data[index << shift : (index + 1) << shift])
            size = len(piece) + len(piece) // 254 + 16
            if self.flying and self.busy + size > link.window():
                return
            if (shift, index) in self.flying:
                return
            last = (index + 1) << shift >= len(self.data)
            link._send(Frame(Type.DATA, (shift - MIN_SHIFT) << 4 | last, self.seq, index, piece))
            self.busy += size
            self.flying[shift, index] = (now + link._rto + link.line_time(self.busy + 40), now, size)
            self.mark(shift, index, 2)


def parse_about(frame: Frame) -> About:
    """What a HELLO of the board says. Raises DeviceError for another protocol version."""
    if not frame.payload or frame.payload[0] != PROTOCOL or len(frame.payload) < _ABOUT.size:
        version = frame.payload[0] if frame.payload else "none"
        raise DeviceError(f"the agent on the board speaks protocol {version}, this host {PROTOCOL}; reset the board")
    _, v4, heap, gc, rx, baud = _ABOUT.unpack_from(frame.payload)
    return About(None if v4 == 255 else bool(v4), heap, gc, rx, baud)


def _error(frame: Frame) -> BoardError:
    code = struct.unpack_from("<h", frame.payload)[0] if len(frame.payload) >= 2 else 0
    return BoardError(code, frame.payload[2:].decode("utf-8", "replace"))
