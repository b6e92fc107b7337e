"""TensorFlow Lite files as the K210's rules look at them."""

from __future__ import annotations

import math
from typing import Final

from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Operator, Subgraph, TfliteModel
from ..files import WEIGHTED, output_channels, weights
from .k210_network import Layer, Network, Sides, Window
from .tflite import layer_name

#: Functions of one variable, which the KPU does by a table behind a convolution.
UNARY: Final = frozenset(
    {"RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "LEAKY_RELU", "HARD_SWISH", "EXP", "LOG", "NEG", "ABS",
     "SQUARE", "SQRT", "RSQRT", "SIN", "COS", "FLOOR", "CEIL", "ROUND"}
)  # fmt: skip
_KINDS: Final = {
    "CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "TRANSPOSE_CONV": "deconv", "FULLY_CONNECTED": "dense",
    "ADD": "add", "MUL": "product", "MAX_POOL_2D": "pool", "AVERAGE_POOL_2D": "pool", "PRELU": "prelu", "PAD": "pad",
    **dict.fromkeys(UNARY, "unary"),
}  # fmt: skip


def network(data: bytes, model: TfliteModel) -> Network:
    """The first subgraph. Shapes become (channels, height, width)."""
    graph = model.subgraphs[0]
    shapes = {f"t{i}": _channels_first(t.shape) for i, t in enumerate(graph.tensors)}
    layers = [_layer(data, model, graph, operator) for operator in graph.operators]
    return Network.of(layers, tuple(f"t{i}" for i in graph.inputs), tuple(f"t{i}" for i in graph.outputs), shapes)


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], *shape[1:3]) if len(shape) == 4 else shape[1:]


def _layer(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Layer:
    kind = _KINDS.get(operator.name, "other")
    constant = [i for i in operator.inputs if i >= 0 and graph.tensors[i].constant]
    # TRANSPOSE_CONV has its data last.
    inputs = [i for i in operator.inputs if i >= 0 and i not in constant]
    matrix: tuple[int, ...] = ()
    window: Window | None = None
    if kind == "conv":
        window = _window(graph, operator)
    elif kind == "pool":
        window = _pooling(operator)
    elif kind == "pad":
        window = _padding(data, model, graph, operator)
    elif kind == "deconv":
        window = _transposed(graph, operator)
    elif kind == "dense" and operator.inputs[1] in constant and (shape := weights(graph, operator)):
        matrix = (shape[-1], shape[0])
    return Layer(
        kind=kind, name=layer_name(graph, operator), operator=operator.label, window=window, matrix=matrix,
        inputs=tuple(f"t{i}" for i in inputs), outputs=tuple(f"t{i}" for i in operator.outputs if i >= 0),
        constants=sum(math.prod(graph.tensors[i].shape) for i in constant if graph.tensors[i].datatype == "FP32"),
        spread=_spread(data, model, graph, operator),
    )  # fmt: skip


def _option(operator: Operator, name: str) -> int:
    """An option that is an integer of at least 1."""
    value = operator.options.get(name, 1)
    return max(1, value) if isinstance(value, int) else 1


def _strides(operator: Operator) -> tuple[int, int]:
    return _option(operator, "stride_h"), _option(operator, "stride_w")


def _window(graph: Subgraph, operator: Operator) -> Window | None:
    shape = weights(graph, operator)
    source = graph.tensors[operator.inputs[0]].shape
    if shape is None or len(shape) != 4 or len(source) != 4:
        return None
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    dilation = (_option(operator, "dilation_h"), _option(operator, "dilation_w"))
    stride = _strides(operator)
    pads: Sides = ((0, 0), (0, 0))
    if operator.options.get("padding") == "SAME":
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, shape[1:3], strict=True)]
        both = [_same(n, k, s) for n, k, s in zip(source[1:3], reach, stride, strict=True)]
        pads = (both[0], both[1])
    channels, out = source[3], output_channels(operator, shape)
    groups = channels if depthwise else channels // shape[3] if shape[3] else 1
    return Window((shape[1], shape[2]), stride, pads, dilation, groups, depthwise, depthwise and out != channels)


def _transposed(graph: Subgraph, operator: Operator) -> Window:
    kernel, stride = graph.tensors[operator.inputs[1]].shape[1:3], _strides(operator)
    sides = [(max(0, k - s) // 2, max(0, k - s) - max(0, k - s) // 2) for k, s in zip(kernel, stride, strict=True)]
    same = operator.options.get("padding", "SAME") == "SAME"
    pads: Sides = (sides[0], sides[1]) if same else ((0, 0), (0, 0))
    return Window((kernel[0], kernel[1]), stride, pads)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def _pooling(operator: Operator) -> Window:
    return Window((_option(operator, "filter_h"), _option(operator, "filter_w")), _strides(operator))


def _padding(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Window | None:
    """Pixels that a PAD adds to height and width; None where it does anything else."""
    if len(operator.inputs) < 2 or len(graph.tensors[operator.inputs[0]].shape) != 4:
        return None
    tensor = graph.tensors[operator.inputs[1]]
    raw = bytes(tflite.constant(data, model, tensor))
    step = 8 if tensor.datatype == "INT64" else 4
    values = [int.from_bytes(raw[i : i + step], "little", signed=True) for i in range(0, len(raw), step)]
    if len(values) != 8 or any(values[:2]) or any(values[6:]) or min(values) < 0:
        return None
    return Window((0, 0), (1, 1), ((values[2], values[3]), (values[4], values[5])))


def _spread(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> float:
    if operator.name not in WEIGHTED:
        return 0.0
    tensor = graph.tensors[operator.inputs[1]]
    if tensor.datatype != "FP32" or not tensor.constant or tensor.sparse:
        return 0.0
    import numpy as np

    values = np.frombuffer(tflite.constant(data, model, tensor), "<f4")
    # In double precision: float32 may overflow, and damaged weights may be anything.
    return float(values.max()) - float(values.min()) if values.size else 0.0
