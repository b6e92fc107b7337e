"""Where a compiler puts the maps of a network in the K210's two memories, before it is compiled.

As nncase 1.9 does it, seen in the kmodels that it made of whole networks: convolutions that follow one another without
a layer of the CPU between make a part, whose maps lie in the KPU's memory, each at the first place where it fits; a map
is given up after its last use. Element-wise functions and poolings of one form go with the convolution before them. A
stride of 2 in front of a 1x1 convolution is done behind that convolution. Paddings other than the KPU's own, crops and
all other layers are the CPU's, between the parts, with numbers of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...formats.k210 import kpu
from .k210_network import (
    MAX_CHANNELS,
    MIN_SIDE,
    POOLS,
    Layer,
    Map,
    Network,
    Window,
    dilated,
    kpu_addition,
    kpu_convolution,
    kpu_matrix,
)


@dataclass(frozen=True, slots=True)
class Run:
    """How the KPU does one convolution, or what becomes one."""

    #: What it reads and writes.
    source: Map
    result: Map
    #: The CPU has to pad, or to crop.
    before: bool
    behind: bool
    #: For a report; "" where nothing is to be padded or cropped.
    why: str = ""
    #: Maps of these shapes that are done at once: a dilated convolution is one of several pictures without.
    times: int = 1
    #: Those pictures fill their maps to the last pixel.
    even: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer on the KPU."""

    #: Number of its part.
    part: int
    run: Run
    #: What it makes, together with the layers that go with it.
    value: str
    #: Whether it reads from general memory what it reads; else from a layer of its part.
    uploads: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What a network takes."""

    #: Highest byte of the KPU's memory plus one, and the layer that needs it.
    kpu_peak: int
    peak_layer: str
    #: Layers whose maps are padded before or cropped behind the KPU, with what is wrong about them.
    adjusted: tuple[tuple[str, str], ...]
    #: Layers on the KPU by name, and those that are done together with one of them.
    placed: Mapping[str, Placed]
    fused: frozenset[str]


@dataclass(slots=True)
class _Step:
    """A convolution of a part: the buffers that it reads and writes."""

    layer: str
    reads: int
    writes: int


@dataclass(slots=True)
class _Part:
    """Convolutions whose maps lie in the KPU's memory together."""

    #: Bytes of each buffer; the first is what is uploaded.
    buffers: list[int]
    steps: list[_Step] = field(default_factory=list)


class _Planner:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.parts: list[_Part] = []
        #: Value -> part and buffer in which it lies in the KPU's memory.
        self.there: dict[str, tuple[int, int]] = {}
        self.placed: dict[str, Placed] = {}
        #: Fused layers, which are done already.
        self.done: set[str] = set()
        #: 1x1 convolutions that do the stride of the one before, with its offset.
        self.strided: dict[str, bool] = {}
        self.adjusted: list[tuple[str, str]] = []

    def run(self) -> Layout:
        for layer in self.network.layers:
            if layer.name in self.done or not layer.inputs or not layer.outputs:
                continue
            if kpu_convolution(self.network, layer):
                self._convolution(layer)
            elif dilated(self.network, layer):
                self._add(layer, layer.inputs[0], _spread(self.network, layer))
            elif kpu_matrix(layer):
                inputs, outputs = layer.matrix
                self._add(layer, layer.inputs[0], Run((inputs, 4, 4), (outputs, 4, 4), before=True, behind=True))
            elif kpu_addition(self.network, layer):
                channels, *side = self.network.map(layer.inputs[0]) or (0, 0, 0)
                value, _ = self._fused(layer)
                result = self.network.map(value) or (channels, side[0], side[1])
                run = Run((2 * channels, side[0], side[1]), result, before=True, behind=False)
                self._add(layer, layer.inputs[0], run)
            elif layer.kind == "prelu":
                self._prelu(layer)
        peak, name = max((_peak(p) for p in self.parts), default=(0, ""))
        return Layout(peak, name, tuple(self.adjusted), self.placed, frozenset(self.done))

    def _convolution(self, layer: Layer) -> None:
        value, fused = self._fused(layer)
        window, moved = layer.window or Window((1, 1), (1, 1)), False
        after = self.network.only_reader(layer.outputs[0])
        strided = window.stride == (2, 2) and window.kernel == (3, 3) and not fused
        strided = strided and (window.depthwise or not _native(self.network, layer))
        if strided and after is not None and _pointwise(self.network, after):
            moved = True
            self.strided[after.name] = _odd(self.network, layer, after)
        made = run_of(self.network, layer, value, moved=moved, shifted=self.strided.get(layer.name))
        if made.why:
            self.adjusted.append((layer.name, made.why))
        self._add(layer, layer.inputs[0], made)

    def _fused(self, layer: Layer) -> tuple[str, tuple[Layer, ...]]:
        """What a convolution makes together with the functions and the pooling behind it, and those layers."""
        value = layer.outputs[0]
        fused: list[Layer] = []
        while steps := self._function(value):
            fused += steps
            value = steps[-1].outputs[0]
        after = self.network.only_reader(value)
        if after is not None and after.kind == "pool" and after.window is not None and _fusable(after.window):
            fused.append(after)
            value = after.outputs[0]
        return value, tuple(fused)

    def _function(self, value: str) -> tuple[Layer, ...]:
        """The layers that make a function of one value: an element-wise one, or that times the value itself (swish)."""
        after = self.network.only_reader(value)
        if after is not None:
            return (after,) if after.kind == "unary" else ()
        readers = self.network.readers.get(value, ())
        inner = next((r for r in readers if r.kind == "unary"), None)
        outer = next((r for r in readers if r.kind == "product"), None)
        if len(readers) != 2 or inner is None or outer is None or value in self.network.outputs:
            return ()
        both = set(outer.inputs) == {value, inner.outputs[0]}
        return (inner, outer) if both and self.network.only_reader(inner.outputs[0]) is outer else ()

    def _prelu(self, layer: Layer) -> None:
        """max(x, 0) + slope * min(x, 0): the convolution before is done twice, then both are added up.

        Of a file with channels last, rows count as channels in that sum.
        """
        shape = self.network.map(layer.inputs[0])
        if shape is None or 2 * shape[0 if self.network.channels_first else 1] > MAX_CHANNELS or min(shape) < MIN_SIDE:
            return
        channels, height, width = shape
        if self.network.channels_first:
            result = self.network.map(self._fused(layer)[0]) or shape
            run = Run((2 * channels, height, width), result, before=True, behind=False)
        else:
            run = Run((2 * height, width, channels), (height, width, channels), before=True, behind=True)
        self._add(layer, layer.inputs[0], run)

    def _add(self, layer: Layer, source: str, run: Run) -> None:
        """Note a convolution with the layers that go with it; what is to be cropped leaves the KPU's memory."""
        known = self.there.get(source)
        uploads = known is None or run.before
        if known is None or run.before:
            known = (len(self.parts), 0)
            self.parts.append(_Part([run.times * kpu.feature_map_bytes(*run.source)]))
            if not run.before:
                self.there[source] = known
        index, number = known
        part = self.parts[index]
        part.steps.append(_Step(layer.name, number, len(part.buffers)))
        part.buffers.append(run.times * kpu.feature_map_bytes(*run.result))
        value = layer.outputs[0]
        for after in self._fused(layer)[1]:
            if after.kind == "pool" and run.behind:
                break
            self.done.add(after.name)
            value = after.outputs[0]
        self.placed[layer.name] = Placed(index, run, value, uploads)
        if not run.behind:
            self.there[value] = (index, len(part.buffers) - 1)


def layout(network: Network) -> Layout:
    """Place all maps of a network."""
    return _Planner(network).run()


def _spread(network: Network, layer: Layer) -> Run:
    """A dilated convolution: every d-th pixel makes a picture of its own, padded to a common size, on the CPU."""
    window = layer.window or Window((1, 1), (1, 1))
    channels, *side = network.map(layer.inputs[0]) or (0, 0, 0)
    out = (network.map(layer.outputs[0]) or (0,))[0]
    step = window.dilation
    padded = [n + sum(pads) for n, pads in zip(side, window.pads, strict=True)]
    height, width = (max(MIN_SIDE, -(-n // d)) for n, d in zip(padded, step, strict=True))
    even = padded == [height * step[0], width * step[1]]
    source, result = (channels, height, width), (out, height, width)
    return Run(source, result, before=True, behind=True, times=step[0] * step[1], even=even)


def _fusable(window: Window) -> bool:
    return (window.kernel[1], window.kernel[0], window.stride[1], window.stride[0]) in POOLS


def _pointwise(network: Network, layer: Layer) -> bool:
    window = layer.window
    return (
        kpu_convolution(network, layer) and window is not None and window.kernel == (1, 1) and window.stride == (1, 1)
        and not any(map(any, window.pads))
    )  # fmt: skip


def run_of(network: Network, layer: Layer, value: str, *, moved: bool, shifted: bool | None) -> Run:
    """How the KPU does a convolution. `moved`: the next layer does its stride; `shifted`: this one does the stride of
    the layer before, at odd pixels if True.
    """
    window = layer.window or Window((1, 1), (1, 1))
    channels, height, width = network.map(layer.inputs[0]) or (0, 0, 0)
    out, *wanted = network.map(layer.outputs[0]) or (0, 0, 0)
    fused = network.map(value) or (0, 0, 0)
    if shifted is not None:
        return _second(network, layer, channels, out, shifted=shifted)
    # Depthwise convolutions do no stride, others one of 2.
    kernel, stride = window.kernel[0], 2 if window.stride == (2, 2) and not moved and not window.depthwise else 1
    fits = moved or stride != 2 or _native(network, layer)
    fits = fits and (moved or all(side == (kernel // 2, kernel // 2) for side in window.pads))
    read = (height, width)
    why = ""
    if not fits:
        if stride == 1:  # more pixels than the KPU adds itself
            read = (
                height + max(0, sum(window.pads[0]) - 2 * (kernel // 2)),
                width + max(0, sum(window.pads[1]) - 2 * (kernel // 2)),
            )
        pads = ", ".join(f"{a}+{b}" for a, b in window.pads)
        if stride == 2:
            read = (height + (1 if height % 2 else 2), width + width % 2)
        why = f"pads {pads} at stride {stride} on {read[1]}x{read[0]}"
    read = (max(read[0], MIN_SIDE), max(read[1], MIN_SIDE))
    before = read != (height, width)
    kept = (read[0] // stride, read[1] // stride)
    if moved:
        return Run((channels, *read), (out, *kept), before, behind=before)
    if kept == tuple(wanted):
        kept = (fused[1], fused[2])
        return Run((channels, *read), (out, *kept), before, behind=False, why=why)
    return Run((channels, *read), (out, *kept), before, behind=True, why=why)


def _native(network: Network, layer: Layer) -> bool:
    """Whether a convolution of stride 2 is one of the KPU's: a pixel around 3x3, none around 1x1, even sizes."""
    window = layer.window or Window((1, 1), (1, 1))
    _, height, width = network.map(layer.inputs[0]) or (0, 0, 0)
    half = window.kernel[0] // 2
    return all(side == (half, half) for side in window.pads) and not (height % 2 or width % 2)


def _odd(network: Network, first: Layer, second: Layer) -> bool:
    """Whether the CPU has to move a map between a convolution and the one behind it that does its stride.

    The KPU takes the pixels 0, 2, 4 ... of even sizes; without a pixel of padding the kernel's first middle is pixel 1.
    """
    window = first.window or Window((1, 1), (1, 1))
    source, result = network.map(first.inputs[0]) or (0, 0, 0), network.map(second.outputs[0]) or (0, 0, 0)
    shifted = any(before != k // 2 for (before, _), k in zip(window.pads, window.kernel, strict=True))
    return shifted or source[1:] != (2 * result[1], 2 * result[2])


def _second(network: Network, layer: Layer, channels: int, out: int, *, shifted: bool) -> Run:
    """A 1x1 convolution that does the stride of 2 of the layer before it."""
    _, height, width = network.map(layer.outputs[0]) or (0, 0, 0)
    if min(height, width) < MIN_SIDE:
        small = (max(height, MIN_SIDE), max(width, MIN_SIDE))
        return Run((channels, *small), (out, *small), before=True, behind=True)
    return Run((channels, 2 * height, 2 * width), (out, height, width), before=shifted, behind=False)


def _peak(part: _Part) -> tuple[int, str]:
    """Highest byte of a part plus one, and the layer that needs it."""
    events = [((), (0,)), *(((step.reads,), (step.writes,)) for step in part.steps)]
    highest, event = first_fit(part.buffers, events)
    return highest, part.steps[max(0, event - 1)].layer


Event = tuple[Sequence[int], Sequence[int]]


def first_fit(sizes: Sequence[int], events: Sequence[Event]) -> tuple[int, int]:
    """Highest byte plus one, and the event that needs it, when each buffer gets the first place where it fits.

    An event reads and writes buffers, by number; a buffer is given up behind its last event.
    """
    last = {buffer: number for number, event in enumerate(events) for buffer in (*event[0], *event[1])}
    live: list[tuple[int, int, int]] = []
    highest, where = 0, 0
    for number, (_, writes) in enumerate(events):
        for buffer in writes:
            start = 0
            for begin, end, _ in sorted(live):
                if begin - start >= sizes[buffer]:
                    break
                start = max(start, end)
            live.append((start, start + sizes[buffer], buffer))
            if start + sizes[buffer] > highest:
                highest, where = start + sizes[buffer], number
        live = [x for x in live if last[x[2]] > number]
    return highest, where
