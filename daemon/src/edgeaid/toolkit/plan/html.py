"""The comparison of plans as one self-contained page; its script only copies commands."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .. import page as pages
from .cost import MIB, latency_ms
from .plan import Conditions, Placed, Plan

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; } .best { border-left: .3rem solid #2a7; padding-left: .8rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.bar { text-align: left; } td.bar { width: 45%; min-width: 14rem; }
.axis div { display: flex; justify-content: space-between; font-size: .75rem; opacity: .7; }
tr.stick td { border-top: 1px solid #8886; }
.ok { color: #2a7; } .bad { color: #c33; }
svg { display: block; width: 100%; height: 1.1rem; } small { opacity: .7; }
"""


def page(ranked: Sequence[Plan], conditions: Conditions) -> str:
    """HTML of the given plans, best first."""
    worst = max(m.cold_ms for p in ranked for s in p.sticks for m in s.models)
    parts = "\n".join(_plan(number, plan, worst, conditions) for number, plan in enumerate(ranked, 1))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Edge TPU co-compilation plans</title>
<style>{_STYLE}{pages.STYLE}</style></head>
<body><h1>Edge TPU co-compilation plans</h1>
<p>Models in [brackets] are compiled by one command and share the chip's parameter memory; a bar | starts another
accelerator. Green: compute; orange: parameters sent with every inference; grey: parameters sent again because another
group ran in between, at its probability (dark) and in the worst case (light).</p>
{parts}
<p><small>Bandwidth {conditions.bandwidth:g} MiB/s, on-chip memory {conditions.budget / MIB:.2f} MiB.</small></p>
<script>{pages.SCRIPT}</script></body></html>
"""


def _plan(number: int, plan: Plan, worst: float, conditions: Conditions) -> str:
    state = (
        '<span class="ok">holds the rates</span>' if plan.holds else '<span class="bad">cannot hold the rates</span>'
    )
    rows = "".join(
        _row(m, worst, conditions.bandwidth, first=i == 0 and s > 0)
        for s, stick in enumerate(plan.sticks)
        for i, m in enumerate(stick.models)
    )
    commands = "".join(pages.command(c) for c in plan.commands())
    axis = _axis(worst)
    built = " (as the files are now)" if plan.as_built else ""
    return f"""<section{' class="best"' if number == 1 else ""}>
<h2>{number}. {escape(plan.title)}{built} &mdash; load {plan.load:.0%}, {state}</h2>
<div class="wide"><table>
<tr><th>model</th><th>per s</th><th>cached</th><th>streamed</th><th>mean</th><th>latency</th></tr>
{axis}{rows}</table></div>
{commands}</section>"""


def _axis(worst: float) -> str:
    """Ticks of the bars, in milliseconds; the longest bar's end is the last."""
    marks = "".join(f"<span>{worst * part:.3g}{' ms' if part == 1 else ''}</span>" for part in (0, 0.25, 0.5, 0.75, 1))
    return f'<tr class="axis"><td colspan="5"></td><td class="bar"><div>{marks}</div></td></tr>'


def _row(m: Placed, worst: float, bandwidth: float, *, first: bool) -> str:
    scale = 100 / worst
    stream = latency_ms(0.0, m.streamed, bandwidth)
    compute = m.warm_ms - stream
    pieces = (
        (0.0, compute, "#2a7"), (compute, stream, "#e83"),
        (m.warm_ms, m.mean_ms - m.warm_ms, "#777"), (m.mean_ms, m.alternating_ms - m.mean_ms, "#bbb8"),
    )  # fmt: skip
    bars = "".join(
        f'<rect x="{start * scale:.2f}%" width="{max(0.0, length) * scale:.2f}%" height="100%" fill="{color}"/>'
        for start, length, color in pieces
    )
    title = f"stays {m.warm_ms:.1f} ms, re-sent {m.cold_ms:.1f} ms"
    return (
        f"<tr{' class=stick' if first else ''}><td>{escape(m.name)}</td><td>{m.rate:g}</td><td>{m.cached / MIB:.2f} MiB"
        f"</td><td>{m.streamed / MIB:.2f} MiB</td><td>{m.mean_ms:.1f} ms</td>"
        f'<td class="bar"><svg role="img"><title>{escape(title)}</title>{bars}</svg>'
        f"<small>compute {compute:.1f} + parameters {stream:.1f}, up to {m.alternating_ms:.1f} ms</small></td></tr>"
    )
