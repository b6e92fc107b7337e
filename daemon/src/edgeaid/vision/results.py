"""What an answer is: classes, objects or areas of a picture, and their JSON."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..scores import Area, Box, ClassScore, Detected


@dataclass(frozen=True, slots=True)
class Masked(Detected):
    """An object whose outline a model may say."""

    #: [rows,columns] bool: which part of the box is the object; None = the model does not say.
    mask: npt.NDArray[np.bool_] | None = None

    def more(self) -> dict[str, Any]:
        """JSON values of what only some models say."""
        table = Detected.more(self)
        if self.mask is not None:
            rows, columns = self.mask.shape
            table["mask"] = {"rows": int(rows), "columns": int(columns), "png": _png(self.mask)}
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
        return {"width": self.width, "height": self.height, "objects": [o.to_json() for o in self.objects]}


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A class for each point of a picture."""

    #: Classes that occur, largest area first.
    classes: tuple[Area, ...]
    #: [rows,columns] uint8 class numbers, at the model's resolution, letterbox borders cut away.
    mask: npt.NDArray[np.uint8]
    #: xmin, ymin, xmax, ymax of the mask as parts of the picture; all of it unless the picture was cropped.
    box: Box[float]
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
                "box": self.box._asdict(),
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
