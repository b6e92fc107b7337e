"""A bounds-checked reader of protobuf wire format (protobuf.dev, "Encoding"): ONNX, TensorFlow and Caffe files.

No schema: callers ask for field numbers. Large payloads come back as views, never copies. Groups (wire types 3 and 4)
are refused: none of these formats uses them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from ...errors import InvalidModel
from .binary import Data, as_view, text

#: Fields visited in one file. A GraphDef with 10,000 nodes has some 500,000.
MAX_FIELDS: Final = 3_000_000

#: Fields visited to see which kind of file it is: other files than those look like endless small fields.
MAX_GUESSED: Final = 100_000

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

#: (field number, wire type, number or bytes)
Field = tuple[int, int, int | memoryview]


class Wire:
    """One file being read. `what` names it in messages; the number of fields visited is limited."""

    __slots__ = ("_left", "view", "what")

    def __init__(self, data: Data, what: str, limit: int = MAX_FIELDS) -> None:
        self.view = as_view(data)
        self.what = what
        # Every field takes two bytes or more and is visited once per level of nesting that is looked at.
        self._left = min(limit, 1024 + 4 * len(self.view))

    def fail(self, problem: str) -> InvalidModel:
        """An error to raise."""
        return InvalidModel(f"{self.what}: {problem}; the file is damaged or of another kind")

    def fields(self, message: memoryview | None = None) -> Iterator[Field]:
        """Fields of `message` (default: the whole file) in file order."""
        view = self.view if message is None else message
        pos, end = 0, len(view)
        while pos < end:
            self._left -= 1
            if self._left < 0:
                raise self.fail("too many fields")
            key = view[pos]
            pos += 1
            if key & 0x80:
                key, pos = self._varint(view, pos - 1)
            number, kind = key >> 3, key & 7
            if not number:
                raise self.fail(f"field number 0 at byte {pos - 1} of a message")
            if kind == VARINT:
                value, pos = self._varint(view, pos)
                yield number, kind, value
            elif kind == BYTES:
                size, pos = self._varint(view, pos)
                if pos + size > end:
                    raise self.fail(f"field {number} of {size} bytes runs past its message")
                yield number, kind, view[pos : pos + size]
                pos += size
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
                if pos + size > end:
                    raise self.fail(f"field {number} runs past its message")
                yield number, kind, int.from_bytes(view[pos : pos + size], "little")
                pos += size
            else:
                raise self.fail(f"field {number} has the unused wire type {kind}")

    def _varint(self, view: memoryview, pos: int) -> tuple[int, int]:
        value = shift = 0
        for byte in view[pos : pos + 10]:
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, pos
            shift += 7
        raise self.fail(f"number at byte {pos} of a message does not end")

    def varints(self, packed: memoryview) -> list[int]:
        """The numbers of a packed field, as unsigned 64-bit."""
        values, pos = [], 0
        while pos < len(packed):
            self._left -= 1
            if self._left < 0:
                raise self.fail("too many numbers")
            value, pos = self._varint(packed, pos)
            values.append(value)
        return values

    def varints_at(self, view: memoryview, pos: int, count: int) -> tuple[list[int], int]:
        """`count` numbers that follow each other from `pos`, and the position behind them."""
        values = []
        self._left -= 1
        if self._left < 0:
            raise self.fail("too many entries")
        for _ in range(count):
            value, pos = self._varint(view, pos)
            values.append(value)
        return values, pos

    def ints(self, value: int | memoryview) -> list[int]:
        """A repeated whole number as signed 64-bit: one item unpacked, all of them packed."""
        raw = [value] if isinstance(value, int) else self.varints(value)
        return [signed(v) for v in raw]


def signed(value: int) -> int:
    """A varint's unsigned 64 bits as the signed number they stand for."""
    return value - (1 << 64) if value >> 63 else value


def string(value: int | memoryview) -> str:
    """A length-delimited field as text; "" for other wire types."""
    return "" if isinstance(value, int) else text(value)


_OP_NAME: Final = re.compile(rb"[A-Za-z0-9_>./:-]{1,200}\Z")


def _first(wire: Wire, message: memoryview, number: int) -> memoryview | None:
    for field, _, value in wire.fields(message):
        if field == number and not isinstance(value, int):
            return value
    return None


def _is_node(wire: Wire, message: memoryview | None) -> bool:
    """Whether a message looks like TensorFlow's NodeDef: 1 name, 2 operator."""
    if message is None:
        return False
    operator = _first(wire, message, 2)
    return _first(wire, message, 1) is not None and operator is not None and bool(_OP_NAME.match(operator))


def guess(data: Data) -> str:
    """Which protobuf-based model this is (a kind of detect.KINDS), "" when none fits. Never raises."""
    wire = Wire(data, "file", MAX_GUESSED)
    if not wire.view:
        return ""
    seen: Counter[tuple[int, int]] = Counter()
    first: dict[int, memoryview] = {}
    try:
        for number, kind, value in wire.fields():
            seen[number, kind] += 1
            if not isinstance(value, int):
                first.setdefault(number, value)
        keys = set(seen)
        if (1, VARINT) in keys and (7, BYTES) in keys:
            return "onnx"
        if keys == {(1, VARINT), (2, BYTES)} and _first(wire, first[2], 2) is not None:
            return "tf-savedmodel"
        if (
            (1, BYTES) in keys
            and keys <= {(1, BYTES), (2, BYTES), (3, VARINT), (4, BYTES)}
            and _is_node(wire, first[1])
        ):
            return "tf-graphdef"
        if (2, BYTES) in keys and seen[1, BYTES] == 1:
            node = _first(wire, first[2], 1)
            if all(number <= 7 and kind == BYTES for number, kind in keys) and _is_node(wire, node):
                return "tf-metagraph"
        if (100, BYTES) in keys or (
            (2, BYTES) in keys and seen[1, BYTES] == 1 and _first(wire, first[2], 4) is not None
        ):
            return "caffemodel"
    except InvalidModel:
        return ""
    return ""
