"""Capture: from a source to frames in the ring, again and again while the stream is wanted. A thread of its own.

Programs (GStreamer, ffmpeg) write PPM pictures into a pipe: each says its own size, so that a camera may change it, and
both programs write it. A program that hangs, ends or sends garbage is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ...errors import EdgeaiError
from ..memory import Count
from ..sources import (
    DEFAULT_FPS,
    LIST_FD,
    Invocation,
    Kind,
    Source,
    command,
    plain,
    reader_of,
    redacted,
    secrets_of,
    understand,
)
from ..states import State
from ..table import Stream
from . import animations
from .faults import SourceError
from .frames import Clock, Frame, Ring, now
from .pictures import pictures

log = logging.getLogger(__name__)

#: A program gets so long to show its first frame: a decoder may have to wait for a key frame.
START_SECONDS: Final = 15.0
#: A running live source that shows no frame for so long, and for so many of its own intervals, has stalled.
STALL_SECONDS: Final = 3.0
STALL_FRAMES: Final = 10
#: Waits between tries; the last one repeats. A camera that comes back is seen again within 5 s.
PAUSES: Final = (0.25, 0.5, 1.0, 2.0)
#: A capture that ran so long starts at the first wait again.
SETTLED_SECONDS: Final = 10.0
FILE_SECONDS: Final = 60.0
READER: Final = Path(__file__).with_name("reader.py")
PROBE_SECONDS: Final = 2.0
TERMINATE_SECONDS: Final = 0.5
#: gst-launch-1.0 ends after it has printed such a line, unless it deadlocks while it stops its elements: 1.22 does so
#: now and then with an empty file. It is given a moment, then it counts as ended.
REPORTED: Final = re.compile(rb"^ERROR: ", re.MULTILINE)
REPORTED_SECONDS: Final = 2.0
PIPE_BYTES: Final = 1 << 20  # fcntl(2): the most that an unprivileged process may ask for
_HEADER: Final = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")
_HEADER_BYTES: Final = 64
_STDERR_BYTES: Final = 16384


class Capture(threading.Thread):
    """Reads one source. `on_frame` gets each frame, held once; `on_state` each change of state with its reason."""

    def __init__(
        self,
        stream: Stream,
        ring: Ring,
        on_frame: Callable[[Frame], None],
        on_state: Callable[[State, str], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(name="capture", daemon=True)
        self.stream = stream
        self.ring = ring
        self._on_frame = on_frame
        self._report = on_state
        self._on_end = on_end
        self._halt = threading.Event()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._state = (State.STOPPED, "")
        self._clock = Clock(stream.fps or DEFAULT_FPS, live=True)
        self._frames = 0
        self._still: tuple[int, float] = (0, 0.0)
        self._live = True
        #: Changes to the picture's size are not a fault; the last one seen.
        self.size = (0, 0)

    def halt(self) -> None:
        """End: no frame follows."""
        self._halt.set()
        os.write(self._waker, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait; True when the stream is to end."""
        return self._halt.wait(seconds) if seconds > 0 else self._halt.is_set()

    def _set_state(self, state: State, reason: str = "") -> None:
        if (state, reason) != self._state:
            self._state = (state, reason)
            self._report(state, reason)

    def run(self) -> None:
        """Capture until `halt`, or until the source has ended for good."""
        self._set_state(State.STARTING)
        try:
            source = understand(self.stream.source)
        except EdgeaiError as error:
            self._set_state(State.FAILED, str(error))
            return
        self._live = source.live
        self._clock = Clock(self.stream.fps or DEFAULT_FPS, live=source.live)
        tries = 0
        while not self._halt.is_set():
            started = time.monotonic()
            try:
                self._once(source)
                failure = None
            except SourceError as error:
                failure = error
            except Exception as error:  # whatever a source makes a library do, the stream says so and goes on
                said = redacted(f"reading it failed: {type(error).__name__}: {error}")
                log.error("stream %s: %s", self.stream.name, said)
                failure = SourceError(said, final=not source.live)
            if self._halt.is_set():
                break
            if failure is None or (failure.final and not source.live):
                self._on_end()  # what is under way is finished first
                self._set_state(State.ENDED if failure is None else State.FAILED, str(failure or ""))
                return
            if time.monotonic() - started > SETTLED_SECONDS:
                tries = 0
            self._set_state(State.FAILED if failure.final else State.NO_SIGNAL, redacted(str(failure)))
            self.wait(max(PAUSES[min(tries, len(PAUSES) - 1)], failure.pause))
            tries += 1
        self._set_state(State.STOPPED)

    def _once(self, source: Source) -> None:
        """Read the source until it ends. SourceError when it does so against its nature."""
        self._frames = 0
        self._still = (0, time.monotonic())
        self.ring.shared.add(Count.CONNECTIONS)
        if source.host:
            _probe(source.host, source.port)
        moving = source.kind is Kind.COMMAND and not source.live and animations.is_animation(source.text)
        if source.kind is Kind.COMMAND and not moving:
            try:
                invocation = command(source, reader_of(self.stream.reader), self.stream.fps, self.stream.size)
            except EdgeaiError as error:
                raise SourceError(str(error), final=True) from error
            _Program(self, invocation, source).read()
            return
        made = animations.pictures if moving else pictures
        for picture in made(source, self.stream.fps, self.stream.size, self.wait):
            slot = self._slot()
            if slot is None:
                return
            data = picture.tobytes()
            self.ring.shared.frame(slot)[: len(data)] = data
            self.deliver(slot, *picture.size)

    def _slot(self) -> int | None:
        """A free slot, waited for; None when the stream is to end."""
        while not self._halt.is_set():
            slot = self.ring.take(0.2)
            if slot is not None:
                return slot
        return None

    def deliver(self, slot: int, width: int, height: int) -> None:
        """A frame is complete in a slot: count it and pass it on."""
        at_ns, wall = now()
        self._check_still(slot, width * height * 3)
        shared = self.ring.shared
        shared.put(Count.FRAME_NS, at_ns)
        number = shared.add(Count.CAPTURED)
        self.size = (width, height)
        self._frames += 1
        self._set_state(State.RUNNING)
        self._on_frame(Frame(number, slot, width, height, at_ns, wall, self._clock.stamp(at_ns)))

    def _check_still(self, slot: int, size: int) -> None:
        """SourceError when a live picture has not changed for too long: cameras that hang repeat the last one."""
        limit = self.stream.frozen_s
        if not self._live or not limit:
            return
        view = self.ring.shared.frame(slot)[:size]
        digest = zlib.crc32(bytes(view[:: max(1, size // 4096) | 1]))
        before, since = self._still
        if digest != before:
            self._still = (digest, time.monotonic())
        elif time.monotonic() - since > limit:
            self.ring.release(slot)
            raise SourceError(f"the picture has not changed for {limit:g} s", pause=PAUSES[-1])


class _Program:
    """A child process that writes PPM pictures."""

    def __init__(self, capture: Capture, invocation: Invocation, source: Source) -> None:
        self.capture = capture
        self.source = source
        self.secrets = secrets_of(source.text)
        self.printed = b""
        #: The program has printed why it ends.
        self._reported = False
        #: Bytes of the last header.
        self._length = 0
        #: Pixels that were read with the header.
        self._rest = b""
        self._size = (0, 0)
        try:
            self.process = _confined(invocation)
        except OSError as error:
            raise SourceError(f"{invocation.command[0]}: {error.strerror}", final=True) from error
        assert self.process.stdout is not None  # noqa: S101  asked for above
        assert self.process.stderr is not None  # noqa: S101  asked for above
        self.out, self.err = self.process.stdout.fileno(), self.process.stderr.fileno()
        with contextlib.suppress(OSError):  # the user's pipes together are at their limit: the default will do
            fcntl.fcntl(self.out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._poll = select.poll()
        for fd in (self.out, self.err, capture._wake):
            self._poll.register(fd, select.POLLIN)

    def read(self) -> None:
        """Frames until the program ends or is to end."""
        try:
            while self._frame():
                pass
            if not self.capture.wait(0):
                self._ended()
        finally:
            self._close()

    def _ended(self) -> None:
        """The program has closed its output: the end of a file, or a failure."""
        self._drain()
        try:
            status = self.process.wait(TERMINATE_SECONDS)
        except subprocess.TimeoutExpired:
            status = -1
        frames = self.capture._frames
        if not self.source.live and status == 0 and frames:
            return
        text = plain(self.printed.decode(errors="replace"), self.secrets)
        if not self.source.live:
            raise SourceError(text if frames else f"{self.source.text}: {text}", final=True)
        refused = "refuses the user" in text
        lacking = "installed" in text or "lacks" in text
        raise SourceError(text, final=lacking, pause=10.0 if refused or lacking else 0.0)

    def _drain(self) -> None:
        os.set_blocking(self.err, False)
        with contextlib.suppress(OSError):
            while data := os.read(self.err, 65536):
                self._print(data)

    def _print(self, data: bytes) -> None:
        self.printed = (self.printed + data)[-_STDERR_BYTES:]
        self._reported = self._reported or REPORTED.search(self.printed) is not None

    def _close(self) -> None:
        """End the program, by SIGTERM first: a camera may count its sessions."""
        process = self.process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(TERMINATE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def _limit(self) -> float:
        """Seconds that the next byte may take; many for files, which wait for us and for slow disks."""
        if self._reported:
            return REPORTED_SECONDS
        if not self.source.live:
            return FILE_SECONDS
        if not self.capture._frames:
            return START_SECONDS
        fps = self.capture.stream.fps
        return max(STALL_SECONDS, STALL_FRAMES / fps if fps else 0.0)

    def _wait(self) -> bool:
        """Wait until there is something to read; False when the program or the stream is to end."""
        until = time.monotonic() + self._limit()
        while True:
            ready = self._poll.poll(max(0, int((until - time.monotonic()) * 1000)))
            if not ready and self._reported:
                return False
            if not ready:
                first = not self.capture._frames
                what = "the camera was reached but shows no picture" if first else "no picture came"
                reason = plain(self.printed.decode(errors="replace"), self.secrets) if self.printed else ""
                raise SourceError(f"{what} for {self._limit():g} s" + (f" ({reason})" if reason else ""))
            fds = {fd for fd, _ in ready}
            if self.capture._wake in fds:
                return False
            if self.err in fds:
                data = os.read(self.err, 65536)
                if data:
                    self._print(data)
                    until = min(until, time.monotonic() + self._limit())
                else:
                    self._poll.unregister(self.err)
            if self.out in fds:
                return True

    def _read_some(self, view: memoryview) -> int:
        """Bytes put into `view`; 0 at the end."""
        return os.readv(self.out, [view]) if self._wait() else 0

    def _frame(self) -> bool:
        """Read one picture; False at the end."""
        slot = self.capture._slot()
        if slot is None:
            return False
        complete = False
        try:
            complete = self._header() and self._pixels(self.capture.ring.shared.frame(slot))
        finally:
            if not complete:
                self.capture.ring.release(slot)
        if complete:
            self.capture.deliver(slot, *self._size)
        return complete

    def _pixels(self, view: memoryview) -> bool:
        width, height = self._size
        size = width * height * 3
        if size > len(view):
            raise SourceError(f"a picture of {width} x {height} pixels came, larger than was asked for")
        done = len(self._rest)
        view[:done] = self._rest
        while done < size:
            count = self._read_some(view[done:size])
            if not count:
                return False
            done += count
        return True

    def _header(self) -> bool:
        """Read "P6 width height 255" into `_size`.

        It is as long as the last one unless the size has changed: then single bytes are added until it is whole, or
        the first pixels have been read with it.
        """
        head = bytearray(max(9, self._length))
        done = 0
        while (match := _HEADER.match(head)) is None:
            if done == len(head):
                if done > _HEADER_BYTES or not head.startswith(b"P6"):
                    raise SourceError("the reader sends something that is not a picture")
                head += b"\0"
            count = self._read_some(memoryview(head)[done:])
            if not count:
                return False
            done += count
        self._length, self._rest = match.end(), bytes(head[match.end() :])
        self._size = (int(match[1]), int(match[2]))
        return True


def _confined(invocation: Invocation) -> subprocess.Popen[bytes]:
    """Start a program through `reader.py`. OSError."""
    task = {
        "command": invocation.command,
        "describe": invocation.describe,
        "list": invocation.sources,
        "list_fd": LIST_FD,
        "reads": invocation.reads,
        "network": invocation.network,
    }
    fd = os.memfd_create("edgeai-reader", os.MFD_CLOEXEC)
    try:
        os.write(fd, json.dumps(task).encode())
        # -I -S: nothing of the user's settings and packages; the program has only the standard library.
        words = [sys.executable, "-I", "-S", str(READER), str(fd)]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0, pass_fds=(fd,))
    finally:
        os.close(fd)


def _probe(host: str, port: int) -> None:
    """Can the camera be reached at all? Said at once and clearly, which the readers cannot do."""
    try:
        socket.create_connection((host, port), PROBE_SECONDS).close()
    except socket.gaierror as error:
        raise SourceError(f"the host name {host!r} is not known") from error
    except TimeoutError as error:
        raise SourceError(f"{host} does not answer on port {port}") from error
    except ConnectionRefusedError as error:
        raise SourceError(f"{host} refuses connections on port {port}") from error
    except OSError as error:
        raise SourceError(f"{host} cannot be reached: {error.strerror}") from error
