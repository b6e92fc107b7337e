"""From tracks to events: an object came, entered a zone, stayed, crossed a line, went. Pure: time is the frames'.

A zone or a line counts only after an object was on its other side for some frames in a row, so that a box that jitters
at a border makes one event and not a hundred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..table import Point, Stream
from .frames import Frame
from .tracker import Track
from .zones import Box, Zones, crosses, foot, side

#: As in Frigate: an object is stationary after so many frames in which its box hardly moved ...
STATIONARY_FRAMES: Final = 50
#: ... which is when it overlaps the box at the start of that time by more than this.
STATIONARY_IOU: Final = 0.8


@dataclass(slots=True, eq=False)
class Life:
    """What is known of one tracked object."""

    identity: str
    track: Track
    start_time: float
    #: Settled zones, and for each zone on whose other side it is now, for how many frames.
    zones: set[str] = field(default_factory=set)
    pending: dict[str, int] = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)
    #: Zone -> frame time of its (settled) entering; a dwell event removes it.
    since: dict[str, int] = field(default_factory=dict)
    dwelt: set[str] = field(default_factory=set)
    #: Line -> settled side, the place then, and frames on the other side.
    sides: dict[str, tuple[int, Point, int]] = field(default_factory=dict)
    #: Its first event was published, and when (frame time) the last `new` or `update` was.
    announced: bool = False
    told: int = 0
    still_box: Box | None = None
    still_frames: int = 0
    #: What other models said of it: model name -> result.
    attributes: dict[str, Any] = field(default_factory=dict)
    #: (label, score) of the last classification.
    sub_label: tuple[str, float] | None = None
    #: Frame time of the last question to each crop stage.
    asked: dict[int, int] = field(default_factory=dict)
    has_snapshot: bool = False

    @property
    def stationary(self) -> bool:
        """It has hardly moved for a while."""
        return self.still_frames >= STATIONARY_FRAMES


class Happenings:
    """The events of one stream. `prefix` makes the objects' names unique over restarts."""

    def __init__(self, stream: Stream, prefix: str) -> None:
        self.stream = stream
        self.lives: dict[int, Life] = {}
        self._prefix = prefix
        self._zones = Zones(stream.zones)

    def life(self, track: Track, frame: Frame) -> Life:
        """What is known of a track."""
        life = self.lives.get(track.number)
        if life is None:
            started = frame.time - (frame.timestamp - track.first) / 1e6
            life = Life(f"{self._prefix}-{track.number}", track, started, told=frame.timestamp)
            self.lives[track.number] = life
        return life

    def update(self, frame: Frame, tracks: Sequence[Track], ended: Sequence[Track]) -> list[dict[str, Any]]:
        """Events of one frame, in the order in which they came to be."""
        events: list[dict[str, Any]] = []
        for track in tracks:
            life = self.life(track, frame)
            new = not life.announced
            if new:
                life.announced = True
                events.append(self.event("new", life, frame))
            if track.fresh:
                self._see(life, frame, events)
            self._dwell(life, frame, events)
            interval = self.stream.events.update_s * 1e6
            if not new and interval and frame.timestamp - life.told >= interval:
                events.append(self.event("update", life, frame))
        for track in ended:
            self._end(track, frame, events)
        return events

    def finish(self, frame: Frame, ended: Sequence[Track]) -> list[dict[str, Any]]:
        """The stream is over."""
        events: list[dict[str, Any]] = []
        for track in ended:
            self._end(track, frame, events)
        return events

    def counts(self) -> dict[str, Any]:
        """How many objects of each label are there, in all and in each zone."""
        present = Counter(life.track.label for life in self.lives.values())
        zones: dict[str, Counter[str]] = {name: Counter() for name in self.stream.zones}
        for life in self.lives.values():
            for zone in life.zones:
                zones[zone][life.track.label] += 1
        return {"objects": dict(present), "zones": {zone: dict(count) for zone, count in zones.items()}}

    def event(self, kind: str, life: Life, frame: Frame, **more: Any) -> dict[str, Any]:
        """An event about an object, with Frigate's names where it has them."""
        track = life.track
        if kind in ("new", "update"):
            life.told = frame.timestamp
        width, height = frame.width, frame.height
        corners = ("xmin", "ymin", "xmax", "ymax")
        pixels = [round(v * (width if i % 2 == 0 else height)) for i, v in enumerate(track.box)]
        return {
            "type": kind,
            "id": life.identity,
            "time": round(frame.time, 3),
            "frame": frame.number,
            "label": track.label,
            "sub_label": list(life.sub_label) if life.sub_label else None,
            "score": round(track.score, 4),
            "top_score": round(track.top_score, 4),
            "box": dict(zip(corners, (round(v, 6) for v in track.box), strict=True)),
            "pixels": dict(zip(corners, pixels, strict=True)),
            "start_time": round(life.start_time, 3),
            "end_time": round(life.start_time + (track.last - track.first) / 1e6, 3) if kind == "end" else None,
            "current_zones": sorted(life.zones),
            "entered_zones": list(life.entered),
            "stationary": life.stationary,
            "has_snapshot": life.has_snapshot,
            **({"attributes": dict(life.attributes)} if life.attributes else {}),
            **more,
        }

    def _see(self, life: Life, frame: Frame, events: list[dict[str, Any]]) -> None:
        """The object was detected in this frame."""
        point = foot(life.track.box)
        inside = self._zones.around(point)
        self._settle(life, inside, frame, events)
        self._cross(life, point, frame, events)
        box = life.track.box
        if life.still_box is None or _iou(life.still_box, box) < STATIONARY_IOU:
            life.still_box, life.still_frames = box, 0
        else:
            life.still_frames += 1

    def _settle(self, life: Life, inside: frozenset[str], frame: Frame, events: list[dict[str, Any]]) -> None:
        options = self.stream.events
        for zone in inside ^ life.zones:
            life.pending[zone] = life.pending.get(zone, 0) + 1
            if life.pending[zone] < options.settle:
                continue
            del life.pending[zone]
            if zone in inside:
                life.zones.add(zone)
                life.since[zone] = frame.timestamp
                if zone not in life.entered:
                    life.entered.append(zone)
                if zone in options.enter:
                    events.append(self.event("enter", life, frame, zone=zone))
            else:
                self._left(life, zone, frame, events)
        for zone in [z for z in life.pending if (z in inside) == (z in life.zones)]:
            del life.pending[zone]

    def _left(self, life: Life, zone: str, frame: Frame, events: list[dict[str, Any]]) -> None:
        life.zones.discard(zone)
        life.dwelt.discard(zone)
        since = life.since.pop(zone, frame.timestamp)
        if zone in self.stream.events.leave:
            seconds = round((frame.timestamp - since) / 1e6, 3)
            events.append(self.event("leave", life, frame, zone=zone, seconds=seconds))

    def _dwell(self, life: Life, frame: Frame, events: list[dict[str, Any]]) -> None:
        limit = self.stream.events.dwell_s * 1e6
        if not limit:
            return
        watched = self.stream.events.enter or tuple(self.stream.zones)
        for zone in sorted(life.zones):
            if zone in watched and zone not in life.dwelt and frame.timestamp - life.since[zone] >= limit:
                life.dwelt.add(zone)
                seconds = round((frame.timestamp - life.since[zone]) / 1e6, 3)
                events.append(self.event("dwell", life, frame, zone=zone, seconds=seconds))

    def _cross(self, life: Life, point: Point, frame: Frame, events: list[dict[str, Any]]) -> None:
        for name in self.stream.events.cross:
            line = self.stream.lines[name]
            now = side(line, point)
            settled, place, frames = life.sides.get(name, (0, point, 0))
            if now in (0, settled):
                life.sides[name] = (settled, point if now == settled else place, 0)
                continue
            if settled and frames + 1 < self.stream.events.settle:
                life.sides[name] = (settled, place, frames + 1)
                continue
            life.sides[name] = (now, point, 0)
            if settled and crosses(line, place, point):
                direction = "right" if now > 0 else "left"
                events.append(self.event("cross", life, frame, line=name, direction=direction))

    def _end(self, track: Track, frame: Frame, events: list[dict[str, Any]]) -> None:
        life = self.lives.pop(track.number, None)
        if life is None:
            return
        for zone in sorted(life.zones):
            if zone in self.stream.events.leave:
                self._left(life, zone, frame, events)
        events.append(self.event("end", life, frame))


def _iou(first: Box, second: Box) -> float:
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    common = max(0.0, wide) * max(0.0, high)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return common / (areas - common) if areas > common else 0.0
