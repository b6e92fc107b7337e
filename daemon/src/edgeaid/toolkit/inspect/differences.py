"""Two files side by side: which operators both have, in the same order, and which only one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from .. import page as pages
from .html import STYLE
from .layout import svg
from .report import OperatorRow, Report, TensorRow
from .text import amount, shape


@dataclass(frozen=True, slots=True)
class Differences:
    """Places in the operators of both files."""

    #: Pairs of the same type with the same output shape.
    same: tuple[tuple[int, int], ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    #: What differs beside operators: (what, first, second).
    facts: tuple[tuple[str, str, str], ...]


def differences(first: Report, second: Report) -> Differences:
    """Align the operators of two files."""
    keys = [[(o.type, o.shape) for o in r.operators] for r in (first, second)]
    matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    same = tuple((a + i, b + i) for a, b, n in matcher.get_matching_blocks() for i in range(n))
    known = [{pair[side] for pair in same} for side in (0, 1)]
    only = [tuple(i for i in range(len(k)) if i not in known[side]) for side, k in enumerate(keys)]
    rows = [
        ("bytes", amount(first.size), amount(second.size)),
        ("operators", str(len(first.operators)), str(len(second.operators))),
        ("bytes of constants", _sum(first, "constants"), _sum(second, "constants")),
        ("multiply-accumulates", _sum(first, "macs"), _sum(second, "macs")),
        ("inputs", _ends(first.inputs), _ends(second.inputs)),
        ("outputs", _ends(first.outputs), _ends(second.outputs)),
    ]
    counts = [Counter(o.type for o in r.operators) for r in (first, second)]
    rows += [
        (kind, str(counts[0][kind]), str(counts[1][kind]))
        for kind in sorted(set(counts[0]) | set(counts[1]))
        if counts[0][kind] != counts[1][kind]
    ]
    return Differences(same, only[0], only[1], tuple(row for row in rows if row[1] != row[2]))


def _sum(report: Report, what: str) -> str:
    return f"{sum(getattr(o, what) for o in report.operators):,}"


def _ends(rows: Sequence[TensorRow]) -> str:
    return ", ".join(f"{t.datatype} {shape(t.shape)}" for t in rows)


def page(first: Report, second: Report) -> str:
    """Both graphs in one self-contained page; what only one has stands out."""
    result = differences(first, second)
    rows = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td><td>{escape(c)}</td></tr>" for a, b, c in result.facts)
    head = f"<tr><th></th><th>{escape(first.name)}</th><th>{escape(second.name)}</th></tr>"
    sides = _side(first, result.only_first) + _side(second, result.only_second)
    title = escape(f"{first.name} and {second.name}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{pages.STYLE} body {{ max-width: 96rem; }}</style></head>\n<body><h1>{title}</h1>"
        f"<p>{len(result.same)} operators are the same by type and shape; those that only one file has are framed.</p>"
        f'<div class="wide"><table>{head}{rows}</table></div><div class="sides">{sides}</div>'
        f"<script>{pages.SCRIPT}</script></body></html>\n"
    )


def _side(report: Report, only: tuple[int, ...]) -> str:
    drawn = svg(report, only)
    graph = pages.graph(drawn) if drawn else ""
    return f"<section><h2>{escape(report.name)}</h2>{graph}{_only(report, only)}</section>"


def _only(report: Report, places: tuple[int, ...]) -> str:
    if not places:
        return "<p>Nothing here that the other file does not have.</p>"
    rows = "".join(f"<tr><td>{escape(line)}</td></tr>" for line in named(report.operators, places))
    return f"<details><summary>{len(places)} operators only here</summary><table>{rows}</table></details>"


def named(operators: tuple[OperatorRow, ...], places: tuple[int, ...]) -> list[str]:
    """Operators by number, type, shape and name."""
    chosen = [operators[i] for i in places]
    return [f"#{o.index} {o.type} {shape(o.shape)} {o.name.split(';', 1)[0]}".rstrip() for o in chosen]
