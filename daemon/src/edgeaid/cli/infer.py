"""`edgeai infer`, `classify`, `detect`, `segment`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import errors
from .common import Session, model_argument, pass_session
from .pictures import OUTPUT, PICTURES, SHOW, ask_about
from .text import hint, plain, table
from .watch import until_interrupted

#: Keypoints with a lower score are not shown in the table.
POINT_SCORE = 0.1
TOP = click.option("-k", "--top", type=click.IntRange(1), default=3, show_default=True, help="Classes to show.")
THRESHOLD = click.option(
    "-t", "--threshold", type=click.FloatRange(0, 1), help="Least score (default: the model's own)."
)


def classes_text(answer: dict[str, Any]) -> str:
    """Classes, best first."""
    rows = [(f"{c['score']:.3f}", c["index"], c["label"]) for c in answer["classes"]]
    return table(("SCORE>", "CLASS>", "LABEL"), rows)


def _named(thing: dict[str, Any]) -> str:
    """Its label, and what a second model calls it."""
    return f"{thing['label']}: {thing['sub_label'][0]}" if "sub_label" in thing else str(thing["label"])


def objects_text(answer: dict[str, Any]) -> str:
    """Objects, best first, with their corners in pixels."""
    rows = [(f"{o['score']:.3f}", _named(o), *(round(v) for v in o["pixels"].values())) for o in answer["objects"]]
    return (
        table(("SCORE>", "LABEL", "XMIN>", "YMIN>", "XMAX>", "YMAX>"), rows) if rows else "nothing above the threshold"
    )


def poses_text(answer: dict[str, Any]) -> str:
    """Objects, best first, with how many of their keypoints are seen and where the surest ones are, in pixels."""
    rows = []
    for o in answer["objects"]:
        points = [
            f"{number}:({x * answer['width']:.0f},{y * answer['height']:.0f})"
            for number, (x, y, score) in enumerate(o.get("keypoints", ()))
            if score >= POINT_SCORE
        ]
        rows.append((f"{o['score']:.3f}", o["label"], len(points), " ".join(points)))
    return table(("SCORE>", "LABEL", "POINTS>", "KEYPOINTS~"), rows) if rows else "nothing above the threshold"


def areas_text(answer: dict[str, Any]) -> str:
    """Areas, largest first."""
    rows = [(f"{c['fraction']:.1%}", c["index"], c["label"]) for c in answer["classes"]]
    return table(("AREA>", "CLASS>", "LABEL"), rows)


def ask(
    session: Session,
    task: str,
    model: str,
    pictures: tuple[Path, ...],
    output: Path | None,
    show: bool,
    *,
    top: int | None = None,
    threshold: float | None = None,
) -> None:
    """Ask a model of `task` about pictures; print and draw the answers."""
    client = session.client
    questions: dict[str, tuple[Callable[[bytes], Any], Callable[[dict[str, Any]], str]]] = {
        "classify": (lambda data: client.classify(model, data, max_results=top), classes_text),
        "detect": (lambda data: client.detect(model, data, threshold=threshold), objects_text),
        "pose": (lambda data: client.pose(model, data, threshold=threshold), poses_text),
        "segment": (lambda data: client.segment(model, data), areas_text),
    }
    question, text = questions[task]

    def draw(data: bytes) -> bytes:
        return client.draw(task, model, data, threshold=threshold, max_results=top)

    ask_about(session, pictures, output, show, question, text, draw)


@click.command()
@model_argument
@PICTURES
@TOP
@OUTPUT
@SHOW
@pass_session
def classify(
    session: Session, model: str, pictures: tuple[Path, ...], top: int, output: Path | None, show: bool
) -> None:
    """Name what pictures show. The drawn picture carries the classes that are printed."""
    ask(session, "classify", model, pictures, output, show, top=top)


@click.command()
@model_argument
@PICTURES
@THRESHOLD
@OUTPUT
@SHOW
@pass_session
def detect(
    session: Session,
    model: str,
    pictures: tuple[Path, ...],
    threshold: float | None,
    output: Path | None,
    show: bool,
) -> None:
    """Find objects in pictures."""
    ask(session, "detect", model, pictures, output, show, threshold=threshold)


@click.command()
@model_argument
@PICTURES
@THRESHOLD
@OUTPUT
@SHOW
@pass_session
def pose(
    session: Session,
    model: str,
    pictures: tuple[Path, ...],
    threshold: float | None,
    output: Path | None,
    show: bool,
) -> None:
    """Find people or objects in pictures, and their keypoints."""
    ask(session, "pose", model, pictures, output, show, threshold=threshold)


@click.command()
@model_argument
@PICTURES
@OUTPUT
@SHOW
@pass_session
def segment(session: Session, model: str, pictures: tuple[Path, ...], output: Path | None, show: bool) -> None:
    """Find the areas of pictures that show something."""
    ask(session, "segment", model, pictures, output, show)


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
    arrays: dict[str, Any] = {}
    specs = session.client.metadata(model, version)["inputs"]
    for text in inputs:
        name, named, file = text.rpartition("=")
        if not named and not specs:
            raise errors.InvalidRequest(f"model {model!r} has no inputs: its board's camera feeds it")
        arrays[name if named else specs[0]["name"]] = _tensor(Path(file))
    missing = [s for s in specs if s["name"] not in arrays]
    if missing and not set(arrays) - {s["name"] for s in specs}:
        wanted = " ".join(f"-i {s['name']}=FILE.npy" for s in missing)
        kinds = ", ".join(f"{s['name']}: {s['datatype']} {s['shape']}" for s in missing)
        raise errors.InvalidRequest(
            f"model {model!r} needs {wanted} ({kinds}); for pictures: edgeai run {model} PICTURE"
        )
    if follow:
        with until_interrupted():
            _follow(session, model, version, arrays, count)
        return
    answer = session.client.infer(model, arrays, version=version)
    if output is not None:
        _write(output, answer)
    facts = _facts(answer)
    rows = [(n, f["dtype"], f["shape"], _values(f, answer[n].size)) for n, f in facts["outputs"].items()]
    session.show(facts, table(("OUTPUT", "DTYPE", "SHAPE", "FIRST VALUES~"), rows))


def _tensor(file: Path) -> Any:
    """A tensor from an .npy file; other files are named for what they are."""
    import numpy as np

    try:
        with open(file, "rb") as stream:
            head = stream.read(6)
            if head[:3] == b"\xff\xd8\xff" or head[:4] == b"\x89PNG" or head[:2] == b"BM":
                raise errors.InvalidData(
                    f"{file} is a picture, not a tensor (.npy): use edgeai classify, detect or segment"
                )
            if head != b"\x93NUMPY":
                raise errors.InvalidData(f"{file} is not an .npy file; write one with numpy.save")
            stream.seek(0)
            return np.load(stream, allow_pickle=False)
    except OSError as error:
        raise errors.NotFound(f"{file}: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise errors.InvalidData(f"{file} is not a tensor of numbers: it is damaged or holds objects") from error


def _write(output: Path, answer: Any) -> None:
    import numpy as np

    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, array in answer.outputs.items():
            file = output / (name.replace("/", "_") + ".npy")
            np.save(file, array, allow_pickle=False)
            hint(f"wrote {file}")
    except (OSError, ValueError) as error:
        raise errors.CannotWrite(f"--output {output}: {error}") from error


def _facts(answer: Any) -> dict[str, Any]:
    outputs = {
        n: {"dtype": str(a.dtype), "shape": list(a.shape), "values": a.ravel()[:16].tolist()}
        for n, a in answer.outputs.items()
    }
    return {
        "model": answer.model,
        "version": answer.version,
        "device": answer.device,
        "outputs": outputs,
        "timing": answer.timing,
    }


def _values(fact: dict[str, Any], size: int) -> str:
    return " ".join(plain(v) for v in fact["values"]) + (" ..." if size > len(fact["values"]) else "")


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
