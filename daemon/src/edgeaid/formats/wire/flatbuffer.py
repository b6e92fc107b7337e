"""Bounds-checked walking over a flatbuffer (google/flatbuffers, "FlatBuffer Internals").

No schema is compiled in: a reader asks for a slot by number and says what type it expects there. Every offset is
checked before it is followed. Tables may be shared, so a small file can describe a huge or cyclic tree: each buffer has
a budget of tables and of bytes, and walking stops with InvalidModel when it is spent.

Alignment is not checked: the processors this runs on read unaligned numbers, and old writers produced some.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from ...errors import InvalidModel
from .binary import Data, as_view, text

#: Tables visited in one buffer. Large real models have some ten thousand.
MAX_TABLES: Final = 200_000

_SCALARS: Final[dict[str, struct.Struct]] = {c: struct.Struct("<" + c) for c in "bBhHiIqQfd?"}


class Flatbuffer:
    """One buffer being walked. `what` names it in messages, for example "TFLite model"."""

    __slots__ = ("_bytes_left", "_tables_left", "_vtables", "view", "what")

    def __init__(self, data: Data, what: str) -> None:
        self.view = as_view(data)
        self.what = what
        self._tables_left = min(MAX_TABLES, 64 + len(self.view) // 4)
        # Vectors and strings may be shared between tables, so more than the file's size is legitimate, within reason.
        self._bytes_left = 65536 + 4 * len(self.view)
        self._vtables: dict[int, tuple[tuple[int, ...], int]] = {}

    def fail(self, problem: str) -> InvalidModel:
        """An error to raise where a part is not where it should be, with the buffer's name in front."""
        return InvalidModel(f"{self.what}: {problem}; the file is damaged or cut short, download or export it again")

    def contradiction(self, problem: str) -> InvalidModel:
        """An error to raise where everything is in its place and does not go together."""
        return InvalidModel(
            f"{self.what}: {problem}; the file can be read but contradicts itself, and runtimes refuse it or crash on "
            "it: export it again, with a current converter"
        )

    def spend(self, count: int) -> None:
        """Take `count` bytes off the budget."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise self.fail("parts refer to each other so often that reading would not end")

    def root(self, identifier: bytes = b"") -> Table:
        """The root table; `identifier` is the 4-byte tag expected at offset 4, if any."""
        view = self.view
        if len(view) < 8:
            raise self.fail(f"only {len(view)} bytes long")
        if identifier and bytes(view[4:8]) != identifier:
            raise self.fail(f"identifier {bytes(view[4:8])!r} at byte 4 instead of {identifier!r}")
        return self.table_at(int.from_bytes(view[:4], "little"), "root")

    def table_at(self, pos: int, where: str) -> Table:
        """The table at byte `pos`, its vtable checked."""
        self._tables_left -= 1
        if self._tables_left < 0:
            raise self.fail("too many tables, or tables that contain each other")
        size = len(self.view)
        if pos < 4 or pos + 4 > size:
            raise self.fail(f"{where}: table at byte {pos} lies outside the {size} bytes")
        vtable = pos - int.from_bytes(self.view[pos : pos + 4], "little", signed=True)
        known = self._vtables.get(vtable)
        if known is None:
            known = self._vtables[vtable] = self._vtable(vtable, where)
        fields, table_size = known
        if pos + table_size > size:
            raise self.fail(f"{where}: table at byte {pos} of {table_size} bytes runs past the end")
        return Table(self, pos, fields, table_size, where)

    def _vtable(self, pos: int, where: str) -> tuple[tuple[int, ...], int]:
        size = len(self.view)
        if pos < 0 or pos + 4 > size:
            raise self.fail(f"{where}: vtable at byte {pos} lies outside the {size} bytes")
        own, table_size = struct.unpack_from("<HH", self.view, pos)
        if own < 4 or own % 2 or pos + own > size or table_size < 4:
            raise self.fail(f"{where}: vtable at byte {pos} has impossible sizes {own} and {table_size}")
        self.spend(own)
        return struct.unpack_from(f"<{own // 2 - 2}H", self.view, pos + 4), table_size


class Table:
    """A table inside a Flatbuffer: ask for a slot and get a checked value, or the default where the slot is absent."""

    __slots__ = ("_fields", "_size", "buffer", "pos", "where")

    def __init__(self, buffer: Flatbuffer, pos: int, fields: tuple[int, ...], size: int, where: str) -> None:
        self.buffer = buffer
        self.pos = pos
        self.where = where
        self._fields = fields
        self._size = size

    def fail(self, problem: str) -> InvalidModel:
        """`Flatbuffer.fail` with this table's place in front."""
        return self.buffer.fail(f"{self.where}: {problem}")

    def contradiction(self, problem: str) -> InvalidModel:
        """`Flatbuffer.contradiction` with this table's place in front."""
        return self.buffer.contradiction(f"{self.where}: {problem}")

    def has(self, slot: int) -> bool:
        """Whether the slot is present."""
        return slot < len(self._fields) and self._fields[slot] != 0

    def _field(self, slot: int, width: int) -> int:
        """Byte position of a present field of `width` bytes, 0 when absent."""
        if slot >= len(self._fields):
            return 0
        offset = self._fields[slot]
        if not offset:
            return 0
        if offset + width > self._size:
            raise self.fail(f"slot {slot} lies outside the table")
        return self.pos + offset

    def place(self, slot: int) -> int:
        """Byte position of a present reference in the buffer, 0 when absent: for who changes a copy of it in place."""
        return self._field(slot, 4)

    def scalar(self, slot: int, kind: str, default: Any = 0) -> Any:
        """A number; `kind` is a struct letter such as "i" (i32), "I" (u32), "b" (i8), "q" (i64), "f", "?"."""
        packer = _SCALARS[kind]
        pos = self._field(slot, packer.size)
        return packer.unpack_from(self.buffer.view, pos)[0] if pos else default

    def integer(self, slot: int, kind: str = "i", default: int = 0) -> int:
        """A whole number of struct letter `kind`."""
        value: int = self.scalar(slot, kind, default)
        return value

    def _reference(self, slot: int) -> int:
        pos = self._field(slot, 4)
        if not pos:
            return 0
        view = self.buffer.view
        target = pos + int.from_bytes(view[pos : pos + 4], "little")
        if target + 4 > len(view) or target == pos:
            raise self.fail(f"slot {slot} points to byte {target}, outside the {len(view)} bytes")
        return target

    def table(self, slot: int, name: str) -> Table | None:
        """The table in `slot`; `name` is its part of the place in messages."""
        target = self._reference(slot)
        return self.buffer.table_at(target, f"{self.where}.{name}") if target else None

    def span(self, slot: int, item_size: int = 1) -> tuple[int, int]:
        """(byte position, count) of a vector or string with items of `item_size` bytes; (0, 0) when absent."""
        target = self._reference(slot)
        if not target:
            return 0, 0
        view = self.buffer.view
        count = int.from_bytes(view[target : target + 4], "little")
        if target + 4 + count * item_size > len(view):
            raise self.fail(f"slot {slot}: vector of {count} items at byte {target} runs past the end")
        return target + 4, count

    def raw(self, slot: int) -> memoryview:
        """The bytes of a [u8] vector or string, without a copy."""
        pos, count = self.span(slot)
        return self.buffer.view[pos : pos + count]

    def string(self, slot: int, default: str = "") -> str:
        """Text."""
        pos, count = self.span(slot)
        if not pos:
            return default
        self.buffer.spend(count)
        return text(self.buffer.view[pos : pos + count])

    def vector(self, slot: int, kind: str) -> tuple[Any, ...]:
        """A vector of numbers of struct letter `kind`."""
        width = _SCALARS[kind].size
        pos, count = self.span(slot, width)
        self.buffer.spend(count * width)
        return struct.unpack_from(f"<{count}{kind}", self.buffer.view, pos)

    def ints(self, slot: int, kind: str = "i") -> tuple[int, ...]:
        """A vector of whole numbers."""
        return self.vector(slot, kind)

    def _targets(self, slot: int) -> list[int]:
        pos, count = self.span(slot, 4)
        self.buffer.spend(4 * count)
        offsets = struct.unpack_from(f"<{count}I", self.buffer.view, pos)
        return [pos + 4 * i + offset for i, offset in enumerate(offsets)]

    def tables(self, slot: int, name: str) -> list[Table]:
        """A vector of tables."""
        at, place = self.buffer.table_at, f"{self.where}.{name}"
        return [at(target, f"{place}[{i}]") for i, target in enumerate(self._targets(slot))]

    def raws(self, slot: int, name: str) -> list[memoryview]:
        """A vector of strings, as bytes without a copy."""
        view, out = self.buffer.view, []
        for i, target in enumerate(self._targets(slot)):
            if target + 4 > len(view):
                raise self.fail(f"{name}[{i}] points to byte {target}, outside the {len(view)} bytes")
            count = int.from_bytes(view[target : target + 4], "little")
            if target + 4 + count > len(view):
                raise self.fail(f"{name}[{i}]: {count} bytes at byte {target} run past the end")
            out.append(view[target + 4 : target + 4 + count])
        return out
