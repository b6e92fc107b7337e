"""What each layer of Caffe is in ONNX; part of the child `caffe_onnx`."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

onnx: Any = import_module("onnx")
Message = dict[str, list[Any]]
Shape = list[int]


class Network:
    """The graph as it grows."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        #: Blob -> the value that it holds now (layers may work in place), and shapes of values.
        self.now: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}

    def constant(self, name: str, value: Any) -> str:
        """A named constant."""
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        self.shapes[name] = list(np.shape(value))
        return name

    def add(self, kind: str, inputs: list[str], output: str, shape: Shape, **attributes: Any) -> str:
        """A node of one output."""
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        self.shapes[output] = [int(d) for d in shape]
        return output

    def blobs(self, layer: "Layer") -> list[Any]:
        """The weights of a layer."""
        made: list[Any] = []
        while f"{layer.name}:{len(made)}" in self.weights:
            made.append(self.weights[f"{layer.name}:{len(made)}"].astype(np.float32))
        return made


class Layer:
    """A layer with its parameters."""

    def __init__(self, entry: list[Any], net: Network) -> None:
        self.name, kind, self.bottoms, self.tops, self.message = entry
        self.kind = kind.lower().replace("_", "")
        self.inputs = [net.now[b] for b in self.bottoms if b in net.now]
        self.output = self.name

    def parameters(self, name: str) -> Message:
        """The message `<name>_param`."""
        return next((m for m in self.message.get(f"{name}_param", []) if isinstance(m, dict)), {})


def one(message: Message, field: str, default: Any) -> Any:
    """The first value of a field."""
    return next(iter(message.get(field, [])), default)


def pair(message: Message, name: str, default: int) -> tuple[int, int]:
    """Height and width of kernel, stride or padding."""
    both = message.get(f"{name}_size" if name == "kernel" else name, [])
    if both:
        return int(both[0]), int(both[-1])
    high, wide = (int(one(message, f"{name}_{side}", default)) for side in "hw")
    return high, wide


def convolution(net: Network, layer: Layer) -> None:
    p, shape = layer.parameters("convolution"), net.shapes[layer.inputs[0]]
    kernel, stride, pad = pair(p, "kernel", 0), pair(p, "stride", 1), pair(p, "pad", 0)
    dilation = [int(d) for d in p.get("dilation", [])] or [1, 1]
    dilation = [dilation[0], dilation[-1]]
    blobs, group = net.blobs(layer), int(one(p, "group", 1))
    count = int(one(p, "num_output", 0))
    if layer.kind in ("depthwiseconvolution", "convolutiondepthwise"):
        group = shape[1]
    if not blobs:
        raise SystemExit(f"layer {layer.name} has no weights in the .caffemodel; are both files of one network?")
    transposed = layer.kind == "deconvolution"
    wanted = [shape[1], count // group] if transposed else [count, shape[1] // group]
    names = [layer.inputs[0], net.constant(f"{layer.name}/w", blobs[0].reshape(*wanted, *kernel))]
    names += [net.constant(f"{layer.name}/b", blobs[1].reshape(-1))] if len(blobs) > 1 else []
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        edge = [s * (n - 1) + k - 2 * q for n, s, k, q in zip(shape[2:], stride, span, pad, strict=True)]
    else:
        edge = [(n + 2 * q - k) // s + 1 for n, s, k, q in zip(shape[2:], stride, span, pad, strict=True)]
    net.add(
        "ConvTranspose" if transposed else "Conv", names, layer.output, [shape[0], count, *edge],
        kernel_shape=list(kernel), strides=list(stride), pads=[*pad, *pad], dilations=dilation, group=group,
    )  # fmt: skip


def pooling(net: Network, layer: Layer) -> None:
    """Caffe rounds the size up; the windows that stick out are given the padding that makes them whole."""
    p, shape = layer.parameters("pooling"), net.shapes[layer.inputs[0]]
    mean = str(one(p, "pool", "MAX")) in ("AVE", "1")
    if one(p, "global_pooling", False):
        net.add("GlobalAveragePool" if mean else "GlobalMaxPool", layer.inputs, layer.output, [*shape[:2], 1, 1])
        return
    kernel, stride, pad = pair(p, "kernel", 0), pair(p, "stride", 1), pair(p, "pad", 0)
    down = str(one(p, "round_mode", "CEIL")) in ("FLOOR", "1") or one(p, "ceil_mode", True) is False
    edge: list[int] = []
    ends: list[int] = []
    areas: list[Any] = []
    for n, k, s, q in zip(shape[2:], kernel, stride, pad, strict=True):
        count = (n + 2 * q - k) / s
        out = (math.floor(count) if down else math.ceil(count)) + 1
        if q and (out - 1) * s >= n + q:
            out -= 1
        edge.append(out)
        ends.append(max(0, (out - 1) * s + k - n - q))
        # Caffe divides by the part of the window that lies within picture and padding.
        areas.append(np.array([min(i * s - q + k, n + q) - (i * s - q) for i in range(out)], np.float32))
    options = {"kernel_shape": list(kernel), "strides": list(stride), "pads": [*pad, *ends]}
    if not mean:
        net.add("MaxPool", layer.inputs, layer.output, [*shape[:2], *edge], **options)
        return
    factor = math.prod(kernel) / np.outer(areas[0], areas[1])
    whole = bool((factor == 1).all())
    made = layer.output if whole else f"{layer.output}/sum"
    net.add("AveragePool", layer.inputs, made, [*shape[:2], *edge], count_include_pad=1, **options)
    if not whole:
        share = net.constant(f"{layer.name}/share", factor[None, None].astype(np.float32))
        net.add("Mul", [made, share], layer.output, [*shape[:2], *edge])


def inner_product(net: Network, layer: Layer) -> None:
    p, shape = layer.parameters("inner_product"), net.shapes[layer.inputs[0]]
    axis, count = int(one(p, "axis", 1)) % len(shape), int(one(p, "num_output", 0))
    blobs = net.blobs(layer)
    if not blobs:
        raise SystemExit(f"layer {layer.name} has no weights in the .caffemodel; are both files of one network?")
    size = math.prod(shape[axis:])
    weight = blobs[0].reshape((size, count) if one(p, "transpose", False) else (count, size))
    weight = weight.T if one(p, "transpose", False) else weight
    flat = net.add("Flatten", layer.inputs, f"{layer.output}/flat", [math.prod(shape[:axis]), size], axis=axis)
    names = [flat, net.constant(f"{layer.name}/w", weight)]
    names += [net.constant(f"{layer.name}/b", blobs[1].reshape(-1))] if len(blobs) > 1 else []
    net.add("Gemm", names, layer.output, [math.prod(shape[:axis]), count], transB=1)


def relu(net: Network, layer: Layer) -> None:
    slope = float(one(layer.parameters("relu"), "negative_slope", 0))
    shape = net.shapes[layer.inputs[0]]
    if slope:
        net.add("LeakyRelu", layer.inputs, layer.output, shape, alpha=slope)
    else:
        net.add("Relu", layer.inputs, layer.output, shape)


def prelu(net: Network, layer: Layer) -> None:
    shape = net.shapes[layer.inputs[0]]
    slope = net.blobs(layer)[0].reshape(-1, *[1] * (len(shape) - 2))
    net.add("PRelu", [layer.inputs[0], net.constant(f"{layer.name}/slope", slope)], layer.output, shape)


def elu(net: Network, layer: Layer) -> None:
    alpha = float(one(layer.parameters("elu"), "alpha", 1))
    net.add("Elu", layer.inputs, layer.output, net.shapes[layer.inputs[0]], alpha=alpha)


def power(net: Network, layer: Layer) -> None:
    """(shift + scale * x) ^ power."""
    p, shape, value = layer.parameters("power"), net.shapes[layer.inputs[0]], layer.inputs[0]
    for kind, field, default in (("Mul", "scale", 1.0), ("Add", "shift", 0.0), ("Pow", "power", 1.0)):
        number = float(one(p, field, default))
        if number != default:
            constant = net.constant(f"{layer.name}/{field}", np.float32(number))
            value = net.add(kind, [value, constant], f"{layer.output}/{field}", shape)
    net.add("Identity", [value], layer.output, shape)


def batch_norm(net: Network, layer: Layer) -> None:
    blobs, shape = net.blobs(layer), net.shapes[layer.inputs[0]]
    if len(blobs) < 3:
        raise SystemExit(f"layer {layer.name} has {len(blobs)} of 3 statistics in the .caffemodel")
    share = 1 / blobs[2].reshape(-1)[0] if blobs[2].reshape(-1)[0] else 0.0
    mean, variance = (b.reshape(-1) * np.float32(share) for b in blobs[:2])
    parts = {"scale": np.ones_like(mean), "bias": np.zeros_like(mean), "mean": mean, "var": variance}
    names = [net.constant(f"{layer.name}/{key}", value) for key, value in parts.items()]
    epsilon = float(one(layer.parameters("batch_norm"), "eps", 1e-5))
    net.add("BatchNormalization", [layer.inputs[0], *names], layer.output, shape, epsilon=epsilon)


def scale(net: Network, layer: Layer) -> None:
    """A factor per channel (or from another blob), and a bias."""
    kind = "scale" if layer.kind == "scale" else "bias"
    p, shape = layer.parameters(kind), net.shapes[layer.inputs[0]]
    axis, blobs, value = int(one(p, "axis", 1)), net.blobs(layer), layer.inputs[0]

    def along(blob: Any) -> Any:
        return blob.reshape(*blob.shape, *[1] * (len(shape) - axis - blob.ndim))

    if len(layer.inputs) > 1:
        other = net.shapes[layer.inputs[1]]
        target = [*other, *[1] * (len(shape) - axis - len(other))]
        size = net.constant(f"{layer.name}/shape", np.array(target, np.int64))
        factor = net.add("Reshape", [layer.inputs[1], size], f"{layer.output}/factor", target)
        net.add("Mul" if kind == "scale" else "Add", [value, factor], layer.output, shape)
        return
    bias = blobs[1] if kind == "scale" and len(blobs) > 1 else blobs[0] if kind == "bias" else None
    if kind == "scale":
        end = layer.output if bias is None else f"{layer.output}/scaled"
        value = net.add("Mul", [value, net.constant(f"{layer.name}/scale", along(blobs[0]))], end, shape)
    if bias is not None:
        net.add("Add", [value, net.constant(f"{layer.name}/bias", along(bias))], layer.output, shape)


def lrn(net: Network, layer: Layer) -> None:
    p = layer.parameters("lrn")
    if str(one(p, "norm_region", "ACROSS_CHANNELS")) not in ("ACROSS_CHANNELS", "0"):
        raise SystemExit(f"layer {layer.name}: LRN within channels has no counterpart in ONNX")
    net.add(
        "LRN", layer.inputs, layer.output, net.shapes[layer.inputs[0]], size=int(one(p, "local_size", 5)),
        alpha=float(one(p, "alpha", 1)), beta=float(one(p, "beta", 0.75)), bias=float(one(p, "k", 1)),
    )  # fmt: skip


def concat(net: Network, layer: Layer) -> None:
    p = layer.parameters("concat")
    shapes = [net.shapes[i] for i in layer.inputs]
    axis = int(one(p, "axis", one(p, "concat_dim", 1))) % len(shapes[0])
    total = [sum(s[axis] for s in shapes) if d == axis else size for d, size in enumerate(shapes[0])]
    net.add("Concat", layer.inputs, layer.output, total, axis=axis)


def eltwise(net: Network, layer: Layer) -> None:
    p, shape = layer.parameters("eltwise"), net.shapes[layer.inputs[0]]
    kind = {"PROD": "Mul", "0": "Mul", "SUM": "Sum", "1": "Sum", "MAX": "Max", "2": "Max"}[
        str(one(p, "operation", "SUM"))
    ]
    values = layer.inputs
    for number, factor in enumerate(p.get("coeff", [])):
        if kind == "Sum" and factor != 1:
            constant = net.constant(f"{layer.name}/coeff{number}", np.float32(factor))
            made = net.add("Mul", [values[number], constant], f"{layer.output}/part{number}", shape)
            values = [*values[:number], made, *values[number + 1 :]]
    if kind != "Mul":
        net.add(kind, values, layer.output, shape)
        return
    product = values[0]
    for number, other in enumerate(values[1:]):
        last = number == len(values) - 2
        product = net.add("Mul", [product, other], layer.output if last else f"{layer.output}/{number}", shape)


def softmax(net: Network, layer: Layer) -> None:
    shape = net.shapes[layer.inputs[0]]
    axis = int(one(layer.parameters("softmax"), "axis", 1)) % len(shape)
    net.add("Softmax", layer.inputs[:1], layer.output, shape, axis=axis)


def flatten(net: Network, layer: Layer) -> None:
    p, shape = layer.parameters("flatten"), net.shapes[layer.inputs[0]]
    first, last = (int(one(p, field, default)) % len(shape) for field, default in (("axis", 1), ("end_axis", -1)))
    reshaped(net, layer, [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]])


def reshape(net: Network, layer: Layer) -> None:
    p, shape = layer.parameters("reshape"), net.shapes[layer.inputs[0]]
    given = [int(d) for d in one(p, "shape", {}).get("dim", [])]
    axis, count = int(one(p, "axis", 0)) % (len(shape) + 1), int(one(p, "num_axes", -1))
    end = len(shape) if count < 0 else axis + count
    dims = [shape[axis + i] if d == 0 else d for i, d in enumerate(given)]
    rest = math.prod(shape[axis:end]) // max(1, math.prod(d for d in dims if d > 0))
    reshaped(net, layer, [*shape[:axis], *(rest if d < 0 else d for d in dims), *shape[end:]])


def reshaped(net: Network, layer: Layer, shape: Shape) -> None:
    size = net.constant(f"{layer.name}/shape", np.array(shape, np.int64))
    net.add("Reshape", [layer.inputs[0], size], layer.output, shape)


def permute(net: Network, layer: Layer) -> None:
    shape = net.shapes[layer.inputs[0]]
    order = [int(d) for d in layer.parameters("permute").get("order", [])]
    order += [d for d in range(len(shape)) if d not in order]
    net.add("Transpose", layer.inputs, layer.output, [shape[d] for d in order], perm=order)


def normalize(net: Network, layer: Layer) -> None:
    p, shape = layer.parameters("norm"), net.shapes[layer.inputs[0]]
    if one(p, "across_spatial", True):
        raise SystemExit(f"layer {layer.name}: normalisation over the whole picture has no counterpart in ONNX")
    made = net.add("LpNormalization", layer.inputs, f"{layer.output}/unit", shape, axis=1, p=2)
    factor = net.constant(f"{layer.name}/scale", net.blobs(layer)[0].reshape(1, -1, 1, 1))
    net.add("Mul", [made, factor], layer.output, shape)


def split(net: Network, layer: Layer) -> None:
    """SLICE: parts along an axis."""
    p, shape = layer.parameters("slice"), net.shapes[layer.inputs[0]]
    axis = int(one(p, "axis", one(p, "slice_dim", 1))) % len(shape)
    points = [int(d) for d in p.get("slice_point", [])]
    count = len(layer.tops)
    if not points:
        points = [shape[axis] // count * i for i in range(1, count)]
    sizes = np.diff([0, *points, shape[axis]])
    names = [f"{layer.name}/{i}" for i in range(count)]
    constant = net.constant(f"{layer.name}/sizes", sizes.astype(np.int64))
    net.nodes.append(onnx.helper.make_node("Split", [layer.inputs[0], constant], names, name=layer.name, axis=axis))
    for top, name, size in zip(layer.tops, names, sizes, strict=True):
        net.shapes[name] = [int(size) if d == axis else n for d, n in enumerate(shape)]
        net.now[top] = name


def prior_box(net: Network, layer: Layer) -> None:
    """Boxes around every cell, as SSD's layer lays them out: [1, 2, boxes * 4], the variances in the second row."""
    p, (high, wide) = layer.parameters("prior_box"), net.shapes[layer.inputs[0]][2:]
    rows, columns = net.shapes[layer.inputs[1]][2:]
    ratios = [1.0]
    for ratio in map(float, p.get("aspect_ratio", [])):
        new = [ratio, 1 / ratio] if one(p, "flip", True) else [ratio]
        ratios += [r for r in new if all(abs(r - known) > 1e-6 for known in ratios)]
    step = [
        float(one(p, f"step_{s}", one(p, "step", 0))) or n / m for s, n, m in (("h", rows, high), ("w", columns, wide))
    ]
    sizes: list[tuple[float, float]] = []
    largest = [float(v) for v in p.get("max_size", [])]
    for number, size in enumerate(map(float, p.get("min_size", []))):
        sizes.append((size, size))
        if largest:
            sizes.append(((size * largest[number]) ** 0.5,) * 2)
        sizes += [(size * r**0.5, size / r**0.5) for r in ratios[1:]]
    offset = float(one(p, "offset", 0.5))
    y, x = np.meshgrid((np.arange(high) + offset) * step[0], (np.arange(wide) + offset) * step[1], indexing="ij")
    half = np.array(sizes, np.float32) / 2
    x, y = x[..., None], y[..., None]
    boxes = np.stack([x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]], -1)
    boxes = (boxes / [columns, rows, columns, rows]).astype(np.float32)
    if one(p, "clip", False):
        boxes = boxes.clip(0, 1)
    variance = [float(v) for v in p.get("variance", [])] or [0.1]
    variances = np.broadcast_to(np.array(variance, np.float32), boxes.shape)
    net.constant(layer.output, np.stack([boxes.ravel(), variances.ravel()])[None])


LAYERS: dict[str, Callable[[Network, Layer], None]] = {
    "convolution": convolution, "deconvolution": convolution, "depthwiseconvolution": convolution,
    "convolutiondepthwise": convolution, "pooling": pooling, "innerproduct": inner_product, "relu": relu,
    "prelu": prelu, "elu": elu, "power": power, "batchnorm": batch_norm, "scale": scale, "bias": scale, "lrn": lrn,
    "concat": concat, "eltwise": eltwise, "softmax": softmax, "flatten": flatten, "reshape": reshape,
    "permute": permute, "normalize": normalize, "slice": split, "priorbox": prior_box,
}  # fmt: skip
