"""Comparing two models on the same inputs: outputs, single tensors, accuracy. Arrays in, figures out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import InvalidModel
from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Tensor, TfliteModel
from ...tensors import NUMPY, Quantization
from ..run import litert

Array = npt.NDArray[Any]
#: More axes (with that of the samples) than this are not permuted.
_MAX_RANK: Final = 6


@dataclass(frozen=True, slots=True)
class Difference:
    """How far `b` is from `a`. Errors in the unit of the values."""

    samples: int
    max_error: float
    mean_error: float
    #: Largest error by the range of `a`.
    relative: float
    #: Pearson's correlation; 1 = the same up to scale. 0 where `b` does not vary.
    correlation: float
    #: Part of the samples whose largest value is at the same place.
    top1_agreement: float
    #: How far the runtime that computed `a` is from itself (with and without its optimisations), by the range of `a`:
    #: an error of this size says nothing against `b`.
    reference_error: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerError:
    """A tensor that both models have."""

    name: str
    #: Root of the mean squared error by the range of the float values.
    rmse: float
    #: Signal to quantisation noise, dB.
    sqnr: float


def difference(a: Array, b: Array, reference_error: float = 0.0) -> Difference:
    """Compare outputs [samples, ...]. Raises InvalidModel if the shapes do not go together."""
    if a.size != b.size or len(a) != len(b) or not a.size:
        raise InvalidModel(f"outputs cannot be compared: {list(a.shape)} and {list(b.shape)}")
    x, y = a.astype(np.float64).reshape(len(a), -1), b.astype(np.float64).reshape(len(b), -1)
    error = np.abs(x - y)
    spread = float(x.max() - x.min())
    varies = x.std() > 0 and y.std() > 0
    return Difference(
        samples=len(x),
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        relative=float(error.max() / spread) if spread else float(error.max() > 0),
        correlation=float(np.corrcoef(x.ravel(), y.ravel())[0, 1]) if varies else float(np.array_equal(x, y)),
        top1_agreement=float((x.argmax(1) == y.argmax(1)).mean()),
        reference_error=reference_error,
    )


def aligned(reference: Array, made: Array) -> Array:
    """`made` with its axes in the order of `reference`, both [samples, ...]: converters move channels.

    Where several orders fit the shape, the one with the smallest error. Raises InvalidModel if none does.
    """
    if reference.size != made.size or len(reference) != len(made):
        raise InvalidModel(f"outputs cannot be compared: {list(reference.shape[1:])} and {list(made.shape[1:])}")
    rest = range(1, made.ndim)
    candidates = [
        moved
        for order in permutations(rest)
        if (moved := made.transpose(0, *order)).shape == reference.shape and made.ndim <= _MAX_RANK
    ]
    if reference.shape == made.shape:
        candidates.insert(0, made)
    if not candidates:
        return made.reshape(reference.shape)
    wanted = reference.astype(np.float64)
    return min(candidates, key=lambda c: float(np.abs(c.astype(np.float64) - wanted).max()))


def quantise(values: Array, datatype: str, quantization: Quantization | None) -> Array:
    """Stored values of real ones, rounded half to even as TFLite's QUANTIZE does on most CPUs."""
    if quantization is None or datatype not in ("INT8", "UINT8", "INT16"):
        return values.astype(NUMPY[datatype])
    info = np.iinfo(NUMPY[datatype])
    stored = np.rint(values / quantization.scale[0]) + quantization.zero_point[0]
    result: Array = np.clip(stored, info.min, info.max).astype(NUMPY[datatype])
    return result


def dequantise(stored: Array, quantization: Quantization | None) -> Array:
    """Real values of stored ones; per-channel entries run along the quantisation's axis."""
    if quantization is None or stored.dtype.kind == "f":
        return stored.astype(np.float32)
    scale, zero = np.array(quantization.scale, np.float32), np.array(quantization.zero_point, np.float32)
    if len(quantization.scale) > 1:
        shape = [1] * stored.ndim
        shape[quantization.axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    result: Array = ((stored.astype(np.float32) - zero) * scale).astype(np.float32)
    return result


def run(
    path: Path, real: Array, keep: Sequence[int] = (), timeout: float = 600.0
) -> tuple[Array, dict[int, Array], float]:
    """Run a TFLite model on real-valued inputs [samples, ...].

    Returns its first output as real values, the kept tensors as stored, and microseconds per inference (one thread).
    """
    model = tflite.read(path.read_bytes())
    spec, out = model.inputs[0], model.outputs[0]
    stored = quantise(real, spec.datatype, spec.quantization)
    request: dict[str, Any] = {"runs": len(stored), "threads": 1, "keep": np.array(keep, np.int64)}
    request |= {f"input_{i}_0": sample.reshape(spec.shape) for i, sample in enumerate(stored)}
    answer = litert(path, request, timeout)
    outputs = np.stack([dequantise(answer[f"output_{i}_0"], out.quantization) for i in range(len(stored))])
    kept = {k: np.stack([answer[f"kept_{i}_{k}"] for i in range(len(stored))]) for k in keep}
    return outputs, kept, float(answer["us"])


def layers(reference: Path, quantised: Path, real: Array) -> list[LayerError]:
    """Error of every activation that both TFLite models have under one name, worst first.

    The quantised model's wrappers keep names such as "dense/BiasAdd"; where a name is there in float and in int8, the
    int8 one is compared.
    """
    a, b = (tflite.read(p.read_bytes()) for p in (reference, quantised))
    left = {t.name: t for t in _activations(a) if t.datatype == "FP32"}
    right = {
        t.name: t for t in _activations(b) if t.quantization is not None and t.datatype in ("INT8", "UINT8", "INT16")
    }
    names = [n for n in left if n in right and left[n].shape == right[n].shape]
    _, floats, _ = run(reference, real, [left[n].index for n in names])
    _, stored, _ = run(quantised, real, [right[n].index for n in names])
    result = []
    for name in names:
        x = floats[left[name].index].astype(np.float64)
        y = dequantise(stored[right[name].index], right[name].quantization).astype(np.float64)
        noise = float(np.mean((x - y) ** 2))
        spread, power = float(x.max() - x.min()), float(np.mean(x**2))
        result.append(
            LayerError(
                name,
                (noise**0.5 / spread) if spread else float(noise > 0),
                float(10 * np.log10(power / noise)) if noise and power else (float("inf") if not noise else 0.0),
            )
        )
    return sorted(result, key=lambda e: -e.rmse)


def _activations(model: TfliteModel) -> list[Tensor]:
    graph = model.subgraphs[0]
    made = {i for o in graph.operators for i in o.outputs if i >= 0}
    return [graph.tensors[i] for i in sorted(made)]


def accuracy(
    path: Path, samples: Sequence[tuple[Array, int]], progress: Callable[[int], None] = lambda _: None
) -> float:
    """Top-1 accuracy of a classifier on (real-valued input, class) pairs."""
    right = 0
    for start in range(0, len(samples), 64):
        part = samples[start : start + 64]
        outputs, _, _ = run(path, np.stack([value for value, _ in part]))
        predicted = outputs.reshape(len(part), -1).argmax(1)
        right += int((predicted == np.array([number for _, number in part])).sum())
        progress(start + len(part))
    return right / len(samples) if samples else 0.0


def transposes(path: Path) -> int:
    """TRANSPOSE operators of a TFLite file: what a change of the data layout left behind."""
    return sum(o.name == "TRANSPOSE" for o in tflite.read(path.read_bytes()).operators)
