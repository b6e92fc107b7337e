"""Bundles: a model directory in one file, `<name>-<version>.edgeai`, and the reader that does not trust it.

A bundle is a zip of plain files: `model.toml` and what it names, plus `bundle.sha256` (one line `<hex>  <name>` per
other file, sorted) and, if signed, `bundle.sig` (see `Signature`). The reader reads the zip's own records, one by
one: nothing is allocated or written before every entry has been checked, nothing outside `destination`.
"""

from __future__ import annotations

import hmac
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from ..errors import InvalidModel, PermissionDenied, TooLarge, Unsupported
from .bundle_entries import DEFAULT_LIMITS, Entry, Limits, read_directory
from .digests import sha256
from .repository import DIGESTS, SIGNATURE

#: A file name with a meaning of its own, beside those in `repository`.
MANIFEST: Final = "model.toml"

_DIGEST_LINE: Final = re.compile(r"([0-9a-f]{64})  ([\x21-\x7e]{1,512})")
_PIECE: Final = 1 << 18


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
            entries = read_directory(source, limits)
        except (OSError, ValueError, OverflowError, struct.error) as error:
            raise InvalidModel(f"bundle cannot be read: {error}") from error
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
                except zlib.error as error:
                    raise InvalidModel(f"{name!r} in the bundle is damaged: {error}") from error
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
        except ImportError as error:
            raise Unsupported("checking signatures needs the Python package 'cryptography'; install it") from error
        try:
            Ed25519PublicKey.from_public_bytes(signature.public_key).verify(signature.signature, self.read(DIGESTS))
        except (InvalidSignature, ValueError) as error:
            raise InvalidModel(
                "the bundle's signature does not fit its content; it was changed after signing"
            ) from error
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
        except OSError as error:
            raise InvalidModel(f"bundle {source} cannot be read: {error.strerror}") from error
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
                digest = sha256(bundle.entries[name].size)
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
