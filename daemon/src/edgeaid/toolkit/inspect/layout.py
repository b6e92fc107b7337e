"""Drawing a graph: operators in ranks from top to bottom, as one inline SVG."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from .report import OperatorRow, Report

#: Operators drawn; a page with more cannot be read.
MAX_DRAWN: Final = 600
_WIDTH: Final = 190
_HEIGHT: Final = 36
#: Height of the bar at a box's lower edge.
_COST: Final = 4
_GAP_X: Final = 22
_GAP_Y: Final = 26
#: How far the handles of a long edge lie beside its ends; the curve itself reaches three quarters of it.
_BOW: Final = 165


@dataclass(frozen=True, slots=True)
class Box:
    """A node with its place, pixels."""

    label: str
    sub: str
    #: Class for colour: a device, "io" for inputs and outputs.
    style: str
    title: str
    x: int
    y: int
    #: Multiply-accumulates as a part of those of the costliest operator, 0 to 1.
    cost: float = 0.0
    #: What a click shows, as JSON; "" for inputs.
    panel: str = ""


def panel(operator: OperatorRow) -> str:
    """All that is known of an operator, as JSON: [title, [[role, name, type, shape, quantisation], ...], histogram]."""
    title = f"#{operator.index} {operator.type}"
    rows = [[o.role, o.name, o.datatype, "x".join(map(str, o.shape)), o.quantisation] for o in operator.operands]
    facts = [("name", operator.name), ("runs on", operator.device), ("options", operator.details)]
    facts += [("bytes of constants", f"{operator.constants:,}" if operator.constants else "")]
    facts += [("multiply-accumulates", f"{operator.macs:,}" if operator.macs else "")]
    if not rows:
        facts += [("output", "x".join(map(str, operator.shape))), ("reads", ", ".join(operator.inputs))]
    spread = operator.weights
    bins = [spread.low, spread.high, list(spread.counts)] if spread else None
    return json.dumps([title, [f for f in facts if f[1]], rows, bins], ensure_ascii=False)


def place(operators: Sequence[OperatorRow], inputs: Sequence[str]) -> tuple[list[Box], list[tuple[int, int]], int, int]:
    """Boxes, edges (pairs of box numbers), width and height. The first boxes are the inputs."""
    made: dict[str, int] = {}
    rank: list[int] = []
    edges: list[tuple[int, int]] = []
    labels: list[tuple[str, str, str, str]] = [(name[:26] or "input", "input", "io", name) for name in inputs]
    costs = [0.0] * len(labels)
    panels = [""] * len(labels)
    whole = sum(operator.macs for operator in operators) or 1
    most = max((operator.macs for operator in operators), default=0) or 1
    rank += [0] * len(labels)
    for operator in operators:
        number = len(labels)
        sources = {made[v] for v in operator.inputs if v in made}
        # Values that no operator makes come from outside: the first input box stands for them.
        if not sources and operator.inputs and inputs:
            sources = {0}
        rank.append(1 + max((rank[s] for s in sources), default=-1 if not inputs else 0))
        edges += [(s, number) for s in sorted(sources)]
        made |= dict.fromkeys(operator.outputs, number)
        shape = "x".join(map(str, operator.shape))
        costs.append(operator.macs / most)
        title = f"{operator.index} {operator.type} {operator.name}\n{shape}\n{operator.details}"
        if operator.macs:
            title += f"\n{operator.macs:,} multiply-accumulates, {operator.macs / whole:.1%} of all"
        labels.append((operator.type[:26], shape[:28], device_class(operator.device), title))
        panels.append(panel(operator))
    rows: dict[int, list[int]] = {}
    for number, r in enumerate(rank):
        rows.setdefault(r, []).append(number)
    widest = max((len(row) for row in rows.values()), default=1)
    width = widest * (_WIDTH + _GAP_X) + 160
    boxes = [Box("", "", "", "", 0, 0)] * len(labels)
    for r, row in rows.items():
        left = (width - len(row) * (_WIDTH + _GAP_X) + _GAP_X) // 2
        for column, number in enumerate(row):
            label, sub, style, title = labels[number]
            x, y = left + column * (_WIDTH + _GAP_X), 10 + r * (_HEIGHT + _GAP_Y)
            boxes[number] = Box(label, sub, style, title, x, y, costs[number], panels[number])
    height = 20 + (max(rows, default=0) + 1) * (_HEIGHT + _GAP_Y)
    return boxes, edges, width, height


def device_class(device: str) -> str:
    """Class for the colour of a device."""
    return {"CPU": "cpu", "Edge TPU": "tpu", "KPU": "kpu", "NCS": "ncs"}.get(device, "open")


def _clickable(box: Box) -> str:
    return f' tabindex="0" data-panel="{escape(box.panel)}"' if box.panel else ""


def svg(report: Report, marked: Collection[int] = ()) -> str:
    """The graph of a report, "" when there is nothing to draw. `marked` = places in its operators that stand out."""
    if not report.operators:
        return ""
    drawn = report.operators[:MAX_DRAWN]
    inputs = [row.name for row in report.inputs][:16]
    boxes, edges, width, height = place(drawn, inputs)
    parts = [
        f'<svg class="graph" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="graph of {escape(report.name)}">'
    ]
    for source, target in edges:
        a, b = boxes[source], boxes[target]
        x1, y1, x2, y2 = a.x + _WIDTH // 2, a.y + _HEIGHT, b.x + _WIDTH // 2, b.y
        # Long edges bow aside so that they do not run through the boxes between.
        bow = 0 if y2 - y1 <= _GAP_Y else (_BOW if source % 2 else -_BOW)
        middle = (y2 - y1) // 2 or 10
        parts.append(f'<path d="M{x1} {y1} C{x1 + bow} {y1 + middle} {x2 + bow} {y2 - middle} {x2} {y2}"/>')
    for number, box in enumerate(boxes):
        middle = box.x + _WIDTH // 2
        parts.append(
            f'<g class="{box.style}{" marked" if number - len(inputs) in marked else ""}"'
            f"{_clickable(box)}><title>{escape(box.title)}</title>"
            f'<rect x="{box.x}" y="{box.y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5"/>'
            f'<text x="{middle}" y="{box.y + (15 if box.sub else 22)}">{escape(box.label)}</text>'
            f'<text class="sub" x="{middle}" y="{box.y + 29}">{escape(box.sub)}</text>'
        )
        if box.cost:
            parts.append(
                f'<rect class="cost" x="{box.x}" y="{box.y + _HEIGHT - _COST}" height="{_COST}" '
                f'width="{max(1, round(_WIDTH * box.cost))}"/>'
            )
        parts.append("</g>")
    parts.append("</svg>")
    if len(drawn) < len(report.operators):
        parts.append(f"<p>The first {len(drawn)} of {len(report.operators)} operators are drawn.</p>")
    return "".join(parts)
