"""Names and sizes in a tar archive, under limits; nothing is extracted. Layout: POSIX ustar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel
from .binary import Data, as_view, round_up, text

MAX_ENTRIES: Final = 65536


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A file or folder of the archive."""

    name: str
    size: int
    #: "0" file, "5" folder, "2" symbolic link, "x" and "g" extended headers.
    kind: str
    #: Byte position of its data.
    offset: int


def entries(data: Data) -> tuple[TarEntry, ...]:
    """All entries. Raises InvalidModel for damage."""
    view = as_view(data)
    found: list[TarEntry] = []
    pos = 0
    while pos + 512 <= len(view):
        header = bytes(view[pos : pos + 512])
        if not any(header):
            break
        stated = _octal(header[148:156], pos)
        if sum(header) - sum(header[148:156]) + 8 * 0x20 != stated:
            raise InvalidModel(f"tar archive: the header at byte {pos} has a wrong checksum; the file is damaged")
        size = _octal(header[124:136], pos)
        if pos + 512 + size > len(view):
            raise InvalidModel(f"tar archive: an entry of {size} bytes at byte {pos} runs past the end; it is cut off")
        name = text(header[:100].split(b"\0", 1)[0])
        prefix = text(header[345:500].split(b"\0", 1)[0]) if header[257:262] == b"ustar" else ""
        found.append(TarEntry(f"{prefix}/{name}" if prefix else name, size, chr(header[156] or 48), pos + 512))
        if len(found) > MAX_ENTRIES:
            raise InvalidModel(f"tar archive: more than {MAX_ENTRIES} entries")
        pos += 512 + round_up(size, 512)
    return tuple(found)


def _octal(field: bytes, pos: int) -> int:
    digits = field.strip(b" \0")
    if not digits or any(d not in b"01234567" for d in digits):
        raise InvalidModel(
            f"tar archive: {field!r} in the header at byte {pos} is no octal number; the file is damaged"
        )
    return int(digits, 8)
