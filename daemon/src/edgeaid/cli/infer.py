"""`edgeai infer`, `classify`, `detect`, `segment`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from .. import errors
from .common import Session, model_argument, pass_session, read_picture, table

PICTURES = click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))


def _times(answer: dict[str, Any]) -> str:
    times = ", ".join(f"{k.removesuffix('_ms')} {v:.2f}" for k, v in answer["timing"].items())
    return f"{answer['model']}/{answer['version']} on {answer['device']}; ms: {times}"


def _each(session: Session, pictures: tuple[Path, ...], ask: Any, show: Any) -> None:
    answers = []
    for picture in pictures:
        answer = {"file": str(picture), **ask(read_picture(picture)).to_dict()}
        answers.append(answer)
        if not session.as_json:
            click.echo(f"{picture}  ({_times(answer)})")
            session.show(None, show(answer))
    if session.as_json:
        session.show(answers if len(answers) > 1 else answers[0])


def _draw(
    session: Session,
    task: str,
    model: str,
    pictures: tuple[Path, ...],
    output: Path | None,
    threshold: float | None = None,
) -> None:
    if output is None:
        return
    if len(pictures) > 1:
        raise errors.InvalidRequest("--output takes one picture at a time")
    output.write_bytes(session.client.draw(task, model, read_picture(pictures[0]), threshold=threshold))


OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the picture with the answer drawn on it here (PNG).",
)


@click.command()
@model_argument
@PICTURES
@click.option("-k", "--top", type=click.IntRange(1), default=3, show_default=True, help="Classes to show.")
@OUTPUT
@pass_session
def classify(session: Session, model: str, pictures: tuple[Path, ...], top: int, output: Path | None) -> None:
    """Say what pictures show."""

    def show(answer: dict[str, Any]) -> Any:
        return table(
            ("SCORE>", "CLASS>", "LABEL"), [(f"{c['score']:.3f}", c["index"], c["label"]) for c in answer["classes"]]
        )

    _each(session, pictures, lambda p: session.client.classify(model, p, max_results=top), show)
    _draw(session, "classify", model, pictures, output)


@click.command()
@model_argument
@PICTURES
@click.option("-t", "--threshold", type=click.FloatRange(0, 1), help="Least score (default: the model's own).")
@OUTPUT
@pass_session
def detect(
    session: Session, model: str, pictures: tuple[Path, ...], threshold: float | None, output: Path | None
) -> None:
    """Find objects in pictures."""

    def show(answer: dict[str, Any]) -> Any:
        rows = [(f"{o['score']:.3f}", o["label"], *o["pixels"].values()) for o in answer["objects"]]
        return table(("SCORE>", "LABEL", "XMIN>", "YMIN>", "XMAX>", "YMAX>"), rows)

    _each(session, pictures, lambda p: session.client.detect(model, p, threshold=threshold), show)
    _draw(session, "detect", model, pictures, output, threshold)


@click.command()
@model_argument
@PICTURES
@OUTPUT
@pass_session
def segment(session: Session, model: str, pictures: tuple[Path, ...], output: Path | None) -> None:
    """Say which areas of pictures show what."""

    def show(answer: dict[str, Any]) -> Any:
        return table(
            ("AREA>", "CLASS>", "LABEL"), [(f"{c['fraction']:.1%}", c["index"], c["label"]) for c in answer["classes"]]
        )

    _each(session, pictures, lambda p: session.client.segment(model, p), show)
    _draw(session, "segment", model, pictures, output)


@click.command()
@model_argument
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]FILE.npy",
    help="A tensor; NAME may be left out for a model with one input.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each output as NAME.npy into this directory.",
)
@click.option("--version", "version", default="", help="Version of the model.")
@click.option(
    "-f", "--follow", is_flag=True, help="Again and again, a line for each answer: what a board's own camera sees."
)
@click.option("--count", type=click.IntRange(1), help="With --follow: end after so many answers.")
@pass_session
def infer(
    session: Session,
    model: str,
    inputs: tuple[str, ...],
    output: Path | None,
    version: str,
    follow: bool,
    count: int | None,
) -> None:
    """Run a model on tensors in .npy files.

    A model that the camera of a K210 board feeds has no inputs: `edgeai infer MODEL --follow` shows its results as they
    come, with --json one object a line. Ends with Ctrl-C.
    """
    import numpy as np

    arrays: dict[str, Any] = {}
    specs = session.client.metadata(model, version)["inputs"]
    for text in inputs:
        name, found, file = text.rpartition("=")
        if not found and not specs:
            raise errors.InvalidRequest(f"model {model!r} has no inputs: its board's camera feeds it")
        try:
            arrays[name if found else specs[0]["name"]] = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise errors.InvalidRequest(f"{file}: {error}") from error
    if follow:
        _follow(session, model, version, arrays, count)
        return
    answer = session.client.infer(model, arrays, version=version)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for name, array in answer.outputs.items():
            np.save(output / (name.replace("/", "_") + ".npy"), array, allow_pickle=False)
    facts = _facts(answer)
    rows = [(n, f["dtype"], f["shape"], _values(f, answer[n].size)) for n, f in facts["outputs"].items()]
    session.show(facts, table(("OUTPUT", "DTYPE", "SHAPE", "FIRST VALUES"), rows))


def _facts(answer: Any) -> dict[str, Any]:
    outputs = {
        n: {"dtype": str(a.dtype), "shape": list(a.shape), "values": a.ravel()[:16].tolist()}
        for n, a in answer.outputs.items()
    }
    return {"device": answer.device, "outputs": outputs, "timing": answer.timing}


def _values(fact: dict[str, Any], size: int) -> str:
    return " ".join(map(str, fact["values"])) + (" ..." if size > len(fact["values"]) else "")


def _follow(session: Session, model: str, version: str, arrays: dict[str, Any], count: int | None) -> None:
    """One line per answer. A device that is being brought back is waited for: a stream outlives a pulled plug."""
    shown = 0
    while count is None or shown < count:
        try:
            answer = session.client.infer(model, arrays, version=version)
        except errors.Unavailable as error:
            click.echo(f"{time.strftime('%H:%M:%S')}  {error}", err=True)
            time.sleep(error.retry_after or 1.0)
            continue
        shown += 1
        facts = _facts(answer)
        if session.as_json:
            click.echo(json.dumps({"time": round(time.time(), 3), **facts}))
            continue
        values = "; ".join(f"{n}: {_values(f, answer[n].size)}" for n, f in facts["outputs"].items())
        click.echo(f"{time.strftime('%H:%M:%S')}  {answer.device}  {values}")
