"""`edgeai version` and `completion`."""

from __future__ import annotations

import click

from .. import __version__, errors
from .common import Session, pass_session


@click.command()
@pass_session
def version(session: Session) -> None:
    """Versions of this command and of the daemon, and your role there."""
    try:
        daemon = session.client.get("/edgeai/v1")
    except errors.EdgeaiError as error:
        daemon = {"error": str(error)}
    text = f"edgeai {__version__}\n"
    text += (
        f"edgeaid: {daemon['error']}"
        if "error" in daemon
        else f"edgeaid {daemon['version']}, your role: {daemon['role']}"
    )
    session.show({"edgeai": __version__, "edgeaid": daemon}, text)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell, for example: edgeai completion bash >> ~/.bashrc"""
    click.echo(
        {"fish": "_EDGEAI_COMPLETE=fish_source edgeai | source"}.get(
            shell, f'eval "$(_EDGEAI_COMPLETE={shell}_source edgeai)"'
        )
    )
