"""`edgeai run`: from a model file and a picture to an answer in one command."""

from __future__ import annotations

from pathlib import Path

import click

from .. import errors
from . import local, private
from .common import Session, pass_session
from .infer import THRESHOLD, TOP, ask
from .pictures import OUTPUT, PICTURES, SHOW, check_readable, targets
from .text import hint
from .transfer import push_file, task_of


@click.command()
@click.argument("model", metavar="MODEL")
@PICTURES
@TOP
@THRESHOLD
@OUTPUT
@SHOW
@local.describing
@pass_session
def run(
    session: Session,
    model: str,
    pictures: tuple[Path, ...],
    top: int,
    threshold: float | None,
    output: Path | None,
    show: bool,
    mean: str,
    std: str,
    labels: Path | None,
    task: str,
    input_format: str,
) -> None:
    """Ask a model file (.tflite, bundle or model directory) about pictures, in one command.

    MODEL may also be the name of a model that is served. Where no daemon answers, a private one is started; it stays
    for 15 minutes after the last request, so that the next run is quick.
    """
    said = local.description(mean, std, labels, task, input_format)
    targets(pictures, output)  # refuses before anything is started
    check_readable(pictures)
    file = Path(model)
    if file.exists() or "/" in model or file.suffix:
        local.check_file(file)
    use_private(session)
    if file.exists():
        name = local.name_of(file)
        stored = push_file(session, name, file, "", said)
        if not stored.get("unchanged"):
            hint(f"{name} version {stored['version']} serves on {', '.join(stored['devices'])}")
    else:
        name = model
    kind = task_of(session, name)
    ask(session, kind, name, pictures, output, show, top=top if kind == "classify" else None, threshold=threshold)


def use_private(session: Session) -> None:
    """Turn to this user's private daemon unless one was named or the system's answers."""
    if session.named:
        return
    session.patient = False
    try:
        session.client.get("/v2/health/live")
        return
    except errors.Unavailable:
        session.close()
    directory = private.place()
    running = (directory / "edgeaid.sock").exists()
    socket = private.start(directory)
    if not running:
        hint(f"no edgeaid answers at {session.socket}: started a private one, which ends after 15 minutes without use")
        hint(f"to use it with other verbs: export EDGEAI_SOCKET={socket}")
    session.use(str(socket))
