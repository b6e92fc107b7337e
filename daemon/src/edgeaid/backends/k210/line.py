"""The serial line to the board: frames in and out, how long answers take, and how much of what is sent arrives."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .frames import MAX_SHIFT, MIN_SHIFT, Decoder, Frame, Type, encode
from .port import LineLost, Port

#: An unanswered frame is sent again after this long at the latest (the board's buffer is 14 ms at 1.5 Mbaud).
RESEND: Final = 0.3
#: So many times that long without a sign of progress, then the session is broken.
TRIES: Final = 5
#: The same limit while now and then a valid frame does arrive: a line with errors is slow, not broken.
NOISY: Final = 5.0
#: Bytes of a DATA frame beside its piece.
OVERHEAD: Final = 16
#: Texts that only a board without a running agent sends: it was reset, or the agent died.
_TALK: Final = (b"[MAIXPY] Pll0", b"[MaixPy] init end", b"raw REPL; CTRL-B", b"\r\n>>> ")


@dataclass(slots=True)
class Counters:
    """Losses and repetitions on the line. Totals of a session."""

    resent: int = 0
    sent: int = 0


class Line:
    """Sends and receives frames, and estimates how long answers take and how many frames are lost."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.decoder = Decoder()
        self.counters = Counters()
        #: Bytes of the board's receive buffer.
        self.rx = 2048
        #: Number of the newest request.
        self.seq = random.randrange(1, 0xFF00)  # noqa: S311 a fresh start, not a secret
        #: Seconds after which a frame without an answer counts as lost.
        self.rto = RESEND
        self._srtt = 0.0
        #: Size of the pieces that waste least, 2^shift bytes.
        self.shift = MAX_SHIFT
        #: Recent losses and the bytes they are out of, fading; the line counts as good at first.
        self._lost, self._count, self._bytes = 0.0, 40.0, 40000.0
        self._tail = b""
        #: Bytes since the newest valid frame: on a clean line a board that sends at another rate, so it was reset.
        self.strange = 0
        #: Takes the frames of a camera's stream, which answer no request; True when it took one.
        self.aside: Callable[[Frame], bool] = lambda _: False
        #: Monotonic time of the newest valid frame.
        self.heard = time.monotonic()

    def next_seq(self) -> int:
        """Number for a new request."""
        self.seq = self.seq % 0xFEFF + 1  # 0xFFFF is the agent's own, for the HELLO at its start
        return self.seq

    def send(self, frame: Frame) -> int:
        """Write a frame, several times on a bad line; returns its bytes."""
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
        text = self._tail + data
        self._tail = text[-20:]
        if any(sign in text for sign in _TALK):
            self._tail = b""
            raise LineLost(f"{self.port.path}: the board was reset, or its agent ended")
        frames = self.decoder.feed(data)
        self.strange = 0 if frames else self.strange + len(data)
        if frames:
            self.heard = time.monotonic()
        return [frame for frame in frames if not self.aside(frame)]

    def dead(self, since: float, now: float) -> bool:
        """Whether waiting since `since` without progress is enough. Nothing valid at all is worse than noise."""
        limit = NOISY if self.heard > now - RESEND * TRIES else RESEND * TRIES
        return now - since > max(limit, TRIES * self.rto)

    def measure(self, took: float) -> None:
        """An answer took so many seconds."""
        self._srtt = took if not self._srtt else 0.8 * self._srtt + 0.2 * took
        self.rto = min(RESEND, max(0.02, 4 * self._srtt))

    def change_rate(self, baud: int) -> None:
        """Go on at another rate."""
        self.port.set_baud(baud)
        self.decoder.reset()

    def begin(self) -> None:
        """Forget how long answers took: the rate is another."""
        self._srtt, self.rto = 0.0, RESEND

    def window(self) -> int:
        """Bytes that may be on their way to the board without overrunning its buffer."""
        return self.rx - 64

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
        """How often `n` bytes must be sent until they arrive, from the recent past."""
        arrived = max(0.02, 1 - self._lost / self._count)
        return math.exp(min(20.0, -math.log(arrived) * self._count / self._bytes * n))
