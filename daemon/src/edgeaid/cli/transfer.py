"""`edgeai push` and `pull`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from .. import errors
from . import local
from .accuracy import labelled, measure
from .common import Session, pass_session
from .local import Description
from .text import hint, plain, table


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
        disable=session.as_json or not sys.stderr.isatty(),
        transient=True,
    ) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def push_file(
    session: Session, name: str, file: Path, version: str, said: Description, *, allow_older: bool = False
) -> dict[str, Any]:
    """Upload a bundle, a model file or a model directory; the daemon's answer. The same file again is left as it is."""
    notes: tuple[str, ...] = ()
    if not file.is_dir():
        said = local.with_published_labels(file, said)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as temporary:
        if not file.is_dir() and said:
            directory = Path(temporary) / name / "1"
            notes = local.directory_of(file, name, said, directory)
            file = directory
        elif said:
            raise errors.InvalidRequest(f"{file} describes itself: write what differs into its model.toml")
        if file.is_dir():
            file = _bundled(file, Path(temporary))
        with progress(session, f"push {name}") as step:
            stored = session.client.push(name, file, version, step, unless_same=not version, allow_older=allow_older)
    for note in (*notes, *stored.get("notes", ())):
        hint(f"note: {plain(note)}")
    return stored


@click.command()
@click.argument("arguments", metavar="[NAME] FILE", nargs=-1, required=True)
@click.option("--version", "version", default="", help="Version to store it under (default: the next one).")
@click.option(
    "--try",
    "try_",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path, file_okay=False),
    help="Then ask it about the pictures in its subdirectories, which are named by label, and print the accuracy.",
)
@click.option("--allow-older", is_flag=True, help="Take it although its serial is below that of a stored version.")
@local.describing
@pass_session
def push(
    session: Session,
    arguments: tuple[str, ...],
    version: str,
    try_: Path | None,
    allow_older: bool,
    mean: str,
    std: str,
    labels: Path | None,
    task: str,
    input_format: str,
) -> None:
    """Upload a model and serve it: a bundle, a bare .tflite, or a model directory.

    NAME is taken from the file unless it is given. Nothing changes on the device unless the upload is whole and the
    model passes its self-test; the same file again makes no new version.
    """
    name, file = _name_and_file(arguments)
    if try_ is not None and not try_.is_dir():
        raise errors.NotFound(f"--try {try_}: there is no such directory")
    cases = labelled(try_) if try_ is not None else ()
    said = local.description(mean, std, labels, task, input_format)
    stored = push_file(session, name, file, version, said, allow_older=allow_older)
    text = f"{name} version {stored['version']} "
    if stored.get("unchanged"):
        text += f"is stored already and serves on {', '.join(stored['devices'])}"
    elif stored["serving"]:
        text += f"is stored and serves on {', '.join(stored['devices'])}"
    else:
        text += "is stored; a newer version serves"
    if not cases:
        session.show(stored, text)
        return
    if not session.as_json:
        click.echo(text)
    result = measure(session, name, task_of(session, name), cases)
    session.show({**stored, "accuracy": result.to_dict()}, result.text())


def task_of(session: Session, name: str) -> str:
    """The task of a served model. NotFound, or InvalidRequest where the outputs' meaning is not known."""
    rows = [row for row in session.client.models() if row["name"] == name]
    if not rows:
        raise errors.NotFound(f"unknown model {name!r}")
    kind = str(next((row for row in rows if row.get("default")), rows[-1]).get("task", ""))
    if kind not in ("classify", "detect", "segment", "pose"):
        raise errors.InvalidRequest(
            f"what the outputs of {name} mean is not known (task '{kind}'): say it with --task classify, detect or "
            f"segment, or look at them: edgeai model inspect FILE"
        )
    return kind


def _name_and_file(arguments: tuple[str, ...]) -> tuple[str, Path]:
    """NAME FILE, FILE NAME or FILE."""
    if len(arguments) > 2:
        raise errors.InvalidRequest("push takes one file: edgeai push [NAME] FILE")
    if len(arguments) == 1:
        file = Path(arguments[0])
        local.check_file(file)
        return local.name_of(file), file
    name, text = arguments
    if not Path(text).exists() and Path(name).exists():
        name, text = text, name
    elif Path(name).is_file() and Path(text).is_file():
        raise errors.InvalidRequest(f"push takes one file, {name} and {text} are two: push each by itself")
    local.check_file(Path(text))
    return name, Path(text)


def _note(text: str) -> None:
    hint(f"note: {plain(text)}")


def _bundled(directory: Path, temporary: Path) -> Path:
    from ..models import pack

    return pack.write(directory, temporary / "model.edgeai")


def _complete_catalogue(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from ..models import catalogue

    return [name for name in catalogue.load() if name.startswith(incomplete)]


@click.command()
@click.argument("name", required=False, shell_complete=_complete_catalogue)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only store the model in this model repository; do not push it to the daemon.",
)
@click.option("--list", "list_", is_flag=True, help="List the catalogue.")
@click.option("--all", "all_", is_flag=True, help="Fetch the files for every accelerator, not only those present.")
@pass_session
def pull(session: Session, name: str | None, into: Path | None, list_: bool, all_: bool) -> None:
    """Fetch a public model of the catalogue and serve it; only the files for devices that are present, unless --all.

    EDGEAI_MODEL_MIRROR names a directory or URL prefix to take files from instead of their public addresses.
    """
    from ..models import catalogue

    entries = catalogue.load()
    if list_ or name is None:
        rows = [(e.name, e.task, ", ".join(e.targets), e.license, e.description) for e in entries.values()]
        session.show([r[0] for r in rows], table(("NAME", "TASK", "TARGETS?1", "LICENCE?2", "WHAT~?3"), rows))
        return
    if name not in entries:
        import difflib

        near = difflib.get_close_matches(name, entries, 1)
        more = f"; did you mean '{near[0]}'?" if near else "; see: edgeai pull --list"
        raise errors.NotFound(f"the catalogue has no model {name!r}{more}")
    targets = None if all_ or into is not None else _present(session, entries[name])
    with tempfile.TemporaryDirectory(prefix="edgeai-") as temporary:
        with progress(session, f"pull {name}") as step:
            directory = catalogue.pull(name, into or Path(temporary), targets=targets, progress=step, say=_note)
        if into is not None:
            session.show({"name": name, "path": str(directory)}, f"{name} is stored in {directory}")
            return
        file = _bundled(directory, Path(temporary))
        with progress(session, f"push {name}") as step:
            stored = session.client.push(name, file, "", step, unless_same=True)
    session.show(stored, f"{name} version {stored['version']} serves on {', '.join(stored['devices'])}")


def _present(session: Session, entry: Any) -> set[str]:
    """Targets of the entry that a device of the daemon is there for. NotFound when there is none."""
    here = {device["target"] for device in session.client.devices()}
    targets = here & set(entry.targets)
    if not targets:
        raise errors.NotFound(
            f"{entry.name} needs {' or '.join(entry.targets)}, there is {', '.join(sorted(here)) or 'no device'}; "
            f"--all fetches it nevertheless"
        )
    return targets
