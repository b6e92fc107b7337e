"""`edgeai doctor`: what is wrong with this machine, in plain words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from .common import Session, pass_session, table


@click.command()
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Collect everything a bug report needs into this file.",
)
@click.option("--user", help="Check the rights of this user instead of yours.")
@pass_session
def doctor(session: Session, report: Path | None, user: str | None) -> None:
    """Check sticks, rights, USB speed, power, versions, firmware and models of the machine this runs on.

    With --host nothing is checked over there: run it on the device itself, for example by ssh.
    Exit status 1 when something is wrong.
    """
    from .. import doctor as checks

    places = dataclasses.replace(checks.Places(), socket=Path(session.socket))
    findings = checks.run(places, user=user)
    rows = [(f.level, f.check, f.text + (f"\n-> {f.todo}" if f.todo else "")) for f in findings]
    session.show([dataclasses.asdict(f) for f in findings], table(("", "CHECK", "FINDING"), rows))
    if report is not None:
        path = checks.report(report, places)
        if not session.as_json:
            click.echo(f"report written to {path}")
    if any(f.level not in ("ok", "note") for f in findings):
        raise click.exceptions.Exit(1)
