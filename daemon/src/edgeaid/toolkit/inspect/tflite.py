"""Reports about TFLite files, compiled for the Edge TPU or not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ...errors import EdgeaiError
from ...formats.edgetpu import reader as edgetpu
from ...formats.edgetpu import rules as edgetpu_rules
from ...formats.finding import NOTE, WARNING, Finding
from ...formats.tflite import metadata as tflite_metadata
from ...formats.tflite import reader as tflite
from ...tensors import TensorSpec
from ..files import macs, operator_macs
from .operands import operands, spread
from .report import (
    EDGETPU_SRAM,
    Bar,
    EdgetpuFacts,
    OperatorRow,
    Report,
    TensorRow,
)

#: Options worth a place in a table.
_SHOWN: Final = ("padding", "stride_w", "stride_h", "dilation_w", "activation", "axis", "filter_w", "filter_h")


def tflite_report(data: bytes, path: Path, _depth: int) -> Report:
    """Build the report. Raises InvalidModel."""
    model = tflite.read(data)
    findings: list[Finding] = []
    labels: tuple[str, ...] = ()
    about: tflite_metadata.Metadata | None = None
    try:
        about = tflite_metadata.metadata(data, model)
        labels = tflite_metadata.labels(data, model).names
    except EdgeaiError as error:
        findings.append(Finding(WARNING, "metadata", f"labels and metadata cannot be read: {error}"))
    custom = [c for c in model.custom_codes if c != tflite.EDGETPU_OP]
    for code in custom:
        text = f"custom operator {code!r}: only a runtime that has it linked in runs the file"
        findings.append(Finding(WARNING, "custom-operator", text))
    facts: dict[str, str | int | float] = {
        "description": model.description,
        "operators": sum(len(g.operators) for g in model.subgraphs),
        "tensors": sum(len(g.tensors) for g in model.subgraphs),
    }
    if count := macs(model):
        facts["multiply-accumulates"] = count
    if len(model.subgraphs) > 1:
        facts["subgraphs"] = len(model.subgraphs)
    if model.min_runtime_version:
        facts["oldest TFLite runtime"] = model.min_runtime_version
    if model.signatures:
        facts["signatures"] = ", ".join(s.key for s in model.signatures)
    if model.metadata:
        facts["metadata"] = ", ".join(name for name, _ in model.metadata)
    if about and (about.name or about.author or about.license):
        facts["author's words"] = "; ".join(t[:120] for t in (about.name, about.author, about.license) if t)
    compiled = None
    memory = [Bar("file", _file_parts(model)), Bar("RAM of tensors", _activations(model))]
    if model.edgetpu:
        compiled, more = _edgetpu(data, model, memory)
        findings += more
    return Report(
        path=str(path),
        kind="edgetpu" if model.edgetpu else "tflite",
        size=len(data),
        facts=facts,
        inputs=_rows(model.inputs, about.inputs if about else ()),
        outputs=_rows(model.outputs, about.outputs if about else ()),
        operators=_operators(data, model),
        memory=tuple(memory),
        findings=tuple(findings),
        labels=labels,
        edgetpu=compiled,
    )


def _rows(specs: tuple[TensorSpec, ...], about: tuple[tflite_metadata.TensorMetadata, ...]) -> tuple[TensorRow, ...]:
    rows = []
    for i, spec in enumerate(specs):
        words = about[i] if len(about) == len(specs) else None
        q = spec.quantization
        rows.append(
            TensorRow(
                spec.name,
                spec.datatype,
                spec.shape,
                q.scale if q else (),
                q.zero_point if q else (),
                words.mean if words else (),
                words.std if words else (),
                " ".join(t for t in (words.name, words.description, words.color) if t) if words else "",
            )
        )
    return tuple(rows)


def _file_parts(model: tflite.TfliteModel) -> tuple[tuple[str, int], ...]:
    weights = sum({t.buffer: t.buffer_size for g in model.subgraphs for t in g.tensors}.values())
    programs = sum(o.custom_options.size for g in model.subgraphs for o in g.operators if o.custom_code)
    parts = [("weights", weights), ("programs", programs), ("rest", max(0, model.size - weights - programs))]
    return tuple((n, s) for n, s in parts if s)


def _activations(model: tflite.TfliteModel) -> tuple[tuple[str, int], ...]:
    """Values that are neither stored nor program state: those that live at once at the worst moment, and the others.

    A value lives from the operator that makes it to the last one that reads it; inputs and outputs all the time.
    """
    graph = model.subgraphs[0]
    held = {t.index: t.nbytes for t in graph.tensors if not t.constant}
    always = {*graph.inputs, *graph.outputs}
    last = {i: number for number, o in enumerate(graph.operators) for i in (*o.outputs, *o.inputs)}
    live = peak = sum(held.get(i, 0) for i in always)
    seen = set(always)
    for number, operator in enumerate(graph.operators):
        used = {*operator.inputs, *operator.outputs}
        live += sum(held.get(i, 0) for i in used - seen)
        seen |= used
        peak = max(peak, live)
        live -= sum(held.get(i, 0) for i in used - always if last[i] == number)
    return ("alive at once", peak), ("more where memory is not used again", sum(held.values()) - peak)


def _operators(data: bytes, model: tflite.TfliteModel) -> tuple[OperatorRow, ...]:
    rows = []
    for number, graph in enumerate(model.subgraphs):
        for o in graph.operators:
            prefix = f"g{number}." if number else ""
            tensors = graph.tensors
            constants = sum(tensors[i].buffer_size for i in o.inputs if i >= 0)
            shown = [f"{k} {v}" for k, v in o.options.items() if k in _SHOWN and v not in ("NONE", 1)]
            program = o.custom_options.size if o.custom_code == tflite.EDGETPU_OP else 0
            rows.append(
                OperatorRow(
                    index=o.index,
                    name=tensors[o.outputs[0]].name if o.outputs and o.outputs[0] >= 0 else "",
                    type=o.label,
                    device="Edge TPU" if o.custom_code == tflite.EDGETPU_OP else "CPU",
                    inputs=tuple(f"{prefix}{i}" for i in o.inputs if i >= 0 and not tensors[i].constant),
                    outputs=tuple(f"{prefix}{i}" for i in o.outputs if i >= 0),
                    shape=tensors[o.outputs[0]].shape if o.outputs and o.outputs[0] >= 0 else (),
                    constants=constants + program,
                    details=", ".join([*shown, f"version {o.version}"]),
                    macs=operator_macs(graph, o),
                    operands=operands(graph, o),
                    weights=spread(data, model, graph, o),
                )
            )
    return tuple(rows)


def _edgetpu(data: bytes, model: tflite.TfliteModel, memory: list[Bar]) -> tuple[EdgetpuFacts, tuple[Finding, ...]]:
    compiled = edgetpu.read(data, model)
    package = compiled.package
    parts = (("cached parameters", compiled.cached_bytes),)
    device = [Bar("Edge TPU parameter memory (8 MiB nominal)", parts, EDGETPU_SRAM)]
    if compiled.streamed_bytes:
        device.append(Bar("parameters sent with every inference", (("streamed", compiled.streamed_bytes),)))
    main = package.main
    if main and main.narrow_memory:
        device.append(Bar("Edge TPU narrow memory per tile", (("used", main.narrow_memory),), 196_608))
    memory[:0] = device
    facts = EdgetpuFacts(
        token=f"{compiled.token:016x}",
        cached_bytes=compiled.cached_bytes,
        streamed_bytes=compiled.streamed_bytes,
        scratch_bytes=compiled.scratch_bytes,
        bitstream_bytes=tuple(sum(e.bitstreams) for e in package.executables),
        min_runtime=compiled.min_runtime,
        compiler=package.compiler_version,
        chip=main.chip if main else "",
        cpu_operators=len(compiled.cpu_operators),
    )
    findings = edgetpu_rules.check(compiled)
    if not compiled.token:
        findings += (Finding(NOTE, "no-token", "no caching token: parameters are sent with every inference"),)
    return facts, findings
