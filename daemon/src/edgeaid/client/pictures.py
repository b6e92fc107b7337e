"""What a program may pass as a picture, as the bytes that the daemon reads."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from .. import errors

ACCEPTED: Final = (
    "a path, bytes of a JPEG, PNG or BMP file, a file opened with 'rb', a uint8 numpy array [height, width] or "
    "[height, width, 1, 3 or 4], or a PIL image"
)
#: PNG's colour types by number of channels: grey, grey with alpha, RGB, RGB with alpha.
_COLOR: Final = {1: 0, 2: 4, 3: 2, 4: 6}


def picture_bytes(picture: Any) -> bytes:
    """A file's bytes from whatever names or is a picture.

    InvalidArgument for other types, NotFound and InvalidRequest for files that cannot be read.
    """
    if isinstance(picture, bytes):
        data = picture
    elif isinstance(picture, bytearray | memoryview):
        data = bytes(picture)
    elif isinstance(picture, str | os.PathLike):
        data = read_file(Path(os.fspath(picture)))
    elif isinstance(picture, np.ndarray):
        data = _png_of_array(picture)
    elif callable(getattr(picture, "save", None)) and hasattr(picture, "mode"):
        data = _png_of_pil(picture)
    elif callable(getattr(picture, "read", None)):
        try:
            data = b"" if isinstance(picture, io.TextIOBase) else picture.read()
        except ValueError as error:  # closed, or opened for writing
            raise errors.InvalidArgument(f"the picture's file cannot be read: {error}; open it with 'rb'") from error
        if not isinstance(data, bytes) or isinstance(picture, io.TextIOBase):
            raise errors.InvalidArgument("the picture's file was opened as text; open it with open(path, 'rb')")
    else:
        raise errors.InvalidArgument(f"a picture must be {ACCEPTED}; not {type(picture).__name__}")
    if not data:
        raise errors.InvalidData("the picture is empty: it has no bytes (was the file read to its end before?)")
    return data


def refuse_address(path: Path) -> None:
    """InvalidRequest for an address where a file is wanted, with what to do instead."""
    if scheme := re.match(r"([a-z][a-z0-9+.-]+):/+", str(path)):  # pathlib makes one slash of two
        rest = str(path)[scheme.end() :]
        if scheme[1] == "file":
            raise errors.InvalidRequest(f"file:///{rest} is an address, not a path: name the file as /{rest}")
        address = f"{scheme[1]}://{rest}"
        if scheme[1] not in ("http", "https"):
            raise errors.InvalidRequest(f"{address} is an address, not a file: save it as a file first")
        raise errors.InvalidRequest(f"{address} is an address, not a file: download it first (curl -O {address})")


def read_file(path: Path) -> bytes:
    """A file's bytes; NotFound names the path, and addresses for what they are."""
    return _opened(path, lambda file: file.read())


def check_file(path: Path) -> None:
    """Refuse what `read_file` refuses, without reading it."""
    _opened(path, lambda _: b"")


def _opened(path: Path, use: Callable[[BinaryIO], bytes]) -> bytes:
    refuse_address(path)
    if "\0" in str(path):
        raise errors.InvalidRequest(f"{str(path)!r} is not a path: it has a zero byte")
    try:
        with path.open("rb") as file:
            return use(file)
    except IsADirectoryError as error:
        raise errors.InvalidRequest(f"{path} is a directory, not a picture; name its files: {path}/*") from error
    except PermissionError as error:
        raise errors.PermissionDenied(f"{path}: {error.strerror}; make it readable: chmod +r {path}") from error
    except OSError as error:
        raise errors.NotFound(f"{path}: {error.strerror}") from error


def _png_of_array(array: np.ndarray[Any, Any]) -> bytes:
    """An uncompressed PNG: quicker to write than any compressed form, and read by every daemon."""
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in _COLOR or 0 in pixels.shape:
        raise errors.InvalidArgument(
            f"a picture array must be uint8 [height, width] or [height, width, 1, 3 or 4], "
            f"not {array.dtype} {list(array.shape)}"
        )
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter, 0 = none
    rows[:, 1:] = pixels.reshape(height, width * channels)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOR[channels], 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", head),
            _chunk(b"IDAT", zlib.compress(rows.data, 0)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _png_of_pil(image: Any) -> bytes:
    buffer = io.BytesIO()
    if image.mode not in ("L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
