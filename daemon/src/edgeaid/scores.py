"""Classes, objects and areas of a picture, the same in the daemon and in its clients, with an object's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class and its score."""

    #: Class number, counted from 0.
    index: int
    #: Its name; the number as text when the model has no labels.
    label: str
    #: 0 to 1 where the model says probabilities.
    score: float


@dataclass(frozen=True, slots=True)
class Area:
    """A class of a segmentation."""

    index: int
    label: str
    #: Its part of the picture, 0 to 1.
    fraction: float


class Box(NamedTuple, Generic[N]):
    """A rectangle, origin at the upper left corner of the original picture."""

    xmin: N
    ymin: N
    xmax: N
    ymax: N


@dataclass(frozen=True, slots=True)
class Detected:
    """An object in a picture."""

    index: int
    label: str
    score: float
    #: Corners as parts of the picture's width and height, 0 to 1.
    box: Box[float]
    #: Corners in pixels of the original picture.
    pixels: Box[int]
    #: x, y (parts of the picture's sides) and score of each keypoint, in the model's order; poses have them.
    keypoints: tuple[tuple[float, float, float], ...] = ()
    #: Corners of a rotated box, as parts of the picture's sides.
    polygon: tuple[tuple[float, float], ...] = ()
    #: What the second model of an ensemble calls it, and its score; None where there is none or it was not sure.
    sub_label: tuple[str, float] | None = None
    #: JSON values by model: what each model of an ensemble after the detector says of it.
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def more(self) -> dict[str, Any]:
        """JSON values of what only some models say."""
        table: dict[str, Any] = {}
        if self.keypoints:
            table["keypoints"] = [list(point) for point in self.keypoints]
        if self.polygon:
            table["polygon"] = [list(point) for point in self.polygon]
        if self.sub_label is not None:
            table["sub_label"] = list(self.sub_label)
        if self.attributes:
            table["attributes"] = dict(self.attributes)
        return table

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "index": self.index,
            "label": self.label,
            "score": self.score,
            "box": self.box._asdict(),
            "pixels": self.pixels._asdict(),
            **self.more(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Detected:
        """From `to_json`'s."""
        return Detected(
            value["index"],
            value["label"],
            value["score"],
            Box(**value["box"]),
            Box(**value["pixels"]),
            tuple((x, y, score) for x, y, score in value.get("keypoints", ())),
            tuple((x, y) for x, y in value.get("polygon", ())),
            (value["sub_label"][0], value["sub_label"][1]) if "sub_label" in value else None,
            value.get("attributes", {}),
        )
