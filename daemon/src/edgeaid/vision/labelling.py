"""How one model sees pictures and what its outputs mean, and answers made of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidModel
from ..models.repository import label_file
from ..models.rules import OutputRules, PictureRules
from ..tensors import TensorSpec
from . import postprocess
from .placement import Placement
from .results import Result
from .scores import Array


@dataclass(frozen=True, slots=True)
class Rules:
    """How one model sees pictures and what its outputs mean."""

    picture: PictureRules | None
    output: OutputRules | None
    labels: tuple[str, ...]
    #: Width and height of the input tensor; (0, 0) where it is not a picture.
    size: tuple[int, int] = (0, 0)


def rules_from(table: dict[str, Any], inputs: Sequence[TensorSpec]) -> Rules:
    """From the JSON form that the daemon sends: rules as field tables of the dataclasses; `inputs` of the model."""
    return Rules(
        PictureRules(**_tuples(table["picture"])) if table["picture"] is not None else None,
        OutputRules(**_tuples(table["output"])) if table["output"] is not None else None,
        label_file(Path(table["labels"]), table["classes"]).names if table["labels"] else (),
        picture_size(inputs[0].shape) if inputs else (0, 0),
    )


def picture_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of [1,H,W,C], [1,C,H,W] or the same without the batch; (0, 0) of anything else."""
    if len(shape) not in (3, 4):
        return 0, 0
    sides = shape[-3:]
    height, width = sides[1:] if sides[0] in (1, 3) and sides[2] not in (1, 3) else sides[:2]
    return width, height


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    """JSON arrays back to tuples."""

    def deep(value: Any) -> Any:
        return tuple(deep(v) for v in value) if isinstance(value, list) else value

    return {k: deep(v) for k, v in table.items()}


def answer(rules: Rules, specs: Sequence[TensorSpec], outputs: Sequence[Array], asked: dict[str, Any]) -> Result:
    """What outputs say of a picture. `asked`: its Placement as JSON, `threshold`, `max_results` (None = the model's).

    InvalidModel for outputs that the model's manifest gives no meaning, or another than they have.
    """
    if rules.output is None:
        raise InvalidModel(
            "the model's manifest has no [output] table, so its answer has no meaning here; use /v2 infer"
        )
    return postprocess.results(
        rules.output,
        specs,
        outputs,
        rules.labels,
        Placement(**asked["placement"]),
        threshold=asked["threshold"],
        max_results=asked["max_results"],
        size=rules.size,
    )
