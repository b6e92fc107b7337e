"""ONNX files for the K210's rules: layers with shapes, as far as those are known without a run.

Shapes come from the file where it has them, else from the operators of common networks; behind any other one they are
unknown, and the findings mention it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ...formats.exchange.onnx import Node, OnnxModel
from .k210_network import Layer, Network, Window

#: Functions of one variable, which the KPU does by a table behind a convolution.
UNARY: Final = frozenset(
    {"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu", "Celu"}
)  # fmt: skip
_SAME_SHAPE: Final = UNARY | {
    "PRelu", "BatchNormalization",
    "Softmax", "Identity", "Dropout", "Exp", "Log", "Abs", "Neg", "Sqrt", "InstanceNormalization", "LRN",
    "Softplus", "Selu", "LogSoftmax", "Cast",
}  # fmt: skip
_TWO: Final = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum"})
_KINDS: Final = {
    "Conv": "conv", "ConvTranspose": "deconv", "Gemm": "dense", "MatMul": "dense", "Add": "add", "Sum": "add",
    "Mul": "product", "BatchNormalization": "norm",
    "MaxPool": "pool", "AveragePool": "pool", "PRelu": "prelu", **dict.fromkeys(UNARY, "unary"),
}  # fmt: skip

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A network, and how far its shapes are known."""

    network: Network
    #: "" = all shapes are known; else the operator behind which they are not.
    unknown: str
    #: Inputs with their shapes, batch first.
    fixed: Mapping[str, Shape]

    @property
    def complete(self) -> bool:
        """Whether all shapes are known."""
        return not self.unknown


def network(model: OnnxModel) -> Made:
    """The main graph; shapes in the result are without the batch."""
    constants = {i.name: i.shape for i in model.initializers}
    constants |= {
        n.outputs[0]: n.tensor.shape for n in model.nodes if n.op_type == "Constant" and n.tensor and n.outputs
    }
    fixed = {v.name: v.shape for v in model.inputs}
    shapes: dict[str, Shape] = {}
    for v in (*model.values, *model.inputs, *model.outputs):
        if v.shape and all(d > 0 for d in v.shape):
            shapes[v.name] = v.shape
    unknown = ""
    layers = []
    for number, node in enumerate(model.nodes):
        if not node.outputs or node.op_type == "Constant":
            continue
        name = f"#{number} {node.op_type} ({node.outputs[0][:60]})"
        for output, shape in zip(node.outputs, _shapes(node, shapes, constants), strict=False):
            shapes.setdefault(output, shape)
        values = (*(x for x in node.inputs if x and x not in constants), *node.outputs[:1])
        if not unknown and any(v not in shapes for v in values):
            unknown = name
        layers.append(_layer(node, name, shapes, constants))
    inner = {k: v[1:] for k, v in shapes.items()}
    inputs, outputs = tuple(v.name for v in model.inputs), tuple(v.name for v in model.outputs)
    return Made(Network.of(layers, inputs, outputs, inner, channels_first=True), unknown, fixed)


def _layer(node: Node, name: str, shapes: Mapping[str, Shape], constants: Mapping[str, Shape]) -> Layer:
    kind = _KINDS.get(node.op_type, "other")
    weights = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    window: Window | None = None
    matrix: tuple[int, ...] = ()
    if kind in ("conv", "deconv") and weights and len(weights) == 4:
        source = shapes.get(node.inputs[0], ())
        window = _window(node, weights, source)
    elif kind == "pool":
        window = Window(_pair(node, "kernel_shape", 0), _pair(node, "strides", 1), _pads(node))
    elif kind == "dense" and weights and len(weights) == 2:
        matrix = (weights[1], weights[0]) if node.attributes.get("transB") else weights
    return Layer(
        kind=kind, name=name, operator=node.op_type, window=window, matrix=matrix,
        inputs=tuple(x for x in node.inputs if x and x not in constants), outputs=tuple(x for x in node.outputs if x),
        constants=sum(math.prod(constants[x]) for x in node.inputs if x in constants),
    )  # fmt: skip


def _ints(node: Node, name: str) -> tuple[int, ...]:
    value = node.attributes.get(name, ())
    return value if isinstance(value, tuple) else (value,) if isinstance(value, int) else ()


def _pair(node: Node, name: str, default: int) -> tuple[int, int]:
    values = _ints(node, name)
    return (values[0], values[1]) if len(values) == 2 else (default, default)


def _pads(node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    """(above, below), (left, right) of [above, left, below, right]."""
    values = _ints(node, "pads")
    return ((values[0], values[2]), (values[1], values[3])) if len(values) == 4 else ((0, 0), (0, 0))


def _window(node: Node, weights: Shape, source: Shape) -> Window:
    stride, dilation = _pair(node, "strides", 1), _pair(node, "dilations", 1)
    pads = _pads(node)
    auto = node.attributes.get("auto_pad")
    if auto in ("SAME_UPPER", "SAME_LOWER") and len(source) == 4:
        sides = []
        for size, kernel, s, d in zip(source[2:], weights[2:], stride, dilation, strict=True):
            total = max(0, (math.ceil(size / max(1, s)) - 1) * s + d * (kernel - 1) + 1 - size)
            less = total // 2
            sides.append((less, total - less) if auto == "SAME_UPPER" else (total - less, less))
        pads = (sides[0], sides[1])
    groups = node.attributes.get("group", 1)
    groups = groups if isinstance(groups, int) else 1
    channels = weights[1] * groups
    depthwise = groups > 1 and groups == channels
    return Window(
        (weights[2], weights[3]), stride, pads, dilation, groups, depthwise, depthwise and weights[0] != channels
    )


Shapes = Mapping[str, Shape]


def _shapes(node: Node, shapes: Shapes, constants: Shapes) -> tuple[Shape, ...]:
    """Shapes of a node's outputs, () where they are unknown."""
    infer = _INFER.get(node.op_type)
    if infer is None or not node.inputs or node.inputs[0] not in {**shapes, **constants}:
        return ()
    made = infer(node, shapes, constants)
    return (made,) if made and all(d > 0 for d in made) else ()


def _slide(node: Node, source: Shape, channels: int, window: Window) -> Shape:
    edge = []
    for size, kernel, s, d, pads in zip(
        source[2:], window.kernel, window.stride, window.dilation, window.pads, strict=True
    ):
        room = size + sum(pads) - d * (kernel - 1) - 1
        if s < 1:
            return ()
        edge.append((-(-room // s) if node.attributes.get("ceil_mode") else room // s) + 1)
    return (source[0], channels, *edge)


def _infer_conv(node: Node, shapes: Shapes, constants: Shapes) -> Shape:
    source, weights = shapes.get(node.inputs[0], ()), constants.get(node.inputs[1], ()) if node.inputs[1:] else ()
    if len(source) != 4 or len(weights) != 4:
        return ()
    return _slide(node, source, weights[0], _window(node, weights, source))


def _infer_pool(node: Node, shapes: Shapes, _: Shapes) -> Shape:
    source = shapes.get(node.inputs[0], ())
    if len(source) != 4 or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return ()
    return _slide(
        node, source, source[1], Window(_pair(node, "kernel_shape", 1), _pair(node, "strides", 1), _pads(node))
    )


def _infer_same(node: Node, shapes: Shapes, _: Shapes) -> Shape:
    return shapes.get(node.inputs[0], ())


def _infer_two(node: Node, shapes: Shapes, constants: Shapes) -> Shape:
    """Operands broadcast against each other."""
    both = [shapes.get(x, constants.get(x)) for x in node.inputs]
    known = [s for s in both if s is not None]
    if len(known) != len(both):
        return ()
    rank = max(map(len, known))
    wide = [(1,) * (rank - len(s)) + s for s in known]
    return tuple(max(column) for column in zip(*wide, strict=True))


def _infer_concat(node: Node, shapes: Shapes, constants: Shapes) -> Shape:
    parts = [shapes.get(x, constants.get(x, ())) for x in node.inputs]
    axis = node.attributes.get("axis", 1)
    if not all(parts) or not isinstance(axis, int) or len({len(p) for p in parts}) != 1:
        return ()
    axis %= len(parts[0])
    return (*parts[0][:axis], sum(p[axis] for p in parts), *parts[0][axis + 1 :])


def _infer_global(node: Node, shapes: Shapes, _: Shapes) -> Shape:
    source = shapes.get(node.inputs[0], ())
    return (*source[:2], *(1 for _ in source[2:]))


def _infer_flat(node: Node, shapes: Shapes, _: Shapes) -> Shape:
    source = shapes.get(node.inputs[0], ())
    return (source[0], math.prod(source[1:])) if source and node.attributes.get("axis", 1) == 1 else ()


def _infer_dense(node: Node, shapes: Shapes, constants: Shapes) -> Shape:
    weights = constants.get(node.inputs[1], ()) if len(node.inputs) > 1 else ()
    source = shapes.get(node.inputs[0], ())
    if len(weights) != 2 or not source:
        return ()
    return (*source[:-1], weights[0] if node.attributes.get("transB") else weights[1])


def _infer_reduce(node: Node, shapes: Shapes, _: Shapes) -> Shape:
    source, axes = shapes.get(node.inputs[0], ()), _ints(node, "axes")
    if not source or not axes:
        return ()
    chosen = {a % len(source) for a in axes}
    keep = node.attributes.get("keepdims", 1)
    return tuple(1 if i in chosen else d for i, d in enumerate(source) if keep or i not in chosen)


_INFER: Final[dict[str, Callable[[Node, Shapes, Shapes], Shape]]] = {
    "Conv": _infer_conv, "MaxPool": _infer_pool, "AveragePool": _infer_pool, "Concat": _infer_concat,
    "GlobalAveragePool": _infer_global, "GlobalMaxPool": _infer_global, "Flatten": _infer_flat, "Gemm": _infer_dense,
    "MatMul": _infer_dense, "ReduceMean": _infer_reduce, "ReduceMax": _infer_reduce,
    **dict.fromkeys(_SAME_SHAPE, _infer_same), **dict.fromkeys(_TWO, _infer_two),
}  # fmt: skip
