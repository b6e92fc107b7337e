"""`edgeai stats`, `devices`, `events`."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from .common import Session, complete_model, pass_session, table


def _mean_ms(duration: dict[str, int]) -> str:
    return f"{duration['ns'] / duration['count'] / 1e6:.3f}" if duration["count"] else "-"


@click.command()
@click.argument("model", required=False, default="", shell_complete=complete_model)
@pass_session
def stats(session: Session, model: str) -> None:
    """Counts and mean times per model and phase."""
    found = session.client.stats(model)
    rows = []
    for m in found:
        s: dict[str, Any] = m["inference_stats"]
        phases = [_mean_ms(s[p]) for p in ("queue", "compute_input", "compute_infer", "compute_output", "success")]
        rows.append((m["name"], m["version"], s["success"]["count"], s["fail"]["count"], *phases))
    session.show(
        found,
        table(
            ("MODEL", "VERSION", "OK>", "FAILED>", "QUEUE ms>", "INPUT ms>", "COMPUTE ms>", "OUTPUT ms>", "TOTAL ms>"),
            rows,
        ),
    )


def _rungs(ladder: dict[str, Any] | None) -> str:
    """`reopen 2/3`: it helped twice of three times."""
    return ", ".join(f"{rung} {c['helped']}/{c['tried']}" for rung, c in ladder["rungs"].items()) if ladder else ""


@click.command()
@pass_session
def devices(session: Session) -> None:
    """Devices, their state and what they have been through."""
    found = session.client.devices()
    rows = []
    for d in found:
        recovered = f"{d['last_recovery_ms']:.0f} ms" if d["last_recovery_ms"] is not None else ""
        rows.append(
            (
                d["id"],
                d["state"],
                d["runtime"],
                d["description"],
                d["restarts"],
                recovered,
                _rungs(d.get("ladder")),
                d["queue"]["length"],
                ", ".join(d["models"]),
                d["reason"],
            )
        )
    session.show(
        found,
        table(
            ("ID", "STATE", "RUNTIME", "DEVICE", "RESTARTS>", "RECOVERED IN>", "TRIED", "QUEUE>", "MODELS", "NOTE"),
            rows,
        ),
    )


@click.command()
@pass_session
def events(session: Session) -> None:
    """Follow what happens: loads, device changes, recoveries. Ends with Ctrl-C."""
    for event in session.client.events():
        if session.as_json:
            click.echo(json.dumps(event))
        else:
            click.echo(
                f"{time.strftime('%H:%M:%S', time.localtime(event['time']))}  {event['kind']:18} {event['message']}"
            )
