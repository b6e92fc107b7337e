"""What an ensemble takes and answers: a picture of any size, and objects with what other models say of them.

As tensors, so that every protocol carries it; `objects` reads them back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import InvalidModel
from ..models.rules import MAX_RESULTS, OutputRules
from ..scores import Box, Detected
from ..tensors import TensorSpec
from .placement import Placement
from .results import Detections

Array = npt.NDArray[Any]

#: Longest label, in bytes of UTF-8; longer ones are cut.
LABEL_BYTES: Final = 256
#: For all that embeddings, masks and keypoints of all objects may say.
ATTRIBUTE_BYTES: Final = 1 << 20

OUTPUTS: Final = (
    # xmin, ymin, xmax, ymax as parts of the picture, best object first
    TensorSpec("boxes", "FP32", (-1, 4), room=16 * MAX_RESULTS),
    TensorSpec("scores", "FP32", (-1,), room=4 * MAX_RESULTS),
    # the detector's class numbers, and their names
    TensorSpec("classes", "INT32", (-1,), room=4 * MAX_RESULTS),
    TensorSpec("labels", "BYTES", (-1,), room=(4 + LABEL_BYTES) * MAX_RESULTS),
    # the best class of the last classify stage that was sure of one; "" and 0 where none was
    TensorSpec("sub_labels", "BYTES", (-1,), room=(4 + LABEL_BYTES) * MAX_RESULTS),
    TensorSpec("sub_scores", "FP32", (-1,), room=4 * MAX_RESULTS),
    # JSON by model: what each stage after the first says
    TensorSpec("attributes", "BYTES", (-1,), room=ATTRIBUTE_BYTES),
)


def input_of(size: int) -> TensorSpec:
    """Pixels of mode RGB; no more of them than a square picture of side `size` has."""
    return TensorSpec("picture", "UINT8", (1, -1, -1, 3), room=size * size * 3)


def tensors(objects: Sequence[Detected]) -> list[Array]:
    """OUTPUTS for these objects."""
    return [
        np.array([o.box for o in objects], np.float32).reshape(-1, 4),
        np.array([o.score for o in objects], np.float32),
        np.array([o.index for o in objects], np.int32),
        _texts([o.label for o in objects]),
        _texts([o.sub_label[0] if o.sub_label is not None else "" for o in objects]),
        np.array([o.sub_label[1] if o.sub_label is not None else 0.0 for o in objects], np.float32),
        _items([json.dumps(dict(o.attributes), separators=(",", ":")).encode() for o in objects]),
    ]


def _texts(texts: list[str]) -> Array:
    return _items([t.encode()[:LABEL_BYTES].decode(errors="ignore").encode() for t in texts])


def _items(items: list[bytes]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def detections(rules: OutputRules, outputs: Sequence[Array], placement: Placement) -> Detections:
    """The other way round; objects below the threshold of `rules`, and those after `max_results`, are left out."""
    if len(outputs) != len(OUTPUTS):
        raise InvalidModel(f"an ensemble has {len(OUTPUTS)} outputs, not {len(outputs)}")
    boxes, scores, classes, labels, sub_labels, sub_scores, attributes = outputs
    objects = []
    for row in range(min(len(scores), rules.max_results)):
        score = round(float(scores[row]), 6)
        if score < rules.threshold:
            break
        left, top, right, bottom = (round(float(v), 6) for v in boxes[row])
        box = Box(placement.x(left), placement.y(top), placement.x(right), placement.y(bottom))
        width, height = placement.width, placement.height
        sub_label = bytes(sub_labels[row]).decode()
        objects.append(
            Detected(
                int(classes[row]),
                bytes(labels[row]).decode(),
                score,
                box,
                Box(
                    round(box.xmin * width), round(box.ymin * height), round(box.xmax * width), round(box.ymax * height)
                ),
                sub_label=(sub_label, round(float(sub_scores[row]), 6)) if sub_label else None,
                attributes=json.loads(attributes[row]),
            )
        )
    return Detections(tuple(objects), placement.width, placement.height)
