"""What the K210's rules look at: the layers of a float network, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

#: Channels, height, width.
Map = tuple[int, int, int]
#: Two sides of height, two of width.
Sides = tuple[tuple[int, int], tuple[int, int]]

#: Width, height and strides of the poolings that the KPU does behind a convolution.
POOLS: Final = ((2, 2, 2, 2), (4, 4, 4, 4), (2, 2, 1, 1))
MAX_CHANNELS: Final = 1024
MIN_SIDE: Final = 4
MAX_HEIGHT, MAX_WIDTH = 256, 512


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution or pooling slides. Pairs are (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    #: Pixels added around what the layer reads, of its own and by a padding layer right before it.
    pads: Sides = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    depthwise: bool = False
    #: Depthwise with several results per channel.
    multiplied: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """An operator with values as operands; constants are left out."""

    #: conv, deconv, dense, add, product, unary, pool, prelu, pad, norm or other.
    kind: str
    #: As reports call it: number, operator and the tensor it makes.
    name: str
    #: The operator's name in its format.
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    window: Window | None = None
    #: Dense: values in and out. Others: ().
    matrix: tuple[int, ...] = ()
    #: Number of constant values.
    constants: int = 0
    #: Largest less smallest weight; 0 where there are none.
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Network:
    """Layers in execution order. Shapes are without the batch; maps are (channels, height, width)."""

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    #: Layers that read a value.
    readers: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    #: How the file has its maps.
    channels_first: bool = False

    @classmethod
    def of(
        cls, layers: list[Layer], inputs: tuple[str, ...], outputs: tuple[str, ...],
        shapes: Mapping[str, tuple[int, ...]], *, channels_first: bool = False,
    ) -> Network:  # fmt: skip
        """With paddings joined to the convolutions that alone read them, in the compiler's order: what a layer reads is
        made right before it, operand by operand.
        """
        sound = [x if x.inputs and x.outputs else replace(x, kind="other") for x in layers]
        layers = _ordered(_absorb_pads(sound, outputs), outputs)
        return cls(tuple(layers), inputs, outputs, shapes, _readers(layers), channels_first)

    def map(self, value: str) -> Map | None:
        """A value's shape if it is a map."""
        shape = self.shapes.get(value, ())
        return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None

    def live(self) -> Network:
        """Without the layers that no output needs, which the compiler drops."""
        makers = {value: layer for layer in self.layers for value in layer.outputs}
        waiting = [makers[value] for value in self.outputs if value in makers]
        names: set[str] = set()
        while waiting:
            layer = waiting.pop()
            if layer.name not in names:
                names.add(layer.name)
                waiting += [makers[value] for value in layer.inputs if value in makers]
        layers = tuple(layer for layer in self.layers if layer.name in names)
        return replace(self, layers=layers, readers=_readers(layers))

    def only_reader(self, value: str) -> Layer | None:
        """The layer that alone reads a value which is not an output of the network."""
        readers = self.readers.get(value, ())
        return readers[0] if len(readers) == 1 and value not in self.outputs else None


def _readers(layers: Sequence[Layer]) -> dict[str, tuple[Layer, ...]]:
    readers: dict[str, tuple[Layer, ...]] = {}
    for layer in layers:
        for value in dict.fromkeys(layer.inputs):
            readers[value] = (*readers.get(value, ()), layer)
    return readers


def _absorb_pads(layers: list[Layer], outputs: tuple[str, ...]) -> list[Layer]:
    pads = {x.outputs[0]: x for x in layers if x.kind == "pad" and x.window and x.outputs[0] not in outputs}
    read: dict[str, list[Layer]] = {}
    for layer in layers:
        for value in layer.inputs:
            read.setdefault(value, []).append(layer)
    result = []
    for plain in layers:
        layer = plain
        pad = pads.get(layer.inputs[0]) if layer.inputs else None
        if layer.outputs and layer.outputs[0] in pads and all(r.kind == "conv" for r in read.get(layer.outputs[0], ())):
            continue
        if pad is not None and pad.window is not None and layer.kind == "conv" and layer.window is not None:
            own, more = layer.window.pads, pad.window.pads
            both = tuple((a + c, b + d) for (a, b), (c, d) in zip(own, more, strict=True))
            window = replace(layer.window, pads=(both[0], both[1]))
            layer = replace(layer, inputs=(pad.inputs[0], *layer.inputs[1:]), window=window)
        result.append(layer)
    return result


def _ordered(layers: list[Layer], outputs: tuple[str, ...]) -> list[Layer]:
    """Depth first from the outputs; layers that no output needs come last."""
    makers = {value: layer for layer in layers for value in layer.outputs}
    result: list[Layer] = []
    seen: set[str] = set()
    waiting: list[tuple[Layer, bool]] = [(layer, False) for layer in reversed(layers)]
    waiting += [(makers[value], False) for value in reversed(outputs) if value in makers]
    while waiting:
        layer, ready = waiting.pop()
        if ready:
            result.append(layer)
        elif layer.name not in seen:
            seen.add(layer.name)
            waiting.append((layer, True))
            waiting += [(makers[v], False) for v in reversed(layer.inputs) if v in makers]
    return result


def kpu_convolution(network: Network, layer: Layer) -> bool:
    """Whether the KPU computes a convolution (smaller maps are padded to 4x4, strides other than 2 done at 1)."""
    window = layer.window
    source, result = network.map(layer.inputs[0]), network.map(layer.outputs[0])
    if layer.kind != "conv" or window is None or source is None or result is None:
        return False
    return (
        window.kernel in ((1, 1), (3, 3))
        and window.dilation == (1, 1)
        and (window.groups == 1 or (window.depthwise and not window.multiplied))
        and max(source[0], result[0]) <= MAX_CHANNELS
        and all(h <= MAX_HEIGHT and w <= MAX_WIDTH for _, h, w in (source, result))
    )


def dilated(network: Network, layer: Layer) -> bool:
    """Whether a dilated convolution becomes one of several pictures without dilation, which the KPU computes."""
    window = layer.window
    if layer.kind != "conv" or window is None or window.dilation == (1, 1) or window.stride != (1, 1):
        return False
    return kpu_convolution(network, replace(layer, window=replace(window, dilation=(1, 1))))


def kpu_matrix(layer: Layer) -> bool:
    """Whether a matrix product becomes a 1x1 convolution of maps padded to 4x4."""
    return layer.kind == "dense" and len(layer.matrix) == 2 and max(layer.matrix) <= MAX_CHANNELS


def kpu_addition(network: Network, layer: Layer) -> bool:
    """Whether a sum of two maps becomes a 1x1 convolution of both, one behind the other."""
    shapes = [network.map(v) for v in layer.inputs]
    if layer.kind != "add" or len(shapes) != 2 or shapes[0] is None or shapes[0] != shapes[1]:
        return False
    channels, height, width = shapes[0]
    return 2 * channels <= MAX_CHANNELS and MIN_SIDE <= height <= MAX_HEIGHT and MIN_SIDE <= width <= MAX_WIDTH
