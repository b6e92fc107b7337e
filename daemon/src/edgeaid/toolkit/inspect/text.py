"""Reports on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ...formats.detect import KINDS
from .report import (
    Bar,
    Comparison,
    OperatorRow,
    Report,
    TensorRow,
    compare,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLORS: Final = {"refused": "bold red", "warning": "yellow", "note": "dim"}
_BAR_WIDTH: Final = 40


def amount(size: int) -> str:
    """Bytes for people: the exact number, and KiB or MiB from where they help."""
    if size >= 1 << 20:
        return f"{size:,} B = {size / 1048576:.2f} MiB"
    return f"{size:,} B = {size / 1024:.1f} KiB" if size >= 10240 else f"{size:,} B"


def shape(dimensions: Sequence[int]) -> str:
    """1x224x224x3, with ? for variable dimensions."""
    return "x".join("?" if d < 0 else str(d) for d in dimensions)


def quantization(row: TensorRow) -> str:
    """Scale and zero point, and the author's normalisation."""
    text = ""
    if len(row.scale) == 1:
        text = f"scale {row.scale[0]:.6g}, zero point {row.zero_point[0]}"
    elif row.scale:
        text = f"{len(row.scale)} scales {min(row.scale):.4g}..{max(row.scale):.4g}"
    if row.mean or row.std:
        means, stds = (", ".join(f"{v:g}" for v in values) for values in (row.mean, row.std))
        text += f"{'; ' if text else ''}mean {means}, std {stds}"
    return text


def show(reports: Sequence[Report], console: Console, *, every_operator: bool = False) -> None:
    """Print all reports, and how Edge TPU files behave together."""
    for report in reports:
        _report(report, console, every_operator)
    comparison = compare(reports)
    if comparison:
        _comparison(comparison, console)


def _report(r: Report, console: Console, every_operator: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.rule(f"[bold]{escape(r.name)}[/bold]", align="left")
    console.print(f"{KINDS.get(r.kind, r.kind)}, {amount(r.size)}", highlight=False)
    if r.verdict:
        console.print(r.verdict, style="bold", markup=False, highlight=False)
    for f in r.findings:
        console.print(f"{f.severity}: {f.text}", style=_COLORS[f.severity], markup=False, highlight=False)
    facts = Table.grid(padding=(0, 2))
    for key, value in r.facts.items():
        facts.add_row(escape(key), escape(f"{value:,}" if isinstance(value, int) else str(value)))
    if r.edgetpu:
        e = r.edgetpu
        for key, text in (
            ("caching token", e.token),
            ("cached / streamed", f"{e.cached_bytes:,} B / {e.streamed_bytes:,} B"),
            ("scratch", f"{e.scratch_bytes:,} B"),
            ("instructions", " + ".join(f"{b:,}" for b in e.bitstream_bytes) + " B"),
            ("minimum runtime", f"{e.min_runtime} (compiler {e.compiler or '?'}, chip {e.chip or '?'})"),
            ("operators left on the CPU", str(e.cpu_operators)),
        ):
            facts.add_row(key, escape(text))
    if r.labels:
        facts.add_row("labels", escape(f"{len(r.labels)}: {', '.join(r.labels[:4])}, ..."))
    console.print(facts)
    if r.inputs or r.outputs:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for column in ("", "name", "type", "shape", "quantisation", ""):
            table.add_column(column, overflow="fold", no_wrap=column == "name")
        for side, rows in (("in", r.inputs), ("out", r.outputs)):
            for t in rows:
                cells = (side, t.name, t.datatype, shape(t.shape), quantization(t), t.note)
                table.add_row(*(escape(c) for c in cells))
        _print(table, console)
    for bar in r.memory:
        _bar(bar, console)
    if r.operators:
        _print(_every(r.operators) if every_operator else _summary(r.operators), console)
    for part in r.parts:
        _report(part, console, every_operator)


def _print(table: Table, console: Console) -> None:
    """A table whose names stay whole: a terminal narrower than they are goes on in its next line."""
    width = console.width
    console.width = max(width, console.measure(table, options=console.options.update(width=1 << 16)).minimum)
    console.print(table)
    console.width = width


def _bar(bar: Bar, console: Console) -> None:
    parts = ", ".join(f"{name} {size:,}" for name, size in bar.parts[:6]) if len(bar.parts) > 1 else ""
    line = f"{bar.title}: {amount(bar.used)}"
    if bar.available:
        filled = min(_BAR_WIDTH, round(_BAR_WIDTH * bar.used / bar.available))
        line += f" of {amount(bar.available)} ({bar.used / bar.available:.0%})"
        console.print("█" * filled + "░" * (_BAR_WIDTH - filled), line, highlight=False, markup=False)
    else:
        console.print(line, highlight=False, markup=False)
    if parts:
        console.print(f"  {parts}", style="dim", highlight=False, markup=False)


def _summary(operators: Sequence[OperatorRow]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("operator")
    table.add_column("runs on")
    table.add_column("count", justify="right")
    table.add_column("constant bytes", justify="right")
    counts = Counter((o.type, o.device) for o in operators)
    for (kind, device), count in counts.most_common():
        size = sum(o.constants for o in operators if (o.type, o.device) == (kind, device))
        table.add_row(escape(kind), device or "-", str(count), f"{size:,}")
    return table


def _every(operators: Sequence[OperatorRow]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("#", "operator", "runs on", "output", "bytes", "details", "name"):
        right, whole = column in ("#", "bytes"), column in ("operator", "name")
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    for o in operators:
        cells = (str(o.index), o.type, o.device or "-", shape(o.shape), f"{o.constants:,}", o.details, o.name)
        table.add_row(*(escape(c) for c in cells))
    return table


def _comparison(c: Comparison, console: Console) -> None:
    console.rule("[bold]Together on one Edge TPU[/bold]", align="left")
    for g in c.groups:
        title = f"token {g.token}, {'fits' if g.fits else 'does not fit'}"
        _bar(Bar(title, (("cached", g.cached_bytes),), 8 << 20), console)
        streamed = f" (and {g.streamed_bytes:,} B streamed with every inference)" if g.streamed_bytes else ""
        console.print(f"  {', '.join(g.files)}{streamed}", highlight=False, markup=False)
    console.print(c.advice, highlight=False, markup=False)
