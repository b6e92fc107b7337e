"""Bytes seen safely: every reader looks at a file through these few functions.

A model file comes from somewhere else. Nothing here follows an offset before it was compared with the end of the file,
and nothing allocates by a number the file states.
"""

from __future__ import annotations

import struct
from typing import Any

from ...errors import InvalidModel

#: What a reader accepts.
Data = bytes | bytearray | memoryview


def as_view(data: Data) -> memoryview:
    """`data` as a flat, read-only view of bytes; no copy unless the view has gaps."""
    view = memoryview(data)
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    if view.ndim != 1 or view.format != "B":
        view = view.cast("B")
    return view.toreadonly()


def need(view: memoryview, offset: int, size: int, what: str) -> None:
    """Raise InvalidModel unless bytes offset .. offset+size-1 exist; `what` names them in the message."""
    if offset < 0 or size < 0 or offset + size > len(view):
        raise InvalidModel(
            f"{what}: bytes {offset}..{offset + size - 1} lie outside the file of {len(view)} bytes; it is damaged"
        )


def unpack(fmt: str, view: memoryview, offset: int, what: str) -> tuple[Any, ...]:
    """`struct.unpack_from` that raises InvalidModel where the file ends too early."""
    need(view, offset, struct.calcsize(fmt), what)
    return struct.unpack_from(fmt, view, offset)


def u32(view: memoryview, offset: int, what: str) -> int:
    """The little-endian unsigned 32-bit number at `offset`."""
    value: int = unpack("<I", view, offset, what)[0]
    return value


def text(raw: bytes | memoryview) -> str:
    """`raw` as text. Names in damaged files hold anything: bad bytes become U+FFFD, control characters too."""
    decoded = bytes(raw).decode("utf-8", "replace")
    if decoded.isprintable():
        return decoded
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in decoded)


def c_text(view: memoryview, offset: int, size: int, what: str) -> str:
    """NUL-padded text in a fixed field of `size` bytes."""
    need(view, offset, size, what)
    return text(bytes(view[offset : offset + size]).split(b"\0", 1)[0])


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step
