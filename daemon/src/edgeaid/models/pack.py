"""Writing bundles: a model directory as one reproducible archive, signed on request.

The archive's bytes depend on the files' names and contents only: entries sorted by name, time 1980-01-01, mode 0644,
deflated at level 9. The reader is `bundle`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from ..errors import CannotWrite, InvalidModel, NotFound, TooLarge, Unsupported
from .bundle import MANIFEST, Signature, open_bundle
from .bundle_entries import DEFAULT_LIMITS, Limits, safe_name
from .manifest import MAX_BYTES, VERSION, Manifest, parse
from .repository import DIGESTS, SIGNATURE

SUFFIX: Final = ".edgeai"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def collect(directory: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of a model directory and the files that belong into its bundle, digests checked.

    Only what the manifest names is taken, plus the whole directory where an artifact is one (SavedModel).
    """
    contents = {MANIFEST: _manifest_bytes(directory)}
    manifest = parse(contents[MANIFEST])
    digests = {a.file: a.sha256 for a in manifest.artifacts}
    total = 0
    for name in manifest.files:
        for member in _members(directory, name):
            path = directory / member
            if path.is_symlink() or not path.is_file():
                raise InvalidModel(f"{path} is named in {MANIFEST} but is not a plain file; copy the file there")
            total += path.stat().st_size
            if path.stat().st_size > limits.file_bytes or total > limits.total_bytes:
                raise TooLarge(f"{path}: the bundle would be larger than devices accept ({limits.total_bytes} bytes)")
            contents[member] = path.read_bytes()
        if name in digests and name in contents and hashlib.sha256(contents[name]).hexdigest() != digests[name]:
            raise InvalidModel(
                f"{name} does not match its sha256 in {MANIFEST}; put the new digest there if it is right"
            )
    return manifest, contents


def _manifest_bytes(directory: Path) -> bytes:
    path = directory / MANIFEST
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TooLarge(f"{path} has more than {MAX_BYTES} bytes; that is not a manifest")
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}; a model directory needs one") from error


def _members(directory: Path, name: str) -> Iterable[str]:
    path = directory / name
    if not path.exists():
        raise NotFound(f"{path} is named in {MANIFEST} but does not exist")
    if not path.is_dir():
        return [name]
    members = [p.relative_to(directory).as_posix() for p in sorted(path.rglob("*")) if not p.is_dir()]
    for member in members:
        if not safe_name(member):
            raise InvalidModel(f"{member!r} has a name that bundles do not accept; rename it")
    return members


def pack(contents: Mapping[str, bytes], key: bytes | None = None, signed: tuple[bytes, bytes] | None = None) -> bytes:
    """The bundle as bytes. `key`: 32 raw bytes of an ed25519 private key, to sign with.

    `signed`: list of digests and signature that the contents came with; without a `key` the signature is kept where
    the contents are still what it signs.
    """
    contents = {n: c for n, c in contents.items() if n not in (DIGESTS, SIGNATURE)}
    digests = "".join(f"{hashlib.sha256(contents[n]).hexdigest()}  {n}\n" for n in sorted(contents)).encode()
    extra = {DIGESTS: digests}
    if key is not None:
        extra[SIGNATURE] = _sign(key, digests).format()
    elif signed is not None and signed[0] == digests:
        extra[SIGNATURE] = signed[1]
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in sorted({**contents, **extra}.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            # The reader refuses extreme ratios, so what shrinks that well is stored.
            packed = len(zlib.compress(content, 9))
            info.compress_type = (
                zipfile.ZIP_DEFLATED
                if len(content) * 0.97 > packed >= len(content) / (DEFAULT_LIMITS.ratio / 2)
                else zipfile.ZIP_STORED
            )
            archive.writestr(info, content, compresslevel=9)
    return stream.getvalue()


def version_of(directory: Path) -> str:
    """Version of a model directory `<name>/<version>`; any other directory holds version 1."""
    version = directory.resolve().name
    return version if VERSION.fullmatch(version) else "1"


def write(directory: Path, output: Path | None = None, key: bytes | None = None) -> Path:
    """Bundle a model directory; `output` is a file or a directory (default: the current one). Returns the file.

    Without a `key` a signature that lies in the directory is kept, if it signs what is there.
    """
    manifest, contents = collect(directory)
    target = output or Path.cwd()
    if target.is_dir():
        target = target / f"{manifest.name}-{version_of(directory)}{SUFFIX}"
    signed = None
    if (directory / SIGNATURE).is_file() and (directory / DIGESTS).is_file():
        signed = (directory / DIGESTS).read_bytes(), (directory / SIGNATURE).read_bytes()
    content = pack(contents, key, signed)
    with open_bundle(BytesIO(content)) as bundle:
        bundle.digests()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CannotWrite(f"{target} cannot be written: {error.strerror}") from error
    return target


def _sign(key: bytes, message: bytes) -> Signature:
    private = ed25519().Ed25519PrivateKey.from_private_bytes(key)
    return Signature(private.public_key().public_bytes_raw(), private.sign(message))


def ed25519() -> Any:
    """The module of ed25519 keys. Raises Unsupported without `cryptography`."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519 as module
    except ImportError as error:
        raise Unsupported("signing needs the Python package 'cryptography': pip install './daemon[bundle]'") from error
    return module
