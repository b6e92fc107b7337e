"""`edgeai model distill`: a small Keras network learns from a large model's answers, measured before and after."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidRequest
from . import compare, representative
from .lighten import input_shape
from .quantize import LogLine, kind, run_child
from .representative import Normalisation

#: What outputs may be: places where a detector sees nothing teach no boxes and no classes.
LAYOUTS: Final[dict[str, str]] = {
    "values": "scores or other values, each as important as the next",
    "cells": "a grid of cells as YOLO v2 has it, raw: [H, W, anchors * (5 + classes)]",
    "rows": "a box and a score per class in each row, as YOLOv8 has it: [N, 4 + classes]",
}
#: Samples on which times are measured.
_TIMED: Final = 16


@dataclass(frozen=True, slots=True)
class Job:
    """What to do."""

    #: A Keras network of one input; its outputs have the shapes of the teacher's. It may be untrained.
    student: Path
    #: What is learnt from: a .keras or .tflite file, float or quantised.
    teacher: Path
    #: Directory of pictures, .npy, or file.py:function, to learn with and to measure with; labels are not needed.
    train: str
    test: str
    #: The .keras file to write; a float .tflite of the same name lies beside it.
    output: Path
    rules: Normalisation
    epochs: int = 20
    #: Softens answers that are probabilities.
    temperature: float = 3.0
    #: What a detector's output is, a key of LAYOUTS.
    layout: str = "values"
    #: Boxes per cell, for the layout "cells".
    anchors: int = 1
    #: Training samples at most.
    samples: int = 5000


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the table."""

    name: str
    #: Bytes as .tflite, and microseconds per inference here, one thread.
    size: int
    us: float
    #: Root of the mean squared distance from the teacher's answers by their spread, of the worst output; 0 = equal.
    error: float
    correlation: float
    #: Share of places where the largest value is the teacher's.
    agreement: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    output: Path
    teacher: Row
    before: Row
    after: Row

    @property
    def rows(self) -> tuple[Row, Row, Row]:
        """The table."""
        return self.teacher, self.before, self.after

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "output": self.output.name}


def distill(job: Job, say: LogLine = lambda _: None) -> Report:
    """Train and measure. Raises InvalidRequest, InvalidModel, NotFound, Unsupported."""
    if kind(job.student) != "keras":
        raise InvalidRequest(f"{job.student} is not a Keras file: the student is trained, so it must be one")
    if kind(job.teacher) not in ("keras", "tflite"):
        raise InvalidRequest(f"{job.teacher} is neither a Keras nor a .tflite file: a teacher is a model to be asked")
    if job.layout not in LAYOUTS:
        raise InvalidRequest(f"there is no layout {job.layout!r}; choose {', '.join(LAYOUTS)}")
    shape = input_shape(job.student)
    train = representative.load(job.train, shape, job.rules, job.samples)
    test = representative.load(job.test, shape, job.rules, max(_TIMED, job.samples // 5), seed=1)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        directory = Path(name)
        np.savez(directory / "data.npz", train=train.astype(np.float32), test=test.astype(np.float32))
        say(f"learning from {len(train)} samples, measuring on {len(test)}")
        request = {
            "student": str(job.student.resolve()), "teacher": str(job.teacher.resolve()), "epochs": job.epochs,
            "data": str(directory / "data.npz"), "temperature": job.temperature, "directory": str(directory),
            "output": str(directory / "distilled.keras"), "layout": job.layout, "anchors": job.anchors,
        }  # fmt: skip
        answer = run_child("tensorflow", "distill", request, directory, say)
        teacher = job.teacher if kind(job.teacher) == "tflite" else directory / "teacher.tflite"
        perfect = {"error": 0.0, "correlation": 1.0, "agreement": 1.0}
        timed = test[:_TIMED]
        report = Report(
            job.output,
            _row("teacher", teacher, timed, perfect),
            _row("student before", directory / "student.tflite", timed, answer["before"]),
            _row("student after", directory / "distilled.tflite", timed, answer["after"]),
        )
        job.output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / "distilled.keras", job.output)
        shutil.copyfile(directory / "distilled.tflite", job.output.with_suffix(".tflite"))
    job.output.with_suffix(".report.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n", "utf-8")
    return report


def _row(name: str, path: Path, timed: representative.Array, figures: dict[str, float]) -> Row:
    _, _, us = compare.run(path, timed)
    return Row(name, path.stat().st_size, us, figures["error"], figures["correlation"], figures["agreement"])
