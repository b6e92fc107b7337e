"""Which frames of a live stream to work on and which to drop: MediaPipe's flow limiter, names and order of events kept.

Timestamps are microseconds of frame time, strictly increasing per stream. Pure: nothing here waits or reads a clock.
Source of the rules: mediapipe/calculators/core/flow_limiter_calculator.{proto,cc}.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Frame = TypeVar("Frame")


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """Limits of one stream."""

    #: Frames being worked on at the same time; more than 1 only helps when there is more than one worker.
    max_in_flight: int = 1
    #: Frames that wait. 1 = never idle, newest frame waiting; 0 = lower mean latency, lower throughput.
    max_in_queue: int = 0
    #: Frames in flight are given up when a frame arrives that is newer by more than this, in microseconds of frame
    #: time, whatever the wall clock says; 0 = never.
    in_flight_timeout: int = 0


@dataclass(frozen=True, slots=True)
class Flow(Generic[Frame]):
    """What one event led to."""

    #: Frames to work on now, oldest first.
    released: tuple[Frame, ...] = ()
    #: Frames dropped, oldest first.
    dropped: tuple[Frame, ...] = ()
    #: (timestamp, allowed) of each decision, in the order they were taken.
    allow: tuple[tuple[int, bool], ...] = ()
    #: Timestamps of frames in flight that were given up.
    abandoned: tuple[int, ...] = ()


class FlowLimiter(Generic[Frame]):
    """The limiter of one stream."""

    def __init__(self, options: FlowOptions | None = None) -> None:
        #: May be replaced while running; takes effect at the next event.
        self.options = options or FlowOptions()
        self._queue: deque[tuple[int, Frame]] = deque()
        self._in_flight: deque[int] = deque()
        self._newest: int | None = None
        self.released = 0
        self.dropped = 0
        self.abandoned = 0

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Timestamps of the frames being worked on."""
        return tuple(self._in_flight)

    def __len__(self) -> int:
        """Number of waiting frames."""
        return len(self._queue)

    def frame(self, timestamp: int, frame: Frame) -> Flow[Frame]:
        """A frame arrived."""
        return self.step(timestamp=timestamp, frame=frame)

    def finish(self, timestamp: int) -> Flow[Frame]:
        """Work on the frame of this timestamp, and on all before it, is done."""
        return self.step(finished=timestamp)

    def step(
        self, *, finished: int | None = None, timestamp: int | None = None, frame: Frame | None = None
    ) -> Flow[Frame]:
        """One event: a frame, the end of one, or both at once."""
        options = self.options
        flying = self._in_flight
        waiting = self._queue
        if finished is not None:
            while flying and flying[0] <= finished:
                flying.popleft()
        if timestamp is not None:
            if self._newest is not None and timestamp <= self._newest:
                raise ValueError(f"frame timestamps must increase: {timestamp} came after {self._newest}")
            self._newest = timestamp
            waiting.append((timestamp, frame))  # type: ignore[arg-type]  # a timestamp never comes without its frame
        abandoned = []
        if options.in_flight_timeout > 0 and self._newest is not None:
            while flying and self._newest - flying[0] > options.in_flight_timeout:
                abandoned.append(flying.popleft())
        released = []
        dropped = []
        allow = []
        while waiting and len(flying) < options.max_in_flight:
            at, item = waiting.popleft()
            flying.append(at)
            released.append(item)
            allow.append((at, True))
        while len(waiting) > options.max_in_queue:
            at, item = waiting.popleft()
            dropped.append(item)
            allow.append((at, False))
        self.released += len(released)
        self.dropped += len(dropped)
        self.abandoned += len(abandoned)
        return Flow(tuple(released), tuple(dropped), tuple(allow), tuple(abandoned))
