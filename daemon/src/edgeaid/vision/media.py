"""What the media worker does: pictures into input slots, output slots into labelled answers.

Pillow reads foreign bytes here, in a process of its own: a picture that breaks it costs one request.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import PIL

from ..errors import InvalidModel
from ..tensors import TensorSpec
from . import draw, labelling, preprocess
from .labelling import Rules
from .preprocess import Array

#: Bytes of a tensor, and its shape.
Form = tuple[int, tuple[int, ...]]
#: Answers above this travel in a memfd instead of in the message.
INLINE_BYTES: Final = 100_000


def runtime() -> str:
    """Name and version of the picture library."""
    return f"Pillow {PIL.__version__}"


def bytes_of(fd: int) -> bytes:
    """What a memfd holds."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def prepare(picture: bytes, rules: Rules, spec: TensorSpec, out: Array) -> dict[str, Any]:
    """Decode a picture's file into the input tensor `out`; returns its Placement as JSON."""
    if rules.picture is None:
        raise InvalidModel("the model's manifest has no [input] table, so it does not say how to feed it pictures")
    return preprocess.to_tensor(picture, spec, rules.picture, out).to_json()


def prepare_pixels(picture: bytes, spec: TensorSpec, room: memoryview) -> tuple[dict[str, Any], Form]:
    """The same for a model that takes pictures of any size in [1,height,width,3]: what fits is written into `room`.

    Returns the placement and what the tensor has.
    """
    placement, pixels = preprocess.to_pixels(picture, math.isqrt(spec.capacity // 3))
    room[: pixels.nbytes] = np.ascontiguousarray(pixels).reshape(-1).data
    return placement.to_json(), (pixels.nbytes, (1, *pixels.shape))


def decode(
    rules: Rules,
    specs: Sequence[TensorSpec],
    outputs: Sequence[Array],
    body: dict[str, Any],
    picture: bytes | None,
) -> dict[str, Any] | tuple[dict[str, Any], int]:
    """Decode outputs to a result; with a picture's file, draw it. Large answers return in a memfd."""
    result = labelling.answer(rules, specs, outputs, body)
    if picture is not None:
        return _in_memfd(draw.render(picture, result), "png")
    answer = result.to_json()
    text = json.dumps(answer, separators=(",", ":")).encode()
    return _in_memfd(text, "json") if len(text) > INLINE_BYTES else {"result": answer}


def _in_memfd(data: bytes, form: str) -> tuple[dict[str, Any], int]:
    fd = os.memfd_create("edgeai-answer", os.MFD_CLOEXEC)
    with open(os.dup(fd), "wb") as stream:
        stream.write(data)
    return {"form": form, "size": len(data)}, fd
