"""Stages that ask a model about pictures: what streams and ensembles share. Pure data; every key is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..tables import Table, is_integer

#: Stages that send crops (or, with nothing detected before, the whole picture) to a model.
CROP_STAGES: Final = ("classify", "embed", "segment", "pose")


@dataclass(frozen=True, slots=True)
class Detect:
    """Find objects."""

    model: str
    #: Only these labels; empty = all.
    labels: tuple[str, ...] = ()
    #: Overrides the manifest's; None = the manifest's.
    threshold: float | None = None
    #: Columns and rows of overlapping parts that are looked at one by one, for small objects.
    tiles: tuple[int, int] = (1, 1)
    #: Part of a tile's side that it shares with its neighbour.
    overlap: float = 0.2


@dataclass(frozen=True, slots=True)
class Crop:
    """Ask a second model about each object, or about the whole frame where nothing was detected before."""

    #: classify, embed, segment or pose
    kind: str
    model: str
    #: Labels of the objects that are cropped; empty = all.
    on: tuple[str, ...] = ()
    #: Classes below this score are not reported.
    threshold: float = 0.3
    #: Widen the crop by this part of the object's size on each side.
    margin: float = 0.1
    #: A tracked object is asked about again after so many seconds; 0 = in every frame.
    every_s: float = 1.0
    #: Objects per frame, the largest first.
    limit: int = 8


def detect(table: Table) -> Detect:
    """A stage `detect = "MODEL"` from its table. WrongValue."""
    tiles = table.take("tiles", [1, 1])
    if not isinstance(tiles, list | tuple) or len(tiles) != 2 or not all(is_integer(t) and 1 <= t <= 8 for t in tiles):
        table.wrong("tiles", "must be [columns, rows], each 1 to 8")
    return Detect(
        model=table.text("detect"),
        labels=table.texts("labels"),
        threshold=table.number("threshold", None, 0.0, 1.0),
        tiles=(tiles[0], tiles[1]),
        overlap=table.number("overlap", 0.2, 0.0, 0.5),
    )


def crop(kind: str) -> Callable[[Table], Crop]:
    """What reads a stage `<kind> = "MODEL"` from its table, with WrongValue for what is wrong."""

    def build(table: Table) -> Crop:
        return Crop(
            kind=kind,
            model=table.text(kind),
            on=table.texts("on"),
            threshold=table.number("threshold", 0.3, 0.0, 1.0),
            margin=table.number("margin", 0.1, 0.0, 2.0),
            every_s=table.number("every_s", 1.0, 0.0, 3600.0),
            limit=table.integer("limit", 8, 1, 100),
        )

    return build
