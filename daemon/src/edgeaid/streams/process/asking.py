"""Asking models about frames and parts of frames: into a slot, and from a slot to labelled results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from PIL import Image

from ...errors import InvalidModel
from ...models.stages import Crop
from ...vision import postprocess, preprocess, results, scores
from ...vision.placement import Placement
from .link import Lease, Link
from .tracker import Seen

Box = tuple[float, float, float, float]

WHOLE: Final[Box] = (0.0, 0.0, 1.0, 1.0)
#: Of two objects of one label from two tiles, the smaller is the same object when so much of it lies in the other.
SAME_OBJECT: Final = 0.6
#: Crops that a second model is asked about ahead of the one whose answer is waited for.
AHEAD: Final = 2


@dataclass(frozen=True, slots=True)
class Question:
    """A part of a frame on its way through a model."""

    lease: Lease
    placement: Placement
    #: The part, in units of the frame.
    part: Box


def ask(link: Link, model: str, picture: Image.Image, part: Box = WHOLE) -> Question:
    """Put a part of a picture into a slot of a model and send it off. Errors as in `Link.lease`."""
    lease = link.lease(model)
    try:
        known = lease.model
        if known.rules.picture is None or len(known.inputs) != 1:
            raise InvalidModel(f"model {model!r} takes no pictures: its manifest needs an [input] table and one input")
        if known.rules.picture.resize == "keep":
            raise InvalidModel(f"model {model!r} is an ensemble; name the models that it asks")
        if part != WHOLE:
            picture = picture.crop(pixels_of(part, picture.size))
        tensor = known.input(lease.slot)
        placement = preprocess.place(picture, known.inputs[0].one, known.rules.picture, tensor, averaged=True)
    except BaseException:
        link.give(lease)
        raise
    link.submit(lease)
    return Question(lease, placement, part)


def pixels_of(part: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A part of a picture in whole pixels, at least one."""
    left, top = min(size[0] - 1, int(part[0] * size[0])), min(size[1] - 1, int(part[1] * size[1]))
    return left, top, max(left + 1, round(part[2] * size[0])), max(top + 1, round(part[3] * size[1]))


def result(question: Question, threshold: float | None = None) -> results.Result:
    """What an answered question's outputs mean."""
    model = question.lease.model
    if model.rules.output is None:
        raise InvalidModel(
            f"model {model.name!r} has no [output] table in its manifest, so its answer has no meaning here"
        )
    specs, values = model.results(question.lease.slot)
    return postprocess.results(
        model.rules.output,
        specs,
        values,
        model.rules.labels,
        question.placement,
        threshold=threshold,
        size=model.rules.size,
    )


def embedding(question: Question) -> list[float]:
    """The first output as real numbers."""
    model = question.lease.model
    specs, outputs = model.results(question.lease.slot)
    values = scores.dequantized(specs[0], outputs[0])
    return [round(float(v), 6) for v in values.reshape(-1)]


def threshold_of(question: Question) -> float:
    """The manifest's threshold."""
    rules = question.lease.model.rules.output
    return rules.threshold if rules is not None else 0.0


def objects(question: Question, threshold: float | None) -> list[Seen]:
    """Objects of a detector's answer, in units of the frame."""
    answer = result(question, threshold)
    if not isinstance(answer, results.Detections):
        raise InvalidModel(f"model {question.lease.model.name!r} does not detect objects; name it in a classify stage")
    left, top, right, bottom = question.part
    wide, high = right - left, bottom - top
    return [
        Seen(
            o.label,
            o.score,
            (left + o.box[0] * wide, top + o.box[1] * high, left + o.box[2] * wide, top + o.box[3] * high),
        )
        for o in answer.objects
    ]


def tiles(columns: int, rows: int, overlap: float) -> list[Box]:
    """Parts that cover the frame and share `overlap` of their side with each neighbour."""

    def spans(count: int) -> list[tuple[float, float]]:
        side = 1 / (count - (count - 1) * overlap)
        step = side * (1 - overlap)
        return [(i * step, min(1.0, i * step + side)) for i in range(count)]

    return [(left, top, right, bottom) for top, bottom in spans(rows) for left, right in spans(columns)]


def merged(seen: list[Seen]) -> list[Seen]:
    """Objects of several tiles, those that two tiles saw once; the surer one stays, grown over both."""
    kept: list[Seen] = []
    for candidate in sorted(seen, key=lambda s: -s.score):
        for position, other in enumerate(kept):
            if other.label == candidate.label and _within(candidate.box, other.box) > SAME_OBJECT:
                low = np.minimum(other.box[:2], candidate.box[:2])
                high = np.maximum(other.box[2:], candidate.box[2:])
                grown = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
                kept[position] = replace(other, box=grown)
                break
        else:
            kept.append(candidate)
    return kept


def _within(first: Box, second: Box) -> float:
    """Common area as a part of the smaller box."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return max(0.0, wide) * max(0.0, high) / smaller if smaller > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a second model says of an object."""

    #: JSON values.
    values: Any
    #: The best class and its score, where it is sure of one.
    best: tuple[str, float] | None


def about(link: Link, stage: Crop, picture: Image.Image, boxes: Sequence[Box]) -> Iterator[Said]:
    """Ask the model of a stage about objects of a picture, in their order. Errors as in `Link.lease` and `Link.wait`.

    While it computes, the next crops are made.
    """
    asked: deque[Question] = deque()
    waiting = iter(boxes)
    try:
        while True:
            while len(asked) <= AHEAD and (box := next(waiting, None)) is not None:
                asked.append(ask(link, stage.model, picture, grown(box, stage.margin)))
            if not asked:
                return
            link.wait(asked[0].lease)
            said = Said(*attribute(asked[0], stage.kind, stage.threshold))
            link.give(asked.popleft().lease)
            yield said
    finally:
        for question in asked:
            link.give(question.lease)


def area(box: Box) -> float:
    """Of a box in units of the frame."""
    return (box[2] - box[0]) * (box[3] - box[1])


def grown(box: Box, margin: float) -> Box:
    """A box with `margin` of its size more on each side, as far as the frame goes."""
    wide, high = (box[2] - box[0]) * margin, (box[3] - box[1]) * margin
    return max(0.0, box[0] - wide), max(0.0, box[1] - high), min(1.0, box[2] + wide), min(1.0, box[3] + high)


def attribute(question: Question, kind: str, threshold: float) -> tuple[Any, tuple[str, float] | None]:
    """(JSON values, best class and score) of a second model's answer."""
    if kind == "embed":
        return embedding(question), None
    answer = result(question)
    values = answer.to_json()
    for key in ("width", "height"):
        values.pop(key, None)
    if isinstance(answer, results.Classification):
        values["classes"] = [c for c in values["classes"] if c["score"] >= threshold]
        best = answer.classes[0] if answer.classes and answer.classes[0].score >= threshold else None
        return values, (best.label, best.score) if best else None
    return values, None
