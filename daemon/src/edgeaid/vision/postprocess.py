"""From output tensors to labelled results: classification, SSD, YOLO v2, segmentation. Numpy only; media worker.

Every box is in units of the original picture, 0 to 1, and in its pixels; the placement from pre-processing carries it
there. A model's answer is input too: values that are not finite are dropped, never passed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import InvalidModel
from ..models.rules import OBJECT_DECODERS, OutputRules
from ..scores import Area, Box, ClassScore, Detected
from ..tensors import TensorSpec
from . import ensemble, objects
from .decoders.suppression import suppress
from .placement import Placement
from .results import Classification, Detections, Result, Segmentation
from .scores import Array, Floats, dequantized, sigmoid, softmax, top

#: exp() of more than this is not an object in any picture, and of 710 it is infinite.
_MAX_EXPONENT: Final = 20.0


def results(
    rules: OutputRules,
    specs: Sequence[TensorSpec],
    outputs: Sequence[Array],
    labels: Sequence[str],
    placement: Placement,
    *,
    threshold: float | None = None,
    max_results: int | None = None,
    size: tuple[int, int] = (0, 0),
) -> Result:
    """Decode a model's outputs, in the model's order, as `rules` say; threshold and max_results override the rules.

    `size` = width and height of the input tensor, which some decoders of objects need.

    Raises InvalidModel when the tensors do not have the shape that the decoder needs.
    """
    if threshold is not None:
        rules = replace(rules, threshold=threshold)
    if max_results is not None:
        rules = replace(rules, max_results=max_results)
    if rules.decoder == "none" or not outputs:
        raise InvalidModel("the manifest names no decoder for this model's output; set [output] decoder")
    if rules.decoder == "ssd":
        return _ssd(rules, specs, outputs, labels, placement)
    if rules.decoder == "yolov2":
        return _yolov2(rules, dequantized(specs[0], outputs[0]), labels, placement)
    if rules.decoder == "segmentation":
        return _segmentation(rules, specs[0], outputs[0], labels, placement)
    if rules.decoder == "ensemble":
        return ensemble.detections(rules, outputs, placement)
    if rules.decoder in OBJECT_DECODERS:
        return objects.detections(rules, specs, outputs, labels, placement, size)
    return _classification(rules, specs[0], outputs[0], labels, placement)


def _label(labels: Sequence[str], index: int) -> str:
    return (labels[index] if 0 <= index < len(labels) else "") or str(index)


def _classification(
    rules: OutputRules, spec: TensorSpec, values: Array, labels: Sequence[str], placement: Placement
) -> Classification:
    best = top(spec, values, rules.activation, rules.max_results)
    classes = tuple(ClassScore(index, _label(labels, index), score) for index, score in best)
    return Classification(classes, placement.width, placement.height)


def _detections(
    detected: Sequence[tuple[int, float, Sequence[float]]], labels: Sequence[str], placement: Placement
) -> Detections:
    """`detected`: class, score and box (xmin, ymin, xmax, ymax in units of the tensor), best first."""
    objects = []
    for index, score, (xmin, ymin, xmax, ymax) in detected:
        box = (placement.x(xmin), placement.y(ymin), placement.x(xmax), placement.y(ymax))
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        pixels = Box(
            round(box[0] * placement.width),
            round(box[1] * placement.height),
            round(box[2] * placement.width),
            round(box[3] * placement.height),
        )
        rounded = Box(round(box[0], 6), round(box[1], 6), round(box[2], 6), round(box[3], 6))
        objects.append(Detected(index, _label(labels, index), round(score, 6), rounded, pixels))
    return Detections(tuple(objects), placement.width, placement.height)


def _ssd(
    rules: OutputRules,
    specs: Sequence[TensorSpec],
    outputs: Sequence[Array],
    labels: Sequence[str],
    placement: Placement,
) -> Detections:
    if len(outputs) != len(rules.order):
        raise InvalidModel(f"decoder ssd needs {len(rules.order)} output tensors, the model has {len(outputs)}")
    named: Mapping[str, Floats] = {
        name: dequantized(spec, values) for name, spec, values in zip(rules.order, specs, outputs, strict=True)
    }
    if named["boxes"].size % 4 or not named["count"].size:
        raise InvalidModel(f"decoder ssd: shapes {[list(s.shape) for s in specs]} are not those of {rules.order}")
    boxes, scores = named["boxes"].reshape(-1, 4), named["scores"].reshape(-1)
    classes = named["classes"].reshape(-1)
    count = float(named["count"].reshape(-1)[0])
    _check_scores(scores, specs[rules.order.index("scores")].name, rules.order)
    size = min(len(boxes), len(scores), len(classes), int(count) if np.isfinite(count) and count > 0 else 0)
    detected: list[tuple[int, float, Sequence[float]]] = []
    for i in np.argsort(-scores[:size], kind="stable"):
        row = (*boxes[i], scores[i], classes[i])
        if np.isfinite(row).all() and scores[i] >= rules.threshold and len(detected) < rules.max_results:
            ymin, xmin, ymax, xmax = (float(value) for value in boxes[i])
            detected.append((round(float(classes[i])) + rules.class_offset, float(scores[i]), (xmin, ymin, xmax, ymax)))
    return _detections(detected, labels, placement)


def _check_scores(scores: Floats, name: str, order: Sequence[str]) -> None:
    """Scores are from 0 to 1; other values mean something else, and the wrong answer would not be noticed."""
    finite = scores[np.isfinite(scores)]
    if finite.size and (finite.max() > 1.01 or finite.min() < -0.01):
        raise InvalidModel(
            f"output {name!r}, taken for scores, holds {finite.max():g}; the outputs are not {list(order)}: set "
            "`order` under [output] in model.toml to what they are"
        )


def _cells(rules: OutputRules, values: Floats, labels: Sequence[str]) -> Floats:
    """[H,W,A,5+C] of a tensor that may have its channels last or first; the labels tell C where both would do."""
    anchors = len(rules.anchors)
    grid = values[0] if values.ndim == 4 else values
    if grid.ndim != 3:
        raise InvalidModel(f"decoder yolov2 needs one tensor [1, rows, columns, channels], not {list(values.shape)}")
    expected = anchors * (5 + len(labels)) if labels else None
    for candidate in (grid, grid.transpose(1, 2, 0)):
        channels = candidate.shape[2]
        if channels == expected or (expected is None and channels % anchors == 0 and channels // anchors > 5):
            return candidate.reshape(*candidate.shape[:2], anchors, channels // anchors)
    raise InvalidModel(
        f"decoder yolov2: shape {list(values.shape)} does not hold {anchors} anchors of 5 + {len(labels)} values"
    )


def _yolov2(rules: OutputRules, values: Floats, labels: Sequence[str], placement: Placement) -> Detections:
    grid = _cells(rules, values, labels)
    rows, columns, anchors, _ = grid.shape
    cells = grid.reshape(rows * columns * anchors, -1)
    places = np.arange(len(cells))
    if not rules.cells_activated:
        # No class is surer than the cell itself, so that most cells need not be looked at any further.
        objectness = sigmoid(cells[:, 4])
        places = np.flatnonzero(objectness >= rules.threshold)
        cells = cells[places]
        centre, objectness, classes = sigmoid(cells[:, 0:2]), objectness[places], softmax(cells[:, 5:])
    else:
        centre, objectness, classes = cells[:, 0:2], cells[:, 4], cells[:, 5:]
    best = classes.argmax(axis=-1)
    scores = objectness * np.take_along_axis(classes, best[:, None], axis=-1)[:, 0]
    extent = np.array([columns, rows], dtype=np.float64)
    corner = np.stack([places // anchors % columns, places // anchors // columns], axis=-1)
    middle = (centre + corner) / extent
    half = np.array(rules.anchors)[places % anchors] * np.exp(np.minimum(cells[:, 2:4], _MAX_EXPONENT)) / extent / 2
    boxes = np.concatenate([middle - half, middle + half], axis=-1)
    usable = (scores >= rules.threshold) & np.isfinite(boxes).all(axis=-1)
    boxes, scores, best = boxes[usable], scores[usable], best[usable]
    kept = suppress(boxes.astype(np.float32), scores, best, rules.iou, rules.max_results)
    detected = [(int(best[i]), float(scores[i]), boxes[i].tolist()) for i in kept]
    return _detections(detected, labels, placement)


def _class_numbers(rules: OutputRules, spec: TensorSpec, values: Array) -> npt.NDArray[np.uint8]:
    """[H,W] uint8 of [1,H,W] class numbers, [1,H,W,C] scores (C > 1), or [1,H,W,1] of either."""
    grid = values[0] if values.ndim > 2 and values.shape[0] == 1 else values
    if grid.ndim == 3 and grid.shape[2] > 1:
        return np.asarray(dequantized(spec, values).reshape(grid.shape).argmax(axis=-1).clip(0, 255), dtype=np.uint8)
    if grid.ndim == 3 and grid.shape[2] == 1:
        grid = grid[:, :, 0]
        if spec.quantization is not None or grid.dtype.kind == "f":
            score = dequantized(spec, values).reshape(grid.shape)
            score = sigmoid(score) if rules.activation == "sigmoid" else score
            return np.asarray(score >= rules.threshold, dtype=np.uint8)
    if grid.ndim != 2:
        raise InvalidModel(
            f"decoder segmentation needs [1, rows, columns] or [1, rows, columns, classes], not {spec.shape}"
        )
    return np.asarray(np.nan_to_num(grid, nan=0.0).clip(0, 255), dtype=np.uint8)


def _segmentation(
    rules: OutputRules, spec: TensorSpec, values: Array, labels: Sequence[str], placement: Placement
) -> Segmentation:
    mask = _class_numbers(rules, spec, values)
    rows, columns = mask.shape
    wide, high = placement.right - placement.left, placement.bottom - placement.top
    # Tensor coordinates of the picture's own edges: inside the mask when it was letterboxed.
    left, right = max(0.0, -placement.left / wide), min(1.0, (1 - placement.left) / wide)
    top, bottom = max(0.0, -placement.top / high), min(1.0, (1 - placement.top) / high)
    first_row, first_column = min(rows - 1, round(top * rows)), min(columns - 1, round(left * columns))
    mask = np.ascontiguousarray(
        mask[
            first_row : max(first_row + 1, round(bottom * rows)),
            first_column : max(first_column + 1, round(right * columns)),
        ]
    )
    counts = np.bincount(mask.reshape(-1), minlength=1)
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    classes = tuple(Area(i, _label(labels, i), round(float(counts[i] / mask.size), 6)) for i in order)
    box = Box(placement.x(0.0), placement.y(0.0), placement.x(1.0), placement.y(1.0))
    return Segmentation(classes[: rules.max_results], mask, box, placement.width, placement.height)
