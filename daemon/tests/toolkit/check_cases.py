"""Minimal models for the rules of `edgeai model check`: one that breaks a rule and one that keeps it, per rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .tflite_builder import Graph, Op, T, build

Q = (0.05, 0)
PADDING_SAME, PADDING_VALID = 0, 1


def tensor(name: str, shape: Sequence[int], type: str = "INT8", **extra: Any) -> T:
    return T(name, shape, type, q=Q if type in ("INT8", "UINT8") else None, **extra)


def one(
    name: str, source: Sequence[int], result: Sequence[int], *, options: Sequence[tuple[int, str, Any]] = (),
    constants: Sequence[T] = (), type: str = "INT8", version: int = 1, custom: str = "", order: Sequence[str] = (),
    signature: Sequence[int] | None = None, metadata: dict[str, bytes] | None = None,
) -> bytes:  # fmt: skip
    """A model of a single operator: x (and constants) -> y."""
    inputs = order or ["x", *[c.name for c in constants]]
    return build(
        Graph(
            [tensor("x", source, type, signature=signature), *constants, tensor("y", result, type)],
            [Op(name, inputs, ["y"], options, version, custom)],
            ["x"],
            ["y"],
            metadata or {},
        )
    )


def relu(shape: Sequence[int] = (1, 8), type: str = "INT8", **extra: Any) -> bytes:
    return one("RELU", shape, shape, type=type, **extra)


def conv(
    source: Sequence[int] = (1, 8, 8, 4), out: int = 4, kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1), *, padding: int = PADDING_SAME, dilation: tuple[int, int] = (1, 1),
    type: str = "INT8", weights: Any = None,
    in_channels: int | None = None, constant: bool = True,
) -> bytes:  # fmt: skip
    """A model of one convolution. Pairs are (height, width)."""
    shape = (out, *kernel, in_channels or source[3])
    data = (np.arange(np.prod(shape)).reshape(shape) % 7 - 3) if weights is None else weights
    edge = [-(-source[1 + i] // stride[i]) if padding == PADDING_SAME else (source[1 + i] - kernel[i]) // stride[i] + 1
            for i in (0, 1)]  # fmt: skip
    w = tensor("w", shape, type, data=data if constant else None)
    bias = T("b", (out,), "INT32" if type == "INT8" else "FP32", data=0)
    options = [
        (0, "b", padding), (1, "i", stride[1]), (2, "i", stride[0]), (4, "i", dilation[1]), (5, "i", dilation[0]),
    ]  # fmt: skip
    graph = Graph(
        [tensor("x", source, type), w, bias, tensor("y", (source[0], *edge, out), type)],
        [Op("CONV_2D", ["x", "w", "b"], ["y"], options)],
        ["x"] if constant else ["x", "w"],
        ["y"],
    )
    return build(graph)


def padded_conv(side: int, stride: int, pads: tuple[int, int]) -> bytes:
    """PAD by pads (before, after) in height and width, then a VALID 3x3 convolution of 3 to 16 channels; float."""
    big = side + sum(pads)
    edge = (big - 3) // stride + 1
    tensors = [
        T("x", (1, side, side, 3)), T("p", (4, 2), "INT32", data=[[0, 0], pads, pads, [0, 0]]),
        T("m", (1, big, big, 3)), T("w", (16, 3, 3, 3), data=0.1), T("b", (16,), data=0), T("y", (1, edge, edge, 16)),
    ]  # fmt: skip
    options = [(0, "b", PADDING_VALID), (1, "i", stride), (2, "i", stride)]
    return chain(Op("PAD", ["x", "p"], ["m"]), Op("CONV_2D", ["m", "w", "b"], ["y"], options), tensors=tensors)


def pool(size: tuple[int, int], stride: tuple[int, int], activation: int = 0, type: str = "INT8") -> bytes:
    options = [
        (0, "b", PADDING_VALID), (1, "i", stride[1]), (2, "i", stride[0]), (3, "i", size[1]), (4, "i", size[0]),
        (5, "b", activation),
    ]  # fmt: skip
    edge = [(16 - size[i]) // stride[i] + 1 for i in (0, 1)]
    return one("MAX_POOL_2D", (1, 16, 16, 4), (1, *edge, 4), options=options, type=type)


def dense(
    inputs: int, outputs: int, *, result: Sequence[int] | None = None, format: int = 0, type: str = "INT8"
) -> bytes:
    """A model of one fully connected layer."""
    rows = 2 if result and len(result) > 1 and result[0] > 1 else 1
    w = tensor("w", (outputs, inputs), type, data=np.arange(inputs * outputs).reshape(outputs, inputs) % 5 - 2)
    return one(
        "FULLY_CONNECTED", (rows, inputs), result or (1, outputs), options=[(1, "b", format)], constants=[w], type=type
    )


def axes(*values: int) -> T:
    return T("axes", (len(values),), "INT32", data=values)


def chain(
    *operators: Op, tensors: Sequence[T], inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",)
) -> bytes:
    return build(Graph(tensors, operators, inputs, outputs))


def quantised_relu_between(*middle: str) -> bytes:
    """RELU - middle operators - RELU, all int8."""
    names = ["RELU", *middle, "RELU"]
    tensors = [tensor(f"t{i}", (1, 8)) for i in range(len(names) + 1)]
    return chain(
        *[Op(n, [f"t{i}"], [f"t{i + 1}"]) for i, n in enumerate(names)],
        tensors=tensors, inputs=["t0"], outputs=[f"t{len(names)}"],
    )  # fmt: skip


def float_borders(type: str) -> bytes:
    """A quantised operator between QUANTIZE and DEQUANTIZE, or without them."""
    if type == "INT8":
        return relu()
    return chain(
        Op("QUANTIZE", ["x"], ["a"]), Op("RELU", ["a"], ["b"]), Op("DEQUANTIZE", ["b"], ["y"]),
        tensors=[tensor("x", (1, 8), "FP32"), tensor("a", (1, 8)), tensor("b", (1, 8)), tensor("y", (1, 8), "FP32")],
    )  # fmt: skip


def transposes(*permutations: Sequence[int]) -> bytes:
    """TRANSPOSE operators one behind the other, then a RELU."""
    shape: tuple[int, ...] = (1, 8, 8, 8)
    tensors, operators = [tensor("t0", shape, "FP32")], []
    for i, permutation in enumerate(permutations):
        tensors += [T(f"p{i}", (4,), "INT32", data=permutation), tensor(f"t{i + 1}", shape, "FP32")]
        operators.append(Op("TRANSPOSE", [f"t{i}", f"p{i}"], [f"t{i + 1}"]))
    last = f"t{len(permutations)}"
    tensors.append(tensor("y", shape, "FP32"))
    return chain(*operators, Op("RELU", [last], ["y"]), tensors=tensors, inputs=["t0"])


def strided_slice(strides: Sequence[int], mask: int = 0) -> bytes:
    constants = [T(n, (2,), "INT32", data=v) for n, v in (("begin", (0, 0)), ("end", (1, 8)), ("strides", strides))]
    result = (1, -(-8 // strides[1]))
    return one("STRIDED_SLICE", (1, 8), result, options=[(2, "i", mask)] if mask else [], constants=constants)


def bias_only(value: float) -> bytes:
    """x * w + a constant; the result depends on x unless w is 0."""
    shape = (1, 8)
    return chain(
        Op("MUL", ["x", "w"], ["m"]), Op("ADD", ["m", "c"], ["y"]),
        tensors=[tensor("x", shape, "FP32"), T("w", shape, data=value), tensor("m", shape, "FP32"),
                 T("c", shape, data=3.0), tensor("y", shape, "FP32")],
    )  # fmt: skip


def concat(*constants: int | None, activation: int = 0) -> bytes:
    """Join x with constant tensors of the given value."""
    tensors = [tensor("x", (1, 4))] + [tensor(f"c{i}", (1, 4), data=v) for i, v in enumerate(constants)]
    tensors.append(tensor("y", (1, 4 * len(tensors))))
    options = [(0, "i", 1), (1, "b", activation)]
    return chain(Op("CONCATENATION", [t.name for t in tensors[:-1]], ["y"], options), tensors=tensors)


def input_range(scale: float, zero: int) -> bytes:
    """A picture model whose input covers scale * (0..255 - zero)."""
    return build(
        Graph(
            [T("x", (1, 8, 8, 3), "UINT8", q=(scale, zero)), T("y", (1, 8, 8, 3), "UINT8", q=(scale, zero))],
            [Op("RELU", ["x"], ["y"])], ["x"], ["y"],
        )
    )  # fmt: skip


FP = "FP32"
PROTOTXT = b"""
input: "data"
input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "r" type: "ReLU" bottom: "data" top: "r" }
"""

#: rule -> (target, a file that breaks it, a file that keeps it).
TFLITE: dict[str, tuple[str, bytes, bytes]] = {
    "TFL001": ("cpu", relu()[:100], relu()),
    "TFL009": ("cpu", PROTOTXT, relu()),
    "TFL002": ("cpu", one("CUSTOM", (1, 8), (1, 8), custom="FlexErf"), relu()),
    "TFL003": ("cpu", one("CUSTOM", (1, 8), (1, 8), custom="MyOp"), relu()),
    "TFL004": (
        "cpu",
        relu(metadata={"min_runtime_version": b"9.9.0"}),
        relu(metadata={"min_runtime_version": b"1.5.0"}),
    ),
    "TFL005": ("cpu", relu(version=20), relu(version=1)),
    "TFL006": ("cpu", relu(type=FP, signature=(-1, 8)), relu(type=FP, signature=(1, 8))),
    "TFL008": ("cpu", one("CUSTOM", (1, 8), (1, 8), custom="edgetpu-custom-op"), relu()),
    "SAN001": ("cpu", bias_only(0.0), bias_only(1.0)),
    "SAN002": ("cpu", bias_only(float("nan")), bias_only(1.0)),
    "SAN003": ("cpu", input_range(0.0, 0), input_range(0.1, 0)),
    "SAN010": ("cpu", input_range(1e-20, 0), input_range(0.1, 0)),
    "SAN005": ("cpu", relu((1, 3, 32, 32), FP), relu((1, 32, 32, 3), FP)),
    "SAN006": ("cpu", transposes((0, 3, 1, 2), (0, 2, 3, 1)), transposes((0, 3, 1, 2))),
    "SAN007": (
        "cpu",
        chain(
            Op("ADD", ["x", "x2"], ["y"]),
            tensors=[tensor("x", (1, 8), FP), tensor("x2", (1, 7), FP), tensor("y", (1, 8), FP)],
            inputs=["x", "x2"],
        ),
        relu(type=FP),
    ),
    "SAN008": ("cpu", one("LOG", (1, 8), (1, 8), type=FP), one("EXP", (1, 8), (1, 8), type=FP)),
    "ETP001": ("edgetpu", relu(type=FP), relu()),
    "ETP002": ("edgetpu", one("ADD", (1, 8), (1, 8), type="INT32", order=["x", "x"]), relu()),
    "ETP003": ("edgetpu", relu(signature=(1, -1)), relu(signature=(-1, 8))),
    "ETP004": ("edgetpu", conv(constant=False), conv()),
    "ETP005": ("edgetpu", relu((2, 3, 4, 5)), relu((1, 3, 4, 5))),
    "ETP006": ("edgetpu", conv((1, 4, 4, 1024), 1024, weights=1), conv((1, 4, 4, 256), 256, weights=1)),
    "ETP007": ("edgetpu", float_borders(FP), float_borders("INT8")),
    "ETP010": ("edgetpu", quantised_relu_between("TRANSPOSE"), quantised_relu_between("LOGISTIC")),
    "ETP014": ("edgetpu", quantised_relu_between("LEAKY_RELU"), quantised_relu_between("TANH")),
    "ETP015": ("edgetpu", one("LEAKY_RELU", (1, 8), (1, 8), options=[(0, "f", 0.1)]), relu()),
    "ETP020": ("edgetpu", pool((2, 2), (2, 2), activation=1), pool((2, 2), (2, 2))),
    "ETP021": ("edgetpu", concat(5), concat(0)),
    "ETP022": ("edgetpu", conv(dilation=(1, 2)), conv(dilation=(2, 2))),
    "ETP023": ("edgetpu", dense(8, 4, result=(2, 4)), dense(8, 4)),
    "ETP024": (
        "edgetpu",
        one("LSTM", (1, 8), (1, 8), options=[(3, "b", 1)]),
        one("LSTM", (1, 8), (1, 8), options=[(3, "b", 0)]),
    ),
    "ETP025": (
        "edgetpu",
        one("MEAN", (1, 4, 4, 5), (1, 4, 4), constants=[axes(3)]),
        one("MEAN", (1, 4, 4, 5), (1, 5), constants=[axes(1, 2)]),
    ),
    "ETP026": (
        "edgetpu",
        one("REDUCE_MAX", (1, 8), (8,), constants=[axes(0)]),
        one("REDUCE_MAX", (1, 8), (1,), constants=[axes(1)]),
    ),
    "ETP027": (
        "edgetpu",
        one("PRELU", (1, 4, 4, 3), (1, 4, 4, 3), constants=[tensor("alpha", (4, 4, 3), data=1)]),
        one("PRELU", (1, 4, 4, 3), (1, 4, 4, 3), constants=[tensor("alpha", (1, 1, 3), data=1)]),
    ),
    "ETP028": (
        "edgetpu",
        one("RESHAPE", (1, 512, 512, 1), (1, 262144), constants=[T("s", (2,), "INT32", data=(1, 262144))]),
        one("RESHAPE", (1, 4, 4, 1), (1, 16), constants=[T("s", (2,), "INT32", data=(1, 16))]),
    ),
    "ETP029": (
        "edgetpu",
        one("RESIZE_BILINEAR", (1, 8, 8, 21), (1, 513, 513, 21), constants=[T("s", (2,), "INT32", data=(513, 513))]),
        one("RESIZE_BILINEAR", (1, 8, 8, 4), (1, 16, 16, 4), constants=[T("s", (2,), "INT32", data=(16, 16))]),
    ),
    "ETP030": (
        "edgetpu",
        one("SOFTMAX", (4, 8), (4, 8), options=[(0, "f", 1.0)]),
        one("SOFTMAX", (1, 8), (1, 8), options=[(0, "f", 1.0)]),
    ),
    "ETP031": (
        "edgetpu",
        one("SQUEEZE", (1, 8, 1), (1, 8), options=[(0, "V", (2,))]),
        one("SQUEEZE", (1, 8, 1), (8, 1), options=[(0, "V", (0,))]),
    ),
    "ETP032": ("edgetpu", strided_slice((1, 2)), strided_slice((1, 1))),
    "KPU001": ("k210", b"LDMK\x04\0\0\0" + bytes(20), relu(type=FP)),
    "KPU023": ("k210", PROTOTXT, relu(type=FP)),
    "KPU002": ("k210", relu(), relu(type=FP)),
    "KPU003": ("k210", relu((1, 480, 640, 3), FP), relu((1, 240, 320, 3), FP)),
    "KPU004": (
        "k210",
        conv((1, 4, 4, 2048), 4, (1, 1), type=FP, weights=1),
        conv((1, 4, 4, 1024), 4, (1, 1), type=FP, weights=1),
    ),
    "KPU005": ("k210", conv((1, 2, 2, 4), type=FP), conv((1, 4, 4, 4), type=FP)),
    "KPU006": ("k210", conv(kernel=(5, 5), type=FP), conv(kernel=(1, 1), type=FP)),
    "KPU007": ("k210", conv((1, 16, 16, 4), stride=(4, 4), type=FP), conv((1, 16, 16, 4), stride=(2, 2), type=FP)),
    "KPU008": ("k210", conv(dilation=(2, 2), type=FP), conv(type=FP)),
    "KPU009": ("k210", conv(stride=(2, 2), type=FP), padded_conv(64, 2, (1, 1))),
    "KPU010": ("k210", pool((3, 3), (2, 2), type=FP), pool((2, 2), (2, 2), type=FP)),
    "KPU011": (
        "k210",
        one("PRELU", (1, 4, 4, 3), (1, 4, 4, 3), constants=[T("alpha", (1, 1, 3), data=1)], type=FP),
        relu(type=FP),
    ),
    "KPU012": ("k210", one("ARG_MAX", (1, 8), (1, 8), constants=[axes(1)], type=FP), relu(type=FP)),
    "KPU013": ("k210", conv((1, 240, 320, 3), 32, type=FP), conv((1, 240, 320, 3), 8, stride=(2, 2), type=FP)),
    "KPU015": ("k210", conv((1, 4, 4, 4), stride=(2, 2), type=FP), conv((1, 8, 8, 4), stride=(2, 2), type=FP)),
    "KPU016": ("k210", conv(type=FP, weights=np.linspace(-40, 40, 4 * 9 * 4).reshape(4, 3, 3, 4)), conv(type=FP)),
    "KPU017": ("k210", dense(8, 4, type=FP), dense(64, 64, type=FP)),
    "KPU020": ("k210", relu((2, 8, 8, 3), FP), relu((1, 8, 8, 3), FP)),
    "KPU021": ("k210", conv(kernel=(5, 5), type=FP), conv(type=FP)),
    "NCS000": (
        "ncs",
        relu(),
        PROTOTXT,
    ),
}
