"""`edgeai models`, `load`, `unload`, `reload`, `rollback`, `remove`."""

from __future__ import annotations

import click

from .common import Session, model_argument, pass_session, table


@click.command()
@pass_session
def models(session: Session) -> None:
    """List models: every version that is stored or served."""
    found = session.client.models()
    rows = [
        (
            m["name"],
            m["version"] + ("*" if m.get("default") else ""),
            m["state"],
            m.get("task", ""),
            ", ".join(m.get("devices", {})),
            m["reason"] or m.get("description", ""),
        )
        for m in found
    ]
    session.show(found, table(("NAME", "VERSION", "STATE", "TASK", "DEVICES", "NOTE"), rows))


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
@click.argument("version")
@pass_session
def remove(session: Session, model: str, version: str) -> None:
    """Delete a stored version that is not being served."""
    session.client.remove(model, version)
    session.show({"removed": f"{model}/{version}"}, f"{model} version {version} is deleted")
