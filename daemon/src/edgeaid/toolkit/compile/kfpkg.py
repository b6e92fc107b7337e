"""kfpkg: the zip that kflash writes to a K210 board's flash, file by file at addresses of its own.

kflash writes a plain file to address 0 only, with a firmware prefix; a model elsewhere must be in a kfpkg with
sha256Prefix false. Reading without unpacking is in formats.kfpkg; this module writes, and takes files out.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import AlreadyExists, InvalidModel, InvalidRequest, NotFound
from ...formats.detect import detect
from ...formats.finding import REFUSED, Finding
from ...formats.k210 import kfpkg
from ...formats.wire import zipdir

#: Where the firmware goes, and where M5StickV's own firmware expects a model.
FIRMWARE: Final = 0x0
MODEL: Final = 0x500000
#: kflash erases in blocks of this many bytes.
SECTOR: Final = 4096
#: The file system begins here on a 16 MB board with MaixPy; models must end before it.
SPIFFS: Final = 0xD00000
#: Fixed time stamp, so that the same input gives the same bytes.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a package."""

    #: Byte address in flash, a multiple of SECTOR.
    address: int
    #: Name inside the archive.
    name: str
    data: bytes
    #: True for firmware at address 0: kflash then writes length, data and SHA-256.
    sha256_prefix: bool


def build(parts: Mapping[int, Path | tuple[str, bytes]]) -> tuple[bytes, tuple[Finding, ...]]:
    """The bytes of a kfpkg for {address: file}, and warnings.

    A file is a path, or a (name, bytes) pair. At address 0, what is not a model is firmware and gets the prefix.
    Raises NotFound for a missing file, InvalidRequest for addresses that cannot be, InvalidModel for parts that
    overlap or do not fit into flash.
    """
    if not parts:
        raise InvalidRequest("a kfpkg needs at least one file; give address=file")
    made = [_part(address, source) for address, source in sorted(parts.items())]
    names = [part.name for part in made]
    if len(set(names)) != len(names):
        raise InvalidRequest(f"two files of a kfpkg have the same name ({', '.join(names)}); rename one")
    listing = {
        "version": "0.1.0",
        "files": [{"address": p.address, "bin": p.name, "sha256Prefix": p.sha256_prefix} for p in made],
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [(kfpkg.LIST, json.dumps(listing, indent=2).encode()), *((p.name, p.data) for p in made)]:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    packed = out.getvalue()
    findings = (*kfpkg.check(kfpkg.read(packed)), *_warnings(made))
    for finding in findings:
        if finding.severity == REFUSED:
            raise InvalidModel(f"kfpkg: {finding.text}")
    return packed, findings


def write(target: Path, parts: Mapping[int, Path | tuple[str, bytes]], *, replace: bool = False) -> tuple[Finding, ...]:
    """Write a kfpkg; warnings. Raises as `build`; AlreadyExists when `target` is there already."""
    packed, findings = build(parts)
    try:
        with target.open("wb" if replace else "xb") as file:
            file.write(packed)
    except FileExistsError:
        raise AlreadyExists(f"{target} exists; remove it or write elsewhere") from None
    except FileNotFoundError:
        raise NotFound(f"directory {target.parent} does not exist") from None
    return findings


def read(data: bytes) -> tuple[Part, ...]:
    """All parts of a package, in address order. Raises InvalidModel for damage or a listed file that is missing."""
    package = kfpkg.read(data)
    view = memoryview(data)
    entries = {entry.name: entry for entry in zipdir.entries(view)}
    parts = []
    for file in sorted(package.files, key=lambda f: f.address):
        if file.name not in entries:
            raise InvalidModel(f"kfpkg: {file.name!r} is listed but not in the archive")
        content = bytes(zipdir.read(view, entries[file.name], kfpkg.FLASH))
        parts.append(Part(file.address, file.name, content, file.sha256_prefix))
    return tuple(parts)


def _part(address: int, source: Path | tuple[str, bytes]) -> Part:
    if address % SECTOR or not 0 <= address < kfpkg.FLASH:
        raise InvalidRequest(
            f"address {address:#x} is not a multiple of {SECTOR} below {kfpkg.FLASH:#x}; try {MODEL:#x} for a model"
        )
    if isinstance(source, Path):
        try:
            name, data = source.name, source.read_bytes()
        except OSError as error:
            raise NotFound(f"{source}: {error.strerror}") from None
    else:
        name, data = source
    if not data or "/" in name or not name or name == kfpkg.LIST:
        raise InvalidRequest(f"{name!r} ({len(data)} bytes) cannot be a part of a kfpkg")
    return Part(address, name, data, address == FIRMWARE and not detect(data).startswith("kmodel"))


def _warnings(parts: list[Part]) -> list[Finding]:
    warnings = []
    for part in parts:
        end = part.address + len(part.data)
        if part.address < SPIFFS < end:
            text = f"{part.name!r} ends at {end:#x}, inside MaixPy's file system at {SPIFFS:#x}: it will be formatted"
            warnings.append(Finding("warning", "file-system", text))
        if part.address == FIRMWARE and detect(part.data).startswith("kmodel"):
            text = f"{part.name!r} is a model at address 0, where the firmware belongs; the board will not start"
            warnings.append(Finding("warning", "firmware", text))
    return warnings
