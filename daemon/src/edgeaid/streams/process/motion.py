"""The motion gate: which frames changed enough to be worth a model's time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..table import Motion, Polygon

#: Frames are compared at this width: noise averages out, and a Pi does it in well under a millisecond.
WIDTH: Final = 160
#: How fast the background takes up what stays, per second; and what moves, which is taken up more slowly.
LEARN: Final = 1.0
LEARN_MOVING: Final = 0.15
#: Nearly all pixels changed at once: a lamp or the camera's exposure, not an object. The background starts again.
FLASH: Final = 0.8


class MotionGate:
    """The gate of one stream."""

    def __init__(self, options: Motion) -> None:
        self.options = options
        self._background: npt.NDArray[np.float32] | None = None
        self._mask: npt.NDArray[np.bool_] | None = None
        self._last = 0
        self._moved: int | None = None
        #: Part of the frame that changed in the newest frame.
        self.changed = 0.0

    def passes(self, picture: Image.Image, timestamp: int) -> bool:
        """Did enough change? `picture` RGB; `timestamp` in microseconds of frame time."""
        height = max(1, round(picture.height * WIDTH / picture.width))
        small = picture.resize((WIDTH, height), Image.Resampling.BOX, reducing_gap=None).convert("L")
        grey = np.asarray(small, dtype=np.float32)
        if self._background is None or self._background.shape != grey.shape:
            self._background, self._last = grey.copy(), timestamp
            self._mask = mask(self.options.masks, (WIDTH, height))
            self._moved = timestamp  # nothing is known yet: the first frame is looked at
            return True
        passed = min(1.0, max(0.0, (timestamp - self._last) / 1e6))
        self._last = timestamp
        moving = np.abs(grey - self._background) > self.options.threshold
        assert self._mask is not None  # noqa: S101  made with the background
        self.changed = float((moving & self._mask).sum() / max(1, int(self._mask.sum())))
        if self.changed > FLASH:
            self._background = grey.copy()
        else:
            rate = np.where(moving, LEARN_MOVING, LEARN) * passed
            self._background += (grey - self._background) * np.minimum(rate, 1.0).astype(np.float32)
        if self.changed > 0 and self.changed >= self.options.area:
            self._moved = timestamp
        return self._moved is not None and timestamp - self._moved <= self.options.hold_s * 1e6


def mask(polygons: tuple[Polygon, ...], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """[height,width]: True where the picture is looked at; polygons are left out."""
    canvas = Image.new("L", size, 1)
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon([(x * size[0], y * size[1]) for x, y in polygon], fill=0)
    return np.asarray(canvas, dtype=bool)
