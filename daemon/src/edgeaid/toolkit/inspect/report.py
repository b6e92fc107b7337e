"""What a model file holds, as plain data that text, JSON and HTML are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ...formats.finding import REFUSED, Finding
from ..plan.cost import MIB, ON_CHIP_MIB

#: Nominal parameter memory of the Edge TPU, bytes.
EDGETPU_SRAM: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorRow:
    """An input or output."""

    name: str
    datatype: str
    #: -1 = variable; () = the file does not say, or a scalar.
    shape: tuple[int, ...]
    #: Quantisation, () for none: real = scale * (stored - zero_point).
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    #: What the author's metadata says about pictures: real = (pixel - mean) / std.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that an operator reads or makes, in words."""

    #: "in", "out" or "constant".
    role: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    #: "" for none.
    quantisation: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the weights of an operator are spread, as they are stored."""

    low: float
    high: float
    #: Values per bin, bins of equal width.
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """An operator, layer, stage or node."""

    index: int
    name: str
    type: str
    #: Where it runs: "CPU", "Edge TPU", "KPU", "NCS"; "" where that is open (files that are not for a device yet).
    device: str
    #: Values it reads and makes; equal texts = the same value. Constants are left out.
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: Shape of the first output.
    shape: tuple[int, ...] = ()
    #: Bytes of weights that only this operator states.
    constants: int = 0
    details: str = ""
    #: Multiply-accumulates of one inference; 0 where there are none, or where the file does not say.
    macs: int = 0
    #: Where the file says more: all tensors, and the spread of the weights.
    operands: tuple[Operand, ...] = ()
    weights: Histogram | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A memory: parts in bytes, and what there is of it (0 = open-ended)."""

    title: str
    parts: tuple[tuple[str, int], ...]
    available: int = 0

    @property
    def used(self) -> int:
        """Sum of the parts."""
        return sum(size for _, size in self.parts)


@dataclass(frozen=True, slots=True)
class EdgetpuFacts:
    """What decides how a compiled file behaves beside others."""

    #: 16 hexadecimal digits.
    token: str
    cached_bytes: int
    streamed_bytes: int
    scratch_bytes: int
    bitstream_bytes: tuple[int, ...]
    min_runtime: int
    compiler: str
    chip: str
    cpu_operators: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one file."""

    path: str
    #: A key of formats.detect.KINDS.
    kind: str
    size: int
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    inputs: tuple[TensorRow, ...] = ()
    outputs: tuple[TensorRow, ...] = ()
    operators: tuple[OperatorRow, ...] = ()
    memory: tuple[Bar, ...] = ()
    findings: tuple[Finding, ...] = ()
    labels: tuple[str, ...] = ()
    edgetpu: EdgetpuFacts | None = None
    #: Files inside an archive or directory.
    parts: tuple[Report, ...] = ()
    #: For the target that was asked for: how much of the model runs there.
    verdict: str = ""

    @property
    def name(self) -> str:
        """File name without directories."""
        return Path(self.path).name


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Edge TPU files that share a caching token: compiled by one command, cached side by side."""

    token: str
    files: tuple[str, ...]
    cached_bytes: int
    streamed_bytes: int
    #: Whether the cached bytes of all of them fit in the chip's nominal memory at once.
    fits: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """How several Edge TPU files behave together on one accelerator."""

    groups: tuple[TokenGroup, ...]
    #: Parameters of all files, cached and streamed.
    total_bytes: int
    #: Whether all of them would probably be cached if one command compiled them (budgets vary by model).
    would_fit: bool
    advice: str


def flatten(reports: Sequence[Report]) -> list[Report]:
    """Reports and the reports inside them."""
    flat: list[Report] = []
    for report in reports:
        flat += [report, *flatten(report.parts)]
    return flat


def compare(reports: Sequence[Report]) -> Comparison | None:
    """How the Edge TPU files among `reports` behave together; None when there are fewer than two."""
    compiled = [(r, r.edgetpu) for r in flatten(reports) if r.edgetpu is not None]
    if len(compiled) < 2:
        return None
    by_token: dict[str, list[tuple[Report, EdgetpuFacts]]] = {}
    for report, facts in compiled:
        by_token.setdefault(facts.token, []).append((report, facts))
    groups = tuple(
        TokenGroup(
            token,
            tuple(r.name for r, _ in members),
            sum(f.cached_bytes for _, f in members),
            sum(f.streamed_bytes for _, f in members),
            sum(f.cached_bytes for _, f in members) <= EDGETPU_SRAM,
        )
        for token, members in by_token.items()
    )
    total = sum(f.cached_bytes + f.streamed_bytes for _, f in compiled)
    would_fit = total <= ON_CHIP_MIB * MIB
    return Comparison(groups, total, would_fit, _advice(groups, total, would_fit))


def _advice(groups: tuple[TokenGroup, ...], total: int, would_fit: bool) -> str:
    crowded = [g for g in groups if not g.fits]
    if crowded:
        return (
            f"{', '.join(crowded[0].files)} share a token but state {crowded[0].cached_bytes} cached bytes, more than "
            f"the chip has: files of different compiler runs were given the same token, compile them again"
        )
    if len(groups) == 1:
        return "All files share one token: they were compiled together and stay cached side by side."
    if would_fit:
        return (
            f"{len(groups)} tokens: every change of model between them sends the parameters again. Their {total} bytes "
            "would fit together: compile all of them by one edgetpu_compiler command (see edgeai model plan)."
        )
    return (
        f"{len(groups)} tokens: every change of model between them sends the parameters again. Their {total} bytes are "
        "too many to be cached at once: group the calls by token, or use one accelerator per group (edgeai model plan)."
    )


def refused(reports: Sequence[Report]) -> bool:
    """Whether a device or its runtime would refuse one of the files."""
    return any(f.severity == REFUSED for r in flatten(reports) for f in r.findings)


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """All reports as JSON values; keys are those of the dataclasses."""
    comparison = compare(reports)
    return {
        "files": [asdict(r) for r in reports],
        "edgetpu": asdict(comparison) if comparison else None,
    }
