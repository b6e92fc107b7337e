"""Reports about kmodels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ...formats.k210 import kmodel, kpu
from ...formats.k210.kmodel import Kmodel, Node, Range
from ...tensors import TensorSpec
from .report import Bar, OperatorRow, Report, TensorRow

#: Above this many nodes edges are not searched for.
_MAX_EDGE_NODES: Final = 2000


def kmodel_report(data: bytes, path: Path, _depth: int) -> Report:
    """Build the report. Raises InvalidModel, Unsupported."""
    model = kmodel.read(data)
    facts: dict[str, str | int | float] = {
        "version": model.version,
        "target": model.target,
        "nodes": len(model.nodes),
        "on the KPU": model.kpu_nodes,
        "KPU RAM peak": model.kpu_peak,
        "RAM need": model.ram_need,
    }
    facts |= {k: v for k, v in model.memory.items() if k != "file"}
    if model.shortfall:
        facts["last body overruns the file by"] = model.shortfall
    general = [("file", model.size)]
    general += [(k, v) for k, v in model.memory.items() if k in ("main memory", "input pool", "output pool")]
    if model.version == 5:
        general.append(("data pools", model.ram_need - sum(size for _, size in general)))
    return Report(
        path=str(path),
        kind=f"kmodel-v{model.version}",
        size=model.size,
        facts=facts,
        inputs=_rows(model.inputs, model.input_ranges),
        outputs=_rows(model.outputs, model.output_ranges),
        operators=_operators(model),
        memory=(
            Bar("KPU RAM peak", (("feature maps", model.kpu_peak),), kpu.KPU_RAM),
            Bar("general RAM (firmware and heaps need some too)", tuple(general), kpu.MAIN_RAM),
        ),
        findings=kmodel.check(model),
    )


def _rows(specs: Iterable[TensorSpec], ranges: tuple[Range, ...]) -> tuple[TensorRow, ...]:
    placed = [f"{r.size} bytes at {r.start} of {r.memory} memory" for r in ranges]
    return tuple(
        TensorRow(s.name, s.datatype, s.shape, note=placed[i] if i < len(placed) else "") for i, s in enumerate(specs)
    )


def _touched(node: Node) -> tuple[list[Range], list[Range]]:
    """Memory a node reads and writes, KPU RAM included."""
    reads = [r for r in node.inputs if r.memory != "constants"]
    writes = list(node.outputs)
    if node.convolution:
        reads.append(Range("kpu", "UINT8", *node.convolution.source))
        writes.append(Range("kpu", "UINT8", *node.convolution.destination))
    return reads, writes


def _operators(model: Kmodel) -> tuple[OperatorRow, ...]:
    """Nodes with their edges: who last wrote the memory that a node reads."""
    rows: list[OperatorRow] = []
    written: list[tuple[Range, int]] = []
    search = len(model.nodes) <= _MAX_EDGE_NODES and any(any(_touched(n)) for n in model.nodes)
    for node in model.nodes:
        reads, writes = _touched(node)
        sources: dict[str, None] = {}
        for r in reads if search else ():
            writer = next(
                (i for w, i in reversed(written) if w.memory == r.memory and w.start < r.end and r.start < w.end), -1
            )
            sources[f"n{writer}" if writer >= 0 else "input"] = None
        if not search:
            sources[f"n{node.index - 1}" if node.index else "input"] = None
        if model.version == 5 and node.name == "kpu_upload":
            sources = {}  # starts a function; functions are joined by stackvm code that is not decoded
        written += [(w, node.index) for w in writes]
        conv = node.convolution
        shape = conv.output if conv else ()
        details = ", ".join(f"{k} {_words(v)}" for k, v in node.details.items())
        if conv:
            details += ", depthwise" if conv.depthwise else ""
            details += f", {conv.pool}" if conv.pool else ""
        rows.append(
            OperatorRow(
                node.index, f"{node.name} {node.index}", node.name, "KPU" if node.device == "kpu" else "CPU",
                tuple(sources), (f"n{node.index}",), shape, node.constants, details,
            )
        )  # fmt: skip
    return tuple(rows)


def _words(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
