"""A session with the agent on a K210 board: requests, transfers in both directions, camera streams.

Only this side has clocks: whatever is not answered is sent again, the board answers a repetition without running it
again. Pieces shrink on a line with errors (down to 16 bytes) and grow again on a clean one. Protocol: docs/k210.md.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence

from ...errors import DeviceError
from .camera import Camera
from .frames import MIN_SHIFT, PROTOCOL, Frame, Type
from .line import NOISY, RESEND, TRIES, Line
from .messages import About, BoardError, Result, parse_about, parse_error
from .port import LineLost, Port
from .runs import Runs
from .upload import Upload


class Link:
    """One side of a running session; the other side is the agent."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.line = Line(port)
        self.runs = Runs(self.line)
        self.camera = Camera(self.line, self.runs.max_result)
        self.about: About | None = None

    def request(
        self, kind: Type, payload: bytes = b"", *, index: int = 0, timeout: float = 3.0, slow: bool = False
    ) -> Frame:
        """Send, again if need be, until the board answers. `slow`: it may take all of `timeout` (loading a model).

        Raises BoardError for an error answer, LineLost for none.
        """
        frame = Frame(kind, 0, self.line.next_seq(), index, payload)
        begin = time.monotonic()
        sent, tries, n = 0.0, 0, 0
        while True:
            now = time.monotonic()
            if now - begin > timeout or (not slow and self.line.dead(begin, now)):
                raise LineLost(f"{self.port.path}: no answer to {kind.name} within {now - begin:.1f} s")
            if now >= sent:
                n = self.line.send(frame)
                tries += 1
                if tries > 1:
                    self.line.counters.resent += 1
                    if not slow:
                        self.line.judge(n, 1)
                pause = self.line.rto if not slow else RESEND if tries <= TRIES else 1.0
                sent = now + pause + self.line.line_time(n + 64)
            for got in self.line.frames(min(sent, begin + timeout) - time.monotonic()):
                if got.seq != frame.seq:
                    continue
                if got.type == Type.ERR:
                    raise parse_error(got)
                if got.type in (Type.ACK, kind):
                    if tries == 1 and not slow:
                        self.line.measure(time.monotonic() - now)
                        self.line.judge(n, 0, 1)
                    return got

    def hello(self, idle: int = 10, timeout: float = 3.0) -> About:
        """Begin a session: the board forgets models and streams. `idle` s without a frame and the agent leaves."""
        answer = self.request(Type.HELLO, struct.pack("<BH", PROTOCOL, idle), timeout=timeout)
        self.about = parse_about(answer)
        self.line.rx = self.about.rx
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
            self.line.change_rate(baud)
            self.ping(0.8)
        except LineLost:
            self.line.change_rate(old)
            # Another second and the board is back, too.
            time.sleep(max(0.0, begin + 1.2 - time.monotonic()))
            self.port.clear()
            self.ping(3.0)
            return False
        self.line.begin()
        if self.about and switched:
            self.about = About(self.about.v4, self.about.free_heap, self.about.free_gc, rx, baud)
            self.line.rx = rx
        return True

    # to the board

    def transfer(
        self, kind: Type, head: bytes, data: bytes | memoryview, *, index: int = 0, timeout: float = 60.0
    ) -> None:
        """Announce with `kind` and `head`, then send `data` in pieces. Raises BoardError, LineLost."""
        data = memoryview(data).cast("B")
        end = time.monotonic() + timeout
        self.request(kind, head, index=index)
        Upload(self.line, self.line.seq, data, end, patience=NOISY if kind == Type.PUT else 0.0).run()

    def run(self, slot: int, mask: int, *, timeout: float = 10.0, watchdog_ms: int = 0) -> Result:
        """Run the model on the newest input and fetch the outputs in `mask`. Raises BoardError, LineLost.

        `watchdog_ms` > 0: the board resets itself when KPU.forward takes longer (MaixPy itself waits for ever).
        """
        return self.runs.run(slot, mask, timeout=timeout, watchdog_ms=watchdog_ms)

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
        self.camera.clear()
        w, h, c = size
        flags = mirror | flip << 1
        payload = struct.pack("<BBHHBBHB", 1, mask, w, h, c, flags, interval_ms, self.line.shift)
        self.request(Type.STREAM, payload, index=slot, timeout=8.0, slow=True)
        self.camera.began(self.line.seq)

    def next_shot(self, timeout: float = 10.0) -> Result:
        """The camera's newest result that was not yet taken, without damaged ones; LineLost after `timeout`."""
        return self.camera.next_shot(timeout)

    def end_stream(self) -> None:
        """Stop the camera."""
        self.request(Type.STREAM, struct.pack("<BBHHBBHB", 0, 1, 0, 0, 0, 0, 0, MIN_SHIFT), timeout=8.0, slow=True)
        self.camera.ended()

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
