"""The process that does the stages of ensembles: a worker whose backend asks the models that others loaded."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ... import errors
from ...backends.base import DeviceFacts, ModelIO, Phases
from ...models.ensemble import Ensemble
from ...models.rules import MAX_RESULTS
from ...models.stages import Crop, Detect
from ...scores import Box, Detected
from ...tensors import Turn
from ...vision import ensemble as tensors
from ...vision.results import Detections
from ...worker.process import Worker
from . import asking
from .frames import picture_of
from .link import Link

Array = npt.NDArray[Any]


class Stages:
    """A backend: "load" takes an ensemble's table, a run does its stages on a picture."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loaded: dict[str, Ensemble] = {}

    def open(self, _device: str, _options: Mapping[str, Any]) -> DeviceFacts:
        """There is no hardware."""
        return DeviceFacts("edgeaid", "stages of ensembles")

    def load(self, key: str, _artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Take an ensemble from the JSON form of its dataclass."""
        table = options["ensemble"]
        ensemble = Ensemble(
            Detect(**_tuples(table["detect"])), tuple(Crop(**_tuples(c)) for c in table["crops"]), table["size"]
        )
        self._loaded[key] = ensemble
        return ModelIO((tensors.input_of(ensemble.size),), tensors.OUTPUTS, {"members": list(ensemble.models)})

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Not used: pictures vary in size."""
        raise NotImplementedError

    def unload(self, key: str) -> None:
        """Forget an ensemble."""
        self._loaded.pop(key, None)

    def close(self) -> None:
        """Nothing is open."""

    def infer_open(self, key: str, inputs: Sequence[Array], _turn: Turn) -> tuple[Phases, list[Array]]:
        """All stages on one picture [1,height,width,3]. Raises what a member raises, with the member's name."""
        started = time.monotonic_ns()
        ensemble, pixels = self._loaded[key], inputs[0][0]
        height, width = pixels.shape[:2]
        if not height or not width:
            raise errors.InvalidRequest(f"a picture of {width} x {height} pixels is not a picture")
        picture = picture_of(pixels)
        try:
            objects = self._detect(ensemble.detect, picture)
            for stage in ensemble.crops:
                self._crop(stage, picture, objects)
        except errors.NotFound as error:  # it was there when the ensemble was loaded
            raise errors.Unavailable(str(error)) from error
        answered = time.monotonic_ns()
        made = tensors.tensors(objects)
        # The members' own statistics say which of them takes how long.
        return Phases(0, answered - started, time.monotonic_ns() - answered), made

    def _detect(self, stage: Detect, picture: Image.Image) -> list[Detected]:
        """Objects, best first."""
        questions: list[asking.Question] = []
        try:
            for part in asking.tiles(*stage.tiles, stage.overlap):
                questions.append(asking.ask(self._link, stage.model, picture, part))
            for question in questions:
                self._link.wait(question.lease)
            objects = _objects(questions, stage)
        finally:
            for question in questions:
                self._link.give(question.lease)
        wanted = [o for o in objects if not stage.labels or o.label in stage.labels]
        return sorted(wanted, key=lambda o: -o.score)[:MAX_RESULTS]

    def _crop(self, stage: Crop, picture: Image.Image, objects: list[Detected]) -> None:
        """Ask a second model about the objects, the largest first."""
        rows = [row for row, o in enumerate(objects) if not stage.on or o.label in stage.on]
        rows.sort(key=lambda row: -asking.area(objects[row].box))
        rows = rows[: stage.limit]
        for row, answer in zip(
            rows, asking.about(self._link, stage, picture, [objects[r].box for r in rows]), strict=True
        ):
            thing = objects[row]
            objects[row] = replace(
                thing,
                sub_label=answer.best or thing.sub_label,
                attributes={**thing.attributes, stage.model: answer.values},
            )


def _objects(questions: Sequence[asking.Question], stage: Detect) -> list[Detected]:
    if len(questions) > 1:
        labels = questions[0].lease.model.rules.labels
        seen = asking.merged([s for q in questions for s in asking.objects(q, stage.threshold)])
        return [Detected(_index(s.label, labels), s.label, s.score, Box(*s.box), Box(0, 0, 0, 0)) for s in seen]
    answer = asking.result(questions[0], stage.threshold)
    if not isinstance(answer, Detections):
        raise errors.InvalidModel(f"model {stage.model!r} does not detect objects")
    return [replace(o, attributes={stage.model: more} if (more := o.more()) else {}) for o in answer.objects]


def _index(label: str, labels: Sequence[str]) -> int:
    """The class number of a label; one without a name is its number."""
    with contextlib.suppress(ValueError):
        return labels.index(label) if label in labels else int(label)
    return -1


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}


class EnsembleWorker(Worker):
    """Messages about members are taken by a thread, so that a run can wait for their answers."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.link = Link(sock)
        self._frames: queue.SimpleQueue[tuple[bytes, list[int]]] = queue.SimpleQueue()
        self.link.worker = lambda data, fds: self._frames.put((data, fds))

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read, name="link", daemon=True).start()

    def _read(self) -> None:
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.link.run()
        finally:
            self._frames.put((b"", []))
            os._exit(0)  # a run that waits for a member has no caller any more

    def receive(self) -> tuple[bytes, list[int]]:
        """The next frame that is a worker's."""
        return self._frames.get()

    def open(self, body: dict[str, Any], _fds: list[int]) -> dict[str, Any]:
        """Begin to serve ensembles."""
        self.target = body["target"]
        self.backend = Stages(self.link)
        facts = self.backend.open("", {})
        return {"runtime": facts.runtime, "description": facts.description, "facts": {}}


def main(fd: int) -> None:
    """Entry point of a forked worker; `fd` is a connected SOCK_SEQPACKET socket."""
    np.seterr(all="ignore")  # models' answers may be anything
    worker = EnsembleWorker(socket.socket(fileno=fd))
    worker.start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        worker.run()
    os._exit(0)
