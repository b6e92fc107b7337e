"""`edgeai status`, `stats`, `devices`, `events`, `wait`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from .. import errors
from .common import Session, complete_model, pass_session
from .models import models_table
from .text import plain, table


def _mean_ms(duration: dict[str, int]) -> str:
    return f"{duration['ns'] / duration['count'] / 1e6:.3f}" if duration["count"] else "-"


@click.command()
@click.argument("model", required=False, default="", shell_complete=complete_model)
@pass_session
def stats(session: Session, model: str) -> None:
    """Counts and mean times per model and phase."""
    listed = session.client.stats(model)
    rows = []
    for m in listed:
        s: dict[str, Any] = m["inference_stats"]
        phases = [_mean_ms(s[p]) for p in ("queue", "compute_input", "compute_infer", "compute_output", "success")]
        rows.append((m["name"], m["version"], s["success"]["count"], s["fail"]["count"], *phases))
    session.show(
        listed,
        table(
            (
                "MODEL",
                "VERSION?5",
                "OK>",
                "FAILED>",
                "QUEUE ms>?3",
                "INPUT ms>?2",
                "COMPUTE ms>?4",
                "OUTPUT ms>?1",
                "TOTAL ms>",
            ),
            rows,
        ),
    )


def _steps(ladder: dict[str, Any] | None) -> str:
    """`reopen 2/3`: it helped twice of three times."""
    return ", ".join(f"{step} {c['helped']}/{c['tried']}" for step, c in ladder["steps"].items()) if ladder else ""


@click.command()
@pass_session
def devices(session: Session) -> None:
    """Devices, their state and their recoveries."""
    listed = session.client.devices()
    session.show(listed, devices_table(listed))


def devices_table(listed: Sequence[Mapping[str, Any]]) -> str:
    """One line per device. RECOVERY counts each recovery step: how often it helped, of how often it was tried."""
    rows = []
    for d in listed:
        recovered = f"{d['last_recovery_ms']:.0f} ms" if d["last_recovery_ms"] is not None else ""
        steps = _steps(d.get("ladder"))
        rows.append(
            (
                d["id"], d["state"], len(d["models"]), d["queue"]["length"], d["restarts"], recovered, steps,
                d["runtime"], d["description"], d["reason"],
            )
        )  # fmt: skip
    titles = (
        "ID", "STATE", "MODELS>", "QUEUE>", "RESTARTS>?3", "RECOVERED IN>?5", "RECOVERY?6", "RUNTIME?2", "DEVICE~?4",
        "NOTE~?1",
    )  # fmt: skip
    # A column in which nothing stands takes no room.
    kept = [i for i in range(len(titles)) if "?" not in titles[i] or any(row[i] not in ("", 0) for row in rows)]
    return table([titles[i] for i in kept], [[row[i] for i in kept] for row in rows])


@click.command()
@pass_session
def status(session: Session) -> None:
    """The daemon, its devices and its models at a glance."""
    daemon = session.client.get("/edgeai/v1")
    devices_, models_ = session.client.devices(), session.client.models()
    ready = session.client.is_ready()
    head = f"edgeaid {daemon['version']} at {session.client.name}: {'ready' if ready else 'not ready'}"
    session.show(
        {"daemon": daemon, "ready": ready, "devices": devices_, "models": models_},
        f"{head}, your role: {daemon['role']}\n\n{devices_table(devices_)}\n\n{models_table(models_)}",
    )


@click.command()
@click.option("--seconds", type=click.FloatRange(0), help="Give up after so long (default: --timeout).")
@pass_session
def wait(session: Session, seconds: float | None) -> None:
    """Return as soon as the daemon answers and every model is ready: for scripts that have just started it.

    Exit status 75 when it is not ready in time.
    """
    session.patient = False
    client = session.client
    client.wait(session.timeout if seconds is None else seconds)
    session.show({"ready": True}, "ready")


def _end_without_reader() -> None:
    """Writing would tell that `| head -1` has ended, but between two events nothing may be written for hours."""
    with contextlib.suppress(OSError, ValueError):  # standard output is closed, or not a file
        output = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(output).st_mode):
            poll = select.poll()
            poll.register(output, 0)  # only what is always told: an error when the last reader has gone
            poll.poll()
            os._exit(0)  # at once: a signal could come while the program is ending by itself


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C is the documented end of what runs on, and so is a reader of the output that goes away: exit status 0."""
    threading.Thread(target=_end_without_reader, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        click.echo(err=True)


@click.command()
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@pass_session
def events(session: Session, count: int | None) -> None:
    """Follow what happens: loads, device changes, recoveries. Ends with Ctrl-C."""
    with until_interrupted():
        for number, event in enumerate(session.client.events(), 1):
            if session.as_json:
                click.echo(json.dumps(event))
            else:
                clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
                click.echo(f"{clock}  {event['kind']:18} {plain(event['message'])}")
            if number == count:
                return
        raise errors.Unavailable("edgeaid ended the stream of events; is it stopping?")
