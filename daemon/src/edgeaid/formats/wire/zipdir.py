"""A small, bounded reader of zip archives: labels at the end of a TFLite file, kfpkg files, bundles.

Python's own zipfile trusts sizes and counts of the archive and imports slowly; here every offset is checked, nothing is
extracted past the caller's limit, and only stored and deflated entries are opened. PyTorch writes a zip64 end record
into every file, whatever its size. Layout: PKWARE APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel, TooLarge
from .binary import Data, as_view, need, text, unpack

#: Entries looked at in one archive.
MAX_ENTRIES: Final = 4096

_END: Final = b"PK\x05\x06"
_END64: Final = b"PK\x06\x06"
_LOCATOR64: Final = b"PK\x06\x07"
#: Stands for a number that is in the zip64 field.
_WIDE: Final = 0xFFFFFFFF
_CENTRAL: Final = b"PK\x01\x02"
_LOCAL: Final = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive."""

    name: str
    #: Sizes in bytes as the directory states them.
    size: int
    compressed: int
    #: 0 stored, 8 deflated; others cannot be opened here.
    method: int
    crc: int
    encrypted: bool
    #: Byte position of the local header in the file.
    offset: int


def find_end(view: memoryview) -> int:
    """Byte position of the end-of-directory record, -1 where there is no archive; it lies in the last 65,557 bytes."""
    start = max(0, len(view) - 65557)
    tail = bytes(view[start:])
    at = tail.rfind(_END)
    while at >= 0:
        # The record ends with a comment whose length it states: this tells it from the same four bytes in weights.
        if at + 22 <= len(tail) and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            return start + at
        at = tail.rfind(_END, 0, at)
    return -1


def entries(data: Data) -> tuple[Entry, ...]:
    """The directory of the archive at the end of `data`; () when there is none. Raises InvalidModel for damage."""
    view = as_view(data)
    end = find_end(view)
    if end < 0:
        return ()
    end, count, size, offset = _directory(view, end)
    # Bytes in front of the archive (the model) shift all offsets by the same amount.
    shift = end - size - offset
    pos = end - size
    if pos < 0 or shift < 0 or count > MAX_ENTRIES:
        raise InvalidModel(f"zip directory of {count} entries, {size} bytes, does not fit in the file; it is damaged")
    listed = []
    for i in range(count):
        what = f"zip directory entry {i}"
        need(view, pos, 46, what)
        (flags, method, crc, packed, plain, name_len, extra_len, comment_len, local) = struct.unpack_from(
            "<8xHH4xIIIHHH8xI", view, pos
        )
        if bytes(view[pos : pos + 4]) != _CENTRAL or pos + 46 + name_len > end:
            raise InvalidModel(f"{what} at byte {pos} is damaged")
        name = text(view[pos + 46 : pos + 46 + name_len])
        if _WIDE in (plain, packed, local):
            extra = view[pos + 46 + name_len : pos + 46 + name_len + extra_len]
            plain, packed, local = _wide(extra, (plain, packed, local), what)
        listed.append(Entry(name, plain, packed, method, crc, bool(flags & 1), local + shift))
        pos += 46 + name_len + extra_len + comment_len
    return tuple(listed)


def _directory(view: memoryview, end: int) -> tuple[int, int, int, int]:
    """(end of the directory, entries, bytes, offset), from the zip64 record where there is one."""
    count, size, offset = unpack("<10xHII2x", view, end, "zip end record")
    # The locator is 20 bytes, the record before it 56 as everybody writes it.
    at = end - 76
    if at < 0 or bytes(view[end - 20 : end - 16]) != _LOCATOR64 or bytes(view[at : at + 4]) != _END64:
        return end, count, size, offset
    count, size, offset = unpack("<32xQQQ", view, at, "zip64 end record")
    return at, count, size, offset


def _wide(extra: memoryview, values: tuple[int, int, int], what: str) -> tuple[int, int, int]:
    """Sizes and offset of an entry of more than 4 GiB, from its zip64 field (id 1)."""
    at = 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<HH", extra, at)
        if number == 1:
            field = extra[at + 4 : at + 4 + length]
            given = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
            plain, packed, local = (next(given, v) if v == _WIDE else v for v in values)
            return plain, packed, local
        at += 4 + length
    raise InvalidModel(f"{what} has no sizes; the archive is damaged")


def span(data: Data, entry: Entry) -> tuple[int, int]:
    """(byte position, bytes) of an entry's possibly compressed data. Raises InvalidModel when it lies outside."""
    view = as_view(data)
    what = f"zip entry {entry.name!r}"
    name_len, extra_len = unpack("<26xHH", view, entry.offset, what)
    if bytes(view[entry.offset : entry.offset + 4]) != _LOCAL:
        raise InvalidModel(f"{what}: no local header at byte {entry.offset}; the archive is damaged")
    start = entry.offset + 30 + name_len + extra_len
    need(view, start, entry.compressed, what)
    return start, entry.compressed


def read(data: Data, entry: Entry, limit: int) -> bytes:
    """The entry's content. Raises TooLarge above `limit` bytes, InvalidModel for damage or another compression."""
    view = as_view(data)
    what = f"zip entry {entry.name!r}"
    if entry.size > limit:
        raise TooLarge(f"{what} has {entry.size} bytes, more than the {limit} accepted")
    start, size = span(view, entry)
    packed = view[start : start + size]
    if entry.encrypted or entry.method not in (0, 8):
        raise InvalidModel(f"{what} is encrypted or compressed by method {entry.method}; store or deflate it")
    if entry.method == 0:
        content = bytes(packed[: limit + 1])
    else:
        try:
            content = zlib.decompressobj(-15).decompress(packed, limit + 1)
        except zlib.error as error:
            raise InvalidModel(f"{what} cannot be unpacked ({error}); the archive is damaged") from None
    if len(content) != entry.size or zlib.crc32(content) != entry.crc:
        raise InvalidModel(f"{what}: size or checksum differ from the directory's; the archive is damaged")
    return content
