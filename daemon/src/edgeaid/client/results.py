"""What the daemon answers about pictures, as frozen dataclasses."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .. import errors
from ..scores import Area, Box, ClassScore, Detected


@dataclass(frozen=True, slots=True)
class Answer:
    """What every answer about a picture says. `answer["key"]` reads the JSON form, see `to_dict`."""

    model: str
    #: Version that answered.
    version: str
    #: Id of the device that answered.
    device: str
    #: Milliseconds by phase: prepare_ms, queue_ms, input_ms, compute_ms, output_ms, decode_ms.
    timing: Mapping[str, float]
    #: Pixels of the original picture, upright.
    width: int
    height: int
    #: The daemon's JSON answer.
    _json: Mapping[str, Any] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The daemon's JSON answer: only dicts, lists, numbers and texts."""
        return dict(self._json)

    def __getitem__(self, key: str) -> Any:
        return self._json[key]

    def keys(self) -> Any:
        """Keys of the JSON form; with `answer[key]` that makes `dict(answer)` work."""
        return self._json.keys()

    def items(self) -> Any:
        """Keys and values of the JSON form."""
        return self._json.items()

    def __contains__(self, key: str) -> bool:
        return key in self._json

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """From the daemon's JSON."""
        raise NotImplementedError

    @classmethod
    def _common(cls, answer: Mapping[str, Any]) -> dict[str, Any]:
        same = {name: answer[name] for name in ("model", "version", "device", "timing", "width", "height")}
        return {**same, "_json": answer}


@dataclass(frozen=True, slots=True)
class Classification(Answer):
    """Classes of a picture, best first. `label` and `score` are the best one's."""

    classes: tuple[ClassScore, ...]

    @property
    def label(self) -> str:
        """Name of the best class; empty when there is none."""
        return self.classes[0].label if self.classes else ""

    @property
    def score(self) -> float:
        """Score of the best class; 0 when there is none."""
        return self.classes[0].score if self.classes else 0.0

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """From the daemon's JSON."""
        classes = tuple(ClassScore(c["index"], c["label"], c["score"]) for c in answer["classes"])
        return cls(**cls._common(answer), classes=classes)


@dataclass(frozen=True, slots=True)
class Detection(Answer):
    """Objects in a picture, best first. Iterate over it, or over `objects`."""

    objects: tuple[Detected, ...]

    def __len__(self) -> int:
        return len(self.objects)

    def __bool__(self) -> bool:
        return True  # an answer without objects is an answer

    def __iter__(self) -> Any:
        return iter(self.objects)

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """From the daemon's JSON."""
        objects = tuple(map(Detected.from_json, answer["objects"]))
        return cls(**cls._common(answer), objects=objects)


@dataclass(frozen=True, slots=True)
class Segmentation(Answer):
    """Areas of a picture, largest first, and the class of each point."""

    classes: tuple[Area, ...]
    #: The part of the picture that the mask covers, 0 to 1.
    box: Box[float]
    #: 8-bit greyscale PNG at the model's resolution; pixel value = class number.
    mask_png: bytes = field(repr=False)

    def mask(self) -> npt.NDArray[np.uint8]:
        """[rows, columns] uint8 class numbers. Needs Pillow."""
        import io

        try:
            from PIL import Image
        except ImportError as error:
            raise errors.Unsupported("reading a mask needs Pillow: pip install pillow; or use mask_png") from error
        return np.asarray(Image.open(io.BytesIO(self.mask_png)), np.uint8)

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Self:
        """From the daemon's JSON."""
        classes = tuple(Area(c["index"], c["label"], c["fraction"]) for c in answer["classes"])
        mask = answer["mask"]
        png = base64.b64decode(mask["png"])
        return cls(**cls._common(answer), classes=classes, box=Box(**mask["box"]), mask_png=png)
