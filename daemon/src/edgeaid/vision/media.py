"""What the media worker does: pictures into input slots, output slots into labelled answers.

Pillow reads foreign bytes here, in a process of its own: a picture that breaks it costs one request.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL

from ..errors import InvalidModel
from ..models.repository import label_file
from ..models.rules import OutputRules, PictureRules
from ..tensors import TensorSpec
from . import draw, postprocess, preprocess
from .placement import Placement
from .preprocess import Array

#: Bytes of a tensor, and its shape.
Form = tuple[int, tuple[int, ...]]
#: Answers above this travel in a memfd instead of in the message.
INLINE_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Rules:
    """How one model sees pictures and what its outputs mean."""

    picture: PictureRules | None
    output: OutputRules | None
    labels: tuple[str, ...]
    #: Width and height of the input tensor; (0, 0) where it is not a picture.
    size: tuple[int, int] = (0, 0)


def runtime() -> str:
    """Name and version of the picture library."""
    return f"Pillow {PIL.__version__}"


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


def _bytes_of(fd: int, size: int) -> bytes:
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as view:
        return bytes(view)


def prepare(fd: int, size: int, rules: Rules, spec: TensorSpec, out: Array) -> dict[str, Any]:
    """Decode the picture in a memfd into the input tensor `out`; returns its Placement as JSON."""
    if rules.picture is None:
        raise InvalidModel("the model's manifest has no [input] table, so it does not say how to feed it pictures")
    return asdict(preprocess.to_tensor(_bytes_of(fd, size), spec, rules.picture, out))


def prepare_pixels(fd: int, size: int, spec: TensorSpec, room: memoryview) -> tuple[dict[str, Any], Form]:
    """The same for a model that takes pictures of any size in [1,height,width,3]: what fits is written into `room`.

    Returns the placement and what the tensor has.
    """
    placement, pixels = preprocess.to_pixels(_bytes_of(fd, size), math.isqrt(spec.capacity // 3))
    room[: pixels.nbytes] = np.ascontiguousarray(pixels).reshape(-1).data
    return asdict(placement), (pixels.nbytes, (1, *pixels.shape))


def decode(
    rules: Rules,
    specs: Sequence[TensorSpec],
    outputs: Sequence[Array],
    body: dict[str, Any],
    picture: tuple[int, int] | None,
) -> dict[str, Any] | tuple[dict[str, Any], int]:
    """Decode outputs to a result; with a picture (descriptor, bytes), draw it. Large answers return in a memfd."""
    if rules.output is None:
        raise InvalidModel(
            "the model's manifest has no [output] table, so its answer has no meaning here; use /v2 infer"
        )
    result = postprocess.results(
        rules.output,
        specs,
        outputs,
        rules.labels,
        Placement(**body["placement"]),
        threshold=body["threshold"],
        max_results=body["max_results"],
        size=rules.size,
    )
    if picture is not None:
        return _in_memfd(draw.render(_bytes_of(*picture), result), "png")
    answer = result.to_json()
    text = json.dumps(answer, separators=(",", ":")).encode()
    return _in_memfd(text, "json") if len(text) > INLINE_BYTES else {"result": answer}


def _in_memfd(data: bytes, form: str) -> tuple[dict[str, Any], int]:
    fd = os.memfd_create("edgeai-answer", os.MFD_CLOEXEC)
    with open(os.dup(fd), "wb") as stream:
        stream.write(data)
    return {"form": form, "size": len(data)}, fd
