"""Checking bundles on the host, and the keys that sign them. They are written by `edgeaid.models.pack`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import CannotWrite, InvalidModel, NotFound
from ...models.bundle import (
    MANIFEST,
    Bundle,
    Signature,
    open_bundle,
)
from ...models.bundle_entries import DEFAULT_LIMITS, Limits
from ...models.manifest import MAX_BYTES, VERSION, parse
from ...models.pack import ed25519
from ...models.repository import DIGESTS, SIGNATURE


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
        manifest = parse(bundle.read(MANIFEST, MAX_BYTES))
        for name in manifest.files:
            if name not in bundle.entries and not any(n.startswith(name + "/") for n in bundle.entries):
                raise InvalidModel(f"{MANIFEST} in {path} names {name!r}, which is not in the bundle")
        version = path.stem.removeprefix(f"{manifest.name}-")
        return Verified(
            manifest.name,
            version if VERSION.fullmatch(version) else "1",
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


def make_key(path: Path) -> bytes:
    """Write a new private key (64 hex digits, mode 0600, never over an existing file); returns the public key."""
    private = ed25519().Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be created: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(private.private_bytes_raw().hex() + "\n")
    except OSError as error:
        path.unlink()
        raise CannotWrite(f"{path} cannot be written: {error.strerror}") from error
    public: bytes = private.public_key().public_bytes_raw()
    return public


def read_key(path: Path) -> bytes:
    """32 raw bytes of a key file (64 hex digits), private or public. Raises NotFound or InvalidModel."""
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise NotFound(
            f"key {path} cannot be read: {error.strerror}; make one with `edgeai model keygen FILE`"
        ) from error
    except ValueError as error:
        raise InvalidModel(f"{path} does not hold a key (64 hexadecimal digits)") from error
    if len(key) != 32:
        raise InvalidModel(f"{path} holds {len(key)} bytes; an ed25519 key has 32")
    return key
