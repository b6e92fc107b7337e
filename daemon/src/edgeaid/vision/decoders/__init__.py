"""From the output tensors of detection and pose models to candidates: one function per family, one NMS for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel
from ...models.rules import OutputRules
from ...tensors import TensorSpec
from . import anchored, poses, yolo
from .candidates import Array, Candidates
from .suppression import suppress, suppress_rotated

#: rules, tensors as their specs describe them, stored values, pixels of the model's input (width, height)
Decoder = Callable[[OutputRules, Sequence[TensorSpec], Sequence[Array], tuple[int, int]], Candidates]

DECODERS: Final[dict[str, Decoder]] = {
    "yolov5": yolo.yolov5,
    "yolov8": yolo.yolov8,
    "yolov8-seg": yolo.yolov8_seg,
    "yolov8-pose": yolo.yolov8_pose,
    "yolov8-obb": yolo.yolov8_obb,
    "yolo-end2end": yolo.end2end,
    "yolo-nas": yolo.nas,
    "yolox": yolo.yolox,
    "nanodet": yolo.nanodet,
    "efficientdet": anchored.efficientdet,
    "blazeface": anchored.blazeface,
    "faces": anchored.faces,
    "movenet": poses.movenet,
    "posenet": poses.posenet,
}


def decode(
    rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: tuple[int, int]
) -> Candidates:
    """What a model found, best first, at most `rules.max_results`; boxes in units of the input tensor.

    `size` = width and height of the input tensor. InvalidModel when the tensors do not have the decoder's shapes.
    """
    try:
        decoded: Any = DECODERS[rules.decoder](rules, specs, outputs, size)
    except (ValueError, IndexError, StopIteration) as error:
        shapes = ", ".join(str(list(s.shape)) for s in specs)
        raise InvalidModel(
            f"decoder {rules.decoder} does not fit outputs of shapes {shapes}: {str(error) or 'one is missing'}"
        ) from error
    candidates: Candidates = decoded
    finite = np.isfinite(candidates.boxes).all(axis=1) & np.isfinite(candidates.scores)
    candidates = candidates.only(finite)
    if candidates.angles is not None:
        kept = suppress_rotated(candidates, rules.iou, rules.max_results)
    elif candidates.suppressed:
        kept = np.argsort(-candidates.scores, kind="stable")[: rules.max_results]
    else:
        kept = suppress(candidates.boxes, candidates.scores, candidates.classes, rules.iou, rules.max_results)
    return candidates.only(kept)


__all__ = ["DECODERS", "Candidates", "decode"]
