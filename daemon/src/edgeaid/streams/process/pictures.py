"""Sources that need no other program: directories of pictures, pictures and MJPEG over HTTP, test pictures."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import EdgeaiError
from ...models.repository import EMBEDDED
from ...vision import preprocess
from ..sources import DEFAULT_FPS, PICTURES, Kind, Source
from . import requests
from .faults import SourceError
from .requests import Request

#: A picture, or a part of an endless answer, above this is refused.
MAX_BYTES: Final = 32 << 20
MAX_LINE: Final = 8192

#: Waits so many seconds, or until the stream is stopped (True).
Wait = Callable[[float], bool]


def pictures(source: Source, fps: float, size: int, wait: Wait) -> Iterator[Image.Image]:
    """Pictures of mode RGB, longer side at most `size`, one per frame. SourceError ends them."""
    makers = {Kind.DIRECTORY: _directory, Kind.STILL: _still, Kind.MJPEG: _mjpeg, Kind.TEST: _test}
    for picture in makers[source.kind](source, fps, wait):
        yield fitted(picture, size)


def fitted(picture: Image.Image, size: int) -> Image.Image:
    """RGB, and no larger than `size`."""
    longer = max(picture.size)
    if longer > size:
        scale = size / longer
        extent = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(extent, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _directory(source: Source, _fps: float, wait: Wait) -> Iterator[Image.Image]:
    try:
        files = sorted(p for p in Path(source.text).iterdir() if p.suffix.lower() in PICTURES)
    except OSError as error:
        raise SourceError(f"{source.text}: {error.strerror}", final=True) from error
    if not files:
        raise SourceError(f"{source.text} has no pictures ({', '.join(PICTURES)})", final=True)
    for file in files:
        if wait(0):
            return
        try:
            yield preprocess.decode(file.read_bytes())
        except OSError as error:
            raise SourceError(f"{file}: {error.strerror}", final=True) from error
        except EdgeaiError:
            continue  # one damaged picture among many; it is not a frame


class _Body:
    """The body of an answer, in which each picture has to come within its time."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._kept = bytearray()
        self.next()

    def next(self) -> None:
        """The time of the next picture begins."""
        self._until = time.monotonic() + requests.PICTURE_SECONDS

    def _more(self) -> bool:
        """Take in what has come; False at the end. SourceError when the picture's time is over."""
        if time.monotonic() > self._until:
            raise SourceError(f"the camera was reached but shows no picture for {requests.PICTURE_SECONDS:g} s")
        piece = self._response.read1(1 << 16)
        self._kept += piece
        return bool(piece)

    def read(self, length: int) -> bytes:
        """So many bytes, fewer at the end."""
        while len(self._kept) < length and self._more():
            pass
        return self._take(length)

    def line(self) -> bytes:
        """A line with its end, or a part of one that is longer than MAX_LINE; b"" at the end."""
        seen = 0
        while (at := self._kept.find(b"\n", seen, MAX_LINE)) < 0:
            seen = len(self._kept)
            if seen >= MAX_LINE or not self._more():
                return self._take(MAX_LINE)
        return self._take(at + 1)

    def _take(self, length: int) -> bytes:
        data = bytes(memoryview(self._kept)[:length])
        del self._kept[:length]
        return data


def _network(error: Exception) -> SourceError:
    if isinstance(error, socket.gaierror):
        return SourceError("the host name is not known")
    if isinstance(error, TimeoutError):
        return SourceError("the camera does not answer in time")
    if isinstance(error, ConnectionRefusedError):
        return SourceError("the host refuses connections on this port")
    if isinstance(error, ssl.SSLError):
        return SourceError(f"no secure connection: {error.reason}")
    return SourceError(f"the connection failed: {str(error) or type(error).__name__}")


def _still(source: Source, fps: float, wait: Wait) -> Iterator[Image.Image]:
    request = Request(source.text)
    due = time.monotonic()
    try:
        while not wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / (fps or 1.0), time.monotonic())
            data = _Body(request.get()).read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise SourceError(f"a picture of more than {MAX_BYTES} bytes")
            yield _decoded(data)
    except (OSError, http.client.HTTPException) as error:
        raise _network(error) from error
    finally:
        request.connection.close()


def _decoded(data: bytes) -> Image.Image:
    try:
        return preprocess.decode(data)
    except EdgeaiError as error:
        raise SourceError(f"the camera sends no picture that can be read: {error}") from error


def _mjpeg(source: Source, fps: float, wait: Wait) -> Iterator[Image.Image]:
    request = Request(source.text)
    next_due = 0.0
    try:
        response = request.get()
        kind = response.headers.get_content_type()
        if kind == "image/jpeg":
            raise SourceError(
                "this address answers a single picture; end it with .jpg to have it asked again and again"
            )
        boundary = response.headers.get_param("boundary", "")
        if not kind.startswith("multipart/") or not isinstance(boundary, str):
            raise SourceError(f"this address answers {kind}, not MJPEG (multipart/x-mixed-replace)")
        body = _Body(response)
        for data in _parts(body, boundary.strip('"').strip("-").encode("latin-1", "replace")):
            body.next()
            now = time.monotonic()
            if fps and now < next_due:
                continue  # the camera is faster than was asked for: this picture is not taken
            next_due = max(next_due + 1 / fps, now) if fps else 0.0
            if wait(0):
                return
            yield _decoded(data)
        raise SourceError("the camera ended the stream")
    except (OSError, http.client.HTTPException) as error:
        raise _network(error) from error
    finally:
        request.connection.close()


def _parts(body: _Body, boundary: bytes) -> Iterator[bytes]:
    """Bodies of a multipart answer, with or without Content-Length."""
    while True:
        line = body.line()
        if not line:
            return
        if not _is_mark(line, boundary):
            continue
        length = -1
        while (header := body.line().strip()) != b"":
            name, _, value = header.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                length = int(value)
        if length > MAX_BYTES:
            raise SourceError(f"a picture of more than {MAX_BYTES} bytes")
        if length >= 0:
            data = body.read(length)
            if len(data) < length:
                return
            yield data
            continue
        yield from _until(body, boundary)


def _is_mark(line: bytes, boundary: bytes) -> bool:
    """Whether a line begins a part. Cameras disagree on who writes the two dashes, and some name no boundary."""
    if not boundary:
        return line.startswith(b"--")
    return len(line) < MAX_LINE and line.strip().strip(b"-").startswith(boundary)


def _until(body: _Body, boundary: bytes) -> Iterator[bytes]:
    """Bodies that only a boundary ends."""
    data = bytearray()
    while True:
        line = body.line()
        if not line:
            return
        if data.endswith(b"\n") and _is_mark(line, boundary):
            yield bytes(data.rstrip(b"\r\n"))
            data = bytearray()
            while body.line().strip():
                pass
            continue
        data += line
        if len(data) > MAX_BYTES:
            raise SourceError(f"a picture of more than {MAX_BYTES} bytes")


# --- test pictures ----------------------------------------------------------------------------------------------------


def _test(source: Source, fps: float, wait: Wait) -> Iterator[Image.Image]:
    """`test:digits?frames=100&width=320&height=240`: made at the stream's rate, `frames` of them or without end."""
    name, _, query = source.text.removeprefix("test:").partition("?")
    options = {k: v[0] for k, v in parse_qs(query).items()}

    def option(key: str, default: int) -> int:
        value = options.get(key, str(default))
        return int(value) if value.isdecimal() and len(value) < 10 else default

    width, height = max(16, option("width", 320)), max(16, option("height", 240))
    painters: dict[str, type[Pattern | Digits | Still | Noise]] = {
        "pattern": Pattern, "digits": Digits, "still": Still, "noise": Noise,
    }  # fmt: skip
    paint = painters[name](width, height)
    step = 1 / (fps or DEFAULT_FPS)
    due = time.monotonic()
    number, last = 0, option("frames", 0)
    while not last or number < last:
        if wait(max(0.0, due - time.monotonic())):
            return
        due = max(due + step, time.monotonic() - step)
        yield paint.frame(number)
        number += 1


class Pattern:
    """A square that moves over a gradient."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        x = np.linspace(0, 255, width, dtype=np.uint8)
        y = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
        self._base = np.stack(np.broadcast_arrays(x[None, :], y, np.uint8(128)), axis=-1)

    def frame(self, number: int) -> Image.Image:
        """Frame of a number from 0."""
        side = max(8, self.height // 6)
        x = bounce(number * 5, self.width - side)
        y = bounce(number * 3, self.height - side)
        pixels = self._base.copy()
        pixels[y : y + side, x : x + side] = (230, 40, 40)
        return Image.fromarray(pixels)


class Still:
    """The same picture for ever, as a camera that hangs sends it."""

    def __init__(self, width: int, height: int) -> None:
        self._picture = Pattern(width, height).frame(0)

    def frame(self, _number: int) -> Image.Image:
        """Frame of a number from 0."""
        return self._picture


class Noise:
    """Another random picture each time, the same ones in every run."""

    def __init__(self, width: int, height: int) -> None:
        self._shape = (height, width, 3)

    def frame(self, number: int) -> Image.Image:
        """Frame of a number from 0."""
        return Image.fromarray(np.random.default_rng(number).integers(0, 256, self._shape, dtype=np.uint8))


class Digits:
    """Handwritten digits that move to and fro, each in a lane of its own: what the embedded models know."""

    #: Side of a digit as a part of its lane's height.
    SIDE: Final = 0.8
    #: Pixels per frame.
    SPEEDS: Final = (3, 2, 1)

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        samples = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))
        lane = height / max(1, len(samples))
        side = max(1, min(round(lane * self.SIDE), width))
        self._things: list[tuple[str, npt.NDArray[np.uint8], int, int, int]] = []
        for row, sample in enumerate(samples):
            with Image.open(sample) as opened:
                pixels = np.asarray(opened.convert("L").resize((side, side)))
            top = round(row * lane + (lane - side) / 2)
            start, speed = row * width // max(1, len(samples)), self.SPEEDS[row % len(self.SPEEDS)]
            self._things.append((sample.stem.rpartition("-")[2], pixels, start, top, speed))

    def truth(self, number: int) -> list[tuple[str, tuple[int, int, int, int]]]:
        """(label, xmin ymin xmax ymax in pixels of its square) of each digit in a frame."""
        places = []
        for label, pixels, start, top, speed in self._things:
            left = bounce(start + number * speed, self.width - pixels.shape[1])
            places.append((label, (left, top, left + pixels.shape[1], top + pixels.shape[0])))
        return places

    def frame(self, number: int) -> Image.Image:
        """Frame of a number from 0."""
        canvas = np.zeros((self.height, self.width), dtype=np.uint8)
        for (_, pixels, *_), (_, (left, top, right, bottom)) in zip(self._things, self.truth(number), strict=True):
            canvas[top:bottom, left:right] = pixels
        return Image.fromarray(canvas)


def bounce(position: int, room: int) -> int:
    """A position that runs to and fro between 0 and `room`."""
    if room <= 0:
        return 0
    phase = position % (2 * room)
    return phase if phase <= room else 2 * room - phase
