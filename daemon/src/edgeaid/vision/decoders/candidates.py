"""What decoders produce, and how they read stored tensors without converting all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...tensors import TensorSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """n boxes above the threshold. Coordinates are in units of the input tensor: (0, 0) to (1, 1) is all of it."""

    #: [n,4] xmin, ymin, xmax, ymax.
    boxes: Floats
    #: [n], 0 to 1.
    scores: Floats
    #: [n] class numbers.
    classes: npt.NDArray[np.int64]
    #: [n,K,3] x, y, score of each keypoint.
    keypoints: Floats | None = None
    #: [n,5] centre x, centre y, width, height in units of the input's width (so that angles keep), angle in radians.
    angles: Floats | None = None
    #: [n,M] coefficients of the mask prototypes.
    coefficients: Floats | None = None
    #: [M,h,w] prototypes, not chosen per box.
    prototypes: Floats | None = None
    #: The graph itself has removed overlapping boxes.
    suppressed: bool = False

    def only(self, rows: Array) -> Candidates:
        """Some of them: a mask or indices."""
        chosen = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if f.name not in ("prototypes", "suppressed") and getattr(self, f.name) is not None
        }
        return replace(self, **chosen)


def real(spec: TensorSpec, values: Array) -> Floats:
    """Real values, float32, of some stored ones of a tensor with one scale (or none)."""
    quantization = spec.quantization
    if quantization is None or values.dtype.kind == "f" or not any(quantization.scale):
        return values.astype(np.float32, copy=False)
    if len(quantization.scale) > 1:
        raise ValueError(f"output {spec.name!r} has a scale per channel, which no exporter writes for outputs")
    scale, zero_point = np.float32(quantization.scale[0]), np.float32(quantization.zero_point[0])
    return (values.astype(np.float32) - zero_point) * scale


def stored(spec: TensorSpec, value: float) -> float:
    """What a real value is stored as, not rounded: for comparing without conversion."""
    quantization = spec.quantization
    if quantization is None or spec.datatype.startswith("FP") or not any(quantization.scale):
        return value
    return value / quantization.scale[0] + quantization.zero_point[0]


def rows(values: Array, columns: int | None = None) -> Array:
    """[N,C] of [1,N,C], [1,C,N] or without the batch: N is the longer side, or the one that is not `columns`."""
    flat = values.reshape(values.shape[-2:]) if values.ndim > 2 else values
    if flat.ndim != 2:
        raise ValueError("a matrix is expected")
    if columns is not None:
        if flat.shape[1] == columns:
            return flat
        if flat.shape[0] == columns:
            return flat.T
        raise ValueError(f"none of its sides is {columns}")
    return flat.T if flat.shape[1] > flat.shape[0] else flat


def best(spec: TensorSpec, scores: Array, threshold: float) -> tuple[npt.NDArray[np.int64], Array, Floats]:
    """(rows, class numbers, real scores) of the rows of [N,C] whose best class reaches the threshold.

    Classes are compared as they are stored: only what is chosen is converted.
    """
    highest = _highest(scores)
    chosen = np.flatnonzero(highest >= stored(spec, threshold) - 1e-6)
    picked = scores[chosen]
    classes = picked.argmax(axis=1) if len(chosen) else np.zeros(0, dtype=np.int64)
    return chosen, classes.astype(np.int64), real(spec, highest[chosen])


def _highest(scores: Array) -> Array:
    """Greatest of each row. Where the memory runs along the rows' index, halves are compared, which is vectorised."""
    columns = scores.T
    if not columns.flags.c_contiguous:
        return np.asarray(scores.max(axis=1))
    while len(columns) > 1:
        half = len(columns) // 2
        merged = np.maximum(columns[:half], columns[half : 2 * half])
        columns = np.concatenate([merged, columns[2 * half :]]) if len(columns) % 2 else merged
    return np.asarray(columns[0])


def corners(places: Floats) -> Floats:
    """[n,4] centre x, centre y, width, height to xmin, ymin, xmax, ymax."""
    half = places[:, 2:] / 2
    return np.concatenate([places[:, :2] - half, places[:, :2] + half], axis=1)


def units(places: Floats, everything: float, size: tuple[int, int]) -> Floats:
    """Columns x, y, x, y, ... from pixels to units of the tensor, where `everything` (the largest coordinate of all
    rows of the output) says that they are pixels: exporters do both."""
    if everything <= 2.0:
        return places
    scale = np.tile(np.array(size, dtype=np.float32), places.shape[1] // 2)
    return np.asarray(places / scale)
