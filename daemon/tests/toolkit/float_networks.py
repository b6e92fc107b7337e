"""Whole float networks with random weights, as TensorFlow exports them: for what compilers make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tflite_builder import Graph, Op, T, build

RELU, RELU6 = 1, 3
#: (out channels, stride) of MobileNet v1's blocks.
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
#: (expansion, channels, repeats, stride) of MobileNet v2's stages.
_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
_LEAKY = 0.1


class Net:
    """Adds layers one by one; tensors are named t0, t1, ... and float."""

    def __init__(self, *shape: int) -> None:
        self.random = np.random.default_rng(1)
        self.tensors: list[T] = []
        self.operators: list[Op] = []
        self.input = self.add_tensor((1, *shape))

    def add_tensor(self, shape: Sequence[int]) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(T(name, tuple(shape)))
        return name

    def constant(self, shape: Sequence[int], type: str = "FP32", data: Any = None) -> str:
        name = f"t{len(self.tensors)}"
        if data is None:
            fan = float(np.prod(shape[1:])) or 1.0
            data = self.random.normal(0, (2 / fan) ** 0.5, shape).astype(np.float32)
        self.tensors.append(T(name, tuple(shape), type, data=data))
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        return next(tuple(t.shape) for t in self.tensors if t.name == name)

    def op(self, kind: str, inputs: Sequence[str], shape: Sequence[int], *options: tuple[int, str, Any]) -> str:
        made = self.add_tensor(shape)
        self.operators.append(Op(kind, inputs, [made], options))
        return made

    def conv(
        self, x: str, out: int, kernel: int = 3, stride: int = 1, act: int = RELU, *, valid: bool = False,
        depthwise: bool = False, dilation: int = 1, groups: int = 1,
    ) -> str:  # fmt: skip
        """A convolution with what Keras folds into it; `out` is ignored where it is depthwise."""
        _, height, width, channels = self.shape(x)
        out = channels if depthwise else out
        reach = dilation * (kernel - 1) + 1
        edge = [(d - reach) // stride + 1 if valid else -(-d // stride) for d in (height, width)]
        weights = (1, kernel, kernel, channels) if depthwise else (out, kernel, kernel, channels // groups)
        options = [(0, "b", int(valid)), (1, "i", stride), (2, "i", stride)]
        options += [(3, "i", 1), (4, "b", act), (5, "i", dilation), (6, "i", dilation)] if depthwise else [
            (3, "b", act), (4, "i", dilation), (5, "i", dilation)
        ]  # fmt: skip
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        inputs = [x, self.constant(weights), self.constant((out,), data=0.01)]
        return self.op(kind, inputs, (1, *edge, out), *options)

    def pool(self, x: str, size: int = 2, stride: int = 2, kind: str = "MAX", *, valid: bool = True) -> str:
        _, height, width, channels = self.shape(x)
        edge = [(d - size) // stride + 1 if valid else -(-d // stride) for d in (height, width)]
        options = [(0, "b", int(valid)), (1, "i", stride), (2, "i", stride), (3, "i", size), (4, "i", size)]
        return self.op(f"{kind}_POOL_2D", [x], (1, *edge, channels), *options)

    def pad(self, x: str, before: int = 1, after: int = 1) -> str:
        _, height, width, channels = self.shape(x)
        amounts = self.constant((4, 2), "INT32", [[0, 0], [before, after], [before, after], [0, 0]])
        more = before + after
        return self.op("PAD", [x, amounts], (1, height + more, width + more, channels))

    def act(self, x: str, kind: str) -> str:
        if kind == "PRELU":
            return self.op(kind, [x, self.constant((1, 1, self.shape(x)[-1]), data=0.2)], self.shape(x))
        return self.op(kind, [x], self.shape(x), *([(0, "f", _LEAKY)] if kind == "LEAKY_RELU" else []))

    def join(self, kind: str, *xs: str, act: int = 0) -> str:
        """ADD, MUL or CONCATENATION."""
        first = self.shape(xs[0])
        if kind == "CONCATENATION":
            shape = (*first[:-1], sum(self.shape(x)[-1] for x in xs))
            return self.op(kind, xs, shape, (0, "i", 3), (1, "b", act))
        return self.op(kind, xs, first, (0, "b", act))

    def up(self, x: str, factor: int = 2, kind: str = "RESIZE_NEAREST_NEIGHBOR") -> str:
        _, height, width, channels = self.shape(x)
        size = (height * factor, width * factor)
        half = (1, "b", 1) if kind.endswith("NEIGHBOR") else (3, "b", 1)
        return self.op(kind, [x, self.constant((2,), "INT32", size)], (1, *size, channels), half)

    def mean(self, x: str, *, keep: bool = False) -> str:
        channels = self.shape(x)[-1]
        shape = (1, 1, 1, channels) if keep else (1, channels)
        return self.op("MEAN", [x, self.constant((2,), "INT32", (1, 2))], shape, (0, "b", int(keep)))

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("RESHAPE", [x, self.constant((len(shape),), "INT32", shape)], shape)

    def flat(self, x: str) -> str:
        return self.reshape(x, 1, int(np.prod(self.shape(x))))

    def dense(self, x: str, out: int, act: int = 0) -> str:
        inputs = [x, self.constant((out, self.shape(x)[-1])), self.constant((out,), data=0.01)]
        return self.op("FULLY_CONNECTED", inputs, (1, out), (0, "b", act))

    def softmax(self, x: str) -> str:
        return self.op("SOFTMAX", [x], self.shape(x), (0, "f", 1.0))

    def file(self, *outputs: str) -> bytes:
        return build(Graph(self.tensors, self.operators, [self.input], outputs))


def mobilenet_v1(
    height: int, width: int, channels: int, alpha: float, classes: int = 0, *, padded: bool = False
) -> bytes:
    """MobileNet v1; `padded`: stride 2 by explicit padding, as Keras' own has it."""
    net = Net(height, width, channels)

    def down(x: str, out: int, *, depthwise: bool) -> str:
        if padded:
            return net.conv(net.pad(x), out, 3, 2, RELU6, valid=True, depthwise=depthwise)
        return net.conv(x, out, 3, 2, RELU6, depthwise=depthwise)

    x = down(net.input, int(32 * alpha), depthwise=False)
    for out, stride in _V1:
        x = down(x, 0, depthwise=True) if stride == 2 else net.conv(x, 0, 3, 1, RELU6, depthwise=True)
        x = net.conv(x, int(out * alpha), 1, 1, RELU6)
    return net.file(net.softmax(net.dense(net.mean(x), classes)) if classes else x)


def mobilenet_v2(side: int, alpha: float, classes: int) -> bytes:
    net = Net(side, side, 3)

    def wide(channels: int) -> int:
        return max(8, int(channels * alpha) // 8 * 8)

    x = net.conv(net.input, wide(32), 3, 2, RELU6)
    for expansion, out, repeats, stride in _V2:
        for number in range(repeats):
            before = x
            y = net.conv(x, net.shape(x)[-1] * expansion, 1, 1, RELU6) if expansion > 1 else x
            y = net.conv(y, 0, 3, 1 if number else stride, RELU6, depthwise=True)
            y = net.conv(y, wide(out), 1, 1, 0)
            x = net.join("ADD", before, y) if number else y
    x = net.conv(x, 1024, 1, 1, RELU6)
    return net.file(net.dense(net.mean(x), classes))


def residual(side: int, width: int, blocks: int, activation: str = "") -> bytes:
    net = Net(side, side, 3)

    def layer(x: str, out: int, stride: int = 1) -> str:
        made = net.conv(x, out, 3, stride, 0 if activation else RELU)
        return net.act(made, activation) if activation else made

    x = layer(net.input, width)
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            out = width << stage
            y = net.conv(layer(x, out, stride), out, 3, 1, 0)
            x = net.join("ADD", net.conv(x, out, 1, 2, 0) if stride == 2 else x, y, act=RELU)
    return net.file(net.dense(net.mean(x), 10))


def yolo(height: int, width: int, activation: str) -> bytes:
    """Tiny YOLO v2 of the K210's examples."""
    net = Net(height, width, 3)
    x = net.input
    for out in (16, 32, 64, 128, 256):
        x = net.act(net.conv(x, out, act=0), activation) if activation else net.conv(x, out)
        x = net.pool(x)
    for out in (512, 512):
        x = net.act(net.conv(x, out, act=0), activation) if activation else net.conv(x, out)
    return net.file(net.conv(x, 30, 1, act=0))


def unet(side: int, channels: int, width: int) -> bytes:
    net = Net(side, side, channels)
    x, kept = net.input, []
    for level in range(3):
        x = net.conv(net.conv(x, width << level), width << level)
        kept.append(x)
        x = net.pool(x)
    x = net.conv(x, width << 3)
    for level in (2, 1, 0):
        x = net.conv(net.join("CONCATENATION", net.up(x), kept[level]), width << level)
    return net.file(net.act(net.conv(x, 1, 1, act=0), "LOGISTIC"))


def squeeze(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.pool(net.conv(net.input, 32, 3, 2))
    for number, (less, more) in enumerate(((16, 64), (16, 64), (32, 128), (32, 128))):
        s = net.conv(x, less, 1)
        x = net.join("CONCATENATION", net.conv(s, more, 1), net.conv(s, more, 3))
        x = net.pool(x) if number == 1 else x
    return net.file(net.softmax(net.mean(net.conv(x, 20, 1, act=0))))


def dense_blocks(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.conv(net.input, 16)
    for number in range(6):
        x = net.join("CONCATENATION", x, net.conv(x, 12))
        if number % 2:
            x = net.pool(net.conv(x, 24 + 8 * number, 1), kind="AVERAGE")
    return net.file(net.dense(net.mean(x), 10))


def squeeze_excite(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.conv(net.input, 16, 3, 2)
    for out in (24, 40, 80):
        x = net.conv(net.conv(x, 0, 3, 2, RELU6, depthwise=True), out, 1)
        gate = net.conv(net.mean(x, keep=True), out // 4, 1)
        x = net.join("MUL", x, net.act(net.conv(gate, out, 1, act=0), "LOGISTIC"))
    return net.file(net.dense(net.mean(x), 10))


def detector(side: int) -> bytes:
    """Three scales with two heads each."""
    net = Net(side, side, 3)
    x, heads = net.conv(net.input, 16, 3, 2), []
    for out in (32, 64, 128):
        x = net.conv(net.conv(x, 0, 3, 2, RELU6, depthwise=True), out, 1, 1, RELU6)
        heads += [net.conv(x, 24, 3, act=0), net.conv(x, 12, 1, act=0)]
    return net.file(*heads)


def auto_encoder(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.input
    for out in (16, 32):
        x = net.pool(net.conv(x, out))
    x = net.dense(net.dense(net.flat(x), 64), side * side)
    x = net.reshape(x, 1, side // 4, side // 4, 16)
    for out in (32, 16):
        x = net.conv(net.up(x), out)
    return net.file(net.act(net.conv(x, 3, act=0), "LOGISTIC"))


def pyramid(side: int) -> bytes:
    """Three scales joined from the smallest up."""
    net = Net(side, side, 3)
    x, scales = net.conv(net.input, 16, 3, 2), []
    for out in (32, 64, 128):
        x = net.conv(net.conv(x, out, 3, 2), out)
        scales.append(x)
    joined = net.conv(scales[2], 32, 1)
    heads = [net.conv(joined, 18, 1, act=0)]
    for scale in (scales[1], scales[0]):
        joined = net.conv(net.join("ADD", net.up(joined), net.conv(scale, 32, 1)), 32)
        heads.append(net.conv(joined, 18, 1, act=0))
    return net.file(*heads)


def bottlenecks(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.pool(net.conv(net.input, 32, 3, 2), 3, 2, valid=False)
    for width, first in ((32, 1), (64, 2), (128, 2)):
        for block in range(2):
            stride = 1 if block else first
            y = net.conv(net.conv(net.conv(x, width, 1), width, 3, stride), 2 * width, 1, 1, 0)
            x = net.join("ADD", x if block else net.conv(x, 2 * width, 1, stride, 0), y, act=RELU)
    return net.file(net.dense(net.mean(x), 100))


def inception(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.pool(net.conv(net.input, 32))
    for _ in range(2):
        five = net.conv(net.conv(net.conv(x, 8, 1), 16), 16)
        branches = [net.conv(x, 16, 1), net.conv(net.conv(x, 16, 1), 24), five]
        branches.append(net.conv(net.pool(x, 3, 1, valid=False), 8, 1))
        x = net.pool(net.join("CONCATENATION", *branches))
    return net.file(net.softmax(net.dense(net.flat(x), 10)))


def shuffled(side: int) -> bytes:
    net = Net(side, side, 3)
    x = net.pool(net.conv(net.input, 24, 3, 2), 3, 2, valid=False)
    for width in (48, 96):
        for block in range(2):
            y = net.conv(net.conv(x, width, 1), 0, 3, 1 if block else 2, 0, depthwise=True)
            y = net.conv(y, width, 1)
            if block:
                x = net.join("ADD", net.conv(x, width, 1), y)
            else:
                z = net.conv(net.conv(x, 0, 3, 2, 0, depthwise=True), width, 1)
                x = net.join("CONCATENATION", y, z)
    return net.file(net.dense(net.mean(x), 10))


def keyword(height: int, width: int) -> bytes:
    net = Net(height, width, 1)
    x = net.conv(net.input, 64, 3, 2)
    for _ in range(4):
        x = net.conv(net.conv(x, 0, depthwise=True), 64, 1)
    return net.file(net.softmax(net.dense(net.mean(x), 12)))


def sums(side: int) -> bytes:
    """Sums of one another, with a pooling behind one."""
    net = Net(side, side, 16)
    x = net.pool(net.join("ADD", net.conv(net.input, 16), net.conv(net.input, 16)))
    return net.file(net.conv(net.join("ADD", x, net.conv(x, 16)), 8, 1))


def valid(height: int, width: int) -> bytes:
    net = Net(height, width, 3)
    x = net.conv(net.input, 16, valid=True)
    x = net.conv(net.conv(x, 32, 3, 2, valid=True), 32, valid=True)
    return net.file(net.dense(net.mean(x), 10))


def strides(first: int, kernel: int, *behind: int, depthwise: bool = False) -> bytes:
    """A convolution, one of stride 2, and some behind it, by their kernels."""
    net = Net(64, 64, 3)
    x = net.conv(net.conv(net.input, 16, first), 32, kernel, 2, depthwise=depthwise)
    for size in behind:
        x = net.conv(x, 24, size)
    return net.file(x)


def dilations(*layers: tuple[int, bool]) -> bytes:
    """Dilated 3x3 convolutions (rate, whether depthwise), then one without."""
    net = Net(33, 40, 3)
    x = net.conv(net.input, 8)
    for rate, depthwise in layers:
        x = net.conv(x, 12, dilation=rate, depthwise=depthwise)
    return net.file(net.conv(x, 8))


def functions(*names: str) -> bytes:
    """Functions of one value between convolutions."""
    net = Net(16, 24, 3)
    x = net.input
    for name in names:
        x = net.act(net.conv(x, 8), name)
    return net.file(net.conv(x, 8))


def odd_ends() -> bytes:
    """A padding in front of a convolution that pads by itself, and a branch that nothing reads."""
    net = Net(20, 20, 3)
    x = net.conv(net.input, 8)
    net.conv(x, 64)
    return net.file(net.conv(net.pad(x, 2, 1), 8))


#: Of a plain chain: out channels, kernel, stride, what comes behind ("max", "mean4", "LOGISTIC", ...).
Layer = tuple[int, int, int, str]
_AFTER: dict[str, Callable[[Net, str], str]] = {
    "": lambda net, x: x,
    "max": lambda net, x: net.pool(x),
    "mean": lambda net, x: net.pool(x, kind="AVERAGE"),
    "max3": lambda net, x: net.pool(x, 3, 2, valid=False),
    "max4": lambda net, x: net.pool(x, 4, 4),
    "mean4": lambda net, x: net.pool(x, 4, 4, "AVERAGE"),
    "max2s1": lambda net, x: net.pool(x, 2, 1, valid=False),
    "up": lambda net, x: net.up(x),
    "swish": lambda net, x: net.pool(net.join("MUL", x, net.act(x, "LOGISTIC"))),
    "bilinear": lambda net, x: net.up(x, kind="RESIZE_BILINEAR"),
}


def chain(shape: Sequence[int], layers: Sequence[Layer], classes: int = 0, activation: str = "") -> bytes:
    net = Net(*shape)
    x = net.input
    for out, kernel, stride, after in layers:
        x = net.conv(x, out, kernel, stride, 0 if activation else RELU)
        x = _AFTER[after](net, net.act(x, activation) if activation else x)
    return net.file(net.softmax(net.dense(net.flat(x), classes)) if classes else x)


_PLAIN: Sequence[Layer] = ((16, 3, 1, "max"), (32, 3, 1, "max"))

NETWORKS: dict[str, Callable[[], bytes]] = {
    "mobilenet v1 0.25 128": lambda: mobilenet_v1(128, 128, 3, 0.25, 100),
    "mobilenet v1 0.25 224": lambda: mobilenet_v1(224, 224, 3, 0.25, 100),
    "mobilenet v1 0.5 224 padded": lambda: mobilenet_v1(224, 224, 3, 0.5, 100, padded=True),
    "mobilenet v1 0.75 240x320": lambda: mobilenet_v1(240, 320, 3, 0.75),
    "mobilenet v1 0.25 99": lambda: mobilenet_v1(99, 99, 3, 0.25, 10),
    "mobilenet v1 0.25 grey 95x63": lambda: mobilenet_v1(95, 63, 1, 0.25),
    "mobilenet v2 0.35 96": lambda: mobilenet_v2(96, 0.35, 100),
    "mobilenet v2 0.5 224": lambda: mobilenet_v2(224, 0.5, 100),
    "residual 32": lambda: residual(32, 16, 3),
    "residual 64 leaky": lambda: residual(64, 16, 2, "LEAKY_RELU"),
    "residual 96 wide": lambda: residual(96, 32, 2),
    "yolo 224x320 leaky": lambda: yolo(224, 320, "LEAKY_RELU"),
    "yolo 240x320": lambda: yolo(240, 320, ""),
    "yolo 160 leaky": lambda: yolo(160, 160, "LEAKY_RELU"),
    "u-net 64": lambda: unet(64, 3, 8),
    "u-net 128 grey": lambda: unet(128, 1, 16),
    "squeezenet 224": lambda: squeeze(224),
    "squeezenet 100": lambda: squeeze(100),
    "dense blocks 32": lambda: dense_blocks(32),
    "squeeze and excite 96": lambda: squeeze_excite(96),
    "detector 160": lambda: detector(160),
    "auto-encoder 32": lambda: auto_encoder(32),
    "digits 28": lambda: chain((28, 28, 1), ((8, 3, 1, "max"), (16, 3, 1, "max")), 10),
    "kernel 5 48": lambda: chain((48, 48, 3), ((16, 5, 1, "max"), (32, 3, 1, "max3"), (32, 3, 2, "")), 10),
    "stride 2 chain 50": lambda: chain((50, 50, 3), ((16, 3, 2, ""), (32, 3, 2, ""), (32, 3, 2, "")), 10),
    "hard swish 64": lambda: chain((64, 64, 3), ((16, 3, 2, ""), (32, 3, 1, "mean"), (32, 3, 1, "")), 10, "HARD_SWISH"),
    "sigmoid 64": lambda: chain((64, 64, 3), _PLAIN, 10, "LOGISTIC"),
    "swish 64": lambda: chain((64, 64, 3), ((16, 3, 1, "swish"), (32, 3, 2, "swish")), 10, "LOGISTIC"),
    "prelu 64": lambda: chain((64, 64, 3), _PLAIN, 10, "PRELU"),
    "wide channels 33x17": lambda: chain((33, 17, 3), ((64, 3, 1, "max"), (512, 3, 2, ""), (1024, 1, 1, ""))),
    "growing 16": lambda: chain((16, 16, 8), ((32, 3, 1, "up"), (32, 3, 1, "bilinear"), (8, 1, 1, ""))),
    "stride 4 64": lambda: chain((64, 64, 3), ((16, 3, 4, ""), (32, 3, 1, "max")), 10),
    "pool 4 mean 64": lambda: chain((64, 64, 3), ((16, 3, 1, "max4"), (32, 3, 1, "mean4")), 10),
    "pool stride 1 40": lambda: chain((40, 40, 3), ((16, 3, 1, "max2s1"), (32, 3, 1, "max")), 10),
    "large matrix 64": lambda: chain((64, 64, 3), _PLAIN, 1000),
    "pyramid 128": lambda: pyramid(128),
    "bottlenecks 112": lambda: bottlenecks(112),
    "inception 64": lambda: inception(64),
    "shuffled 128": lambda: shuffled(128),
    "keyword 49x10": lambda: keyword(49, 10),
    "sums 32": lambda: sums(32),
    "valid 63x65": lambda: valid(63, 65),
    "stride 2 before 1x1": lambda: strides(3, 3, 1, 1),
    "pointwise stride 2": lambda: strides(3, 1, 1, 3),
    "depthwise stride 2 before 3x3": lambda: strides(3, 3, 3, depthwise=True),
    "depthwise stride 2 before 1x1": lambda: strides(1, 3, 1, 3, depthwise=True),
    "residual 33": lambda: residual(33, 12, 2),
    "mobilenet v1 1.0 224": lambda: mobilenet_v1(224, 224, 3, 1.0, 1000),
    "mobilenet v1 0.5 160x120": lambda: mobilenet_v1(160, 120, 3, 0.5, 20),
    "mobilenet v2 1.0 160": lambda: mobilenet_v2(160, 1.0, 100),
    "mobilenet v2 0.75 128": lambda: mobilenet_v2(128, 0.75, 10),
    "dilated 33x40": lambda: dilations((2, False), (3, True), (4, False)),
    "functions 16x24": lambda: functions("EXP", "NEG", "ABS", "SQUARE", "SQRT", "COS", "FLOOR"),
    "padded twice 20": odd_ends,
}
