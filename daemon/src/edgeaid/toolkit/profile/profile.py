"""Time per operator: every beginning of the model is timed, and an operator costs what its beginning takes more.

So an operator is measured where it stands, with the runtime's own delegates and fused kernels, and no profiler has to
be compiled into the runtime. What a delegate computes together with its neighbour appears with the later one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidModel, Unsupported
from ...formats.tflite import reader as tflite
from .. import page as pages
from ..files import load
from ..run import child, have_litert

#: More operators than this take too long to be timed one by one.
MAX_OPERATORS: Final = 2000


@dataclass(frozen=True, slots=True)
class Cost:
    """An operator and its time."""

    index: int
    type: str
    #: Name of its first output.
    name: str
    #: Shape of that.
    shape: tuple[int, ...]
    us: float
    #: Part of the whole.
    share: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Times of a model on this machine, microseconds."""

    model: str
    threads: int
    best_us: float
    median_us: float
    p99_us: float
    operators: tuple[Cost, ...]

    def types(self) -> list[tuple[str, int, float]]:
        """(type, how many, share of the time), the most expensive first."""
        sums: dict[str, tuple[int, float]] = {}
        for cost in self.operators:
            count, share = sums.get(cost.type, (0, 0.0))
            sums[cost.type] = count + 1, share + cost.share
        return sorted(((t, n, s) for t, (n, s) in sums.items()), key=lambda entry: -entry[2])

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "types": [{"type": t, "count": n, "share": s} for t, n, s in self.types()]}


def profile(path: Path, threads: int = 1, runs: int = 10, seconds: float = 0.2, timeout: float = 1800.0) -> Profile:
    """Time a model in a child process. Raises InvalidModel if it cannot be run, Unsupported without a runtime."""
    if not have_litert():
        raise Unsupported("no TFLite runtime is installed: pip install './daemon[litert]'")
    model = tflite.read(load(path))
    if model.custom_codes and tflite.EDGETPU_OP in model.custom_codes:
        raise Unsupported(
            f"{path.name} is compiled for the Edge TPU, where its operators are one: "
            "profile the plain file, and measure this one with edgeai bench"
        )
    graph = model.subgraphs[0]
    if not 0 < len(graph.operators) <= MAX_OPERATORS:
        raise InvalidModel(f"{path.name} has {len(graph.operators)} operators; 1 to {MAX_OPERATORS} are timed")
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        ask, answer = Path(name) / "ask.json", Path(name) / "answer.json"
        ask.write_text(json.dumps({"runs": runs, "seconds": seconds, "threads": threads, "answer": str(answer)}))
        done = child(
            [sys.executable, "-m", f"{__package__}.child", path, ask],
            timeout=timeout,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if done.status != 0 or not answer.is_file():
            raise InvalidModel(f"{path.name} cannot be run: the runtime {done.reason or 'gave no answer'}")
        times: dict[str, list[float]] = json.loads(answer.read_text())
    before, costs = 0.0, []
    for prefix in times["prefixes"]:
        # Noise may make a longer beginning look faster; the running maximum keeps the sum at the whole.
        costs.append(max(0.0, prefix - before))
        before = max(before, prefix)
    total = sum(costs) or 1.0
    entries = [
        Cost(o.index, o.label, graph.tensors[o.outputs[0]].name if o.outputs else "",
             graph.tensors[o.outputs[0]].shape if o.outputs else (), us, us / total)
        for o, us in zip(graph.operators, costs, strict=True)
    ]  # fmt: skip
    best, median, p99 = times["whole"]
    return Profile(path.name, threads, best, median, p99, tuple(entries))


_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; border-top: 1px solid #8883; }
td.n { text-align: right; white-space: nowrap; } td { overflow-wrap: anywhere; }
.bar { background: #4a7fc1; height: .8rem; min-width: 1px; } td.b { width: 30%; }
"""


def page(measured: Profile) -> str:
    """The profile as one self-contained page."""
    most = max((c.share for c in measured.operators), default=1.0) or 1.0
    head = "<tr><th>#</th><th>operator</th><th>output</th><th>shape</th><th>us</th><th>part</th><th></th></tr>"
    rows = "".join(
        f'<tr><td class="n">{c.index}</td><td>{escape(c.type)}</td><td>{escape(c.name)}</td>'
        f'<td>{"x".join(map(str, c.shape))}</td><td class="n">{c.us:.1f}</td><td class="n">{c.share:.1%}</td>'
        f'<td class="b"><div class="bar" style="width:{100 * c.share / most:.1f}%"></div></td></tr>'
        for c in measured.operators
    )
    kinds = "".join(
        f'<tr><td>{escape(t)}</td><td class="n">{n}</td><td class="n">{s:.1%}</td></tr>' for t, n, s in measured.types()
    )
    text = f"{measured.median_us:.0f} us per inference (best {measured.best_us:.0f}), {measured.threads} thread(s)"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(measured.model)}: profile</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}{pages.STYLE}</style></head>\n<body><h1>{escape(measured.model)}</h1>"
        f"{pages.verdict(text, 'good')}<h2>By type</h2><table><tr><th>type</th><th>count</th><th>part</th></tr>"
        f'{kinds}</table><h2>In order</h2><div class="wide"><table>{head}{rows}</table></div></body></html>\n'
    )
