"""Names and sizes in a tar archive, under limits; nothing is extracted. POSIX ustar, pax and GNU by `tarfile`."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel
from .binary import Data, as_view

MAX_ENTRIES: Final = 65536
#: Bytes of a name; Linux takes paths up to 4096.
MAX_NAME: Final = 4096


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A file, directory or link of the archive."""

    name: str
    size: int
    #: "0" file, "5" directory, "2" symbolic link, other: tarfile's types.
    kind: str
    #: Byte position of its data.
    offset: int


def entries(data: Data) -> tuple[TarEntry, ...]:
    """All entries, extended headers applied. Raises InvalidModel for damage and beyond the limits."""
    view = as_view(data)
    members: list[TarEntry] = []
    try:
        # "r:": uncompressed only. Sparse files would be read as they unpack, so their size is not the archive's.
        with tarfile.open(fileobj=io.BytesIO(view), mode="r:") as archive:
            while (member := archive.next()) is not None:
                if len(members) >= MAX_ENTRIES:
                    raise InvalidModel(f"tar archive: more than {MAX_ENTRIES} entries")
                if len(member.name) > MAX_NAME:
                    raise InvalidModel(f"tar archive: a name of {len(member.name)} characters, at most {MAX_NAME}")
                size = member.size if member.isfile() and not member.issparse() else 0
                if not 0 <= size <= len(view) - member.offset_data:
                    raise InvalidModel(
                        f"tar archive: {member.name[:100]!r} of {size} bytes runs past the end; it is cut off"
                    )
                kind = "0" if member.isfile() else member.type.decode("latin-1")
                members.append(TarEntry(member.name, size, kind, member.offset_data))
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InvalidModel(f"tar archive: {error}; the file is damaged") from error
    return tuple(members)
