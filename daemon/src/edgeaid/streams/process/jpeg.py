"""Frames as JPEG, with or without what was seen in them."""

from __future__ import annotations

import io
import zlib
from typing import Final

from PIL import Image

from ...scores import Box, Detected
from ...vision import draw
from ...vision.results import Detections
from .stages import Thing

QUALITY: Final = 80
SMALLEST: Final = 16


def jpeg(picture: Image.Image, things: list[Thing] | None = None, width: int = 0) -> bytes:
    """A JPEG, `width` pixels wide when that makes it smaller; with `things`, their boxes and labels are drawn."""
    if width and width < picture.width:
        height = max(1, round(picture.height * max(width, SMALLEST) / picture.width))
        picture = picture.resize((max(width, SMALLEST), height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if things:
        picture = draw.painted(picture.copy(), Detections(tuple(_detected(t) for t in things), *picture.size))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _detected(thing: Thing) -> Detected:
    sub_label = thing.sub_label or (thing.life.sub_label if thing.life is not None else None)
    # The label decides the colour: here there is no class number.
    index = zlib.crc32(thing.label.encode()) % 97
    return Detected(index, thing.label, thing.score, Box(*thing.box), Box(0, 0, 0, 0), sub_label=sub_label)
