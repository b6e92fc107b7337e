"""`edgeai top`: a live view of devices and models."""

from __future__ import annotations

import itertools
import time
from typing import Any

import click

from .. import errors
from .common import Session, console, pass_session, table


def view(devices: list[dict[str, Any]], stats: list[dict[str, Any]], before: dict[str, Any], seconds: float) -> Any:
    """One picture of the state; `before` holds counters of the last one and is updated."""
    from rich.console import Group

    rows: list[tuple[object, ...]] = []
    for d in devices:
        busy = (d["busy_seconds"] - before.get(d["id"], d["busy_seconds"])) / seconds
        queue = d["queue"]
        switches = queue.get("switches", 0)
        lost = queue.get("switch_seconds", 0.0)
        rate = (switches - before.get(d["id"] + "/switches", switches)) / seconds
        wasted = (lost - before.get(d["id"] + "/lost", lost)) / seconds
        before |= {d["id"]: d["busy_seconds"], d["id"] + "/switches": switches, d["id"] + "/lost": lost}
        group = queue.get("group") or ""
        rows.append(
            (
                d["id"],
                d["state"],
                f"{busy:.0%}",
                d["in_flight"],
                queue["length"],
                group,
                f"{rate:.1f}",
                f"{wasted:.1%}",
                d["restarts"],
            )
        )
    top = table(
        ("DEVICE", "STATE", "BUSY>", "RUNNING>", "WAITING>", "CACHED GROUP", "SWITCHES/s>", "LOST>", "RESTARTS>"), rows
    )
    rows = []
    for m in stats:
        s = m["inference_stats"]
        key = f"{m['name']}/{m['version']}"
        old = before.get(key, s)
        done = s["success"]["count"] - old["success"]["count"]

        def mean(phase: str, s: dict[str, Any] = s, old: dict[str, Any] = old) -> str:
            count = s[phase]["count"] - old[phase]["count"]
            return f"{(s[phase]['ns'] - old[phase]['ns']) / count / 1e6:.2f}" if count else "-"

        before[key] = s
        rows.append(
            (key, f"{done / seconds:.1f}", s["fail"]["count"], mean("queue"), mean("compute_infer"), mean("success"))
        )
    return Group(top, "", table(("MODEL", "PER SECOND>", "FAILED>", "QUEUE ms>", "COMPUTE ms>", "TOTAL ms>"), rows))


@click.command()
@click.option(
    "-n", "--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between pictures."
)
@click.option("--count", type=click.IntRange(1), help="End after so many pictures.")
@pass_session
def top(session: Session, interval: float, count: int | None) -> None:
    """Show devices and models live: load, rates, queue, switches. Ends with Ctrl-C.

    With --json: one object with all counters per line.
    """
    if session.as_json:
        for number in itertools.count(1):
            session.show({"devices": session.client.devices(), "stats": session.client.stats()})
            if number == count:
                return
            time.sleep(interval)
    from rich.live import Live

    before: dict[str, Any] = {}
    shown = 0
    last = time.monotonic() - interval
    with Live(console=console(), auto_refresh=False, screen=count is None) as live:
        while count is None or shown < count:
            now = time.monotonic()
            try:
                live.update(
                    view(session.client.devices(), session.client.stats(), before, max(now - last, 1e-3)), refresh=True
                )
            except errors.Unavailable as error:
                live.update(f"{error}", refresh=True)
            last = now
            shown += 1
            if count is None or shown < count:
                time.sleep(interval)
