"""What an answer is: classes, objects or areas of a picture, and their JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..scores import Area, ClassScore


@dataclass(frozen=True, slots=True)
class Detected:
    """One object in a picture."""

    index: int
    label: str
    score: float
    #: xmin, ymin, xmax, ymax as parts of the picture's width and height, 0 to 1.
    box: tuple[float, float, float, float]
    #: The same in pixels of the picture.
    pixels: tuple[int, int, int, int]
    #: x, y (parts of the picture's sides) and score of each keypoint, in the model's order.
    keypoints: tuple[tuple[float, float, float], ...] = ()
    #: Corners of a rotated box, as parts of the picture's sides.
    polygon: tuple[tuple[float, float], ...] = ()
    #: [rows,columns] bool: which part of the box is the object; None = the model does not say.
    mask: npt.NDArray[np.bool_] | None = None
    #: What a second model calls it, and its score.
    sub_label: tuple[str, float] | None = None
    #: JSON values by model: what others say of it.
    attributes: Mapping[str, Any] | None = None

    def more(self) -> dict[str, Any]:
        """JSON values of what only some models say."""
        table: dict[str, Any] = {}
        if self.keypoints:
            table["keypoints"] = [list(point) for point in self.keypoints]
        if self.polygon:
            table["polygon"] = [list(point) for point in self.polygon]
        if self.mask is not None:
            rows, columns = self.mask.shape
            table["mask"] = {"rows": int(rows), "columns": int(columns), "png": _png(self.mask)}
        if self.sub_label is not None:
            table["sub_label"] = list(self.sub_label)
        if self.attributes:
            table["attributes"] = dict(self.attributes)
        return table


@dataclass(frozen=True, slots=True)
class Classification:
    """Classes, best first."""

    classes: tuple[ClassScore, ...]
    width: int
    height: int

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "width": self.width,
            "height": self.height,
            "classes": [{"index": c.index, "label": c.label, "score": c.score} for c in self.classes],
        }


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects, best first."""

    objects: tuple[Detected, ...]
    width: int
    height: int

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        corners = ("xmin", "ymin", "xmax", "ymax")
        return {
            "width": self.width,
            "height": self.height,
            "objects": [
                {
                    "index": o.index,
                    "label": o.label,
                    "score": o.score,
                    "box": dict(zip(corners, o.box, strict=True)),
                    "pixels": dict(zip(corners, o.pixels, strict=True)),
                    **o.more(),
                }
                for o in self.objects
            ],
        }


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A class for each point of a picture."""

    #: Classes that occur, largest area first.
    classes: tuple[Area, ...]
    #: [rows,columns] uint8 class numbers, at the model's resolution, letterbox borders cut away.
    mask: npt.NDArray[np.uint8]
    #: xmin, ymin, xmax, ymax of the mask as parts of the picture; all of it unless the picture was cropped.
    box: tuple[float, float, float, float]
    width: int
    height: int

    def to_json(self, *, with_mask: bool = True) -> dict[str, Any]:
        """JSON values only; the mask as an 8-bit greyscale PNG in base64, pixel value = class number."""
        result: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "classes": [{"index": c.index, "label": c.label, "fraction": c.fraction} for c in self.classes],
        }
        if with_mask:
            result["mask"] = {
                "rows": int(self.mask.shape[0]),
                "columns": int(self.mask.shape[1]),
                "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), self.box, strict=True)),
                "png": _png(self.mask),
            }
        return result


Result = Classification | Detections | Segmentation


def _png(mask: npt.NDArray[Any]) -> str:
    """A mask as a PNG file in base64."""
    from PIL import Image  # not for the workers, whose answers have no masks

    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
