"""What all kmodel versions have in common once they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...errors import InvalidModel
from ...tensors import TensorSpec
from ..finding import REFUSED, WARNING, Finding
from . import kpu

#: Layers, nodes or functions in one file; real models have some hundred.
MAX_NODES: Final = 16_384
#: The last body is rounded up to 8 without being written, so its size may point this many bytes past the end.
MAX_SHORTFALL: Final = 7


@dataclass(frozen=True, slots=True)
class Range:
    """A piece of one of the memories."""

    #: "constants", "main", "kpu", "input", "output", "data" or "shared".
    memory: str
    #: Open Inference Protocol datatype.
    datatype: str
    start: int
    size: int

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Node:
    """A layer (v3), node (v4) or KPU function step (v5)."""

    index: int
    #: Name of the operation, for example "kpu_conv2d".
    name: str
    #: "kpu" or "cpu".
    device: str
    #: Byte position and bytes of the body in the file.
    offset: int
    size: int
    inputs: tuple[Range, ...]
    outputs: tuple[Range, ...]
    #: Shapes, strides and other words worth showing.
    details: Mapping[str, int | float | str | tuple[int, ...]]
    #: For KPU convolutions.
    convolution: kpu.Convolution | None = None
    #: Bytes of weights and tables in the body.
    constants: int = 0


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a v5 file."""

    type: str
    size: int
    functions: int
    #: (section name, bytes) pairs.
    sections: tuple[tuple[str, int], ...]
    #: (memory, bytes) pairs.
    pools: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Kmodel:
    """A model for the K210."""

    version: int
    #: "k210" or "cpu".
    target: str
    #: Bytes of the file.
    size: int
    #: Tensors are numbered, the format has no names. Shapes the file does not store are flat (v3, v4 outputs).
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_ranges: tuple[Range, ...]
    output_ranges: tuple[Range, ...]
    nodes: tuple[Node, ...]
    #: Section or memory -> bytes, in file order.
    memory: Mapping[str, int]
    #: Highest byte of KPU RAM used, plus one.
    kpu_peak: int
    #: Bytes of general RAM the model needs while it runs, the file included where it is loaded whole.
    ram_need: int
    #: Bytes by which the last body overruns the file (0..7); harmless, see MAX_SHORTFALL.
    shortfall: int = 0
    modules: tuple[Module, ...] = field(default=())

    @property
    def kpu_nodes(self) -> int:
        """Operations that run on the KPU."""
        return sum(n.device == "kpu" for n in self.nodes)


def check(model: Kmodel, free_ram: int = kpu.MAIN_RAM) -> tuple[Finding, ...]:
    """Findings about memory; `free_ram` = bytes of general RAM left by firmware and heaps."""
    findings = []
    if model.kpu_peak > kpu.KPU_RAM:
        text = f"needs {model.kpu_peak} bytes of KPU RAM, the chip has {kpu.KPU_RAM}; use a smaller input"
        findings.append(Finding(REFUSED, "kpu-ram", text))
    if model.ram_need > free_ram:
        text = f"needs {model.ram_need} bytes of RAM, at most {free_ram} are free; use a smaller model"
        findings.append(Finding(REFUSED, "ram", text))
    elif model.ram_need > free_ram // 2:
        text = f"needs {model.ram_need} of {free_ram} bytes of RAM before firmware and heaps take theirs"
        findings.append(Finding(WARNING, "ram", text))
    if model.version == 5:
        text = "version 5 runs in simulators and the vendor's SDK, not in MaixPy; compile with nncase 0.2 for version 4"
        findings.append(Finding(WARNING, "maixpy", text))
    if model.target == "k210" and model.nodes and not model.kpu_nodes:
        findings.append(Finding(WARNING, "no-kpu", "no operation runs on the KPU; everything runs on the CPU"))
    for node in model.nodes:
        load = node.convolution.load_bytes if node.convolution else 0
        if load > 30 * 1024:
            text = f"node {node.index} loads {load} bytes of weights at once, the KPU takes 30720"
            findings.append(Finding(WARNING, "weight-load", text))
    return tuple(findings)


def fail(version: int, problem: str) -> InvalidModel:
    """An error to raise."""
    return InvalidModel(f"kmodel v{version}: {problem}; the file is damaged or cut off")
