"""Pictures of digits with known truth: single ones, and scenes with clutter. numpy and Pillow only.

A digit is an [8,8] array of ink, 0 to 16, as in the UCI data set. Everything random comes from the generator that the
caller passes in, so a seed gives the same pictures everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[Any]
Rng = np.random.Generator

#: Share of scenes that get black borders, as a letterboxed camera picture has.
_BORDERED = 0.35


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and what is in it."""

    #: [side,side] uint8.
    picture: Array
    #: [n,4] float: xmin, ymin, xmax, ymax in pixels.
    boxes: Array
    #: [n] int: which digit.
    digits: Array
    #: [side,side] uint8: 0 = background, 1 + digit where there is ink.
    mask: Array


def render(digit: Array, size: int = 128) -> Image.Image:
    """One digit, light on dark, [size,size], mode L, as cropped from a picture with a little room around."""
    image = Image.fromarray(np.pad(np.clip(digit * (255.0 / 16.0), 0, 255).astype(np.uint8), 1))
    return image.resize((size, size), Image.Resampling.BICUBIC)


def augmented(digit: Array, rng: Rng, size: int) -> Array:
    """One digit as [size,size] uint8: shifted, turned, stretched, of either polarity, with noise."""
    inner = max(8, round(size * rng.uniform(0.8, 1.2)))
    tall = max(8, round(inner * rng.uniform(0.9, 1.12)))
    ink = render(digit, inner).resize((inner, tall), Image.Resampling.BILINEAR)
    ink = ink.rotate(rng.uniform(-14, 14), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (size, size))
    spare_x, spare_y = size - inner, size - tall
    jitter = size / 12
    canvas.paste(
        ink, (round(spare_x / 2 + rng.uniform(-jitter, jitter)), round(spare_y / 2 + rng.uniform(-jitter, jitter)))
    )
    level = np.asarray(canvas, dtype=np.float32) / 255
    level = level ** rng.uniform(0.7, 1.4)
    dark, light = rng.uniform(0, 70), rng.uniform(150, 255)
    if rng.random() < 0.35:
        dark, light = light, dark
    picture = dark + (light - dark) * level + rng.normal(0, rng.uniform(0, 12), level.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def scene(digits: Array, labels: Array, rng: Rng, side: int = 96, most: int = 6) -> Scene:
    """A scene of 0 to `most` digits, 14 to 46 pixels high at side 96, on clutter; boxes overlap by at most a tenth."""
    picture = _background(rng, side)
    mask = np.zeros((side, side), dtype=np.uint8)
    top = left = 0
    bottom = right = side
    if rng.random() < _BORDERED:
        border = int(rng.integers(1, side // 5))
        if rng.random() < 0.7:
            top, bottom = border, side - border
        else:
            left, right = border, side - border
    boxes: list[tuple[float, float, float, float]] = []
    numbers: list[int] = []
    for _ in range(int(rng.integers(0, most + 1))):
        for _attempt in range(12):
            number = int(rng.integers(len(digits)))
            alpha = _ink(digits[number], rng, side)
            high, wide = alpha.shape
            if wide >= right - left or high >= bottom - top:
                continue
            x, y = int(rng.integers(left, right - wide)), int(rng.integers(top, bottom - high))
            box = (float(x), float(y), float(x + wide), float(y + high))
            if any(intersection_over_union(box, other) > 0.1 or _covers(box, other) for other in boxes):
                continue
            _paste(picture, mask, alpha, rng, at=(x, y), digit=int(labels[number]))
            boxes.append(box)
            numbers.append(int(labels[number]))
            break
    picture += rng.normal(0, rng.uniform(0, 10), picture.shape)
    if (top, left) != (0, 0):
        bordered = np.zeros_like(picture)
        bordered[top:bottom, left:right] = picture[top:bottom, left:right]
        picture = bordered
    return Scene(
        np.clip(picture, 0, 255).astype(np.uint8),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(numbers, dtype=np.int64),
        mask,
    )


def intersection_over_union(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Of two boxes xmin, ymin, xmax, ymax."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _covers(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """One box hides more than a fifth of the other, which the overlap of a small and a large one does not show."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width > 0 and height > 0 and width * height > 0.2 * smaller


def _background(rng: Rng, side: int) -> Array:
    """[side,side] float32: a base grey, slow shading, and lines, boxes and arcs."""
    cells = int(rng.integers(2, 8))
    slow = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    picture = rng.uniform(20, 235) + rng.uniform(0, 35) * np.asarray(slow, dtype=np.float32)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 7))):
        x0, y0, x1, y1 = (float(v) for v in rng.uniform(-10, side + 10, 4))
        grey, width = int(rng.integers(0, 256)), int(rng.integers(1, 4))
        kind = rng.random()
        if kind < 0.45:
            draw.line((x0, y0, x1, y1), fill=grey, width=width)
        elif kind < 0.75:
            x1, y1 = x0 + rng.uniform(4, 40), y0 + rng.uniform(4, 40)
            near = int(np.clip(picture.mean() + rng.normal(0, 35), 0, 255))
            draw.rectangle((x0, y0, x1, y1), fill=near if rng.random() < 0.6 else None, outline=grey, width=width)
        else:
            x1, y1 = x0 + rng.uniform(8, 40), y0 + rng.uniform(8, 40)
            start = float(rng.uniform(0, 360))
            draw.arc((x0, y0, x1, y1), start, start + float(rng.uniform(20, 160)), fill=grey, width=width)
    return np.array(image, dtype=np.float32)


def _ink(digit: Array, rng: Rng, side: int) -> Array:
    """A digit's ink, 0 to 1, cut to its tight box."""
    high = rng.uniform(14, 46) * side / 96
    wide = high * rng.uniform(0.85, 1.15)
    image = render(digit, 64).resize((max(8, round(wide)), max(8, round(high))), Image.Resampling.BILINEAR)
    image = image.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR, expand=True)
    alpha = np.asarray(image, dtype=np.float32) / 255
    visible = alpha > 0.35
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _paste(picture: Array, mask: Array, alpha: Array, rng: Rng, *, at: tuple[int, int], digit: int) -> None:
    x, y = at
    high, wide = alpha.shape
    region = picture[y : y + high, x : x + wide]
    around = float(region.mean())
    contrast = rng.uniform(70, 200)
    ink = (
        around + contrast
        if around + contrast <= 255 and (around - contrast < 0 or rng.random() < 0.5)
        else around - contrast
    )
    sharp = np.clip(alpha * rng.uniform(1.0, 1.5), 0, 1)
    region += (np.clip(ink, 0, 255) - region) * sharp
    mask[y : y + high, x : x + wide][alpha > 0.45] = 1 + digit
