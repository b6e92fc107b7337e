"""Making and checking bundles on the host: reproducible archive, digests, ed25519 signature, golden vectors.

The archive's bytes depend on the files' names and contents only: entries sorted by name, time 1980-01-01, mode 0644,
deflated at level 9. The reader, which the daemon uses too, is `edgeaid.models.bundle`.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidModel, NotFound, TooLarge, Unsupported
from ...models.bundle import (
    DEFAULT_LIMITS,
    DIGESTS,
    MANIFEST,
    SIGNATURE,
    Bundle,
    Limits,
    Signature,
    open_bundle,
    safe_name,
)
from ...models.manifest import parse

SUFFIX: Final = ".edgeai"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MAX_MANIFEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found."""

    name: str
    version: str
    #: Unpacked bytes per file.
    files: Mapping[str, int]
    #: Public key in hex that signed the bundle; "" if unsigned.
    signed_by: str
    #: True if `signed_by` was among the trusted keys given.
    trusted: bool


def read_manifest(directory: Path) -> dict[str, Any]:
    """The `model.toml` of a model directory. Raises NotFound or InvalidModel."""
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise TooLarge(f"{path} has more than {_MAX_MANIFEST} bytes; that is no manifest")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise NotFound(f"{path} cannot be read: {e.strerror}; a model directory needs one") from e
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InvalidModel(f"{path} is not TOML: {e}") from e


def listed_files(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Files that a manifest names: file -> wanted SHA-256 in hex, "" where the manifest gives none."""
    files: dict[str, str] = {}

    def add(name: object, digest: object = "") -> None:
        if not isinstance(name, str) or not safe_name(name):
            raise InvalidModel(f"{MANIFEST} names the file {name!r}; only plain relative names are accepted")
        files[name] = digest if isinstance(digest, str) else ""

    artifacts = manifest.get("artifacts")
    if not isinstance(artifacts, dict) or not artifacts:
        raise InvalidModel(f"{MANIFEST} has no [artifacts.<target>] table; a bundle without a model is of no use")
    for artifact in artifacts.values():
        if not isinstance(artifact, dict):
            raise InvalidModel(f"[artifacts] in {MANIFEST} must hold one table per target, such as [artifacts.cpu]")
        add(artifact.get("file"), artifact.get("sha256", ""))
    labels = manifest.get("labels")
    if isinstance(labels, dict):
        add(labels.get("file"))
    golden = manifest.get("golden", [])
    for vector in golden if isinstance(golden, list) else []:
        for side in ("inputs", "outputs"):
            table = vector.get(side) if isinstance(vector, dict) else None
            if not isinstance(table, dict):
                raise InvalidModel(f"a [[golden]] entry of {MANIFEST} needs the tables inputs and outputs")
            for name in table.values():
                add(name)
    return files


def bundle_name(directory: Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """(name, version) of a model directory `<name>/<version>`; a folder that is no number counts as version 1."""
    import re

    name = manifest.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == "stats":
        raise InvalidModel(f"name = {name!r} in {MANIFEST} must be 1 to 64 letters, digits, '.', '_' or '-'")
    version = directory.resolve().name
    return name, version if re.fullmatch(r"[0-9]{1,18}", version) else "1"


def collect(directory: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    """The files of a model directory that belong into its bundle, digests of the manifest checked.

    Only what the manifest names is taken, plus the whole folder where an artifact is a folder (SavedModel).
    """
    manifest = read_manifest(directory)
    contents = {MANIFEST: (directory / MANIFEST).read_bytes()}
    total = 0
    for name, wanted in listed_files(manifest).items():
        for member in _members(directory, name):
            path = directory / member
            if path.is_symlink() or not path.is_file():
                raise InvalidModel(f"{path} is named in {MANIFEST} but is no plain file; copy the file there")
            total += path.stat().st_size
            if path.stat().st_size > limits.file_bytes or total > limits.total_bytes:
                raise TooLarge(f"{path}: the bundle would be larger than devices accept ({limits.total_bytes} bytes)")
            contents[member] = path.read_bytes()
        if wanted and name in contents and hashlib.sha256(contents[name]).hexdigest() != wanted:
            raise InvalidModel(
                f"{name} does not match its sha256 in {MANIFEST}; put the new digest there if it is right"
            )
    return contents


def _members(directory: Path, name: str) -> Iterable[str]:
    path = directory / name
    if not path.exists():
        raise NotFound(f"{path} is named in {MANIFEST} but does not exist")
    if not path.is_dir():
        return [name]
    found = [p.relative_to(directory).as_posix() for p in sorted(path.rglob("*")) if not p.is_dir()]
    for member in found:
        if not safe_name(member):
            raise InvalidModel(f"{member!r} has a name that bundles do not accept; rename it")
    return found


def pack(contents: Mapping[str, bytes], key: bytes | None = None) -> bytes:
    """The bundle as bytes. `key`: 32 raw bytes of an ed25519 private key, to sign with."""
    contents = {n: c for n, c in contents.items() if n not in (DIGESTS, SIGNATURE)}
    digests = "".join(f"{hashlib.sha256(contents[n]).hexdigest()}  {n}\n" for n in sorted(contents)).encode()
    extra = {DIGESTS: digests}
    if key is not None:
        extra[SIGNATURE] = _sign(key, digests).format()
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


def write(directory: Path, output: Path | None = None, key: bytes | None = None) -> Path:
    """Bundle a model directory; `output` is a file or a folder (default: the current one). Returns the file."""
    manifest = read_manifest(directory)
    name, version = bundle_name(directory, manifest)
    target = output or Path.cwd()
    if target.is_dir():
        target = target / f"{name}-{version}{SUFFIX}"
    contents = collect(directory)
    parse(contents[MANIFEST])  # what a device would refuse is refused here
    content = pack(contents, key)
    with open_bundle(BytesIO(content)) as bundle:
        bundle.digests()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def verify(path: Path, trusted_keys: Iterable[bytes] = (), limits: Limits = DEFAULT_LIMITS) -> Verified:
    """Read every byte of a bundle and check digests, signature, manifest and that all files it names are there.

    Raises InvalidModel, TooLarge, PermissionDenied (trusted keys given, but not signed by one of them), Unsupported.
    """
    trusted = tuple(trusted_keys)
    with open_bundle(path, limits) as bundle:
        signed_by = ""
        if trusted:
            signed_by = bundle.check_signature(trusted).hex()
        elif SIGNATURE in bundle.entries:
            own = Signature.parse(bundle.read(SIGNATURE, 1024)).public_key
            signed_by = bundle.check_signature([own]).hex()
        _check_contents(bundle)
        try:
            manifest = tomllib.loads(bundle.read(MANIFEST, _MAX_MANIFEST).decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise InvalidModel(f"{MANIFEST} in {path} is not TOML: {e}") from e
        parse(bundle.read(MANIFEST, _MAX_MANIFEST))
        for name in listed_files(manifest):
            if name not in bundle.entries and not any(n.startswith(name + "/") for n in bundle.entries):
                raise InvalidModel(f"{MANIFEST} in {path} names {name!r}, which is not in the bundle")
        name, _ = bundle_name(Path(), manifest)
        version = path.stem.removeprefix(f"{name}-")
        return Verified(
            name,
            version if version.isascii() and version.isdigit() else "1",
            {n: e.size for n, e in bundle.entries.items()},
            signed_by,
            bool(trusted),
        )


def _check_contents(bundle: Bundle) -> None:
    digests = bundle.digests()
    for name in bundle.entries:
        digest = hashlib.sha256()
        for piece in bundle.pieces(name):
            digest.update(piece)
        if digests.get(name, digest.hexdigest()) != digest.hexdigest():
            raise InvalidModel(f"{name!r} does not match its digest in {DIGESTS}; the bundle was changed")


def _sign(key: bytes, message: bytes) -> Signature:
    ed25519 = _ed25519()
    private = ed25519.Ed25519PrivateKey.from_private_bytes(key)
    return Signature(private.public_key().public_bytes_raw(), private.sign(message))


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as e:
        raise Unsupported("signing needs the Python package 'cryptography': pip install 'edgeaid[bundle]'") from e
    return ed25519


def make_key(path: Path) -> bytes:
    """Write a new private key (64 hex digits, mode 0600, never over an existing file); returns the public key."""
    private = _ed25519().Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise InvalidModel(f"{path} cannot be created: {e.strerror}") from e
    with os.fdopen(descriptor, "w") as file:
        file.write(private.private_bytes_raw().hex() + "\n")
    public: bytes = private.public_key().public_bytes_raw()
    return public


def read_key(path: Path) -> bytes:
    """32 raw bytes of a key file (64 hex digits), private or public. Raises NotFound or InvalidModel."""
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as e:
        raise NotFound(f"key {path} cannot be read: {e.strerror}; make one with `edgeai model keygen FILE`") from e
    except ValueError as e:
        raise InvalidModel(f"{path} does not hold a key (64 hexadecimal digits)") from e
    if len(key) != 32:
        raise InvalidModel(f"{path} holds {len(key)} bytes; an ed25519 key has 32")
    return key
