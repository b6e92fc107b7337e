"""What a pushed model's outputs are, from their shapes and from what its exporter wrote into the file. Pure.

Shapes alone do not always say it: a wrong guess would give wrong answers, so what fits nothing exactly is left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Shape = tuple[int, ...]

#: Ultralytics' word for a task -> (ours, decoder).
_ULTRALYTICS: Final = {
    "detect": ("detect", "yolov8"),
    "segment": ("detect", "yolov8-seg"),
    "pose": ("pose", "yolov8-pose"),
    "obb": ("detect", "yolov8-obb"),
    "classify": ("classify", "classification"),
}


@dataclass(frozen=True, slots=True)
class Guess:
    """Task, decoder and what else the decoder needs."""

    task: str
    decoder: str
    keypoints: int = 0


def cells(width: int, height: int, strides: Sequence[int]) -> int:
    """Cells of a pyramid over an input."""
    return sum(-(-width // s) * -(-height // s) for s in strides)


def guess(inputs: Sequence[Shape], outputs: Sequence[Shape], exporter: Mapping[str, Any] | None = None) -> Guess | None:
    """What a model with these tensors is; None = not known. `exporter` = the metadata that Ultralytics writes."""
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] not in (1, 3):
        return None
    _, height, width, _ = inputs[0]
    known = _known_exporter(outputs, exporter or {})
    if known is not None:
        return known
    shapes = [tuple(d for d in s[1:]) if len(s) > 2 and s[0] == 1 else s for s in outputs]
    if len(shapes) == 1:
        return _one(shapes[0], width, height)
    if len(shapes) == 2:
        return _two(shapes, width, height)
    if len(shapes) == 4 and (10, 17, 2) in shapes:
        return Guess("pose", "posenet")
    return None


def _known_exporter(outputs: Sequence[Shape], exporter: Mapping[str, Any]) -> Guess | None:
    known = _ULTRALYTICS.get(str(exporter.get("task")))
    if known is None or not outputs:
        return None
    task, decoder = known
    points = exporter.get("kpt_shape")
    count = points[0] if isinstance(points, list | tuple) and points and isinstance(points[0], int) else 0
    if len(outputs[0]) == 3 and outputs[0][2] in (6, 6 + 3 * count) and outputs[0][1] <= 1000:
        return Guess(task, "yolo-end2end", count)
    return Guess(task, decoder, count)


def _one(shape: Shape, width: int, height: int) -> Guess | None:
    if shape in ((1, 17, 3), (6, 56)):
        return Guess("pose", "movenet")
    if len(shape) != 2:
        return None
    small, large = min(shape), max(shape)
    pyramid = cells(width, height, (8, 16, 32))
    if shape[1] == 6 and shape[0] <= 1000 and shape[0] % 100 == 0:
        return Guess("detect", "yolo-end2end")
    if large == pyramid and shape[0] < shape[1]:
        return Guess("pose", "yolov8-pose", 17) if small == 56 else Guess("detect", "yolov8") if small > 4 else None
    if shape == (3 * pyramid, small) and small > 5:
        return Guess("detect", "yolov5")
    if shape == (pyramid, small) and small > 5:
        return Guess("detect", "yolox")
    if shape[0] == cells(width, height, (8, 16, 32, 64)) and small > 32:
        return Guess("detect", "nanodet")
    return None


def _two(shapes: Sequence[Shape], width: int, height: int) -> Guess | None:
    ordered = sorted(shapes, key=len)
    if len(ordered[0]) == 2 and len(ordered[1]) == 3:
        # A matrix and a small picture: boxes with coefficients, and the masks' prototypes.
        boxes, masks = ordered
        channels = masks[2] if masks[0] * width == masks[1] * height else masks[0]
        pyramid = cells(width, height, (8, 16, 32))
        return Guess("detect", "yolov8-seg") if boxes[1] == pyramid and boxes[0] > 4 + channels else None
    if any(len(s) != 2 for s in shapes) or shapes[0][0] != shapes[1][0]:
        return None
    count = shapes[0][0]
    columns = sorted(s[1] for s in shapes)
    if columns[0] == 1 and columns[1] > 4 and count == 2 * _blaze_cells(width, height):
        return Guess("detect", "blazeface")
    if 4 not in columns:
        return None
    if count == 9 * cells(width, height, (8, 16, 32, 64, 128)):
        return Guess("detect", "efficientdet")
    return Guess("detect", "yolo-nas") if count == cells(width, height, (8, 16, 32)) else None


def _blaze_cells(width: int, height: int) -> int:
    return cells(width, height, (8,)) + 3 * cells(width, height, (16,))
