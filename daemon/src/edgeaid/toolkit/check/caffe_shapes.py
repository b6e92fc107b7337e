"""Sizes of a Caffe network's blobs, as far as its text says them: enough for limits on layers and files.

Sliding windows: convolution rounds down, pooling rounds up (BVLC/caffe:src/caffe/layers/pooling_layer.cpp).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...formats.exchange.caffe import (
    CaffeNet,
    Layer,
    Message,
    ints,
    messages,
    texts,
)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Shapes of blobs (N, C, H, W) and parameters per layer name; what is unknown is missing."""

    blobs: dict[str, Shape]
    parameters: dict[str, int]


def sizes(net: CaffeNet) -> Sizes:
    """Walk the layers in file order, which Caffe demands to be a topological one."""
    blobs: dict[str, Shape] = {i.name: i.shape for i in net.inputs if i.shape}
    parameters: dict[str, int] = {}
    for layer in net.layers:
        sources = [blobs[b] for b in layer.bottoms if b in blobs]
        if not sources or len(sources) != len(layer.bottoms):
            continue
        shape, count = _layer(layer, sources)
        parameters[layer.name] = count
        for top in layer.tops:
            if shape and all(0 < d < 1 << 20 for d in shape):
                blobs[top] = shape
            else:
                blobs.pop(top, None)
    return Sizes(blobs, parameters)


def window(message: Message) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and padding of a convolution or pooling as (height, width) each."""
    return _pair(message, "kernel", 0), _pair(message, "stride", 1), _pair(message, "pad", 0)


def _pair(message: Message, name: str, default: int) -> Shape:
    both = ints(message, f"{name}_size" if name == "kernel" else name)
    if len(both) >= 2:
        return both[:2]
    if both:
        return both[0], both[0]
    return tuple(next(iter(ints(message, f"{name}_{side}")), default) for side in "hw")


def first(message: Message, field: str, default: int) -> int:
    """The first whole number of a field."""
    return next(iter(ints(message, field)), default)


def _layer(layer: Layer, sources: list[Shape]) -> tuple[Shape, int]:
    """Shape of the result and number of parameters."""
    source = sources[0]
    kind = layer.type.lower()
    if kind in ("convolution", "deconvolution") and len(source) == 4:
        message = next(iter(messages(layer.message, "convolution_param")), {})
        kernel, stride, pad = window(message)
        out, group = first(message, "num_output", 0), max(1, first(message, "group", 1))
        dilation = max(1, first(message, "dilation", 1))
        edge = [_slide(kind, source[2 + i], dilation * (kernel[i] - 1) + 1, stride[i], pad[i]) for i in (0, 1)]
        return (source[0], out, *edge), out * source[1] // group * math.prod(kernel) + out
    if kind == "pooling" and len(source) == 4:
        message = next(iter(messages(layer.message, "pooling_param")), {})
        if texts(message, "global_pooling")[:1] == ("True",):
            return (*source[:2], 1, 1), 0
        kernel, stride, pad = window(message)
        return (*source[:2], *(_pool(source[2 + i], kernel[i], stride[i], pad[i]) for i in (0, 1))), 0
    if kind in ("innerproduct", "inner_product"):
        out = first(next(iter(messages(layer.message, "inner_product_param")), {}), "num_output", 0)
        return (source[0], out), out * (math.prod(source[1:]) + 1)
    if kind == "concat":
        message = next(iter(messages(layer.message, "concat_param")), {})
        axis = first(message, "axis", 1)
        if 0 <= axis < len(source) and all(len(s) == len(source) for s in sources):
            return (*source[:axis], sum(s[axis] for s in sources), *source[axis + 1 :]), 0
        return (), 0
    if kind == "flatten":
        return (source[0], math.prod(source[1:])), 0
    if kind in ("batchnorm", "batch_norm", "scale", "bias", "prelu"):
        return source, 2 * (source[1] if len(source) > 1 else 1)
    if kind in ("reshape", "slice", "crop", "permute", "split", "python"):
        return (), 0
    return source, 0


def _slide(kind: str, size: int, kernel: int, stride: int, pad: int) -> int:
    if kind == "deconvolution":
        return stride * (size - 1) + kernel - 2 * pad
    return (size + 2 * pad - kernel) // max(1, stride) + 1


def _pool(size: int, kernel: int, stride: int, pad: int) -> int:
    return -(-(size + 2 * pad - kernel) // max(1, stride)) + 1
