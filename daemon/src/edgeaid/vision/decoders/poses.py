"""People as keypoints: MoveNet, and PoseNet with its custom operator or by its heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ...models.rules import OutputRules
from ...tensors import TensorSpec
from .candidates import Array, Candidates, Floats, real

Size = tuple[int, int]
KEYPOINTS: Final = 17
#: MoveNet's authors take a person's score from the keypoints that are surer than this (their package pose-detection,
#: MIN_CROP_KEYPOINT_SCORE): who is half hidden is a person all the same.
SURE: Final = 0.2


def movenet(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], _size: Size) -> Candidates:
    """[1,1,17,3] y, x, score of one person, or [1,6,56] of six: 17 keypoints, then ymin, xmin, ymax, xmax, score."""
    values = real(specs[0], outputs[0])
    if values.shape[-1] == 3 * KEYPOINTS + 5:
        table = values.reshape(-1, 3 * KEYPOINTS + 5)
        points = table[:, : 3 * KEYPOINTS].reshape(-1, KEYPOINTS, 3)
        boxes, scores = table[:, [52, 51, 54, 53]], table[:, 55]
    else:
        points = values.reshape(-1, KEYPOINTS, 3)
        boxes, scores = around(points, rules.threshold), _of_sure_ones(points[..., 2])
    return _people(points, boxes, scores, rules.threshold)


def posenet(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """Poses [1,P,17,2] y, x in pixels, keypoint scores [1,P,17], scores [1,P] and count (PoseNet's operator);
    or heat maps [1,h,w,17] before the sigmoid and offsets [1,h,w,34], of which the best place of each keypoint is
    taken: one person."""
    places_at = next((i for i, s in enumerate(specs) if s.shape[-2:] == (KEYPOINTS, 2)), None)
    if places_at is None:
        return _from_heat_maps(rules, specs, outputs, size)
    places = real(specs[places_at], outputs[places_at]).reshape(-1, KEYPOINTS, 2)
    sure_at = next(i for i, s in enumerate(specs) if s.shape[-1] == KEYPOINTS)
    sure = real(specs[sure_at], outputs[sure_at]).reshape(-1, KEYPOINTS)
    scores_at = next(i for i, s in enumerate(specs) if i not in (places_at, sure_at) and outputs[i].size == len(places))
    points = np.concatenate([places / np.array([size[1], size[0]], dtype=np.float32), sure[..., None]], axis=2)
    scores = real(specs[scores_at], outputs[scores_at]).reshape(-1)
    return _people(points, around(points, rules.threshold), scores, rules.threshold)


def _from_heat_maps(
    rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size
) -> Candidates:
    maps_at = next(i for i, s in enumerate(specs) if s.shape[-1] == KEYPOINTS)
    offsets_at = next(i for i, s in enumerate(specs) if s.shape[-1] == 2 * KEYPOINTS)
    maps, offsets = real(specs[maps_at], outputs[maps_at])[0], real(specs[offsets_at], outputs[offsets_at])[0]
    lines, columns = maps.shape[:2]
    peak = maps.reshape(-1, KEYPOINTS).argmax(axis=0)
    y, x = np.divmod(peak, columns)
    which = np.arange(KEYPOINTS)
    stride = (size[1] - 1) / (lines - 1), (size[0] - 1) / (columns - 1)
    place_y = (y * stride[0] + offsets[y, x, which]) / size[1]
    place_x = (x * stride[1] + offsets[y, x, which + KEYPOINTS]) / size[0]
    sure = 0.5 * (1 + np.tanh(0.5 * maps[y, x, which]))
    points = np.stack([place_y, place_x, sure], axis=-1)[None].astype(np.float32)
    return _people(points, around(points, rules.threshold), points[..., 2].mean(axis=1), rules.threshold)


def _of_sure_ones(scores: Floats) -> Floats:
    """[n] mean of those scores of [n,K] that are above SURE, 0 where none is."""
    sure = scores > SURE
    return np.asarray((scores * sure).sum(axis=1) / np.maximum(sure.sum(axis=1), 1), dtype=np.float32)


def around(points: Floats, threshold: float) -> Floats:
    """[n,4] boxes around the keypoints [n,K,3] (y, x, score) that are seen; around all of them where none is."""
    seen = points[..., 2] >= threshold
    seen[~seen.any(axis=1)] = True
    low = np.where(seen[..., None], points[..., :2], np.inf).min(axis=1)
    high = np.where(seen[..., None], points[..., :2], -np.inf).max(axis=1)
    return np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1).astype(np.float32)


def _people(points: Floats, boxes: Floats, scores: Floats, threshold: float) -> Candidates:
    chosen = np.flatnonzero(scores >= threshold)
    keypoints = points[chosen][..., [1, 0, 2]]
    classes = np.zeros(len(chosen), dtype=np.int64)
    return Candidates(boxes[chosen], scores[chosen], classes, keypoints=keypoints, suppressed=True)
