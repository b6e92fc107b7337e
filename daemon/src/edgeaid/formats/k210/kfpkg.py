"""kfpkg: what kflash writes to a K210 board: a zip with `flash-list.json` and the files it names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidModel
from ..finding import REFUSED, WARNING, Finding
from ..wire import zipdir
from ..wire.binary import Data, as_view

LIST: Final = "flash-list.json"
#: Bytes of flash on the boards in use.
FLASH: Final = 16 * 1024 * 1024
MAX_LIST_BYTES: Final = 65536
MAX_FILES: Final = 256
#: Addresses are often bare hexadecimal numbers, which JSON does not know.
_BARE_HEX: Final = re.compile(r'("address"\s*:\s*)(0[xX][0-9a-fA-F]{1,16})')


@dataclass(frozen=True, slots=True)
class FlashFile:
    """One file and where it goes."""

    address: int
    name: str
    #: Whether length, SHA-256 and an encryption flag are written around it (firmware); models go raw.
    sha256_prefix: bool
    #: Bytes; None when the archive does not hold the file.
    size: int | None
    #: Kind of model, a key of detect.KINDS; "unknown" for firmware and other data.
    kind: str


@dataclass(frozen=True, slots=True)
class Kfpkg:
    """A flash package."""

    version: str
    files: tuple[FlashFile, ...]


def read(data: Data) -> Kfpkg:
    """Read the list and look at each file's first bytes. Raises InvalidModel, TooLarge."""
    view = as_view(data)
    entries = {entry.name: entry for entry in zipdir.entries(view)}
    if LIST not in entries:
        raise InvalidModel(f"no {LIST} in the archive; this is not a kfpkg")
    listing = _parse(zipdir.read(view, entries[LIST], MAX_LIST_BYTES))
    files = listing.get("files")
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise InvalidModel(f"{LIST}: `files` is not a list of at most {MAX_FILES} files")
    kinds: dict[str, str] = {}
    return Kfpkg(str(listing.get("version", "")), tuple(_file(view, item, entries, kinds) for item in files))


def check(package: Kfpkg) -> tuple[Finding, ...]:
    """Findings about missing, overlapping and misplaced files."""
    findings = []
    end, previous = 0, ""
    for file in sorted(package.files, key=lambda f: f.address):
        if file.size is None:
            findings.append(Finding(REFUSED, "missing", f"{file.name!r} is listed but not in the archive"))
            continue
        if file.address < end:
            text = f"{file.name!r} at {file.address:#x} overlaps {previous!r}, which ends at {end:#x}"
            findings.append(Finding(REFUSED, "overlap", text))
        # With a prefix: 5 bytes in front, 32 behind.
        end, previous = file.address + file.size + (37 if file.sha256_prefix else 0), file.name
        if end > FLASH:
            text = f"{file.name!r} ends at {end:#x}, behind the {FLASH} bytes of flash"
            findings.append(Finding(WARNING, "flash-size", text))
        if file.kind.startswith("kmodel") and file.sha256_prefix:
            text = f"{file.name!r} is a model but is written with a firmware prefix; set sha256Prefix to false"
            findings.append(Finding(WARNING, "prefix", text))
        if file.address % 4096:
            text = f"{file.name!r} starts at {file.address:#x}, not at a multiple of 4096: erasing hits its neighbour"
            findings.append(Finding(WARNING, "alignment", text))
    return tuple(findings)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        listing = json.loads(_BARE_HEX.sub(r'\1"\2"', raw.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{LIST} is not JSON: {error}") from None
    if not isinstance(listing, dict):
        raise InvalidModel(f"{LIST} is not a JSON object")
    return listing


def _file(view: memoryview, item: Any, entries: dict[str, zipdir.Entry], kinds: dict[str, str]) -> FlashFile:
    from ..detect import detect

    if not isinstance(item, dict) or not isinstance(item.get("bin"), str):
        raise InvalidModel(f"{LIST}: a file has no `bin` name")
    name, address = item["bin"], item.get("address")
    if isinstance(address, str):
        try:
            address = int(address, 0) if len(address) <= 32 else None
        except ValueError:
            address = None
    if not isinstance(address, int) or isinstance(address, bool) or not 0 <= address < 1 << 32:
        raise InvalidModel(f"{LIST}: {name!r} has no usable address")
    entry = entries.get(name)
    kind = "unknown"
    if entry is not None and name in kinds:
        kind = kinds[name]
    elif entry is not None and sum(entries[n].size for n in kinds) + entry.size <= FLASH:
        kind = kinds[name] = detect(zipdir.read(view, entry, FLASH))
    return FlashFile(address, name, bool(item.get("sha256Prefix", False)), entry.size if entry else None, kind)
