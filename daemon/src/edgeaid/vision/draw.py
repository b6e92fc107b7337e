"""A picture with what was found in it drawn on top, as PNG. Runs in the media worker."""

from __future__ import annotations

import colorsys
import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..scores import Detected
from . import preprocess
from .results import Classification, Detections, Result, Segmentation

#: Pictures are drawn on at no more than this many pixels along the longer side: the PNG of a 12 Mpixel still takes
#: seconds and tens of megabytes on a Pi.
MAX_SIDE: Final = 1920
_MIN_SIDE: Final = 320
_MASK_ALPHA: Final = 0.5
#: Successive hues a golden section apart never come close to each other.
_GOLDEN: Final = 0.618033988749895


def render(picture: bytes | memoryview | Image.Image, result: Result, max_pixels: int = preprocess.MAX_PIXELS) -> bytes:
    """PNG of `picture` with boxes, mask or a caption. Errors as in `preprocess.decode`.

    The longer side of the result is 320 to 1920 pixels, so that captions can be read and the answer stays small.
    """
    image = picture if isinstance(picture, Image.Image) else preprocess.decode(picture, max_pixels)
    buffer = io.BytesIO()
    painted(_readable(image.convert("RGB")), result).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def painted(image: Image.Image, result: Result) -> Image.Image:
    """An RGB picture with boxes, mask or a caption; `image` itself may be drawn on."""
    if isinstance(result, Segmentation):
        image = _with_mask(image, result)
    canvas = ImageDraw.Draw(image)
    size = max(12, max(image.size) // 40)
    if isinstance(result, Detections):
        _boxes(canvas, image.size, result, size)
    else:
        _legend(canvas, image.size, result, size)
    return image


def color(index: int) -> tuple[int, int, int]:
    """A colour per class number, the same every time; 0 is red."""
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1.0, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _readable(image: Image.Image) -> Image.Image:
    side = max(image.size)
    if _MIN_SIDE <= side <= MAX_SIDE:
        return image
    scale = (MAX_SIDE if side > MAX_SIDE else _MIN_SIDE) / side
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow 10.0 has one size only
        return ImageFont.load_default()


def _caption(
    canvas: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    background: tuple[int, int, int],
    size: int,
) -> float:
    """Text on a filled box whose upper left corner is `place`; returns the y below it."""
    font = _font(size)
    # The built-in font covers Latin; a label in another script shows as question marks rather than failing.
    text = text.encode("latin-1", "replace").decode("latin-1")
    _, _, right, bottom = canvas.textbbox(place, text, font=font)
    canvas.rectangle((place[0], place[1], right + 3, bottom + 3), fill=background)
    bright = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2] > 140
    canvas.text((place[0] + 2, place[1] + 1), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
    return float(bottom + 5)


def _named(detected: Detected) -> str:
    sub_label = f": {detected.sub_label[0]}" if detected.sub_label is not None else ""
    return f"{detected.label}{sub_label} {detected.score:.2f}"


def _boxes(canvas: ImageDraw.ImageDraw, size: tuple[int, int], result: Detections, text_size: int) -> None:
    line = max(2, max(size) // 320)
    for detected in reversed(result.objects):  # the best one last, on top
        xmin, ymin, xmax, ymax = (value * size[i % 2] for i, value in enumerate(detected.box))
        outline = color(detected.index)
        if detected.polygon:
            corners = [(x * size[0], y * size[1]) for x, y in detected.polygon]
            canvas.line([*corners, corners[0]], fill=outline, width=line)
        else:
            canvas.rectangle((xmin, ymin, max(xmin, xmax), max(ymin, ymax)), outline=outline, width=line)
        _points(canvas, size, detected, line)
        above = ymin - text_size - 5
        _caption(
            canvas,
            (xmin, above if above >= 0 else ymin),
            _named(detected),
            color(detected.index),
            text_size,
        )


#: Keypoints below this score are guesses and are not drawn.
_SEEN: Final = 0.3
#: Limbs between the 17 keypoints of COCO.
_LIMBS: Final = (
    (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip


def _points(canvas: ImageDraw.ImageDraw, size: tuple[int, int], detected: Detected, line: int) -> None:
    places = [(x * size[0], y * size[1], score) for x, y, score in detected.keypoints]
    if len(places) == 17:
        for one, other in _LIMBS:
            (x0, y0, first), (x1, y1, second) = places[one], places[other]
            if min(first, second) >= _SEEN:
                canvas.line([(x0, y0), (x1, y1)], fill=color(detected.index + 1), width=line)
    for x, y, score in places:
        if score >= _SEEN:
            canvas.ellipse((x - line, y - line, x + line, y + line), fill=color(detected.index + 2))


def _legend(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], result: Classification | Segmentation, text_size: int
) -> None:
    if isinstance(result, Classification):
        lines = [(c.index, f"{c.label} {c.score:.3f}", (32, 32, 32)) for c in result.classes]
    else:
        lines = [(c.index, f"{c.label} {100 * c.fraction:.1f} %", _mask_color(c.index)) for c in result.classes]
    y = 2.0
    for _, text, background in lines:
        if y + text_size > size[1]:
            break
        y = _caption(canvas, (2.0, y), text, background, text_size)


def _mask_color(index: int) -> tuple[int, int, int]:
    return color(index) if index else (32, 32, 32)


def _with_mask(image: Image.Image, result: Segmentation) -> Image.Image:
    """Blend the mask's colours over the picture; class 0 is background and stays clear."""
    left, top = round(result.box[0] * image.width), round(result.box[1] * image.height)
    right, bottom = round(result.box[2] * image.width), round(result.box[3] * image.height)
    extent = max(1, right - left), max(1, bottom - top)
    mask = np.asarray(Image.fromarray(result.mask).resize(extent, Image.Resampling.NEAREST))
    palette = np.array([_mask_color(i) for i in range(256)], dtype=np.uint8)
    alpha = np.where(mask == 0, 0, round(255 * _MASK_ALPHA)).astype(np.uint8)
    image.paste(Image.fromarray(palette[mask]), (left, top), Image.fromarray(alpha))
    return image
