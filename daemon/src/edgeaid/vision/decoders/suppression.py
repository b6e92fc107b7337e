"""Non-maximum suppression, greedy as everywhere, computed in blocks: few large operations instead of many."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .candidates import Array, Candidates, Floats

#: Boxes that enter, best first.
MAX_CANDIDATES: Final = 1000
#: Boxes compared with each other at once.
BLOCK: Final = 128


def suppress(boxes: Floats, scores: Floats, classes: Array, iou: float, limit: int) -> npt.NDArray[np.int64]:
    """Indices of the boxes to keep, best first, at most `limit`.

    `boxes` [n,4] as xmin, ymin, xmax, ymax. Of two boxes of one class that overlap by more than `iou` (intersection
    over union) the better one stays.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    boxes, classes = boxes[order].astype(np.float64), classes[order]
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if len(kept):
            block = block[~_clash(boxes, classes, kept, block, iou).any(axis=0)]
        kept = np.concatenate([kept, block[_greedy(_clash(boxes, classes, block, block, iou))]])
        if len(kept) >= limit:
            break
    return np.asarray(order[kept[:limit]])


def _greedy(clash: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows to keep of a symmetric matrix of clashes, in order: each removes the later ones that it clashes with."""
    alive = np.ones(len(clash), dtype=bool)
    busy = np.flatnonzero(np.triu(clash, 1).any(axis=1))  # most boxes clash with none: only these need a turn
    for row in busy:
        if alive[row]:
            alive[row + 1 :] &= ~clash[row, row + 1 :]
    return np.flatnonzero(alive)


def _clash(boxes: Array, classes: Array, first: Array, second: Array, iou: float) -> npt.NDArray[np.bool_]:
    """[n,m]: which of some boxes overlap too much with which of others of their class."""
    one, other = boxes[first], boxes[second]
    wide = np.minimum(one[:, None, 2], other[None, :, 2]) - np.maximum(one[:, None, 0], other[None, :, 0])
    high = np.minimum(one[:, None, 3], other[None, :, 3]) - np.maximum(one[:, None, 1], other[None, :, 1])
    common = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = [np.maximum(b[:, 2] - b[:, 0], 0) * np.maximum(b[:, 3] - b[:, 1], 0) for b in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray((common > iou * union) & (classes[first][:, None] == classes[second][None, :]))


def suppress_rotated(candidates: Candidates, iou: float, limit: int) -> npt.NDArray[np.int64]:
    """The same for rotated boxes, which are compared by the overlap of the Gaussians that they span (probIoU,
    arXiv:2106.06072), as their trainers do."""
    assert candidates.angles is not None  # noqa: S101  the caller looked
    order = np.argsort(-candidates.scores, kind="stable")[:MAX_CANDIDATES]
    boxes = candidates.angles[order].astype(np.float64)
    classes = candidates.classes[order]
    alive = np.ones(len(order), dtype=bool)
    kept = []
    for row in range(len(order)):
        if not alive[row]:
            continue
        kept.append(row)
        if len(kept) == limit:
            break
        rest = np.flatnonzero(alive[row + 1 :] & (classes[row + 1 :] == classes[row])) + row + 1
        alive[rest[gaussian_overlap(boxes[row], boxes[rest]) >= iou]] = False
    return np.asarray(order[kept], dtype=np.int64)


def gaussian_overlap(one: Array, many: Array) -> Array:
    """[n] probIoU of one rotated box [5] with many [n,5] (centre x, centre y, width, height, angle)."""
    eps = 1e-7
    (a1, b1, c1), (a2, b2, c2) = _covariance(one[None]), _covariance(many)
    x, y = one[0] - many[:, 0], one[1] - many[:, 1]
    a, b, c = a1 + a2, b1 + b2, c1 + c2
    determinant = a * b - c * c
    distance = (a * y * y + b * x * x) / (determinant + eps) * 0.25 - c * x * y / (determinant + eps) * 0.5
    product = np.maximum(a1 * b1 - c1 * c1, 0) * np.maximum(a2 * b2 - c2 * c2, 0)
    shape = 0.5 * np.log(determinant / (4 * np.sqrt(product) + eps) + eps)
    bhattacharyya = np.clip(distance + shape, eps, 100.0)
    return np.asarray(1 - np.sqrt(1 - np.exp(-bhattacharyya) + eps))


def _covariance(boxes: Array) -> tuple[Array, Array, Array]:
    wide, high = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return wide * cos**2 + high * sin**2, wide * sin**2 + high * cos**2, (wide - high) * cos * sin
