"""FlexBuffers: the schema-less sister of flatbuffers, used for options of custom operators.

Layout: google/flatbuffers, "FlexBuffers" internals; the part the Edge TPU compiler uses was compared with real files.
Values may be shared, so depth and number of decoded values are limited.
"""

from __future__ import annotations

import struct
from typing import Final

from ...errors import InvalidModel
from .binary import Data, as_view, text

#: Values decoded from one buffer.
MAX_VALUES: Final = 100_000
#: Nesting of maps and vectors.
MAX_DEPTH: Final = 16

#: Text and blobs come back as views, without a copy.
Value = int | float | memoryview | list["Value"] | dict[str, "Value"] | None

_FLOATS: Final = {2: "<e", 4: "<f", 8: "<d"}
#: Typed vectors: packed type -> element type (int, uint, float, key, string).
_TYPED: Final = {11: 1, 12: 2, 13: 3, 14: 4, 15: 5, 36: 26}


class _Reader:
    """One buffer being decoded; carries the budget."""

    __slots__ = ("left", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.left = min(MAX_VALUES, 16 + 8 * len(view))

    def fail(self, problem: str) -> InvalidModel:
        return InvalidModel(f"FlexBuffer: {problem}; the custom options are damaged")

    def uint(self, pos: int, width: int) -> int:
        if pos < 0 or pos + width > len(self.view):
            raise self.fail(f"number at byte {pos} lies outside the {len(self.view)} bytes")
        return int.from_bytes(self.view[pos : pos + width], "little")

    def follow(self, pos: int, width: int) -> int:
        """Position that the offset stored at `pos` points back to."""
        target = pos - self.uint(pos, width)
        if target < 0:
            raise self.fail(f"offset at byte {pos} points to byte {target}")
        return target

    def key(self, pos: int) -> str:
        raw = bytes(self.view[pos : pos + 256])
        end = raw.find(b"\0")
        if end < 0:
            raise self.fail(f"key at byte {pos} does not end")
        return text(raw[:end])

    def value(self, pos: int, parent: int, packed: int, depth: int) -> Value:
        """The value stored at `pos` in `parent` bytes, of packed type `packed`."""
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise self.fail("too many or too deeply nested values")
        kind, width = packed >> 2, 1 << (packed & 3)
        if kind == 0:
            return None
        if kind in (1, 2, 26):
            number = self.uint(pos, parent)
            return number - (1 << 8 * parent) if kind == 1 and number >> (8 * parent - 1) else number
        if kind == 3:
            self.uint(pos, parent)
            if parent not in _FLOATS:
                raise self.fail(f"float of {parent} byte")
            number_f: float = struct.unpack_from(_FLOATS[parent], self.view, pos)[0]
            return number_f
        target = self.follow(pos, parent)
        if kind == 4:
            key = self.key(target)
            return self.view[target : target + len(key.encode())]
        if kind in (5, 25):
            size = self.uint(target - width, width)
            if target + size > len(self.view):
                raise self.fail(f"{size} bytes of text at byte {target} run past the end")
            return self.view[target : target + size]
        if kind in (6, 7, 8):
            return self.value(target, width, (kind - 5) << 2, depth + 1)
        if kind == 9:
            return self.map(target, width, depth)
        if kind == 10:
            size = self._length(target, width, width + 1)
            types = target + size * width
            return [self.value(target + i * width, width, self.view[types + i], depth + 1) for i in range(size)]
        if kind in _TYPED:
            size = self._length(target, width, width)
            element = _TYPED[kind] << 2
            return [self.value(target + i * width, width, element, depth + 1) for i in range(size)]
        if 16 <= kind <= 24:
            size, element = 2 + (kind - 16) // 3, (1 + (kind - 16) % 3) << 2
            return [self.value(target + i * width, width, element, depth + 1) for i in range(size)]
        raise self.fail(f"unknown type {kind}")

    def _length(self, target: int, width: int, per_item: int) -> int:
        size = self.uint(target - width, width)
        if size > self.left or target + size * per_item > len(self.view):
            raise self.fail(f"vector of {size} items at byte {target} runs past the end")
        return size

    def map(self, target: int, width: int, depth: int) -> dict[str, Value]:
        size = self._length(target, width, width + 1)
        key_width = self.uint(target - 2 * width, width)
        if key_width not in (1, 2, 4, 8):
            raise self.fail(f"map with keys of {key_width} bytes")
        keys = self.follow(target - 3 * width, width)
        if self.uint(keys - key_width, key_width) != size:
            raise self.fail("map with different numbers of keys and values")
        types = target + size * width
        values: dict[str, Value] = {}
        for i in range(size):
            name = self.key(self.follow(keys + i * key_width, key_width))
            values[name] = self.value(target + i * width, width, self.view[types + i], depth + 1)
        return values


def decode(data: Data) -> Value:
    """The root value. Raises InvalidModel for anything outside the buffer or beyond the limits."""
    view = as_view(data)
    reader = _Reader(view)
    if len(view) < 3:
        raise reader.fail(f"only {len(view)} bytes long")
    width = view[-1]
    if width not in (1, 2, 4, 8):
        raise reader.fail(f"root of {width} bytes")
    return reader.value(len(view) - 2 - width, width, view[-2], 0)
