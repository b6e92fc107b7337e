"""The YOLO families, by their exporters' output layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ...models.rules import OutputRules
from ...tensors import TensorSpec
from .candidates import Array, Candidates, Floats, best, corners, real, rows, stored, units

Size = tuple[int, int]
#: Cells per side of each level of the pyramid, as divisors of the input's size.
STRIDES: Final = (8, 16, 32)
NANODET_STRIDES: Final = (8, 16, 32, 64)


def yolov5(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,5+C] centre x, centre y, width, height, objectness, classes; score = objectness * class."""
    spec, table = specs[0], rows(outputs[0])
    sure = np.flatnonzero(table[:, 4] >= stored(spec, rules.threshold) - 1e-6)
    picked = real(spec, table[sure])
    scores = picked[:, 5:] * picked[:, 4:5]
    classes = scores.argmax(axis=1) if len(sure) else np.zeros(0, dtype=np.int64)
    highest = scores[np.arange(len(sure)), classes]
    chosen = highest >= rules.threshold
    places = units(picked[chosen, :4], _largest(spec, table[:, :2]), size)
    return Candidates(corners(places), highest[chosen], classes[chosen])


def yolov8(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,4+C,N] centre x, centre y, width, height, classes: v8, v9, 11 and 12 alike."""
    return _anchor_free(rules, specs[0], rows(outputs[0]), size, extra=0)[0]


def yolov8_seg(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,4+C+M,N], and prototypes [1,h,w,M] or [1,M,h,w]."""
    boxes_at = next(i for i, s in enumerate(specs) if len(s.shape) == 3)
    masks_at = next(i for i, s in enumerate(specs) if len(s.shape) == 4)
    prototypes = real(specs[masks_at], outputs[masks_at][0])
    height, width = prototypes.shape[:2]
    if height * size[0] == width * size[1]:  # the picture's proportions come first: channels are last
        prototypes = prototypes.transpose(2, 0, 1)
    candidates, more = _anchor_free(rules, specs[boxes_at], rows(outputs[boxes_at]), size, extra=len(prototypes))
    return Candidates(candidates.boxes, candidates.scores, candidates.classes, coefficients=more, prototypes=prototypes)


def yolov8_pose(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,4+1+3K,N]: x, y and score of K keypoints."""
    table = rows(outputs[0])
    count = rules.keypoints or (table.shape[1] - 5) // 3
    spec = specs[0]
    candidates, more = _anchor_free(rules, spec, table, size, extra=3 * count)
    points = more.reshape(-1, count, 3).copy()
    flat = points[..., :2].reshape(len(points), -1)
    points[..., :2] = units(flat, _largest(spec, table[:, :2]), size).reshape(len(points), count, 2)
    return Candidates(candidates.boxes, candidates.scores, candidates.classes, keypoints=points)


def yolov8_obb(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,4+C+1,N]: the last one is the angle in radians."""
    spec, table = specs[0], rows(outputs[0])
    chosen, classes, scores = best(spec, table[:, 4:-1], rules.threshold)
    places = units(real(spec, table[chosen, :4]), _largest(spec, table[:, :2]), size)
    angles = real(spec, table[chosen, -1:])
    # Angles are of pixels: both axes have to be in one unit, which is the input's width.
    square = places * np.array([1.0, size[1] / size[0], 1.0, size[1] / size[0]], dtype=np.float32)
    rotated = np.concatenate([square, angles], axis=1)
    points = rotated_corners(rotated)
    points[..., 1] *= size[0] / size[1]
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return Candidates(boxes.astype(np.float32), scores, classes, angles=rotated)


def rotated_corners(rotated: Floats) -> Floats:
    """[n,4,2] corners of [n,5] centre x, centre y, width, height, angle."""
    cos, sin = np.cos(rotated[:, 4:]), np.sin(rotated[:, 4:])
    along = np.concatenate([cos, sin], axis=1) * rotated[:, 2:3] / 2
    across = np.concatenate([-sin, cos], axis=1) * rotated[:, 3:4] / 2
    centre = rotated[:, :2]
    return np.stack(
        [centre + along + across, centre + along - across, centre - along - across, centre - along + across], axis=1
    )


def end2end(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,6+...] xmin, ymin, xmax, ymax, score, class, and 3 K keypoint values where the rules name keypoints."""
    spec = specs[0]
    table = outputs[0].reshape(outputs[0].shape[-2:])
    chosen = np.flatnonzero(table[:, 4] >= stored(spec, rules.threshold) - 1e-6)
    picked = real(spec, table[chosen])
    largest = _largest(spec, table[:, :4])
    boxes = units(picked[:, :4], largest, size)
    points = None
    if rules.keypoints:
        points = picked[:, 6 : 6 + 3 * rules.keypoints].reshape(-1, rules.keypoints, 3).copy()
        flat = points[..., :2].reshape(len(points), -1)
        points[..., :2] = units(flat, largest, size).reshape(len(points), rules.keypoints, 2)
    classes = np.rint(picked[:, 5]).astype(np.int64)
    return Candidates(boxes, picked[:, 4], classes, keypoints=points, suppressed=True)


def nas(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,4] xmin, ymin, xmax, ymax in pixels, and [1,N,C] scores."""
    boxes_at = next(i for i, s in enumerate(specs) if s.shape[-1] == 4)
    scores_at = 1 - boxes_at
    table = rows(outputs[boxes_at], 4)
    scores = outputs[scores_at].reshape(len(table), -1)
    chosen, classes, sure = best(specs[scores_at], scores, rules.threshold)
    boxes = real(specs[boxes_at], table[chosen])
    return Candidates(units(boxes, _largest(specs[boxes_at], table), size), sure, classes)


def yolox(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,5+C] with the grid and the stride left to the reader: centre relative to its cell, size as a logarithm."""
    spec, table = specs[0], rows(outputs[0])
    cells, strides = grid(size, rules.strides or STRIDES, len(table))
    sure = np.flatnonzero(table[:, 4] >= stored(spec, rules.threshold) - 1e-6)
    picked = real(spec, table[sure])
    scores = picked[:, 5:] * picked[:, 4:5]
    classes = scores.argmax(axis=1) if len(sure) else np.zeros(0, dtype=np.int64)
    highest = scores[np.arange(len(sure)), classes]
    chosen = highest >= rules.threshold
    which, picked = sure[chosen], picked[chosen]
    centre = (picked[:, :2] + cells[which]) * strides[which, None]
    extent = np.exp(np.minimum(picked[:, 2:4], 20.0)) * strides[which, None]
    places = np.concatenate([centre, extent], axis=1) / np.array([*size, *size], dtype=np.float32)
    return Candidates(corners(places.astype(np.float32)), highest[chosen], classes[chosen])


def nanodet(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,C+4B]: classes, then for each side of the box a distribution over 0 to B-1 strides (arXiv:2006.04388)."""
    spec, table = specs[0], rows(outputs[0])
    bins = rules.bins
    cells, strides = grid(size, rules.strides or NANODET_STRIDES, len(table))
    chosen, classes, scores = best(spec, table[:, : -4 * bins], rules.threshold)
    spread = real(spec, table[chosen, -4 * bins :]).reshape(-1, 4, bins)
    spread = np.exp(spread - spread.max(axis=2, keepdims=True)) if len(chosen) else spread
    distance = (spread / np.maximum(spread.sum(axis=2, keepdims=True), 1e-12)) @ np.arange(bins, dtype=np.float32)
    distance = distance * strides[chosen, None]
    centre = cells[chosen] * strides[chosen, None]
    pixels = np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], axis=1)
    boxes = np.clip(pixels / np.array([*size, *size], dtype=np.float32), 0.0, 1.0)
    return Candidates(boxes.astype(np.float32), scores, classes)


def grid(size: Size, strides: Sequence[int], count: int) -> tuple[Floats, Floats]:
    """([N,2] column and row, [N] stride) of each cell, level by level, row by row."""
    cells, sizes = [], []
    for stride in strides:
        columns, lines = -(-size[0] // stride), -(-size[1] // stride)
        x, y = np.meshgrid(np.arange(columns), np.arange(lines))
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        sizes.append(np.full(columns * lines, stride))
    all_cells = np.concatenate(cells).astype(np.float32)
    if len(all_cells) != count:
        raise ValueError(f"an input of {size[0]} x {size[1]} has {len(all_cells)} cells at strides {tuple(strides)}")
    return all_cells, np.concatenate(sizes).astype(np.float32)


def _anchor_free(
    rules: OutputRules, spec: TensorSpec, table: Array, size: Size, extra: int
) -> tuple[Candidates, Floats]:
    end = table.shape[1] - extra
    if end <= 4:
        raise ValueError(f"{table.shape[1]} values per box leave none for classes")
    chosen, classes, scores = best(spec, table[:, 4:end], rules.threshold)
    places = units(real(spec, table[chosen, :4]), _largest(spec, table[:, :2]), size)
    return Candidates(corners(places), scores, classes), real(spec, table[chosen, end:])


def _largest(spec: TensorSpec, places: Array) -> float:
    """The largest real coordinate."""
    return float(real(spec, np.asarray(places.max()).reshape(1))[0]) if places.size else 0.0
