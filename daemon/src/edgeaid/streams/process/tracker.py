"""Objects that keep their number from frame to frame: association in two steps, as in ByteTrack (arXiv:2110.06864).

First the detections that the detector is sure of are paired with where the tracks are expected, then those it is less
sure of with the tracks that are left. Boxes are compared with a margin around them, so that small and fast objects,
whose boxes in two frames may not overlap, are still paired.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ..table import Track as TrackOptions
from .assignment import assign
from .kalman import Boxes

Floats = npt.NDArray[np.float64]

#: Boxes are widened by this part of their size on each side before they are compared; more in a second try.
MARGINS: Final = (0.1, 0.4)
#: Overlap counts so much less when the labels differ: detectors confuse cats and dogs, and a rider overlaps a bicycle.
OTHER_LABEL: Final = 0.5
#: Labels of the last so many detections decide a track's label.
VOTES: Final = 15
#: Microseconds between frames up to which speeds change as ByteTrack assumes (measured: benchmarks/streams/tracking).
USUAL_STEP: Final = 50_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One detection."""

    label: str
    score: float
    #: xmin, ymin, xmax, ymax, 0 to 1.
    box: tuple[float, float, float, float]


@dataclass(slots=True, eq=False)
class Track:
    """One object."""

    number: int
    #: Frame time in microseconds of the first and of the last detection.
    first: int
    last: int
    box: tuple[float, float, float, float]
    score: float
    top_score: float
    #: Frames in which it was detected.
    hits: int = 1
    confirmed: bool = False
    votes: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=VOTES))
    #: It was detected in the newest frame; else `box` is where it was seen last.
    fresh: bool = True

    @property
    def label(self) -> str:
        """The label that its last detections agree on."""
        weights: Counter[str] = Counter()
        for label, score in self.votes:
            weights[label] += score  # type: ignore[assignment]  # Counter's values may be any number
        return weights.most_common(1)[0][0]


class Tracker:
    """Tracks of one stream."""

    def __init__(self, options: TrackOptions | None = None) -> None:
        self.options = options or TrackOptions()
        #: Detections at or above this start tracks.
        self.high = 0.5 if self.options.high is None else self.options.high
        self.tracks: list[Track] = []
        self._boxes = Boxes()
        self._numbers = 0
        self._last: int | None = None
        #: Usual microseconds between frames.
        self._step = 0.0

    def update(self, timestamp: int, seen: Sequence[Seen]) -> tuple[list[Track], list[Track]]:
        """A frame's detections; timestamps (microseconds) rise. Returns (confirmed tracks, those that ended now)."""
        self._advance(timestamp)
        boxes = np.array([s.box for s in seen], dtype=np.float64).reshape(-1, 4)
        scores = np.array([s.score for s in seen], dtype=np.float64)
        high = [i for i, s in enumerate(seen) if s.score >= self.high]
        low = [i for i, s in enumerate(seen) if self.options.low <= s.score < self.high]
        for track in self.tracks:
            track.fresh = False
        free = list(range(len(self.tracks)))
        known = [r for r in free if self.tracks[r].confirmed]
        pairs: list[tuple[int, int]] = []
        # Confirmed tracks choose first; newcomers must overlap more; what the detector is not sure of only continues.
        for rows, candidates, margin in (
            (known, high, MARGINS[0]),
            (known, high, MARGINS[1]),
            (free, low, MARGINS[0]),
            (free, high, MARGINS[1]),
        ):
            taken = {r for r, _ in pairs}, {d for _, d in pairs}
            rows_left = [r for r in rows if r not in taken[0]]
            left = [d for d in candidates if d not in taken[1]]
            pairs += self._pair(rows_left, left, seen, boxes, scores, margin)
        for row, detection in pairs:
            self._saw(self.tracks[row], timestamp, seen[detection])
        self._boxes.update([r for r, _ in pairs], boxes[[d for _, d in pairs]], scores[[d for _, d in pairs]])
        taken_detections = {d for _, d in pairs}
        ended = self._expire(timestamp)
        self._start(timestamp, [seen[i] for i in high if i not in taken_detections])
        return [t for t in self.tracks if t.confirmed], ended

    def idle(self, timestamp: int) -> None:
        """Nothing changed in the picture up to here: whatever was there is there still, and at rest."""
        self._last = timestamp
        self._boxes.speed[:] = 0
        for track in self.tracks:
            track.last, track.fresh = timestamp, False

    def finish(self) -> list[Track]:
        """The stream is over: all confirmed tracks end."""
        ended = [t for t in self.tracks if t.confirmed]
        self.tracks, self._boxes = [], Boxes()
        return ended

    def _advance(self, timestamp: int) -> None:
        if self._last is not None:
            passed = max(1, timestamp - self._last)
            # A gap (a camera that was away) says nothing of the rate.
            if not self._step:
                self._step = float(passed)
            elif passed < 4 * self._step:
                self._step += 0.1 * (passed - self._step)
            self._boxes.agility = max(1.0, self._step / USUAL_STEP)
            self._boxes.predict(min(passed / self._step, 30.0))
        self._last = timestamp

    def _pair(
        self,
        rows: list[int],
        detections: list[int],
        seen: Sequence[Seen],
        boxes: Floats,
        scores: Floats,
        margin: float,
    ) -> list[tuple[int, int]]:
        if not rows or not detections:
            return []
        overlap = _overlap(_widened(self._boxes.corners()[rows], margin), _widened(boxes[detections], margin))
        labels = [self.tracks[r].label for r in rows]
        same = np.array([[label == seen[d].label for d in detections] for label in labels])
        likeness = np.where(same, overlap, overlap * OTHER_LABEL)
        # Sureness breaks ties between detections of one object; the limit is on the overlap itself.
        cost = 1 - likeness * (0.9 + 0.1 * scores[detections])
        cost = np.where(likeness >= self.options.iou, cost, 2.0)
        return [(rows[r], detections[d]) for r, d in assign(cost, 1.0)]

    def _saw(self, track: Track, timestamp: int, seen: Seen) -> None:
        track.last, track.box, track.score, track.fresh = timestamp, seen.box, seen.score, True
        track.top_score = max(track.top_score, seen.score)
        track.hits += 1
        track.votes.append((seen.label, seen.score))
        if track.hits >= self.options.confirm:
            track.confirmed = True

    def _expire(self, timestamp: int) -> list[Track]:
        patience = self.options.patience_s * 1e6
        kept, ended = [], []
        for row, track in enumerate(self.tracks):
            # One that was seen once and not again was most likely nothing.
            limit = patience if track.confirmed else min(patience, 2.5 * self._step)
            if timestamp - track.last <= limit:
                kept.append(row)
            elif track.confirmed:
                ended.append(track)
        if len(kept) < len(self.tracks):
            self._boxes.keep(kept)
            self.tracks = [self.tracks[row] for row in kept]
        return ended

    def _start(self, timestamp: int, seen: list[Seen]) -> None:
        if not seen:
            return
        for new in seen:
            self._numbers += 1
            track = Track(self._numbers, timestamp, timestamp, new.box, new.score, new.score)
            track.votes.append((new.label, new.score))
            track.confirmed = self.options.confirm <= 1
            self.tracks.append(track)
        self._boxes.add(np.array([s.box for s in seen], dtype=np.float64))


def _widened(boxes: Floats, margin: float) -> Floats:
    extra = (boxes[:, 2:] - boxes[:, :2]) * margin
    return np.concatenate([boxes[:, :2] - extra, boxes[:, 2:] + extra], axis=1)


def _overlap(first: Floats, second: Floats) -> Floats:
    """[n,m] intersection over union."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(b[:, 2:] - b[:, :2], 0), axis=1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(np.where(union > 0, common / np.maximum(union, 1e-12), 0.0))
