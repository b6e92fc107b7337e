"""The directory of a bundle: every record of the zip is checked before any data is read or written."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from ..errors import InvalidModel, TooLarge
from ..formats.wire import zipdir

_COMPONENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")
_MAX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may cost at most."""

    #: Files, directories included.
    entries: int = 512
    #: Bytes of one unpacked file.
    file_bytes: int = 512 << 20
    #: Bytes of all unpacked files together.
    total_bytes: int = 1 << 30
    #: Unpacked bytes per packed byte of one deflated file; deflate itself ends at 1032.
    ratio: int = 400


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a bundle."""

    name: str
    #: Bytes unpacked.
    size: int
    #: Bytes in the archive.
    packed: int
    deflated: bool
    crc: int
    #: Where the data starts and the local header starts.
    data_offset: int
    header_offset: int


def safe_name(name: str) -> bool:
    """Whether a file may be called this in a bundle: relative, plain ASCII, no dot files, at most 4 levels deep."""
    parts = name.split("/")
    return len(name) <= 512 and len(parts) <= _MAX_DEPTH + 1 and all(_COMPONENT.fullmatch(p) for p in parts)


def read_directory(source: BinaryIO, limits: Limits) -> list[Entry]:
    """Read and check the central directory; the entries in archive order, directories left out."""
    end = source.seek(0, os.SEEK_END)
    if end < zipdir.END_BYTES:
        raise InvalidModel(f"bundle is only {end} bytes long; copy it again")
    source.seek(end - zipdir.END_BYTES)
    try:
        last = zipdir.end_record(memoryview(source.read(zipdir.END_BYTES)), 0)
    except InvalidModel as error:
        raise InvalidModel("bundle does not end as a zip does: cut off, with a comment, or no bundle at all") from error
    if last.comment:
        raise InvalidModel("bundle ends with a comment; make it with `edgeai model bundle DIRECTORY`")
    count, length, offset = last.count, last.size, last.offset
    if last.disk or last.first_disk or last.here != count or 0xFFFFFFFF in (length, offset) or count == 0xFFFF:
        raise InvalidModel("bundle is a multi-part or zip64 archive; make it with `edgeai model bundle DIRECTORY`")
    if count > limits.entries:
        raise TooLarge(f"bundle has {count} entries; at most {limits.entries} are accepted")
    if offset + length != end - zipdir.END_BYTES:
        raise InvalidModel("bundle has bytes before, between or after its parts; make it again")
    if length > limits.entries * (zipdir.RECORD_BYTES + 1024):
        raise TooLarge(f"the bundle's directory has {length} bytes; too many for {count} files")
    source.seek(offset)
    directory = memoryview(source.read(length))
    if len(directory) != length:
        raise InvalidModel("bundle is cut off; copy it again")
    entries: list[Entry] = []
    directories: set[str] = set()
    position = total = 0
    for _ in range(count):
        entry, position = _entry(source, directory, position, offset, limits)
        if entry.name.endswith("/"):
            directories.add(entry.name.rstrip("/"))
            continue
        total += entry.size
        if total > limits.total_bytes:
            raise TooLarge(f"bundle unpacks to more than {limits.total_bytes} bytes")
        entries.append(entry)
    if position != length:
        raise InvalidModel("the bundle's directory has bytes after its last entry; make it again")
    _no_overlaps(entries)
    _no_duplicates(entries, directories)
    return entries


def _entry(source: BinaryIO, directory: memoryview, at: int, end: int, limits: Limits) -> tuple[Entry, int]:
    """Check the entry at `at` and the local header it points to; the entry and where the next one starts."""
    record, after = zipdir.record(directory, at, "the bundle's directory")
    if record.disk:
        raise InvalidModel("the bundle's directory is damaged; copy it again")
    name = record.name.decode("ascii", "replace")
    if not safe_name(name.removesuffix("/")):
        raise InvalidModel(f"bundle holds a file called {name[:80]!r}; only plain relative names are accepted")
    # Encrypted, patched, with sizes after the data, masked: nothing that a bundle needs. Bit 11 is "name is UTF-8".
    if record.flags & ~0x0806:
        raise InvalidModel(
            f"{name!r} in the bundle is encrypted or streamed (flags {record.flags:#x}); make the bundle again"
        )
    if record.method not in (0, 8):
        raise InvalidModel(
            f"{name!r} in the bundle is packed by method {record.method}; only stored and deflated are accepted"
        )
    kind = stat.S_IFMT(record.attributes >> 16)
    is_directory = name.endswith("/")
    if kind not in (0, stat.S_IFDIR if is_directory else stat.S_IFREG):
        raise InvalidModel(f"{name!r} in the bundle is not a plain file (a link or a device)")
    _check_extra(name, record.extra)
    size, packed = record.size, record.packed
    if size > limits.file_bytes:
        raise TooLarge(f"{name!r} in the bundle has {size} bytes; at most {limits.file_bytes} are accepted")
    if (record.method == 0 and packed != size) or (is_directory and (size or packed > 2)):
        raise InvalidModel(f"{name!r} in the bundle declares sizes that contradict each other")
    if size > 65536 and size > packed * limits.ratio:
        raise TooLarge(f"{name!r} in the bundle is packed {size // max(1, packed)} times; at most {limits.ratio}")
    data = _data(source, record, name, end)
    return Entry(name, size, packed, record.method == 8, record.crc, data, record.header), after


def _data(source: BinaryIO, record: zipdir.Record, name: str, end: int) -> int:
    """Check that the local header says the same as the directory; where the data starts."""
    if record.header + zipdir.HEADER_BYTES > end:
        raise InvalidModel(f"{name!r} in the bundle lies outside of it")
    source.seek(record.header)
    local = zipdir.header(memoryview(source.read(zipdir.HEADER_BYTES)), 0, f"{name!r} in the bundle")
    said = (local.flags, local.method, local.crc, local.packed, local.size)
    listed = (record.flags, record.method, record.crc, record.packed, record.size)
    if said != listed or source.read(local.name_length) != record.name:
        raise InvalidModel(f"directory and content of the bundle disagree on {name!r}")
    start = record.header + zipdir.HEADER_BYTES + local.name_length + local.extra_length
    if start + record.packed > end:
        raise InvalidModel(f"{name!r} in the bundle lies outside of it")
    return start


def _check_extra(name: str, extra: bytes) -> None:
    """Refuse fields that change what a name or a size means; a bundle has no use for them."""
    fields = list(zipdir.extra_fields(extra))
    if any(number in (zipdir.ZIP64, zipdir.UNICODE_PATH) for number, _ in fields):
        raise InvalidModel(f"{name!r} in the bundle uses zip64 or a second name; make the bundle again")
    if sum(4 + len(content) for _, content in fields) != len(extra):
        raise InvalidModel(f"{name!r} in the bundle has a damaged extra field; make the bundle again")


def _no_overlaps(entries: Sequence[Entry]) -> None:
    ordered = sorted(entries, key=lambda e: e.header_offset)
    for left, right in pairwise(ordered):
        if left.data_offset + left.packed > right.header_offset:
            raise InvalidModel(
                f"{left.name!r} and {right.name!r} share bytes of the bundle; this is an attack or damage"
            )


def _no_duplicates(entries: Sequence[Entry], directories: set[str]) -> None:
    names = [e.name for e in entries]
    if len(set(names)) != len(names):
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise InvalidModel(f"{twice!r} is twice in the bundle")
    parents = directories | {str(p) for n in names for p in PurePosixPath(n).parents}
    clash = sorted(parents & set(names))
    if clash:
        raise InvalidModel(f"{clash[0]!r} is a file and a directory in the bundle")
