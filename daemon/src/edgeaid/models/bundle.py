"""Bundles: a model directory in one file, `<name>-<version>.edgeai`, and the reader that does not trust it.

A bundle is a zip of plain files: `model.toml` and what it names, plus `bundle.sha256` (one line `<hex>  <name>` per
other file, sorted) and, if signed, `bundle.sig` (see `Signature`). The reader reads the zip's own records, one by
one: nothing is allocated or written before every entry has been checked, nothing outside `destination`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from ..errors import InvalidModel, PermissionDenied, TooLarge, Unsupported
from ..formats.wire import zipdir

#: File names with a meaning of their own.
MANIFEST: Final = "model.toml"
DIGESTS: Final = "bundle.sha256"
SIGNATURE: Final = "bundle.sig"

_COMPONENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")
_DIGEST_LINE: Final = re.compile(r"([0-9a-f]{64})  ([\x21-\x7e]{1,512})")
_PIECE: Final = 1 << 18
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


@dataclass(frozen=True, slots=True)
class Signature:
    """Content of `bundle.sig`: `ed25519 <public key, 64 hex> <signature over the bytes of bundle.sha256, 128 hex>`."""

    public_key: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: bytes) -> Signature:
        """Raises InvalidModel for anything but one well-formed line."""
        match = re.fullmatch(rb"ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})\n", text)
        if match is None:
            raise InvalidModel(f"{SIGNATURE} is not 'ed25519 <public key> <signature>'; sign the bundle again")
        return cls(bytes.fromhex(match[1].decode()), bytes.fromhex(match[2].decode()))

    def format(self) -> bytes:
        return f"ed25519 {self.public_key.hex()} {self.signature.hex()}\n".encode()


class Bundle:
    """An open bundle whose directory has been checked."""

    __slots__ = ("_source", "entries", "limits")

    def __init__(self, source: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        """`source` must be seekable and stay open. Raises InvalidModel or TooLarge."""
        self._source = source
        self.limits = limits
        try:
            entries = _directory(source, limits)
        except (OSError, ValueError, OverflowError, struct.error) as e:
            raise InvalidModel(f"bundle cannot be read: {e}") from e
        self.entries: dict[str, Entry] = {e.name: e for e in entries}
        if MANIFEST not in self.entries:
            raise InvalidModel(f"bundle has no {MANIFEST} at its top; make it with `edgeai model bundle DIRECTORY`")

    def pieces(self, name: str) -> Iterator[bytes]:
        """The unpacked content, in pieces of at most 256 KiB. Raises InvalidModel if size or checksum do not match."""
        entry = self.entries.get(name)
        if entry is None:
            raise InvalidModel(f"bundle has no file {name!r}")
        self._source.seek(entry.data_offset)
        left, done, crc = entry.packed, 0, 0
        engine = zlib.decompressobj(-zlib.MAX_WBITS) if entry.deflated else None
        pending = b""
        while True:
            if not pending and left:
                pending = self._source.read(min(_PIECE, left))
                if not pending:
                    raise InvalidModel(f"bundle ends inside {name!r}; copy it again")
                left -= len(pending)
            if engine is None:
                piece, pending = pending, b""
            else:
                try:
                    piece = engine.decompress(pending, _PIECE)
                except zlib.error as e:
                    raise InvalidModel(f"{name!r} in the bundle is damaged: {e}") from e
                pending = engine.unconsumed_tail
            done += len(piece)
            if done > entry.size:
                raise InvalidModel(f"{name!r} unpacks to more than the {entry.size} bytes the bundle declares")
            crc = zlib.crc32(piece, crc)
            if piece:
                yield piece
            elif not pending and not left:
                break
            if engine is not None and engine.eof and (pending or left or engine.unused_data):
                raise InvalidModel(f"{name!r} in the bundle has data after its end")
        if done != entry.size or crc != entry.crc or (engine is not None and not engine.eof):
            raise InvalidModel(f"{name!r} in the bundle is damaged (size or checksum differ); copy it again")

    def read(self, name: str, most: int = 4 << 20) -> bytes:
        """A whole small file. Raises TooLarge above `most` bytes."""
        entry = self.entries.get(name)
        if entry is not None and entry.size > most:
            raise TooLarge(f"{name!r} in the bundle has {entry.size} bytes; at most {most} are expected there")
        return b"".join(self.pieces(name))

    def digests(self) -> dict[str, str]:
        """SHA-256 in hex per file as `bundle.sha256` lists them; empty without such a file.

        Raises InvalidModel unless the list names exactly the other files.
        """
        if DIGESTS not in self.entries:
            return {}
        listed = parse_digests(self.read(DIGESTS))
        if listed.keys() != self.entries.keys() - {DIGESTS, SIGNATURE}:
            odd = sorted(listed.keys() ^ (self.entries.keys() - {DIGESTS, SIGNATURE}))
            raise InvalidModel(f"{DIGESTS} and the bundle's files differ: {', '.join(odd[:5])}")
        return listed

    def check_signature(self, trusted: Sequence[bytes]) -> bytes:
        """Check that one of the `trusted` raw ed25519 public keys signed this bundle; returns that key.

        Raises PermissionDenied if unsigned or signed by another key, InvalidModel if the signature is wrong,
        Unsupported if the cryptography package is missing. Digests of the files are checked when they are read.
        """
        if SIGNATURE not in self.entries or DIGESTS not in self.entries:
            raise PermissionDenied("bundle is not signed, and only bundles signed by a trusted key are accepted here")
        signature = Signature.parse(self.read(SIGNATURE, 1024))
        if not any(hmac.compare_digest(signature.public_key, key) for key in trusted):
            raise PermissionDenied(f"bundle is signed by {signature.public_key.hex()}, which is not a trusted key")
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as e:
            raise Unsupported("checking signatures needs the Python package 'cryptography'; install it") from e
        try:
            Ed25519PublicKey.from_public_bytes(signature.public_key).verify(signature.signature, self.read(DIGESTS))
        except (InvalidSignature, ValueError) as e:
            raise InvalidModel("the bundle's signature does not fit its content; it was changed after signing") from e
        return signature.public_key


def parse_digests(data: bytes) -> dict[str, str]:
    """SHA-256 in hex per file name of a `bundle.sha256`. InvalidModel."""
    listed: dict[str, str] = {}
    for line in data.decode("ascii", "replace").splitlines():
        match = _DIGEST_LINE.fullmatch(line)
        if match is None or match[2] in listed:
            raise InvalidModel(f"{DIGESTS} has a line that is not '<sha256>  <name>' or a name twice: {line[:80]!r}")
        listed[match[2]] = match[1]
    return listed


@contextmanager
def open_bundle(source: Path | BinaryIO, limits: Limits = DEFAULT_LIMITS) -> Iterator[Bundle]:
    """Open and check a bundle's directory. Raises InvalidModel, TooLarge; the data of the files is not read yet."""
    if isinstance(source, Path):
        try:
            stream = source.open("rb")
        except OSError as e:
            raise InvalidModel(f"bundle {source} cannot be read: {e.strerror}") from e
        with stream:
            yield Bundle(stream, limits)
    else:
        yield Bundle(source, limits)


def extract(
    source: Path | BinaryIO,
    destination: Path,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Unpack a bundle into `destination`, a directory that is empty or does not exist yet (its parent must).

    Each file is streamed, checked against `bundle.sha256` when the bundle has one, and flushed to the disk before this
    returns. Whose signature it has is another question (see `trust`). On any error what
    was written is removed again. Raises InvalidModel, TooLarge, PermissionDenied, Unsupported, OSError.
    """
    with open_bundle(source, limits) as bundle:
        digests = bundle.digests()
        created = not destination.exists()
        if created:
            destination.mkdir(mode=0o755)
        elif any(destination.iterdir()):
            raise InvalidModel(f"{destination} is not empty; unpack a bundle into a directory of its own")
        written: list[Path] = []
        try:
            directories = _make_directories(bundle, destination, written)
            for name in bundle.entries:
                target = destination / name
                digest = hashlib.sha256()
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(target, flags, 0o644), "wb", buffering=0) as file:
                    written.append(target)
                    for piece in bundle.pieces(name):
                        digest.update(piece)
                        view = memoryview(piece)
                        while view:
                            view = view[file.write(view) :]
                    os.fsync(file.fileno())
                if digests and name in digests and digests[name] != digest.hexdigest():
                    raise InvalidModel(f"{name!r} does not match its digest in {DIGESTS}; the bundle was changed")
            for directory in (*directories, destination, destination.parent):
                _fsync_directory(directory)
        except BaseException:
            for path in reversed(written):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            if created:
                destination.rmdir()
            raise


def _make_directories(bundle: Bundle, destination: Path, written: list[Path]) -> list[Path]:
    """Create the directories that the files need, outermost first."""
    names = {str(p) for name in bundle.entries for p in PurePosixPath(name).parents if str(p) != "."}
    directories = []
    for name in sorted(names):
        directory = destination / name
        directory.mkdir(mode=0o755)
        written.append(directory)
        directories.append(directory)
    return directories


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safe_name(name: str) -> bool:
    """Whether a file may be called this in a bundle: relative, plain ASCII, no dot files, at most 4 levels deep."""
    parts = name.split("/")
    return len(name) <= 512 and len(parts) <= _MAX_DEPTH + 1 and all(_COMPONENT.fullmatch(p) for p in parts)


def _directory(source: BinaryIO, limits: Limits) -> list[Entry]:
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
