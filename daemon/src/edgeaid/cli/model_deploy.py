"""`edgeai model deploy`: from a training framework's file to a model that answers, in one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from .. import errors
from ..toolkit.convert.conversion import Options, TorchSource
from ..toolkit.deploy.deploy import TARGETS, Job, Prepared, Step, input_shape, prepare, step
from ..toolkit.files import read_labels
from . import local
from .common import Session, pass_session
from .local import Description
from .model_convert import normalisation, picture_options, say, shape_of, torch_options
from .transfer import push_file, task_of

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("deploy")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, metavar="TARGET[,...]",
              help=f"{', '.join(TARGETS)}; several with commas.  [default: cpu]")  # fmt: skip
@click.option("--representative", default="", help="Directory of pictures, .npy/.npz, or file.py:function.")
@click.option("--accuracy", type=click.Path(path_type=Path), help="Directory with one subdirectory per class.")
@click.option("--name", default="", help="Name of the model.  [default: from the file]")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False),
              help="Directory for what is made.  [default: NAME-deploy]")  # fmt: skip
@click.option("--labels", type=_FILE, help="File with one label per line.")
@click.option("--task", default="", help="classify, detect, segment, ...; default: what the file says.")
@click.option("--shape", default="", help="Fixed shape of the first input, where the file leaves it open.")
@click.option("--input-node", default="", help="Frozen graphs: name of the first node.")
@click.option("--output-node", default="", help="Frozen graphs: name of the last node.")
@click.option("--key", type=_FILE, help="Private key to sign with (edgeai model keygen).")
@click.option("--host", default="", metavar="USER@PI", help="Push there, through ssh.")
@click.option("--no-push", is_flag=True, help="Stop at the bundle.")
@click.option("--try", "pictures", multiple=True, type=_FILE, help="Ask about this picture at the end.")
@click.option("--json", "as_json", is_flag=True, help="All steps as JSON.")
@torch_options
@picture_options
@pass_session
def deploy(session: Session, /, model: Path, *, targets: tuple[str, ...], representative: str, accuracy: Path | None,
           name: str, output: Path | None, labels: Path | None, task: str, shape: str, input_node: str,
           output_node: str, key: Path | None, host: str, no_push: bool, pictures: tuple[Path, ...], as_json: bool,
           mean: str, std: str, color: str, invert: bool, **torch: Any) -> None:  # fmt: skip
    """Take a trained model to a device: convert, quantise, check, compile, bundle, sign, push, ask.

    MODEL is a Keras file, a SavedModel, a frozen graph, ONNX, PyTorch, Caffe, OpenVINO IR or .tflite. What each step
    gave is kept in OUTPUT/deploy.json. Where a compiler is missing the command for another machine is printed and the
    other targets go on. Without a running daemon it ends with the bundle.
    """
    if not model.exists():
        raise errors.NotFound(f"{model}: there is no such file")
    name = name or local.name_in(model.stem, model)
    wanted = tuple(dict.fromkeys(t for given in targets for t in given.split(",") if t)) or ("cpu",)
    work = output or Path(f"{name}-deploy")
    rules = normalisation(mean, std, color, invert)
    said = Description(task=task, labels=labels)
    options = Options(
        shape_of(shape), torch=TorchSource.of(torch), weights=torch["weights"], via_onnx=torch["via_onnx"]
    )
    names = read_labels(labels) if labels else ()
    job = Job(model, name, wanted, work, representative, rules, options, accuracy, names, input_node, output_node)
    session.as_json = session.as_json or as_json
    done = prepare(job, say, _tell)
    try:
        bundle = _bundle(job, done, said, key)
        if bundle is not None and not no_push:
            if host:
                session.host, session.named = host, True
            _push(session, job, done, bundle)
            _ask(session, job, done, pictures)
    finally:
        report = {"model": str(model), "name": name, "steps": [s.as_dict() for s in done.steps]}
        (work / "deploy.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if session.as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        say(f"every step: {work / 'deploy.json'}")
    if any(s.state == "failed" for s in done.steps):
        raise click.exceptions.Exit(1)


def _tell(done: Step) -> None:
    what = f"{done.name} {done.target}".strip()
    say(f"[{done.state:8}] {what:16} {done.seconds:6.1f} s  {done.text}")


def _bundle(job: Job, done: Prepared, said: Description, key: Path | None) -> Path | None:
    """The model directory and the signed bundle of it."""
    from ..models import pack
    from ..toolkit.bundle import bundle as bundles
    from ..toolkit.bundle import golden
    from ..toolkit.bundle.model_dir import add_artifact

    directory = job.work / job.name / "1"
    made = None
    with step(done.steps, "bundle", "", _tell) as this:
        if done.main is None:
            raise errors.InvalidModel("there is no model to bundle")
        shutil.rmtree(directory, ignore_errors=True)
        notes = local.directory_of(done.main, job.name, _described(job, done.main, said), directory)
        for compiled in done.compiled:
            add_artifact(directory, compiled)
        notes = (*notes, *golden.complete(directory, 2))
        made = pack.write(directory, job.work, bundles.read_key(key) if key else None)
        this.files, this.report = [str(made)], {"notes": list(notes)}
        signed = "signed" if key else "not signed (--key FILE)"
        this.text = f"{made} {made.stat().st_size} bytes, {signed}"
    return made


def _described(job: Job, file: Path, said: Description) -> Description:
    """With the normalisation that the quantised model was calibrated with, for a model of pictures."""
    from dataclasses import replace

    shape = input_shape(file)
    if not job.representative or len(shape) != 4 or shape[-1] not in (1, 3):
        return said
    numbers = [",".join(f"{v:g}" for v in values) for values in (job.rules.mean, job.rules.std)]
    return replace(said, mean=numbers[0], std=numbers[1], color="GRAY" if shape[-1] == 1 else job.rules.color)


def _push(session: Session, job: Job, done: Prepared, bundle: Path) -> None:
    with step(done.steps, "push", "", _tell) as this:
        session.patient = session.named
        try:
            stored = push_file(session, job.name, bundle, "", Description())
        except errors.Unavailable as error:
            if session.named:
                raise
            raise errors.Unsupported(
                f"no daemon answers here: edgeai --host USER@PI push {bundle}, or edgeai run {bundle} PICTURE"
            ) from error
        this.report = dict(stored)
        this.text = f"{job.name} version {stored['version']} serves on {', '.join(stored['devices'])}"


def _ask(session: Session, job: Job, done: Prepared, pictures: tuple[Path, ...]) -> None:
    if not pictures or done.steps[-1].name != "push" or done.steps[-1].state != "done":
        return
    from .infer import ask

    with step(done.steps, "ask", "", _tell) as this:
        kind = task_of(session, job.name)
        ask(session, kind, job.name, pictures, None, False, top=3 if kind == "classify" else None)
        this.text = f"{kind}: {', '.join(p.name for p in pictures)}"
