"""A small, bounded reader of zip archives: labels at the end of a TFLite file, kfpkg files, the records of bundles.

Python's own zipfile trusts sizes and counts of the archive and imports slowly; here every offset is checked, nothing is
extracted past the caller's limit, and only stored and deflated entries are opened. PyTorch writes a zip64 end record
into every file, whatever its size. Layout: PKWARE APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel, TooLarge
from .binary import Data, as_view, need, text, unpack

#: Entries looked at in one archive.
MAX_ENTRIES: Final = 4096

_END: Final = b"PK\x05\x06"
_END_RECORD: Final = struct.Struct("<4s4H2LH")
_RECORD: Final = struct.Struct("<4s4x4H3L5H2L")
_HEADER: Final = struct.Struct("<4s2x2H4x3L2H")
_END64: Final = b"PK\x06\x06"
_LOCATOR64: Final = b"PK\x06\x07"
#: Extra fields: sizes above 4 GiB, a second name.
ZIP64: Final = 0x0001
UNICODE_PATH: Final = 0x7075
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


@dataclass(frozen=True, slots=True)
class End:
    """The record that ends an archive."""

    #: Number of this part, and of the one in which the directory begins; 0 where there is one part.
    disk: int
    first_disk: int
    #: Entries of the directory in this part, and in all.
    here: int
    count: int
    #: Bytes of the directory and where it begins.
    size: int
    offset: int
    #: Bytes of the comment behind the record.
    comment: int


@dataclass(frozen=True, slots=True)
class Record:
    """An entry of the directory as it is written; nothing of it is checked yet."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    disk: int
    #: The upper 16 bits are a Unix mode where the archive was made on one.
    attributes: int
    #: Byte position of the local header, from where the archive begins.
    header: int
    name: bytes
    extra: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A local header: what stands in front of an entry's data."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int


#: Bytes of the end record, and of a local header without name and extra fields.
END_BYTES: Final = _END_RECORD.size
HEADER_BYTES: Final = _HEADER.size
#: Bytes of an entry of the directory without name, extra fields and comment.
RECORD_BYTES: Final = _RECORD.size


def end_record(view: memoryview, at: int) -> End:
    """The end record at a byte position. InvalidModel where there is none."""
    need(view, at, _END_RECORD.size, "zip end record")
    magic, *rest = _END_RECORD.unpack_from(view, at)
    if magic != _END:
        raise InvalidModel(f"no zip end record at byte {at}; the archive is damaged")
    return End(*rest)


def record(view: memoryview, at: int, what: str) -> tuple[Record, int]:
    """The directory's entry at a byte position, and where the next one begins. InvalidModel for damage."""
    need(view, at, _RECORD.size, what)
    magic, flags, method, _, _, crc, packed, size, names, extras, comment, disk, _, attributes, header = (
        _RECORD.unpack_from(view, at)
    )
    name = at + _RECORD.size
    extra = name + names
    after = extra + extras + comment
    if magic != _CENTRAL or after > len(view):
        raise InvalidModel(f"{what} at byte {at} is damaged")
    raw = bytes(view[name:extra]), bytes(view[extra : extra + extras])
    return Record(flags, method, crc, packed, size, disk, attributes, header, *raw), after


def header(view: memoryview, at: int, what: str) -> Header:
    """The local header at a byte position. InvalidModel where there is none."""
    need(view, at, _HEADER.size, what)
    magic, flags, method, crc, packed, size, name_length, extra_length = _HEADER.unpack_from(view, at)
    if magic != _LOCAL:
        raise InvalidModel(f"{what}: no local header at byte {at}; the archive is damaged")
    return Header(flags, method, crc, packed, size, name_length, extra_length)


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of each whole extra field."""
    at = 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<HH", extra, at)
        if at + 4 + length > len(extra):
            return
        yield number, extra[at + 4 : at + 4 + length]
        at += 4 + length


def find_end(view: memoryview) -> int:
    """Byte position of the end-of-directory record, -1 where there is no archive; it lies in the last 65,557 bytes."""
    start = max(0, len(view) - 65557)
    tail = bytes(view[start:])
    at = tail.rfind(_END)
    while at >= 0:
        # The record ends with a comment whose length it states: unlike the same four bytes in weights.
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
        entry, pos = record(view[:end], pos, what)
        plain, packed, local = entry.size, entry.packed, entry.header
        if _WIDE in (plain, packed, local):
            plain, packed, local = _wide(entry.extra, (plain, packed, local), what)
        encrypted = bool(entry.flags & 1)
        listed.append(Entry(text(entry.name), plain, packed, entry.method, entry.crc, encrypted, local + shift))
    return tuple(listed)


def _directory(view: memoryview, end: int) -> tuple[int, int, int, int]:
    """(end of the directory, entries, bytes, offset), from the zip64 record where there is one."""
    last = end_record(view, end)
    count, size, offset = last.count, last.size, last.offset
    # The locator is 20 bytes, the record before it 56 as all writers make it.
    at = end - 76
    if at < 0 or bytes(view[end - 20 : end - 16]) != _LOCATOR64 or bytes(view[at : at + 4]) != _END64:
        return end, count, size, offset
    count, size, offset = unpack("<32xQQQ", view, at, "zip64 end record")
    return at, count, size, offset


def _wide(extra: bytes, values: tuple[int, int, int], what: str) -> tuple[int, int, int]:
    """Sizes and offset of an entry of more than 4 GiB, from its zip64 field (id 1)."""
    for number, field in extra_fields(extra):
        if number == ZIP64:
            given = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
            plain, packed, local = (next(given, v) if v == _WIDE else v for v in values)
            return plain, packed, local
    raise InvalidModel(f"{what} has no sizes; the archive is damaged")


def span(data: Data, entry: Entry) -> tuple[int, int]:
    """(byte position, bytes) of an entry's possibly compressed data. Raises InvalidModel when it lies outside."""
    view = as_view(data)
    what = f"zip entry {entry.name!r}"
    local = header(view, entry.offset, what)
    start = entry.offset + HEADER_BYTES + local.name_length + local.extra_length
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
