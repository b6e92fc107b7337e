"""`edgeai doctor`: what is wrong with this machine, and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import errors
from .common import Session, pass_session, write_text
from .text import state, width

if TYPE_CHECKING:
    from ..doctor import checks


@click.command()
@click.option(
    "--report",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    help="Collect everything a bug report needs into FILE; without FILE, print it.",
)
@click.option("--user", help="Check the rights of this user instead of yours.")
@pass_session
def doctor(session: Session, report: str | None, user: str | None) -> None:
    """Check sticks, rights, USB speed, power, versions, firmware and models of the machine this runs on.

    With --host nothing is checked over there: run it on the device itself, for example by ssh.
    Exit status 1 when something is wrong.
    """
    from ..doctor import checks
    from ..doctor import report as doctor_report

    places = dataclasses.replace(checks.Places(), socket=Path(session.socket))
    findings = checks.run(places, user=user)
    if report == "-":
        click.echo(doctor_report.report(places, served=_served(session)), nl=False)
    else:
        session.show([dataclasses.asdict(f) for f in findings], _shown(findings))
        if report is not None:
            path = Path(report)
            write_text(path, doctor_report.report(places, served=_served(session)))
            if not session.as_json:
                click.echo(f"report written to {path}")
    if any(f.level not in ("ok", "note") for f in findings):
        raise click.exceptions.Exit(1)


def _shown(findings: Sequence[checks.Observation]) -> str:
    """Level, check and text of each, with what to do below."""
    names = max((len(f.check) for f in findings), default=5)
    indent = " " * (9 + names + 2)
    lines = [click.style(f"{'':9}{'CHECK':{names}}  FINDING", bold=True)]
    room = min(max(60, width()), 160)
    for f in findings:
        text = click.wrap_text(f.text, room, subsequent_indent=indent, initial_indent=indent)
        lines.append(f"{state(f.level)}{' ' * (9 - len(f.level))}{f.check:{names}}  {text.lstrip()}")
        if f.todo:
            lines.append(click.wrap_text(f"-> {f.todo}", room, initial_indent=indent, subsequent_indent=indent + "   "))
    return "\n".join(lines)


def _served(session: Session) -> str:
    """Models and devices as the daemon lists them, a line each."""
    try:
        lines = [
            " ".join(("model", m["name"], m["version"], m["state"], *m.get("devices", {}), m["reason"])).rstrip()
            for m in session.client.models()
        ]
        lines += [f"device {d['id']} {d['target']} {d['state']}" for d in session.client.devices()]
    except errors.EdgeaiError as error:
        return str(error)
    return "\n".join(lines)
