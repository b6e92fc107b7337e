"""`edgeai model distill`: a small network learns from a large one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .model_convert import normalisation, picture_options, say


@click.command("distill")
@click.argument("student", type=click.Path(path_type=Path))
@click.option("--teacher", required=True, type=click.Path(path_type=Path), help="A .keras or .tflite file.")
@click.option("--train", required=True, help="Directory of pictures, .npy/.npz, or file.py:function; no labels needed.")
@click.option("--test", "test", required=True, help="The same, to measure with; not among those of --train.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: <student>_distilled.keras.")
@click.option("--epochs", default=20, show_default=True, type=click.IntRange(1, 500))
@click.option(
    "--temperature", default=3.0, show_default=True, type=click.FloatRange(1, 50), help="Of answers that sum to 1."
)
@click.option(
    "--layout",
    default="values",
    show_default=True,
    type=click.Choice(["values", "cells", "rows"]),
    help="Detectors: cells = [H,W,A*(5+C)] raw (YOLO v2), rows = [N,4+C] boxes and scores (YOLOv8).",
)
@click.option("--anchors", default=1, show_default=True, type=click.IntRange(1, 100), help="Boxes per cell of cells.")
@click.option("--samples", default=5000, show_default=True, type=click.IntRange(1, 100_000), help="At most, to train.")
@click.option("--json", "as_json", is_flag=True)
@picture_options
def distill(student: Path, *, teacher: Path, train: str, test: str, output: Path | None, epochs: int,
            temperature: float, layout: str, anchors: int, samples: int, as_json: bool, mean: str, std: str, color: str,
            invert: bool) -> None:  # fmt: skip
    """Train a small Keras network to answer as a large model does.

    STUDENT is a .keras file, trained or not, whose outputs have the shapes of the teacher's: a classifier's scores, a
    detector's raw boxes and scores, maps. Nothing has to be labelled. Where a detector sees nothing it teaches neither
    boxes nor classes, if --layout says what its output is. Prints size, time on this machine and the
    distance from the teacher's answers (0 = equal, 1 = no better than their mean) before and after, and writes the
    network as .keras and as float .tflite. Classifiers with labelled pictures: see also lighten --teacher.
    """
    from ..toolkit.convert.distill import Job
    from ..toolkit.convert.distill import distill as run

    target = output or student.with_name(f"{student.stem}_distilled.keras")
    rules = normalisation(mean, std, color, invert)
    report = run(Job(student, teacher, train, test, target, rules, epochs, temperature, layout, anchors, samples), say)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
        return
    click.echo(f"{'network':16} {'bytes':>10} {'us':>8} {'distance':>9} {'correlation':>12} {'same best':>10}")
    for r in report.rows:
        click.echo(f"{r.name:16} {r.size:>10} {r.us:>8.0f} {r.error:>9.3f} {r.correlation:>12.4f} {r.agreement:>10.2%}")
    click.echo(f"written: {report.output} and {report.output.with_suffix('.tflite')}")
