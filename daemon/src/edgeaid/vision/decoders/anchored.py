"""Detectors whose boxes are relative to anchors: EfficientDet as it is trained, BlazeFace and palms, faces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from ...models.rules import OutputRules
from ...tensors import TensorSpec
from .candidates import Array, Candidates, Floats, best, corners, real, rows

Size = tuple[int, int]
#: MediaPipe's clip of scores before the sigmoid (tensors_to_detections_calculator, score_clipping_thresh).
CLIP: Final = 100.0
#: Strides of MediaPipe's anchors: face_detection_short_range and palm_detection (128 and 192 pixels), with two anchors
#: a cell for each layer, and face_detection_full_range (192 pixels) with one.
BLAZE_STRIDES: Final = (8, 16, 16, 16)
BLAZE_FULL_RANGE: Final = (4,)
#: Ultra-Light-Fast-Generic-Face-Detector: sizes of the prior boxes in pixels at each stride, and their variances.
FACE_SIZES: Final = ((10.0, 16.0, 24.0), (32.0, 48.0), (64.0, 96.0), (128.0, 192.0, 256.0))
FACE_STRIDES: Final = (8, 16, 32, 64)
FACE_VARIANCES: Final = (0.1, 0.2)


def efficientdet(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,4] ty, tx, th, tw and [1,N,C] class scores before the sigmoid, levels 3 to 7, nine anchors a cell."""
    boxes_at = next(i for i, s in enumerate(specs) if s.shape[-1] == 4)
    scores_at = 1 - boxes_at
    anchors = efficientdet_anchors(size, rules.anchor_scale)
    table = rows(outputs[boxes_at], 4)
    if len(table) != len(anchors):
        raise ValueError(f"an input of {size[0]} x {size[1]} has {len(anchors)} anchors")
    scores = outputs[scores_at].reshape(len(table), -1)
    chosen, classes, logits = best(specs[scores_at], scores, _logit(rules.threshold))
    offset, anchor = real(specs[boxes_at], table[chosen]), anchors[chosen]
    extent = np.exp(np.minimum(offset[:, 3:1:-1], 20.0)) * anchor[:, 2:]
    centre = offset[:, 1::-1] * anchor[:, 2:] + anchor[:, :2]
    places = np.concatenate([centre, extent], axis=1, dtype=np.float32)
    return Candidates(corners(places), _sigmoid(logits), classes)


@lru_cache(maxsize=4)
def efficientdet_anchors(size: Size, scale: float) -> Floats:
    """[N,4] centre x, centre y, width, height in units of the input."""
    levels = []
    for level in range(3, 8):
        columns, lines = -(-size[0] // 2**level), -(-size[1] // 2**level)
        # The trainers' stride is what makes the cells cover the input: 320 pixels have three cells of 106.7 at level 7.
        strides = np.array([size[0] / columns, size[1] / lines])
        x, y = np.meshgrid((np.arange(columns) + 0.5) * strides[0], (np.arange(lines) + 0.5) * strides[1])
        centre = np.stack([x, y], axis=-1)
        cell = []
        for octave in range(3):
            for aspect in (1.0, 2.0, 0.5):
                side = scale * strides * 2 ** (octave / 3)
                extent = np.broadcast_to(side * [aspect**0.5, 1 / aspect**0.5], centre.shape)
                cell.append(np.concatenate([centre, extent], axis=-1))
        levels.append(np.stack(cell, axis=2).reshape(-1, 4))
    return np.asarray(np.concatenate(levels) / np.array([*size, *size]), dtype=np.float32)


def blazeface(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """[1,N,4+2K] centre, size and keypoints relative to anchors, in pixels, and [1,N,1] scores before the sigmoid."""
    boxes_at = next(i for i, s in enumerate(specs) if s.shape[-1] > 4)
    scores_at = 1 - boxes_at
    table = rows(outputs[boxes_at])
    anchors = _blaze_anchors_of(len(table), size, rules.strides)
    logits = real(specs[scores_at], outputs[scores_at].reshape(len(table)))
    chosen = np.flatnonzero(logits >= _logit(rules.threshold))
    pixels = real(specs[boxes_at], table[chosen])
    picked: Floats = np.asarray(pixels / np.tile(np.array(size), table.shape[1] // 2), dtype=np.float32)
    picked[:, :2] += anchors[chosen]
    points = picked[:, 4:].reshape(len(chosen), -1, 2) + anchors[chosen, None]
    keypoints = np.concatenate([points, np.ones((*points.shape[:2], 1), dtype=np.float32)], axis=2)
    scores = _sigmoid(np.clip(logits[chosen], -CLIP, CLIP))
    classes = np.zeros(len(chosen), dtype=np.int64)
    return Candidates(corners(picked[:, :4]), scores, classes, keypoints=keypoints)


def _blaze_anchors_of(count: int, size: Size, strides: tuple[int, ...]) -> Floats:
    """The anchors of a model with `count` of them; its strides may be left to be told from that."""
    counts = []
    for chosen in (strides,) if strides else (BLAZE_STRIDES, BLAZE_FULL_RANGE):
        for each in (2, 1):
            anchors = blaze_anchors(size, chosen, each)
            if len(anchors) == count:
                return anchors
            counts.append(str(len(anchors)))
    raise ValueError(f"an input of {size[0]} x {size[1]} has {' or '.join(counts)} anchors")


@lru_cache(maxsize=8)
def blaze_anchors(size: Size, strides: tuple[int, ...], each: int = 2) -> Floats:
    """[N,2] centres in units of the input: `each` anchors a cell for each layer, layers of one stride together."""
    levels = []
    for stride in dict.fromkeys(strides):
        columns, lines = -(-size[0] // stride), -(-size[1] // stride)
        x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(lines) + 0.5) / lines)
        centre = np.stack([x, y], axis=-1).reshape(-1, 2)
        levels.append(np.repeat(centre, each * strides.count(stride), axis=0))
    return np.concatenate(levels).astype(np.float32)


def faces(rules: OutputRules, specs: Sequence[TensorSpec], outputs: Sequence[Array], size: Size) -> Candidates:
    """Faces as on the K210: scores (background, face), boxes and, in a third tensor, five landmarks."""
    priors = face_priors(size)
    count = len(priors)
    boxes_at = next(i for i, s in enumerate(specs) if s.nbytes and outputs[i].size == 4 * count)
    scores_at = next(i for i in range(len(specs)) if outputs[i].size == 2 * count)
    logits = real(specs[scores_at], rows(outputs[scores_at].squeeze(), 2))
    scores = _sigmoid(logits[:, 1] - logits[:, 0])
    if logits.min() >= 0 and np.allclose(logits.sum(axis=1), 1, atol=0.05):
        scores = logits[:, 1]  # the graph has the softmax
    chosen = np.flatnonzero(scores >= rules.threshold)
    prior = priors[chosen]
    offset = real(specs[boxes_at], rows(outputs[boxes_at].squeeze(), 4)[chosen])
    centre = prior[:, :2] + offset[:, :2] * FACE_VARIANCES[0] * prior[:, 2:]
    extent = prior[:, 2:] * np.exp(np.minimum(offset[:, 2:] * FACE_VARIANCES[1], 20.0))
    keypoints = None
    marks_at = next((i for i in range(len(specs)) if outputs[i].size == 10 * count), None)
    if marks_at is not None:
        marks = real(specs[marks_at], rows(outputs[marks_at].squeeze(), 10)[chosen]).reshape(-1, 5, 2)
        points = prior[:, None, :2] + marks * FACE_VARIANCES[0] * prior[:, None, 2:]
        keypoints = np.concatenate([points, np.ones((*points.shape[:2], 1), dtype=np.float32)], axis=2)
    boxes = corners(np.concatenate([centre, extent], axis=1, dtype=np.float32))
    return Candidates(boxes, scores[chosen], np.zeros(len(chosen), dtype=np.int64), keypoints=keypoints)


@lru_cache(maxsize=4)
def face_priors(size: Size) -> Floats:
    """[N,4] centre x, centre y, width, height in units of the input."""
    levels = []
    for stride, sides in zip(FACE_STRIDES, FACE_SIZES, strict=True):
        columns, lines = -(-size[0] // stride), -(-size[1] // stride)
        x, y = np.meshgrid((np.arange(columns) + 0.5) * stride / size[0], (np.arange(lines) + 0.5) * stride / size[1])
        extents = np.array([[side / size[0], side / size[1]] for side in sides])
        centre = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
        places = np.broadcast_arrays(centre, extents[None])
        levels.append(np.concatenate(places, axis=2).reshape(-1, 4))
    return np.asarray(np.clip(np.concatenate(levels), 0, 1), dtype=np.float32)


def _logit(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return float(np.log(score / (1 - score)))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)), dtype=np.float32)
