"""What happens to a frame once its detector has answered: tracks, crops for other models, own stages, events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import EdgeaiError, InvalidConfig
from ...models.stages import Crop, Detect
from ..table import STAGE_GROUP, Call, Stage, Stream, Track
from .asking import Question, about, area, ask, attribute
from .frames import Frame, picture_of
from .happenings import Happenings, Life
from .link import Link
from .tracker import Seen, Tracker
from .tracker import Track as Tracked

#: Called with a Scene for each frame; made once per start of the stream from the stage's options.
UserStage = Callable[["Scene"], None]


@dataclass(slots=True, eq=False)
class Thing:
    """An object in a frame."""

    label: str
    score: float
    #: xmin, ymin, xmax, ymax, 0 to 1.
    box: tuple[float, float, float, float]
    #: What is known of it over time; None without a track stage.
    life: Life | None = None
    sub_label: tuple[str, float] | None = None
    #: Values that stages add; they go into the frame's result and into events.
    attributes: dict[str, Any] = field(default_factory=dict)

    def to_json(self, frame: Frame) -> dict[str, Any]:
        """JSON values only."""
        corners = ("xmin", "ymin", "xmax", "ymax")
        pixels = [round(v * (frame.width if i % 2 == 0 else frame.height)) for i, v in enumerate(self.box)]
        table: dict[str, Any] = {
            "label": self.label,
            "score": round(self.score, 4),
            "box": dict(zip(corners, (round(v, 6) for v in self.box), strict=True)),
            "pixels": dict(zip(corners, pixels, strict=True)),
        }
        if self.life is not None:
            table["id"] = self.life.identity
            table["zones"] = sorted(self.life.zones)
        sub_label = self.sub_label or (self.life.sub_label if self.life else None)
        if sub_label is not None:
            table["sub_label"] = [sub_label[0], round(sub_label[1], 4)]
        attributes = {**(self.life.attributes if self.life else {}), **self.attributes}
        return table | ({"attributes": attributes} if attributes else {})


@dataclass(slots=True, eq=False)
class Scene:
    """A frame, and what is known of it so far: what a stage of the user's own gets and may change."""

    stream: str
    frame: Frame
    #: [height,width,3] uint8, RGB; valid during the call.
    pixels: npt.NDArray[np.uint8]
    #: Detected objects; a stage may add, change and take away.
    objects: list[Thing] = field(default_factory=list)
    #: What models say of the whole frame, by model.
    classes: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    #: Why a second model was not asked; "" = all went well.
    problem: str = ""

    _picture: Image.Image | None = None

    @property
    def picture(self) -> Image.Image:
        """The pixels as a picture of mode RGB, which Pillow copies: made when it is asked for."""
        if self._picture is None:
            self._picture = picture_of(self.pixels)
        return self._picture

    def see(self, seen: Sequence[Seen]) -> None:
        """Objects were detected."""
        self.objects += [Thing(s.label, s.score, s.box) for s in seen]

    def emit(self, kind: str, **values: Any) -> None:
        """Publish an event; `values` are JSON values."""
        base = {"type": kind, "time": round(self.frame.time, 3), "frame": self.frame.number}
        self.events.append(base | values)


def own_stage(stage: Call) -> UserStage:
    """The user's function, from the entry points of the installed packages. InvalidConfig where there is none."""
    for entry in entry_points(group=STAGE_GROUP):
        if entry.name == stage.name:
            try:
                made = entry.load()(**stage.options)
            except Exception as error:  # foreign code may raise anything
                raise InvalidConfig(f"stage {stage.name!r} cannot be made: {type(error).__name__}: {error}") from error
            if not callable(made):
                raise InvalidConfig(f"stage {stage.name!r}: {entry.value} returned nothing that can be called")
            return made  # type: ignore[no-any-return]  # the contract of the entry point
    known = ", ".join(sorted(e.name for e in entry_points(group=STAGE_GROUP))) or "none"
    raise InvalidConfig(
        f"no installed package has a stage {stage.name!r} (entry points of {STAGE_GROUP!r}); known: {known}"
    )


class Stages:
    """The stages of one stream that follow the first model."""

    def __init__(self, stream: Stream, link: Link, prefix: str) -> None:
        self.stream = stream
        self._link = link
        self.happenings = Happenings(stream, prefix)
        self._own = {id(s): own_stage(s) for s in stream.stages if isinstance(s, Call)}
        track = next((s for s in stream.stages if isinstance(s, Track)), None)
        self.tracker = Tracker(track) if track is not None else None
        #: Confirmed tracks of the newest frame, and those that ended with it.
        self._tracks: tuple[list[Tracked], list[Tracked]] = ([], [])
        #: Crop stages of the whole frame: model -> (settled class, candidate, frames of it).
        self._classes: dict[str, tuple[str | None, str | None, int]] = {}

    def run(self, scene: Scene, stages: Sequence[Stage]) -> None:
        """All stages in their order, then the events."""
        tracked = False
        for position, stage in enumerate(stages):
            if isinstance(stage, Track):
                self._track(scene)
                tracked = True
            elif isinstance(stage, Crop):
                try:
                    self._crops(scene, stage, position)
                except EdgeaiError as error:  # the objects themselves are known all the same
                    scene.problem = str(error)
            elif isinstance(stage, Call):
                self._own[id(stage)](scene)
        if tracked:
            self._events(scene)

    def still(self, scene: Scene) -> None:
        """A frame in which nothing changed: the tracked objects stay as they are."""
        if self.tracker is None:
            return
        self.tracker.idle(scene.frame.timestamp)
        tracks = [t for t in self.tracker.tracks if t.confirmed]
        scene.events += self.happenings.update(scene.frame, tracks, ())
        scene.objects = [self._thing(t, scene.frame) for t in tracks]

    def finish(self, frame: Frame) -> list[dict[str, Any]]:
        """The stream is over: the last events."""
        return self.happenings.finish(frame, self.tracker.finish()) if self.tracker is not None else []

    def _thing(self, track: Tracked, frame: Frame) -> Thing:
        return Thing(track.label, track.score, track.box, self.happenings.life(track, frame))

    def _track(self, scene: Scene) -> None:
        assert self.tracker is not None  # noqa: S101  there is a track stage
        seen = [Seen(o.label, o.score, o.box) for o in scene.objects]
        tracks, ended = self.tracker.update(scene.frame.timestamp, seen)
        self._tracks = (tracks, ended)
        attributes = {o.box: o.attributes for o in scene.objects if o.attributes}
        scene.objects = [self._thing(t, scene.frame) for t in tracks if t.fresh]
        for thing in scene.objects:
            thing.attributes = attributes.get(thing.box, {})

    def _events(self, scene: Scene) -> None:
        tracks, ended = self._tracks
        for thing in scene.objects:
            if thing.life is not None:
                thing.life.attributes.update(thing.attributes)
        scene.events += self.happenings.update(scene.frame, tracks, ended)

    def _crops(self, scene: Scene, stage: Crop, position: int) -> None:
        if not any(isinstance(s, Detect) for s in self.stream.stages):
            question = ask(self._link, stage.model, scene.picture)
            self.whole(scene, stage, question)
            return
        wanted = [o for o in scene.objects if not stage.on or o.label in stage.on]
        due = [o for o in wanted if self._due(o, stage, position, scene.frame)]
        due.sort(key=lambda o: -area(o.box))
        due = due[: stage.limit]
        for thing, said in zip(due, about(self._link, stage, scene.picture, [o.box for o in due]), strict=True):
            target: Thing | Life = thing.life if thing.life is not None else thing
            target.attributes[stage.model] = said.values
            if said.best is not None:
                target.sub_label = said.best
            if thing.life is not None:
                thing.life.asked[position] = scene.frame.timestamp

    def _due(self, thing: Thing, stage: Crop, position: int, frame: Frame) -> bool:
        if thing.life is None:
            return True
        asked = thing.life.asked.get(position)
        return asked is None or frame.timestamp - asked >= stage.every_s * 1e6

    def whole(self, scene: Scene, stage: Crop, question: Question) -> None:
        """A model's answer about the whole frame; a new class is an event when it has settled."""
        try:
            self._link.wait(question.lease)
            values, best = attribute(question, stage.kind, stage.threshold)
        finally:
            self._link.give(question.lease)
        scene.classes[stage.model] = values
        if stage.kind != "classify":
            return
        label = best[0] if best else None
        settled, candidate, frames = self._classes.get(stage.model, (None, None, 0))
        frames = frames + 1 if label == candidate else 1
        if label != settled and frames >= self.stream.events.settle:
            score = round(best[1], 4) if best else None
            scene.emit("class", model=stage.model, label=label, score=score, before=settled)
            settled = label
        self._classes[stage.model] = (settled, label, frames)


def failure(error: Exception) -> str:
    """What went wrong, for people."""
    return str(error) if isinstance(error, EdgeaiError) else f"{type(error).__name__}: {error}"
