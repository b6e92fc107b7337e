"""`edgeai top`: a live view of devices and models."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from .. import errors
from .common import Session, pass_session
from .text import spark, table
from .watch import until_interrupted

#: Points that are remembered per line: at the usual interval the last two minutes.
HISTORY: Final = 120
_SHOWN: Final = 20


class Counters:
    """Rates from counters that only grow, and what they were before."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._history: dict[str, deque[float]] = {}

    def grown(self, key: str, value: float) -> float:
        """By how much a counter grew since the last time; 0 the first time and after a restart."""
        before = self._last.get(key, value)
        self._last[key] = value
        return max(0.0, value - before)

    def trend(self, key: str, value: float) -> str:
        """Remember a value; the last ones as bars."""
        history = self._history.setdefault(key, deque(maxlen=HISTORY))
        history.append(value)
        return spark(list(history), _SHOWN)


def view(devices: Sequence[Mapping[str, Any]], stats: list[dict[str, Any]], counters: Counters, seconds: float) -> str:
    """The state as text; `counters` hold what the last one showed."""
    lines: list[tuple[object, ...]] = []
    for d in devices:
        name, queue = d["id"], d["queue"]
        busy = counters.grown(name, d["busy_seconds"]) / seconds
        switches = counters.grown(f"{name}/switches", queue.get("switches", 0)) / seconds
        lost = counters.grown(f"{name}/lost", queue.get("switch_seconds", 0.0)) / seconds
        lines.append(
            (
                name, d["state"], f"{busy:.0%}", counters.trend(f"{name}/busy", busy), d["in_flight"], queue["length"],
                d["restarts"], f"{switches:.1f}", f"{lost:.1%}", queue.get("group") or "",
            )
        )  # fmt: skip
    top = table(
        ("DEVICE", "STATE", "BUSY>", f"{'BUSY LATELY':{_SHOWN}}?5", "RUNNING>", "WAITING>", "RESTARTS>?4",
         "SWITCHES/s>?3", "LOST>?2", "CACHED GROUP?1"),
        lines,
    )  # fmt: skip
    lines = []
    for m in stats:
        s, key = m["inference_stats"], f"{m['name']}/{m['version']}"
        rate = counters.grown(key, s["success"]["count"]) / seconds
        means = [_mean(counters, f"{key}/{phase}", s[phase]) for phase in ("queue", "compute_infer", "success")]
        lines.append((key, f"{rate:.1f}", counters.trend(key, rate), s["fail"]["count"], *means))
    models = table(
        ("MODEL", "PER SECOND>", f"{'LATELY':{_SHOWN}}?3", "FAILED>?4", "QUEUE ms>?2", "COMPUTE ms>?1", "TOTAL ms>"),
        lines,
    )
    return f"{top}\n\n{models}"


def _mean(counters: Counters, key: str, duration: dict[str, int]) -> str:
    count = counters.grown(f"{key}/count", duration["count"])
    total = counters.grown(f"{key}/ns", duration["ns"])
    return f"{total / count / 1e6:.2f}" if count else "-"


@click.command()
@click.option(
    "-n", "--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between views."
)
@click.option("--count", type=click.IntRange(1), help="End after so many views.")
@pass_session
def top(session: Session, interval: float, count: int | None) -> None:
    """Show devices and models live: load, rates, queue, switches. Ends with Ctrl-C.

    With --json: one object with all counters per line.
    """
    with until_interrupted():
        if session.as_json:
            for number in itertools.count(1):
                state = {"devices": session.client.devices(), "stats": session.client.stats()}
                click.echo(json.dumps(state, default=dict))
                if number == count:
                    return
                time.sleep(interval)
        _live(session, interval, count)


def _live(session: Session, interval: float, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    counters = Counters()
    last = time.monotonic() - interval
    with Live(console=console, auto_refresh=False, screen=count is None) as live:
        for number in itertools.count(1):
            now = time.monotonic()
            try:
                text = view(session.client.devices(), session.client.stats(), counters, max(now - last, 1e-3))
            except errors.Unavailable as error:
                text = str(error)
            if console.is_terminal:
                # A line that is too long for the window loses its end: folded ones would hide the lines below.
                live.update(Text.from_ansi(text, no_wrap=True, overflow="crop"), refresh=True)
            else:
                click.echo(text)
            last = now
            if number == count:
                return
            time.sleep(interval)
