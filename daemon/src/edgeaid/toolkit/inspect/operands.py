"""What a page shows of one operator of a TFLite file: its tensors, and how its weights are spread."""

from __future__ import annotations

import math
import struct
from typing import Final

from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Operator, Subgraph, Tensor, TfliteModel
from .report import Histogram, Operand

_BINS: Final = 32
#: Values looked at: of more, every n-th. No numpy here: `inspect` starts fast and runs where nothing is installed.
_MOST: Final = 1 << 13
#: Datatype -> letter of `struct`, bytes.
_STORED: Final = {"FP32": ("f", 4), "FP16": ("e", 2), "INT8": ("b", 1), "UINT8": ("B", 1), "INT16": ("h", 2)}


def operands(graph: Subgraph, operator: Operator) -> tuple[Operand, ...]:
    """Inputs, constants and outputs in the operator's order."""
    rows = []
    for index in operator.inputs:
        if index >= 0:
            tensor = graph.tensors[index]
            rows.append(_operand("constant" if tensor.constant else "in", tensor))
    return (*rows, *(_operand("out", graph.tensors[i]) for i in operator.outputs if i >= 0))


def _operand(role: str, tensor: Tensor) -> Operand:
    q, words = tensor.quantization, ""
    if q is not None and len(q.scale) == 1:
        words = f"{q.scale[0]:.6g} * (q - {q.zero_point[0] if q.zero_point else 0})"
    elif q is not None and q.scale:
        words = f"{len(q.scale)} channels, scales {min(q.scale):.3g} to {max(q.scale):.3g}"
    return Operand(role, tensor.name, tensor.datatype, tensor.shape, words)


def spread(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Histogram | None:
    """Of the largest constant, None where there is none of 16 values or more."""
    constants = [graph.tensors[i] for i in operator.inputs if i >= 0 and graph.tensors[i].constant]
    largest = max(constants, key=lambda t: t.buffer_size, default=None)
    if largest is None or largest.datatype not in _STORED or largest.sparse:
        return None
    letter, width = _STORED[largest.datatype]
    raw = memoryview(tflite.constant(data, model, largest))
    count = len(raw) // width
    step = max(1, -(-count // _MOST))
    picked = (struct.unpack_from(f"<{letter}", raw, at * width)[0] for at in range(0, count, step))
    values = [v for v in picked if math.isfinite(v)]
    if len(values) < 16:
        return None
    low, high = float(min(values)), float(max(values))
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / (high - low) * _BINS)) if high > low else 0] += 1
    return Histogram(low, high, tuple(counts))
