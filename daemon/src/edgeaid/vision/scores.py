"""Scores of classes: real values of a tensor, and the best of them. Small, because every worker has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..tensors import TensorSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def dequantized(spec: TensorSpec, values: Array) -> Floats:
    """Real values, float64, of the same shape: scale * (stored - zero point), per tensor or per channel."""
    real = values.astype(np.float64)
    quantization = spec.quantization
    if quantization is None or values.dtype.kind == "f" or not any(quantization.scale):
        return real
    shape = [1] * values.ndim
    if len(quantization.scale) > 1:
        shape[quantization.axis] = len(quantization.scale)
    scale = np.array(quantization.scale, dtype=np.float64).reshape(shape)
    zero_point = np.array(quantization.zero_point, dtype=np.float64).reshape(shape)
    return (real - zero_point) * scale


def softmax(values: Floats) -> Floats:
    """Along the last axis; safe for large values."""
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(values: Floats) -> Floats:
    """Element by element; safe for large values."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def top(spec: TensorSpec, values: Array, activation: str, count: int) -> list[tuple[int, float]]:
    """(class, score) of the `count` best, best first, of equal ones the first first; what is not finite is left out.

    `activation` of a manifest's output: "softmax", "sigmoid" or "none". Scores are rounded to 6 digits.
    """
    stored = values.reshape(-1)
    if activation == "none" and 0 < count < stored.size and _orders(spec, stored):
        # The real values have the order of the stored ones, so only the best need to be computed.
        likely = _best(stored, count)
        flat = dequantized(spec, stored[likely])
        best = np.argsort(-flat, kind="stable")[:count]
        return [(int(likely[i]), round(float(flat[i]), 6)) for i in best if np.isfinite(flat[i])]
    flat = dequantized(spec, values).reshape(-1)
    if activation == "softmax":
        flat = softmax(flat)
    elif activation == "sigmoid":
        flat = sigmoid(flat)
    flat = np.where(np.isfinite(flat), flat, -np.inf)
    chosen = _best(flat, count) if 0 < count < flat.size else np.arange(flat.size)
    best = chosen[np.argsort(-flat[chosen], kind="stable")][:count]
    return [(int(i), round(float(flat[i]), 6)) for i in best if np.isfinite(flat[i])]


def _orders(spec: TensorSpec, stored: Array) -> bool:
    """Whether a larger stored value always stands for a larger real one."""
    quantization = spec.quantization
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 4:  # of 64 bits, a float does not hold every one
        return False
    return quantization is None or (len(quantization.scale) == 1 and quantization.scale[0] > 0)


def _best(flat: Array, count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` largest values, in ascending order, and of others that equal the smallest of them."""
    if count == 1:
        return np.array([flat.argmax()])
    return np.flatnonzero(flat >= np.partition(flat, -count)[-count])
