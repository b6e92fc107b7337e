"""The `[stream.NAME]` table: what a person writes to turn a camera into events. Every key is checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import InvalidConfig
from ..models.stages import CROP_STAGES, Crop, Detect, crop, detect
from ..tables import KeyPath, Table, WrongValue, dotted, is_number, raising, read_toml
from .toml_lines import line_of

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: A table is written by people; this is far more than any needs, and bounds the reading of one that is not.
MAX_BYTES: Final = 4 << 20
MAX_STAGES: Final = 16
MAX_ZONES: Final = 256
MAX_POINTS: Final = 256
#: Longest side of a frame.
MAX_SIDE: Final = 4096

#: Entry points of this group make stages of the user's own.
STAGE_GROUP: Final = "edgeaid.stages"

Point = tuple[float, float]
Polygon = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Motion:
    """Let a frame pass only when enough of it changed."""

    #: Change of a pixel's brightness that counts, 1 to 255.
    threshold: int = 25
    #: Part of the frame that must have changed, 0 to 1.
    area: float = 0.01
    #: Areas that are not looked at, in units of the frame.
    masks: tuple[Polygon, ...] = ()
    #: Frames still let through for so long after the last change, so that an object that stops is not lost at once.
    hold_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Track:
    """Give each object a number that it keeps."""

    #: Detections at or above this start and keep tracks; those between `low` and it only keep them. None = the
    #: threshold of the detect stage or of its model's manifest.
    high: float | None = None
    low: float = 0.1
    #: Least overlap (intersection over union) of a track's expected place with a detection.
    iou: float = 0.2
    #: A track that is not seen for so long has ended.
    patience_s: float = 2.0
    #: A track is reported after it was seen in so many frames.
    confirm: int = 2


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the user's own, named by an entry point of the group `edgeaid.stages`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


Stage = Motion | Detect | Track | Crop | Call


@dataclass(frozen=True, slots=True)
class Events:
    """What is published, and when."""

    #: Zones whose entering (leaving) is an event.
    enter: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    #: Lines whose crossing is an event.
    cross: tuple[str, ...] = ()
    #: Staying in a zone for so long is an event; 0 = never.
    dwell_s: float = 0.0
    #: A zone or line counts after an object was on its other side for so many frames in a row.
    settle: int = 2
    #: Keep a JPEG of each event.
    snapshot: bool = False
    #: Longest wait between two updates of one object; 0 = none are sent.
    update_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that gets events by HTTP POST."""

    url: str
    #: Kinds of event; empty = all.
    types: tuple[str, ...] = ()
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays on disk, at most so many mebibytes; the oldest goes first."""

    #: Events as JSON lines; 0 = none.
    journal_mb: float = 0.0
    snapshots_mb: float = 64.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A camera, what is done with its frames, and what is published."""

    name: str
    source: str
    #: Frames per second taken from the source; 0 = all that it has.
    fps: float = 0.0
    #: Frames are made smaller, never larger, until their longer side has so many pixels.
    size: int = 640
    #: gstreamer, ffmpeg or auto: the program that reads cameras, files and networks.
    reader: str = "auto"
    #: False = known, not running.
    enabled: bool = True
    stages: tuple[Stage, ...] = ()
    zones: Mapping[str, Polygon] = field(default_factory=dict)
    lines: Mapping[str, tuple[Point, Point]] = field(default_factory=dict)
    events: Events = field(default_factory=Events)
    webhooks: tuple[Webhook, ...] = ()
    keep: Keep = field(default_factory=Keep)
    #: Urgency of its requests, see docs/scheduling.md.
    priority: int = 0
    #: An answer that comes later than this after its frame was captured is late; 0 = never.
    deadline_ms: float = 0.0
    #: Part of the time that its models may take on their devices, 0 to 1.
    share: float = 1.0
    #: The picture has stood still for so long: the camera is started again; 0 = never.
    frozen_s: float = 60.0

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that it asks."""
        return tuple(dict.fromkeys(s.model for s in self.stages if isinstance(s, Detect | Crop)))


def _points(value: object, path: KeyPath, least: int, most: int) -> Polygon:
    if not isinstance(value, list | tuple) or not least <= len(value) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise WrongValue(path, f"must be an array of {count} points [x, y]")
    points = []
    for position, point in enumerate(value):
        numbers = isinstance(point, list | tuple) and len(point) == 2
        if not numbers or not all(is_number(v) and 0 <= v <= 1 for v in point):
            raise WrongValue(path, f"point {position} is {point!r:.80}, not [x, y] with numbers from 0 to 1")
        points.append((float(point[0]), float(point[1])))
    return tuple(points)


def _motion(table: Table) -> Motion:
    inner = table.table("motion")
    masks = inner.take("masks", [])
    if not isinstance(masks, list | tuple) or len(masks) > MAX_ZONES:
        inner.wrong("masks", f"must be an array of at most {MAX_ZONES} areas")
    motion = Motion(
        threshold=inner.integer("threshold", 25, 1, 255),
        area=inner.number("area", 0.01, 0.0, 1.0),
        masks=tuple(_points(m, (*inner.path, "masks", i), 3, MAX_POINTS) for i, m in enumerate(masks)),
        hold_s=inner.number("hold_s", 1.0, 0.0, 3600.0),
    )
    inner.done()
    return motion


def _track(table: Table) -> Track:
    inner = table.table("track")
    track = Track(
        high=inner.number("high", None, 0.0, 1.0),
        low=inner.number("low", 0.1, 0.0, 1.0),
        iou=inner.number("iou", 0.2, 0.0, 1.0),
        patience_s=inner.number("patience_s", 2.0, 0.0, 3600.0),
        confirm=inner.integer("confirm", 2, 1, 100),
    )
    if track.high is not None and track.low > track.high:
        inner.wrong("low", f"is {track.low:g}, above high = {track.high:g}")
    inner.done()
    return track


def _call(table: Table) -> Call:
    return Call(table.text("call"), table.table("options").rest)


_STAGES: Final[dict[str, Callable[[Table], Stage]]] = {
    "motion": _motion, "detect": detect, "track": _track, "call": _call, **{k: crop(k) for k in CROP_STAGES},
}  # fmt: skip


def _stages(tables: list[Table]) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    for table in tables:
        kinds = [k for k in _STAGES if k in table.rest]
        if len(kinds) != 1:
            raise WrongValue(table.path, f"must have exactly one of {', '.join(_STAGES)}, it has {len(kinds)}")
        stage = _STAGES[kinds[0]](table)
        table.done()
        _check_order(stage, stages, table.path)
        stages.append(stage)
    return tuple(stages)


def _check_order(stage: Stage, before: list[Stage], path: KeyPath) -> None:
    if isinstance(stage, Motion | Detect | Track) and any(type(s) is type(stage) for s in before):
        raise WrongValue(path, f"is the second stage '{type(stage).__name__.lower()}'; a stream has one of them")
    if isinstance(stage, Motion) and before:
        raise WrongValue(path, "a motion stage must be the first one: it decides which frames the others see")
    if isinstance(stage, Track) and not any(isinstance(s, Detect | Call) for s in before):
        raise WrongValue(path, "there is nothing to track: put a detect stage before it")


def _named_points(value: object, path: KeyPath, least: int, most: int) -> dict[str, Polygon]:
    if not isinstance(value, Mapping):
        raise WrongValue(path, "must be a table")
    if len(value) > MAX_ZONES:
        raise WrongValue(path, f"has {len(value)} entries, the limit is {MAX_ZONES}")
    for name in value:
        if not NAME.fullmatch(name):
            raise WrongValue((*path, name), f"the name {name!r:.80} may have only letters, digits, _ and -, at most 64")
    return {name: _points(points, (*path, name), least, most) for name, points in value.items()}


def _events(table: Table, zones: Sequence[str], lines: Sequence[str]) -> Events:
    events = Events(
        enter=table.texts("enter"),
        leave=table.texts("leave"),
        cross=table.texts("cross"),
        dwell_s=table.number("dwell_s", 0.0, 0.0, 86400.0),
        settle=table.integer("settle", 2, 1, 100),
        snapshot=table.boolean("snapshot", default=False),
        update_s=table.number("update_s", 5.0, 0.0, 3600.0),
    )
    table.done()
    for key, names, known, what in (
        ("enter", events.enter, zones, "zone"), ("leave", events.leave, zones, "zone"),
        ("cross", events.cross, lines, "line"),
    ):  # fmt: skip
        for name in names:
            if name not in known:
                table.wrong(key, f"names the {what} {name!r:.80}, which the stream does not have")
    return events


def _check_tracked(stages: tuple[Stage, ...], events: Events, path: KeyPath) -> None:
    wanted = [k for k in ("enter", "leave", "cross", "dwell_s") if getattr(events, k)]
    if wanted and not any(isinstance(s, Track) for s in stages):
        raise WrongValue((*path, "events", wanted[0]), "needs objects that are followed: add the stage track = {}")


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False


def _webhooks(tables: list[Table]) -> tuple[Webhook, ...]:
    webhooks = []
    for table in tables:
        webhook = Webhook(table.text("url"), table.texts("types"), table.number("timeout_s", 5.0, 0.1, 60.0))
        if not _is_web(webhook.url):
            table.wrong("url", "must be an address that starts with http:// or https://")
        table.done()
        webhooks.append(webhook)
    return tuple(webhooks)


def _keep(table: Table) -> Keep:
    keep = Keep(table.number("journal_mb", 0.0, 0.0, 1e5), table.number("snapshots_mb", 64.0, 0.0, 1e5))
    table.done()
    return keep


def _stream(name: str, value: object, path: KeyPath) -> Stream:
    if not NAME.fullmatch(name):
        raise WrongValue(path, f"the name {name!r:.80} may have only letters, digits, _ and -, at most 64")
    table = Table(value, path)
    zones = _named_points(table.take("zones", {}), (*path, "zones"), 3, MAX_POINTS)
    lines = _named_points(table.take("lines", {}), (*path, "lines"), 2, 2)
    stream = Stream(
        name=name,
        source=table.text("source", limit=4096),
        fps=table.number("fps", 0.0, 0.0, 1000.0),
        size=table.integer("size", 640, 16, MAX_SIDE),
        reader=table.choice("reader", ("auto", "gstreamer", "ffmpeg"), "auto"),
        enabled=table.boolean("enabled", default=True),
        stages=_stages(table.tables("stage", MAX_STAGES)),
        zones=zones,
        lines={key: (points[0], points[1]) for key, points in lines.items()},
        events=_events(table.table("events"), list(zones), list(lines)),
        webhooks=_webhooks(table.tables("webhook", 16)),
        keep=_keep(table.table("keep")),
        priority=table.integer("priority", 0, 0, 31),
        deadline_ms=table.number("deadline_ms", 0.0, 0.0, 3.6e6),
        share=table.number("share", 1.0, 0.01, 1.0),
        frozen_s=table.number("frozen_s", 60.0, 0.0, 86400.0),
    )
    table.done()
    _check_tracked(stream.stages, stream.events, path)
    return stream


def from_table(name: str, table: object) -> Stream:
    """A stream from its table as JSON or TOML values. InvalidConfig names the key."""
    with raising(InvalidConfig):
        return _stream(name, table, ("stream", name))


@contextmanager
def located(text: str, where: str = "") -> Iterator[None]:
    """WrongValue becomes InvalidConfig that names `where` (a file; "" = nothing), the line of `text` and the key."""
    try:
        yield
    except WrongValue as error:
        number = line_of(text, error.path)
        place = ", ".join(part for part in (where, f"line {number}" if number else "") if part)
        said = f"{dotted(error.path)}: {error}" if error.path else str(error)
        raise InvalidConfig(f"{place}: {said}" if place else said) from error


def parse(text: str, where: str = "") -> list[tuple[Stream, dict[str, Any]]]:
    """The streams of a TOML file, each with its table. InvalidConfig as in `located`."""
    before = f"{where}: " if where else ""
    if len(text) > MAX_BYTES:
        raise InvalidConfig(f"{before}the file has more than {MAX_BYTES} bytes")
    try:
        top = read_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{before}{error}") from error
    with located(text, where):
        table = Table(top)
        streams = table.table("stream").rest
        table.done()
        return [(_stream(name, content, ("stream", name)), content) for name, content in streams.items()]


def read(path: Path) -> list[tuple[Stream, dict[str, Any]]]:
    """The streams of a file."""
    try:
        with open(path, "rb") as stream:
            return parse(stream.read(MAX_BYTES + 1).decode(), str(path))
    except OSError as error:
        raise InvalidConfig(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path}: {error}") from error
