"""General memory of the K210 that a float network takes once it is compiled: kmodel, buffers, input and output.

Buffers as nncase 1.9 lays them out, seen in the kmodels that it made of whole networks: what goes into a part on the
KPU and what comes out is a byte per value, all that the CPU works on (pads, crops, sums' inputs, its own layers) four.
Whether the inputs of a concatenation are written right into its result is the compiler's choice and not foreseen: both
ways are laid out, and the larger one counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .k210_layout import Event, Layout, Run, first_fit
from .k210_network import Layer, Network

#: Bytes of a kmodel beside weights: fixed, per part, and per convolution (its instruction, tables for 256 values).
_FILE: Final = 2000
_PER_PART: Final = 900
_PER_CONVOLUTION: Final = 420
#: Multiplier, shift and bias per result of a convolution on the KPU.
_PER_CHANNEL: Final = 8
#: A matrix product on the CPU is a convolution of maps padded to 4x4, with numbers of 4 bytes.
_CPU_MATRIX: Final = 16 * 4

#: What the sum was compared with, and how far it was off; the slow tests measure it again.
MEASURED: Final = (
    "0.6 % off in the median, 11 % below to 64 % above at worst (24 % above 1 MB), "
    "on 49 networks that nncase 1.9 compiled"
)
#: A network takes at least this part of what is foreseen, and at most that.
ABOVE, BELOW = 0.8, 1.13


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes."""

    kmodel: int
    #: The larger and the smaller of two ways to lay them out.
    buffers: int
    fewest: int
    #: Input and output, four bytes per value.
    ends: int

    @property
    def total(self) -> int:
        """What a firmware has to have free."""
        return self.kmodel + self.buffers + self.ends

    @property
    def least(self) -> int:
        """The same if the compiler lays out the buffers in the better way."""
        return self.kmodel + self.fewest + self.ends


def memory(network: Network, layout: Layout) -> Memory:
    """Foresee what a network takes of general memory."""
    ends = sum(4 * math.prod(network.shapes.get(v, ())) for v in (*network.inputs, *network.outputs))
    both = [_Buffers(network, layout, joined=joined).size() for joined in (False, True)]
    return Memory(_kmodel(network, layout), max(both), min(both), ends)


def _kmodel(network: Network, layout: Layout) -> int:
    parts = {placed.part for placed in layout.placed.values()}
    size = _FILE + _PER_PART * len(parts) + _PER_CONVOLUTION * len(layout.placed)
    for layer in network.layers:
        placed = layout.placed.get(layer.name)
        if placed is None:
            size += 4 * layer.constants
        elif layer.kind == "add":
            size += 2 * placed.run.result[0] ** 2 + _PER_CHANNEL * placed.run.result[0]
        else:
            size += layer.constants + _PER_CHANNEL * placed.run.result[0]
    return size


class _Buffers:
    """Goes through a network and notes which buffers live when."""

    def __init__(self, network: Network, layout: Layout, *, joined: bool) -> None:
        self.network, self.layout, self.joined = network, layout, joined
        self.sizes: list[int] = []
        self.events: list[Event] = []
        #: Values as numbers of 4 bytes; None = they lie in the input or output.
        self.floats: dict[str, int | None] = dict.fromkeys(network.inputs)
        #: Values as parts give them out.
        self.bytes: dict[str, int] = {}
        self.makers = {p.value: p for p in layout.placed.values()}
        self.fed: dict[int, list[int]] = {}
        self.emitted: set[int] = set()
        self.wanted = self._wanted()

    def size(self) -> int:
        """Bytes of all buffers."""
        for layer in self.network.layers:
            if layer.name in self.layout.fused or not layer.outputs:
                continue
            placed = self.layout.placed.get(layer.name)
            if placed is None:
                self._cpu(layer)
            elif placed.uploads and placed.part not in self.fed:
                self.fed[placed.part] = [self._upload(layer, placed.run)]
        for value in self.network.outputs:
            if value in self.makers:
                self._float(value, output=True)
        return first_fit(self.sizes, self.events)[0]

    def _wanted(self) -> set[str]:
        """Values that are read from general memory."""
        wanted = set(self.network.outputs)
        for layer in self.network.layers:
            placed = self.layout.placed.get(layer.name)
            if layer.name not in self.layout.fused and (placed is None or placed.uploads):
                wanted.update(layer.inputs)
        return wanted

    def _new(self, size: int) -> int:
        self.sizes.append(-(-size // 8) * 8)
        return len(self.sizes) - 1

    def _step(self, reads: Sequence[int | None], size: int) -> int:
        """An operation of the CPU: its result."""
        made = self._new(size)
        self.events.append(([r for r in reads if r is not None], [made]))
        return made

    def _emit(self, part: int) -> None:
        """Run a part: all that is read of it from general memory comes into being at once."""
        if part in self.emitted:
            return
        self.emitted.add(part)
        made = []
        for value, placed in self.makers.items():
            if placed.part == part and value in self.wanted:
                self.bytes[value] = self._new(placed.run.times * math.prod(placed.run.result))
                made.append(self.bytes[value])
        self.events.append((self.fed.get(part, []), made))

    def _float(self, value: str, *, output: bool = False) -> int | None:
        """The buffer of a value in 4 bytes per number."""
        if value in self.floats:
            return self.floats[value]
        placed = self.makers.get(value)
        if placed is None:
            return None
        self._emit(placed.part)
        run = placed.run
        wanted, made = math.prod(self.network.shapes[value]), run.times * math.prod(run.result)
        cropped = run.behind and made != wanted
        if output and not cropped:
            self.events.append(([self.bytes[value]], []))
            return None
        result: int | None = self._step([self.bytes[value]], 4 * made)
        if cropped and (not output or run.times > 1):
            result = self._step([result], 4 * wanted)
        if cropped and output:
            self.events.append(([result] if result is not None else [], []))
        self.floats[value] = result
        return result

    def _upload(self, layer: Layer, run: Run) -> int:
        """Bring into general memory what a part reads, a byte per value."""
        size = run.times * math.prod(run.source)
        source = layer.inputs[0]
        maker = self.makers.get(source)
        if layer.kind == "add":
            return self._step([self._concatenation(layer.inputs)], size)
        if layer.kind == "prelu":
            # Both halves, and one behind the other.
            halves = [self._step([self._float(source)], 2 * size) for _ in range(2)]
            return self._step([self._step(halves, 4 * size)], size)
        if not run.before and maker is not None and not maker.run.behind and source not in self.floats:
            self._emit(maker.part)
            return self.bytes[source]
        plain = math.prod(self.network.shapes[source])
        if not run.before and maker is not None and maker.run.even and source not in self.floats:
            # Between a dilated convolution and another one the pictures are put together as bytes, if nothing is left.
            self._emit(maker.part)
            return self._step([self.bytes[source]], plain)
        if run.times > 1 and source in self.network.inputs:
            return self._step([self._step([], plain)], size)
        value = self._float(source)
        if size != plain:
            value = self._step([value], 4 * size)
        made = self._step([value], size)
        # The network's input is turned to channels first.
        return self._step([made], size) if source in self.network.inputs else made

    def _concatenation(self, values: Sequence[str]) -> int:
        reads: list[int | None] = []
        for value in values:
            maker = self.makers.get(value)
            if self.joined and maker is not None and not maker.run.behind and value not in self.floats:
                self._emit(maker.part)
                reads.append(self.bytes[value])
            else:
                reads.append(self._float(value))
        return self._step(reads, 4 * sum(math.prod(self.network.shapes[v]) for v in values))

    def _cpu(self, layer: Layer) -> None:
        if layer.operator in ("CONCATENATION", "Concat") and layer.outputs[0] not in self.network.outputs:
            self.floats[layer.outputs[0]] = self._concatenation(layer.inputs)
            return
        reads = [self._float(v) for v in layer.inputs]
        if layer.operator in ("RESHAPE", "Reshape", "Flatten", "Squeeze", "SQUEEZE", "Identity", "Dropout") and reads:
            self.floats[layer.outputs[0]] = reads[0]
            return
        if layer.matrix:
            inputs, outputs = layer.matrix
            reads = [self._step([self._step(reads, _CPU_MATRIX * inputs)], _CPU_MATRIX * outputs)]
        for value in layer.outputs:
            if value in self.network.outputs:
                self.events.append(([r for r in reads if r is not None], []))
                self.floats[value] = None
            else:
                self.floats[value] = self._step(reads, 4 * math.prod(self.network.shapes.get(value, ())))
