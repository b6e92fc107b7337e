"""The `[ensemble]` table of a manifest: models that answer one request together. Pure data; every key is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..tables import Table, WrongValue
from .rules import OutputRules, PictureRules
from .stages import CROP_STAGES, Crop, Detect, crop, detect

#: Target of an ensemble, as others have cpu or edgetpu: the device that runs its stages.
TARGET: Final = "ensemble"
MAX_STAGES: Final = 16
#: Longest side of a picture that an ensemble takes.
MAX_SIDE: Final = 4096

#: A picture keeps its shape, and is made smaller until it fits into the input.
PICTURE: Final = PictureRules(resize="keep")
#: The objects lie in the output tensors as `vision.ensemble` writes them.
OUTPUT: Final = OutputRules(decoder="ensemble", threshold=0.0, max_results=1000)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A detector, and models that are asked about what it detects."""

    detect: Detect
    crops: tuple[Crop, ...] = ()
    #: Pictures are made smaller until their longer side has so many pixels.
    size: int = 640

    @property
    def models(self) -> tuple[str, ...]:
        """Names of its members."""
        return tuple(dict.fromkeys([self.detect.model, *(c.model for c in self.crops)]))


def ensemble(table: Table, name: str) -> Ensemble:
    """The ensemble `name` from its table. WrongValue."""
    size = table.integer("size", 640, 16, MAX_SIDE)
    stages = table.tables("stage", MAX_STAGES)
    table.done()
    if not stages or "detect" not in stages[0].rest:
        raise WrongValue((*table.path, "stage", 0), 'must be the detector: detect = "MODEL"')
    first = detect(stages[0])
    crops = [_crop(stage) for stage in stages[1:]]
    members: list[Detect | Crop] = [first, *crops]
    for member, stage in zip(members, stages, strict=True):
        stage.done()
        if member.model == name:
            raise WrongValue(stage.path, f"asks {name!r}, which is the ensemble itself: a cycle")
    return Ensemble(first, tuple(crops), size)


def _crop(stage: Table) -> Crop:
    kinds = [kind for kind in CROP_STAGES if kind in stage.rest]
    if len(kinds) != 1:
        raise WrongValue(stage.path, f"must have exactly one of {', '.join(CROP_STAGES)}, it has {len(kinds)}")
    if "every_s" in stage.rest:
        stage.wrong("every_s", "is for streams: an ensemble asks about every object")
    return crop(kinds[0])(stage)
