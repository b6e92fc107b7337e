"""`edgeai push` and `pull`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from .. import errors
from .common import Session, model_argument, pass_session, table


@contextlib.contextmanager
def progress(session: Session, text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar in bytes on standard error; nothing with --json or without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=session.as_json,
        transient=True,
    ) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@click.command()
@model_argument
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--version", "version", default="", help="Version to store it under (default: the next one).")
@pass_session
def push(session: Session, model: str, file: Path, version: str) -> None:
    """Upload a model and serve it: a bundle, a bare .tflite, or a model directory.

    Nothing changes on the device unless the upload is whole and the model passes its self-test.
    """
    with tempfile.TemporaryDirectory(prefix="edgeai-") as folder:
        if file.is_dir():
            file = _bundled(file, Path(folder))
        with progress(session, f"push {model}") as step:
            found = session.client.push(model, file, version, step)
    text = f"{model} version {found['version']} is stored" + (
        f" and serves on {', '.join(found['devices'])}" if found["serving"] else "; a newer version serves"
    )
    session.show(found, text)


def _bundled(directory: Path, folder: Path) -> Path:
    from ..models import pack

    return pack.write(directory, folder / "model.edgeai")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only store the model in this model repository; do not push it to the daemon.",
)
@click.option("--list", "list_", is_flag=True, help="List the catalogue.")
@pass_session
def pull(session: Session, name: str | None, into: Path | None, list_: bool) -> None:
    """Fetch a public model of the catalogue and push it to the daemon.

    EDGEAI_MODEL_MIRROR names a folder or URL prefix to take files from instead of their public addresses.
    """
    from ..models import catalogue

    entries = catalogue.load()
    if list_ or name is None:
        rows = [(e.name, e.task, ", ".join(e.targets), e.license, e.description) for e in entries.values()]
        session.show([r[0] for r in rows], table(("NAME", "TASK", "TARGETS", "LICENCE", "WHAT"), rows))
        return
    if name not in entries:
        raise errors.NotFound(f"the catalogue has no model {name!r}; see: edgeai pull --list")
    with tempfile.TemporaryDirectory(prefix="edgeai-") as folder:
        with progress(session, f"pull {name}") as step:
            directory = catalogue.pull(name, into or Path(folder), progress=step)
        if into is not None:
            session.show({"name": name, "path": str(directory)}, f"{name} is stored in {directory}")
            return
        file = _bundled(directory, Path(folder))
        with progress(session, f"push {name}") as step:
            found = session.client.push(name, file, "", step)
    session.show(found, f"{name} version {found['version']} serves on {', '.join(found['devices'])}")
