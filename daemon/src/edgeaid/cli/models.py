"""`edgeai models`, `load`, `unload`, `reload`, `rollback`, `remove`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from .. import errors
from .common import Session, complete_version, model_argument, pass_session
from .text import plain, table


@click.command()
@pass_session
def models(session: Session) -> None:
    """List models: every version that is stored or served. An asterisk marks the version that answers by default."""
    listed = session.client.models()
    session.show(listed, models_table(listed))


def models_table(listed: Sequence[Mapping[str, Any]]) -> str:
    """One line per version."""
    rows = [
        (
            m["name"],
            m["version"] + ("*" if m.get("default") else ""),
            m["state"],
            m.get("task", ""),
            ", ".join(m.get("devices", {})),
            m["reason"] or m.get("description", ""),
        )
        for m in listed
    ]
    text = table(("NAME", "VERSION", "STATE", "TASK?2", "DEVICES?1", "NOTE~?3"), rows)
    # Why a model does not serve is what one looks for: where the table had no room for it, it follows.
    missing = [m for m in listed if plain(m["reason"]) not in text]
    whys = [f"{m['name']} version {m['version']}: {plain(m['reason'])}" for m in missing]
    return "\n".join([text, "", *whys]) if whys else text


@click.command()
@model_argument
@pass_session
def load(session: Session, model: str) -> None:
    """Load a stored model, or load it anew; the old one serves until the new one has passed its self-test."""
    session.client.load(model)
    session.show({"loaded": model}, f"{model} is loaded")


@click.command()
@model_argument
@pass_session
def reload(session: Session, model: str) -> None:
    """The same as load: take what is stored now."""
    session.client.load(model)
    session.show({"loaded": model}, f"{model} is loaded")


@click.command()
@model_argument
@pass_session
def unload(session: Session, model: str) -> None:
    """Stop serving a model; requests under way finish."""
    session.client.unload(model)
    session.show({"unloaded": model}, f"{model} is unloaded")


@click.command()
@model_argument
@pass_session
def rollback(session: Session, model: str) -> None:
    """Go back to the next older version, and stay there until the model is loaded or pushed again."""
    version = session.client.rollback(model)
    session.show({"model": model, "version": version}, f"{model} serves version {version}")


@click.command()
@model_argument
@click.argument("version", required=False, shell_complete=complete_version)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def remove(session: Session, model: str, version: str | None, yes: bool) -> None:
    """Delete a stored VERSION that is not being served; without VERSION, unload the model and delete all of it.

    On a terminal the second one asks first. Models that come with edgeaid can be unloaded, not deleted.
    """
    if version is not None:
        session.client.remove(model, version)
        session.show({"removed": f"{model}/{version}"}, f"{model} version {version} is deleted")
        return
    rows = [m for m in session.client.models() if m["name"] == model]
    versions = [m["version"] for m in rows if m.get("removable", True)]
    if not rows:
        raise errors.NotFound(f"unknown model {model!r}")
    if not versions:
        raise errors.NotFound(
            f"model {model!r} comes with the system and cannot be deleted; edgeai unload {model} stops serving it"
        )
    if not yes and not session.as_json and sys.stdin.isatty():
        click.confirm(f"delete {model}, version {', '.join(versions)}?", abort=True)
    with contextlib.suppress(errors.NotFound):  # it need not be loaded
        session.client.unload(model)
    for number in versions:
        session.client.remove(model, number)
    text = f"{model} is deleted (version {', '.join(versions)})"
    left = [m["version"] for m in rows if m["version"] not in versions]
    if left:
        session.client.load(model)
        text += f"; version {left[0]}, which comes with the system, serves again"
    session.show({"removed": [f"{model}/{v}" for v in versions]}, text)
