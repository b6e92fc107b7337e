"""Reports as one self-contained page; its script only zooms and copies."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from ...formats.detect import KINDS
from .. import page as pages
from .layout import device_class, svg
from .report import (
    Bar,
    Comparison,
    EdgetpuFacts,
    OperatorRow,
    Report,
    TensorRow,
    compare,
)
from .target import grade
from .text import amount, quantization, shape

STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.2rem; border-top: 2px solid #8886; padding-top: .6rem; word-break: break-all; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; font-size: .88rem; } th, td { padding: .15rem .7rem .15rem 0; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr + tr td { border-top: 1px solid #8883; }
.bar { height: 1.15rem; background: #8883; border-radius: 3px; overflow: hidden; display: flex; max-width: 46rem; }
.bar span { height: 100%; } .p0 { background: #2a8f6a; } .p1 { background: #d98324; } .p2 { background: #4a7fc1; }
.p3 { background: #9a63b5; } .over { outline: 2px solid #c33; } small { opacity: .75; }
.refused { color: #c33; font-weight: 600; } .warning { color: #b8741a; } .note { opacity: .8; }
.scroll { overflow: auto; max-height: 40rem; border: 1px solid #8884; border-radius: 4px; }
svg.graph path { fill: none; stroke: #888; stroke-width: 1.3; } svg.graph rect { stroke: #0004; }
svg.graph text { text-anchor: middle; font: 12px system-ui, sans-serif; fill: #fff; }
svg.graph .sub { font-size: 10px; } svg.graph g rect.cost { fill: #ffc83d; stroke: none; }
svg.graph .cpu rect { fill: #4a6fa5; } svg.graph .tpu rect { fill: #2a8f6a; } svg.graph .kpu rect { fill: #8a4f9e; }
svg.graph .ncs rect { fill: #b8641a; } svg.graph .open rect { fill: #5d6470; } svg.graph .io rect { fill: #333; }
.key { color: #fff; font-weight: 400; font-size: .8rem; padding: .1rem .5rem; border-radius: 3px; }
.key.cpu { background: #4a6fa5; } .key.tpu { background: #2a8f6a; } .key.kpu { background: #8a4f9e; }
.key.ncs { background: #b8641a; } .key.open { background: #5d6470; }
table.operators td:nth-last-child(2) { min-width: 14rem; } table.operators td:last-child { overflow-wrap: anywhere; }
details > summary { cursor: pointer; margin: .8rem 0 .3rem; }
"""


def page(reports: Sequence[Report]) -> str:
    """HTML of all reports."""
    comparison = compare(reports)
    title = ", ".join(r.name for r in reports)
    body = "".join(_section(r) for r in reports)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{pages.STYLE}</style></head>\n<body><h1>Model files</h1>"
        f"{_comparison(comparison) if comparison else ''}{body}<script>{pages.SCRIPT}</script></body></html>\n"
    )


def _section(r: Report) -> str:
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(_fact(v))}</td></tr>" for k, v in r.facts.items())
    parts = [
        f"<section><h2>{escape(r.name)}</h2><p>{escape(KINDS.get(r.kind, r.kind))}, {amount(r.size)}</p>",
        pages.verdict(r.verdict, grade(r)) if r.verdict else "",
        "".join(f'<p class="{f.severity}">{f.severity}: {escape(f.text)}</p>' for f in r.findings),
        f'<div class="wide"><table>{rows}</table></div>' if rows else "",
        _edgetpu(r.edgetpu) if r.edgetpu else "",
        _tensors("Inputs", r.inputs),
        _tensors("Outputs", r.outputs),
        "".join(_bar(bar) for bar in r.memory),
        _labels(r),
        _graph(r),
        _operators(r),
        "".join(_section(p) for p in r.parts),
        "</section>",
    ]
    return "\n".join(p for p in parts if p)


def _fact(value: str | int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _edgetpu(e: EdgetpuFacts) -> str:
    return (
        "<h3>Edge TPU</h3><table>"
        f"<tr><td>caching token</td><td><code>{e.token}</code></td></tr>"
        f'<tr><td>cached</td><td class="n">{e.cached_bytes:,} B</td></tr>'
        f'<tr><td>streamed with every inference</td><td class="n">{e.streamed_bytes:,} B</td></tr>'
        f'<tr><td>scratch</td><td class="n">{e.scratch_bytes:,} B</td></tr>'
        f'<tr><td>instructions</td><td class="n">{" + ".join(f"{b:,}" for b in e.bitstream_bytes)} B</td></tr>'
        f'<tr><td>minimum runtime</td><td class="n">{e.min_runtime}</td></tr>'
        f'<tr><td>operators left on the CPU</td><td class="n">{e.cpu_operators}</td></tr></table>'
    )


def _tensors(title: str, rows: Sequence[TensorRow]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f'<tr><td title="{escape(t.name)}">{escape(_short(t.name))}</td>'
        f"<td>{escape(t.datatype)}</td><td>{escape(shape(t.shape))}</td>"
        f"<td>{escape(quantization(t))}</td><td>{escape(t.note)}</td></tr>"
        for t in rows
    )
    head = "<tr><th>name</th><th>type</th><th>shape</th><th>quantisation</th><th></th></tr>"
    return f'<h3>{title}</h3><div class="wide"><table>{head}{cells}</table></div>'


def _bar(bar: Bar) -> str:
    whole = max(bar.available, bar.used, 1)
    spans = "".join(
        f'<span class="p{i % 4}" style="width:{100 * size / whole:.3f}%" title="{escape(name)}: {size:,} B"></span>'
        for i, (name, size) in enumerate(bar.parts)
    )
    legend = ", ".join(f"{escape(name)} {amount(size)}" for name, size in bar.parts[:12])
    of = f" of {amount(bar.available)} ({bar.used / bar.available:.0%})" if bar.available else ""
    over = " over" if bar.available and bar.used > bar.available else ""
    return (
        f"<h3>{escape(bar.title)}: {amount(bar.used)}{of}</h3>"
        f'<div class="bar{over}">{spans}</div><small>{legend}</small>'
    )


def _labels(r: Report) -> str:
    if not r.labels:
        return ""
    listed = "".join(f"<tr><td>{i}</td><td>{escape(label)}</td></tr>" for i, label in enumerate(r.labels))
    return (
        f'<details><summary>{len(r.labels)} labels</summary><div class="scroll"><table>{listed}</table></div></details>'
    )


def _graph(r: Report) -> str:
    drawn = svg(r)
    devices = sorted({o.device for o in r.operators if o.device})
    legend = " ".join(f'<span class="key {device_class(d)}">{escape(d)}</span>' for d in devices)
    if not drawn:
        return ""
    cost = (
        "<p><small>The bar in a box: multiply-accumulates, compared with the costliest operator.</small></p>"
        if _costly(r)
        else ""
    )
    return f"<h3>Graph {legend}</h3>{cost}{pages.graph(drawn)}"


def _costly(r: Report) -> bool:
    return any(o.macs for o in r.operators)


def _operators(r: Report) -> str:
    if not r.operators:
        return ""
    whole = sum(o.macs for o in r.operators)
    rows = "".join(
        f'<tr><td class="n">{o.index}</td><td>{escape(o.type)}</td><td>{escape(o.device)}</td>'
        f'<td>{escape(shape(o.shape))}</td><td class="n">{o.constants:,}</td>'
        f"{_cost(o, whole)}<td>{escape(o.details)}</td>"
        f'<td title="{escape(o.name)}">{escape(_short(o.name))}</td></tr>'
        for o in r.operators
    )
    head = (
        "<tr><th>#</th><th>operator</th><th>runs on</th><th>output</th><th>bytes</th>"
        f"{'<th>multiply-accumulates</th>' if whole else ''}<th>details</th><th>name</th></tr>"
    )
    return (
        f'<details open><summary>{len(r.operators)} operators</summary><div class="scroll">'
        f'<table class="operators">{head}{rows}</table></div></details>'
    )


def _cost(operator: OperatorRow, whole: int) -> str:
    """The cell of an operator's multiply-accumulates; none where no operator of the file has any."""
    if not whole:
        return ""
    said = f"{operator.macs:,} ({operator.macs / whole:.1%})" if operator.macs else ""
    return f'<td class="n">{said}</td>'


def _short(name: str) -> str:
    """Fused operators carry the names of all their parts; the first one is enough to find the layer."""
    return name.split(";", 1)[0]


def _comparison(c: Comparison) -> str:
    groups = "".join(
        _bar(
            Bar(
                f"token {g.token}: {len(g.files)} file{'s' * (len(g.files) != 1)}, "
                f"{'fits' if g.fits else 'does not fit'}",
                (("cached: " + ", ".join(g.files), g.cached_bytes),),
                8 << 20,
            )
        )
        + (f"<p><small>{g.streamed_bytes:,} B streamed with every inference</small></p>" if g.streamed_bytes else "")
        for g in c.groups
    )
    return f"<section><h2>Together on one Edge TPU</h2><p>{escape(c.advice)}</p>{groups}</section>"
