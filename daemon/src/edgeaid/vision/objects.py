"""From a decoder's candidates to labelled objects in units of the picture, with keypoints, polygons and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..models.rules import OutputRules
from ..scores import Box
from ..tensors import TensorSpec
from .decoders import Candidates, decode
from .decoders.yolo import rotated_corners
from .placement import Placement
from .results import Detections, Masked

Array = npt.NDArray[Any]

#: A mask's point belongs to the object at or above this, after the sigmoid.
MASK_THRESHOLD: Final = 0.5


def detections(
    rules: OutputRules,
    specs: Sequence[TensorSpec],
    outputs: Sequence[Array],
    labels: Sequence[str],
    placement: Placement,
    size: tuple[int, int],
) -> Detections:
    """Objects of a model with one of the decoders of `decoders`; `size` = width and height of its input."""
    candidates = decode(rules, specs, outputs, size)
    offset = np.array([placement.left, placement.top])
    scale = np.array([placement.right - placement.left, placement.bottom - placement.top])
    boxes = np.clip(candidates.boxes.reshape(-1, 2, 2) * scale + offset, 0.0, 1.0).reshape(-1, 4)
    pixels = np.rint(boxes * np.array([placement.width, placement.height] * 2)).astype(int)
    objects = []
    for row in range(len(boxes)):
        box = Box(*(round(float(v), 6) for v in boxes[row]))
        if box.xmax <= box.xmin or box.ymax <= box.ymin:
            continue
        index = int(candidates.classes[row]) + rules.class_offset
        objects.append(
            Masked(
                index,
                labels[index] if 0 <= index < len(labels) else str(index),
                round(float(candidates.scores[row]), 6),
                box,
                Box(*(int(v) for v in pixels[row])),
                keypoints=_keypoints(candidates, row, offset, scale),
                polygon=_polygon(candidates, row, offset, scale, size),
                mask=_mask(candidates, row),
            )
        )
    return Detections(tuple(objects), placement.width, placement.height)


def _keypoints(candidates: Candidates, row: int, offset: Array, scale: Array) -> tuple[tuple[float, float, float], ...]:
    if candidates.keypoints is None:
        return ()
    points = candidates.keypoints[row].astype(np.float64)
    places = np.nan_to_num(np.clip(points[:, :2] * scale + offset, 0.0, 1.0))
    scores = np.nan_to_num(points[:, 2])
    return tuple(
        (round(float(x), 6), round(float(y), 6), round(float(s), 6)) for (x, y), s in zip(places, scores, strict=True)
    )


def _polygon(
    candidates: Candidates, row: int, offset: Array, scale: Array, size: tuple[int, int]
) -> tuple[tuple[float, float], ...]:
    if candidates.angles is None:
        return ()
    points = rotated_corners(candidates.angles[row : row + 1])[0].astype(np.float64)
    points[:, 1] *= size[0] / size[1]
    places = np.clip(points * scale + offset, 0.0, 1.0)
    return tuple((round(float(x), 6), round(float(y), 6)) for x, y in places)


def _mask(candidates: Candidates, row: int) -> npt.NDArray[np.bool_] | None:
    """The object's part of its box, at the prototypes' resolution."""
    if candidates.coefficients is None or candidates.prototypes is None:
        return None
    _, rows, columns = candidates.prototypes.shape
    box = np.clip(candidates.boxes[row], 0.0, 1.0)
    left, right = int(box[0] * columns), max(int(box[0] * columns) + 1, round(float(box[2]) * columns))
    top, bottom = int(box[1] * rows), max(int(box[1] * rows) + 1, round(float(box[3]) * rows))
    part = candidates.prototypes[:, top:bottom, left:right]
    logits = np.tensordot(candidates.coefficients[row], part, axes=1)
    return np.asarray(logits >= np.log(MASK_THRESHOLD / (1 - MASK_THRESHOLD)))
