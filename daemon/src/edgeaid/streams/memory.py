"""The memory that a stream's process shares with the daemon: counters first, then the ring of frames.

A sealed memfd, made by the daemon and kept by it when the process dies, so that what was counted stays counted and the
frames that died with the process are known by subtraction.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

PAGE: Final = mmap.PAGESIZE
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: One being filled, one waiting, two worked on, the latest, and an older one that is still held.
SLOTS: Final = 6


class Count(IntEnum):
    """Index of each counter. A frame that was captured ends as gated, inferred or dropped for one of the reasons."""

    #: Frames that came from the source.
    CAPTURED = 0
    #: A gate stage found nothing worth looking at.
    GATED = 1
    #: All stages are through.
    INFERRED = 2
    #: Of these, how many were answered after the stream's deadline.
    LATE = 3
    #: A newer frame came while this one waited.
    DROPPED_BUSY = 4
    #: The model's queue or memory had no room.
    DROPPED_QUEUE = 5
    #: No device, no such model, or it is being replaced.
    DROPPED_UNAVAILABLE = 6
    #: The request's deadline passed.
    DROPPED_EXPIRED = 7
    #: A stage failed.
    DROPPED_ERROR = 8
    #: The stream was stopped, or its process ended, before the frame was through.
    DROPPED_STOPPED = 9
    #: Requests to models, which may be several for a frame.
    REQUESTS = 10
    #: Connections to the source.
    CONNECTIONS = 11
    EVENTS = 12
    #: time.monotonic_ns() of the newest frame; 0 = none yet.
    FRAME_NS = 13
    #: time.monotonic_ns() of the process's last sign of life.
    ALIVE_NS = 14
    #: Nanoseconds of work in the stream's own process: gate, prepare, decode, track.
    GATE_NS = 15
    PREPARE_NS = 16
    DECODE_NS = 17
    AFTER_NS = 18
    #: Webhook calls that were given up, snapshots and journal lines that could not be written.
    LOST_WEBHOOKS = 19
    LOST_FILES = 20


DROPPED: Final = tuple(c for c in Count if c.name.startswith("DROPPED_"))


class Shared:
    """The mapped memory. `frame(slot)` is the memory of one frame."""

    def __init__(self, fd: int, frame_bytes: int) -> None:
        self.fd = fd
        self.frame_bytes = frame_bytes
        self._adding = threading.Lock()
        self.map = mmap.mmap(fd, size_of(frame_bytes))
        self._view = memoryview(self.map)
        self._counters = self._view[: 8 * len(Count)].cast("Q")

    @staticmethod
    def create(name: str, frame_bytes: int) -> Shared:
        """A new sealed memfd, mapped, all counters 0."""
        fd = os.memfd_create(f"edgeai-stream-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_of(frame_bytes))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            return Shared(fd, frame_bytes)
        except BaseException:
            os.close(fd)
            raise

    def add(self, which: Count, amount: int = 1) -> int:
        """Add to a counter and return it. One process adds, its threads take turns."""
        with self._adding:
            value = self._counters[which] + amount
            self._counters[which] = value
            return value

    def put(self, which: Count, value: int) -> None:
        """Set a value."""
        self._counters[which] = value

    def get(self, which: Count) -> int:
        """Read a counter."""
        return self._counters[which]

    def frames(self) -> dict[Count, int]:
        """Captured, gated, inferred, late and dropped frames: never more have ended than were captured."""
        # Captured last: it rises first.
        return {c: self._counters[c] for c in (Count.LATE, Count.GATED, Count.INFERRED, *DROPPED, Count.CAPTURED)}

    def under_way(self) -> int:
        """Frames that were captured and have not ended in any way yet."""
        return under_way(self.frames())

    def frame(self, slot: int) -> memoryview:
        """Memory of a frame: height * width * 3 bytes, RGB, as far as it is used."""
        start = PAGE + slot * self.frame_bytes
        return self._view[start : start + self.frame_bytes]

    def close(self) -> None:
        """Unmap and close; safe to call twice."""
        if self.fd >= 0:
            self._counters.release()
            self._view.release()
            self.map.close()
            os.close(self.fd)
            self.fd = -1


def under_way(frames: Mapping[Count, int]) -> int:
    """Frames that were captured and have not ended in any way yet."""
    return max(0, frames[Count.CAPTURED] - sum(frames[c] for c in (Count.GATED, Count.INFERRED, *DROPPED)))


def size_of(frame_bytes: int) -> int:
    """Bytes of the whole memory."""
    return -(-(PAGE + SLOTS * frame_bytes) // PAGE) * PAGE


def frame_bytes(size: int) -> int:
    """Bytes of the largest frame whose longer side has `size` pixels."""
    return size * size * 3
