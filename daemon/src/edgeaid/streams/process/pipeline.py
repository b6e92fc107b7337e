"""Frames through the stages: which are worked on, which are dropped, and where each of them ended.

Two threads share the work so that the next frame is prepared while a model looks at the last one. A live source's frame
is released when the model has answered the one before; a file's reader waits instead of dropping.
"""

from __future__ import annotations

import logging
import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ... import errors
from ...models.stages import Crop, Detect
from ...scheduling.flow import Flow, FlowLimiter, FlowOptions
from ..memory import Count
from ..table import Motion, Stream, Track
from . import asking
from .asking import Question
from .frames import Frame, Ring
from .link import Link
from .motion import MotionGate
from .stages import Scene, Stages, failure

log = logging.getLogger(__name__)

#: Latencies that the quantiles are taken from.
LATENCIES: Final = 256
#: A gate stays open for at least the patience of the tracker and this, in seconds: who left is noticed before it shuts.
AFTER_PATIENCE: Final = 0.5
_ALIVE_SECONDS: Final = 1.0
_DRAIN_STEP: Final = 0.01

#: Which counter a dropped frame goes to, by what was raised.
_REASONS: Final[tuple[tuple[type[Exception], Count], ...]] = (
    (errors.QueueFull, Count.DROPPED_QUEUE),
    (errors.DeadlineExceeded, Count.DROPPED_EXPIRED),
    (errors.Unavailable, Count.DROPPED_UNAVAILABLE),
    (errors.NotFound, Count.DROPPED_UNAVAILABLE),
)


@dataclass(slots=True, eq=False)
class _Work:
    """A frame between the two threads."""

    frame: Frame
    questions: list[Question] = field(default_factory=list)
    gated: bool = False


@dataclass(slots=True, eq=False)
class Outcome:
    """A frame whose stages have all run."""

    scene: Scene
    gated: bool
    latency_ms: float
    #: Nanoseconds that models computed on it.
    compute_ns: int


class Pipeline:
    """The stages of one stream. `on_outcome` runs in the pipeline's thread, while the frame's pixels are there."""

    def __init__(
        self,
        stream: Stream,
        ring: Ring,
        link: Link,
        prefix: str,
        *,
        live: bool,
        on_outcome: Callable[[Outcome], None],
        on_problem: Callable[[str], None],
    ) -> None:
        self.stream = stream
        self.ring = ring
        self.link = link
        self.stages = Stages(stream, link, prefix)
        self._on_outcome = on_outcome
        self._on_problem = on_problem
        self._live = live
        options = FlowOptions(max_in_flight=1, max_in_queue=1) if live else FlowOptions(max_in_flight=2, max_in_queue=0)
        self._flow: FlowLimiter[Frame] = FlowLimiter(options)
        if not live:  # the next frame is asked about while the answers of those before are being read
            link.kept = options.max_in_flight + 1
        self._lock = threading.Condition()
        self._todo: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._halted = False
        self._before_paces = 0.0
        motion = next((s for s in stream.stages if isinstance(s, Motion)), None)
        self._gate = MotionGate(_patient(motion, stream)) if motion is not None else None
        stages = [s for s in stream.stages if not isinstance(s, Motion)]
        #: The stage whose model is asked ahead, and those after it.
        self._first = stages[0] if stages and isinstance(stages[0], Detect | Crop) else None
        self._rest = stages[1:] if self._first is not None else stages
        self._track = next((s for s in stages if isinstance(s, Track)), None)
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self._threads = [
            threading.Thread(target=self._prepare_all, name="prepare", daemon=True),
            threading.Thread(target=self._finish_all, name="finish", daemon=True),
        ]

    def start(self) -> None:
        """Start working."""
        for thread in self._threads:
            thread.start()

    # --- in: called by the capture thread ---------------------------------------------------------------------------

    def offer(self, frame: Frame) -> None:
        """A frame was captured. Waits for room where the source can wait."""
        with self._lock:
            if not self._live:
                limit = self._flow.options.max_in_flight
                self._lock.wait_for(lambda: self._halted or len(self._flow.in_flight) < limit)
            if self._halted:
                self._drop(frame, Count.DROPPED_STOPPED)
                return
            self._sort(self._flow.frame(frame.timestamp, frame))

    def drain(self, timeout: float) -> bool:
        """Wait until every frame has ended in some way; False when that took too long."""
        end = time.monotonic() + timeout
        while self.ring.shared.under_way():
            if time.monotonic() > end:
                return False
            time.sleep(_DRAIN_STEP)
        return True

    def halt(self) -> None:
        """Take no more frames, finish what is under way, publish the last events."""
        with self._lock:
            self._halted = True
            self._lock.notify_all()
        self._todo.put(None)
        for thread in self._threads:
            thread.join(2.0)

    def _sort(self, flow: Flow[Frame]) -> None:
        for frame in flow.dropped:
            self._drop(frame, Count.DROPPED_BUSY)
        for frame in flow.released:
            self._todo.put(frame)
        self._lock.notify_all()

    def _drop(self, frame: Frame, why: Count) -> None:
        self.ring.shared.add(why)
        self.ring.release(frame.slot)

    def _done(self, frame: Frame) -> None:
        """The models have looked at it: the next one may come."""
        with self._lock:
            self._sort(self._flow.finish(frame.timestamp))

    # --- first thread: gate, prepare, send off ----------------------------------------------------------------------

    def _prepare_all(self) -> None:
        while (frame := self._todo.get()) is not None:
            if self._halted:
                self._drop(frame, Count.DROPPED_STOPPED)
                self._done(frame)
                continue
            try:
                work = self._prepare(frame)
            except Exception as error:  # a stage that fails costs its frame and nothing else
                self._failed(frame, error)
                self._done(frame)
                continue
            self._answered.put(work)
        self._answered.put(None)

    def _prepare(self, frame: Frame) -> _Work:
        shared = self.ring.shared
        picture = self.ring.picture(frame)
        work = _Work(frame)
        if self._gate is not None:
            started = time.monotonic_ns()
            work.gated = not self._gate.passes(picture, frame.timestamp)
            shared.add(Count.GATE_NS, time.monotonic_ns() - started)
        if work.gated or self._first is None:
            return work
        pause = self._before_paces - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, 10.0))
        started = time.monotonic_ns()
        stage = self._first
        parts = asking.tiles(*stage.tiles, stage.overlap) if isinstance(stage, Detect) else [asking.WHOLE]
        try:
            for part in parts:
                work.questions.append(asking.ask(self.link, stage.model, picture, part))
                shared.add(Count.REQUESTS)
        except BaseException:
            self._give_up(work.questions)
            raise
        shared.add(Count.PREPARE_NS, time.monotonic_ns() - started)
        return work

    def _give_up(self, questions: list[Question]) -> None:
        for question in questions:
            self.link.give(question.lease)

    def _failed(self, frame: Frame, error: Exception) -> None:
        reason = next((count for kind, count in _REASONS if isinstance(error, kind)), Count.DROPPED_ERROR)
        if reason is Count.DROPPED_ERROR and not isinstance(error, errors.EdgeaiError):
            log.exception("stream %s, frame %d", self.stream.name, frame.number)
        self._drop(frame, reason)
        self._on_problem(failure(error))

    # --- second thread: answers, stages, events ---------------------------------------------------------------------

    def _finish_all(self) -> None:
        shared = self.ring.shared
        while True:
            shared.put(Count.ALIVE_NS, time.monotonic_ns())
            try:
                work = self._answered.get(timeout=_ALIVE_SECONDS)
            except queue.Empty:
                continue
            if work is None:
                return
            released = False
            try:
                compute_ns = self._wait(work)
                released = True
                self._done(work.frame)
                self._finish(work, compute_ns)
            except Exception as error:  # a stage that fails costs its frame and nothing else
                self._failed(work.frame, error)
                if not released:
                    self._done(work.frame)
                continue
            self.ring.release(work.frame.slot)

    def _wait(self, work: _Work) -> int:
        """Wait for the models; returns the nanoseconds that they took. When one fails, all leases are given back."""
        try:
            for question in work.questions:
                self.link.wait(question.lease)
        except BaseException:
            self._give_up(work.questions)
            raise
        compute_ns = sum(sum(q.lease.phases) for q in work.questions)
        if self.stream.share < 1 and compute_ns:
            self._before_paces = time.monotonic() + compute_ns / 1e9 * (1 / self.stream.share - 1)
        return compute_ns

    def _finish(self, work: _Work, compute_ns: int) -> None:
        shared, frame = self.ring.shared, work.frame
        scene = Scene(self.stream.name, frame, self.ring.pixels(frame))
        started = time.monotonic_ns()
        if work.gated:
            self.stages.still(scene)
        else:
            self._decode(work, scene)
            decoded = time.monotonic_ns()
            shared.add(Count.DECODE_NS, decoded - started)
            started = decoded
            self.stages.run(scene, self._rest)
        shared.add(Count.AFTER_NS, time.monotonic_ns() - started)
        latency = (time.monotonic_ns() - frame.at_ns) / 1e6
        self._on_outcome(Outcome(scene, work.gated, latency, compute_ns))
        if work.gated:
            shared.add(Count.GATED)
            return
        self.latencies.append(latency)
        if self.stream.deadline_ms and latency > self.stream.deadline_ms:
            shared.add(Count.LATE)
        shared.add(Count.INFERRED)
        self._on_problem(scene.problem)

    def _decode(self, work: _Work, scene: Scene) -> None:
        if isinstance(self._first, Crop):
            self.stages.whole(scene, self._first, work.questions[0])
            return
        if self._first is None:
            return
        stage = self._first
        threshold = stage.threshold
        seen = []
        try:
            if self._track is not None and self.stages.tracker is not None:
                sure = stage.threshold if stage.threshold is not None else asking.threshold_of(work.questions[0])
                if self._track.high is None:
                    self.stages.tracker.high = sure
                threshold = min(sure, self._track.low)
            for question in work.questions:
                seen += asking.objects(question, threshold)
        finally:
            self._give_up(work.questions)
        if len(work.questions) > 1:
            seen = asking.merged(seen)
        scene.see([s for s in seen if not stage.labels or s.label in stage.labels])

    def quantiles(self) -> dict[str, float]:
        """Milliseconds from capture to result: median, 95 of 100, and the longest, of the last frames."""
        values = sorted(self.latencies)
        if not values:
            return {}
        return {
            "p50_ms": round(statistics.median(values), 2),
            "p95_ms": round(values[min(len(values) - 1, int(len(values) * 0.95))], 2),
            "max_ms": round(values[-1], 2),
        }

    def last_events(self, frame: Frame) -> list[dict[str, Any]]:
        """What ends with the stream."""
        return self.stages.finish(frame)


def _patient(motion: Motion, stream: Stream) -> Motion:
    track = next((s for s in stream.stages if isinstance(s, Track)), None)
    if track is None:
        return motion
    hold = max(motion.hold_s, track.patience_s + AFTER_PATIENCE)
    return Motion(motion.threshold, motion.area, motion.masks, hold)
