"""Reports of `check` as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from .. import page as pages
from .rules import Checked, Violation

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.2rem; border-top: 2px solid #8886; padding-top: .6rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
td, th { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }
td { border-top: 1px solid #8883; overflow-wrap: anywhere; }
.error { color: #c33; font-weight: 600; } .warning { color: #b8741a; font-weight: 600; } .note { opacity: .8; }
small { opacity: .75; }
"""
_VERDICTS: Final = {
    "": ("fits {}: no rule is broken", "good"),
    "note": ("fits {}", "good"),
    "warning": ("fits {} with warnings", "part"),
    "error": ("does not fit {}", "bad"),
}


def page(reports: Sequence[Checked]) -> str:
    """HTML of all reports."""
    title = escape(", ".join(dict.fromkeys(Path(r.path).name for r in reports)))
    body = "".join(_section(r) for r in reports)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}{pages.STYLE}</style></head>\n"
        f"<body><h1>Model check</h1>{body}</body></html>\n"
    )


def _section(r: Checked) -> str:
    text, grade = _VERDICTS[r.worst]
    facts = "; ".join(f"{k} {v}" for k, v in r.facts.items())
    rows = "".join(_row(v) for v in r.violations)
    head = "<tr><th>rule</th><th>what</th><th>is, and limit</th><th>do</th></tr>"
    table = f'<div class="wide"><table>{head}{rows}</table></div>' if rows else ""
    return (
        f"<section><h2>{escape(r.path)}</h2>{pages.verdict(text.format(r.target), grade)}{table}"
        f"<p><small>{escape(facts)}</small></p></section>"
    )


def _row(v: Violation) -> str:
    where = f"<br><small>at {escape(v.layer)}</small>" if v.layer else ""
    return (
        f'<tr><td class="{v.rule.severity}">{v.rule.id}<br>{v.rule.severity}</td><td>{escape(v.rule.title)}{where}</td>'
        f"<td>{escape(v.value)}<br><small>limit: {escape(v.limit)}</small></td>"
        f"<td>{escape(v.rule.remedy)}<br><small>{escape(v.rule.source)}</small></td></tr>"
    )
