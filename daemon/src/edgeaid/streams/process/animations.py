"""Files of one picture or of several that move: GIF, PNG and WebP.

GStreamer and ffmpeg are not asked for them: by release, they repeat such a file for ever, stop after its first picture
or read none of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Final

from PIL import Image

from ...vision.preprocess import MAX_PIXELS
from ..sources import DEFAULT_FPS, Source
from .faults import SourceError
from .pictures import Wait, fitted

FORMATS: Final = ("GIF", "PNG", "WEBP")
#: A picture that says no time, or less than a screen can show, is shown for so long: what browsers do.
USUAL_SECONDS: Final = 0.1
LEAST_SECONDS: Final = 0.015
#: A file may say that a picture is shown for weeks.
LONGEST_SECONDS: Final = 60.0


def is_animation(path: str) -> bool:
    """Whether a file begins as one of these formats does, whatever it is called."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False  # whoever reads it says why
    return head.startswith((b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n")) or (head[:4], head[8:]) == (b"RIFF", b"WEBP")


def pictures(source: Source, fps: float, size: int, wait: Wait) -> Iterator[Image.Image]:
    """Its pictures at the rate of the stream, each for as long as it is shown; once, however often it says.

    Mode RGB, longer side at most `size`, as `pictures.pictures` gives them.
    """
    step, at, due, count = 1 / (fps or DEFAULT_FPS), 0.0, 0.0, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at here
            opened = Image.open(source.text, formats=FORMATS)
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                extent = f"{opened.width} x {opened.height}"
                raise SourceError(f"{source.text}: its pictures of {extent} pixels are too large", final=True)
            while True:
                picture = fitted(opened.convert("RGB"), size)
                at += _seconds(opened)
                while due < at - step / 1000 or not count:
                    if wait(0):
                        return
                    yield picture
                    due, count = due + step, count + 1
                try:
                    opened.seek(opened.tell() + 1)
                except EOFError:
                    return
    except (SourceError, GeneratorExit):
        raise
    except Exception as error:  # decoders of pictures raise anything for damaged ones
        said = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or not a picture"
        raise SourceError(f"{source.text}: {said}", final=True) from error


def _seconds(picture: Image.Image) -> float:
    shown = picture.info.get("duration", 0)
    seconds = shown / 1e3 if isinstance(shown, int | float) else 0.0
    return min(seconds, LONGEST_SECONDS) if seconds >= LEAST_SECONDS else USUAL_SECONDS
