"""Frames in the ring, and how often each is held."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..memory import SLOTS, Shared


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; its pixels stay while it is held (`Ring.hold`, `Ring.release`)."""

    #: Rises by one with each frame of the stream, over restarts of its process.
    number: int
    slot: int
    width: int
    height: int
    #: time.monotonic_ns() when it was complete.
    at_ns: int
    #: Seconds since the epoch.
    time: float
    #: Microseconds of frame time, strictly rising: what the flow limiter and the tracker count with.
    timestamp: int


class Ring:
    """Hands out the slots of the shared memory."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._holders = [0] * SLOTS
        self._lock = threading.Condition()

    def take(self, timeout: float | None = None) -> int | None:
        """A slot that is not held, held once now; None when there was none within `timeout` seconds."""
        with self._lock:
            if not self._lock.wait_for(lambda: 0 in self._holders, timeout):
                return None
            slot = self._holders.index(0)
            self._holders[slot] = 1
            return slot

    def hold(self, slot: int) -> None:
        """One more looks at it."""
        with self._lock:
            self._holders[slot] += 1

    def release(self, slot: int) -> None:
        """One fewer looks at it."""
        with self._lock:
            self._holders[slot] -= 1
            self._lock.notify_all()

    def pixels(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """[height,width,3] uint8, RGB; a view."""
        size = frame.width * frame.height * 3
        flat = np.frombuffer(self.shared.frame(frame.slot)[:size], dtype=np.uint8)
        return flat.reshape(frame.height, frame.width, 3)

    def picture(self, frame: Frame) -> Image.Image:
        """The same as a picture."""
        return picture_of(self.pixels(frame))


def picture_of(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """A picture of mode RGB; Pillow stores four bytes for each pixel, so this is a copy."""
    height, width = pixels.shape[:2]
    return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)


class Clock:
    """Frame time. A live source's is the monotonic clock's, so that setting the wall clock moves nothing; a file's
    follows from the number of the frame."""

    def __init__(self, fps: float, *, live: bool) -> None:
        self._step = 1e6 / fps
        self._live = live
        self._last = -1
        self._count = 0

    def stamp(self, at_ns: int) -> int:
        """Microseconds for the next frame, above the last one's."""
        value = at_ns // 1000 if self._live else round(self._count * self._step)
        self._count += 1
        self._last = max(value, self._last + 1)
        return self._last


def now() -> tuple[int, float]:
    """(monotonic nanoseconds, seconds since the epoch)."""
    return time.monotonic_ns(), time.time()
