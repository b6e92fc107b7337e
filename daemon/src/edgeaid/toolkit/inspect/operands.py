"""What a page shows of one operator of a TFLite file: its tensors, and how its weights are spread."""

from __future__ import annotations

from typing import Final

from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Operator, Subgraph, Tensor, TfliteModel
from .report import Histogram, Operand

_BINS: Final = 32
#: Values looked at; the spread of more is that of these.
_MOST: Final = 1 << 20
_NUMPY: Final = {"FP32": "<f4", "FP16": "<f2", "INT8": "i1", "UINT8": "u1", "INT16": "<i2"}


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
    if largest is None or largest.datatype not in _NUMPY or largest.sparse:
        return None
    import numpy as np

    values = np.frombuffer(tflite.constant(data, model, largest), _NUMPY[largest.datatype])[:_MOST].astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size < 16:
        return None
    counts, edges = np.histogram(values, _BINS)
    return Histogram(float(edges[0]), float(edges[-1]), tuple(int(c) for c in counts))
