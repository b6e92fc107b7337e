"""Whether a model may be used here: who signed it, and whether it is older than what is here already.

A model directory that came from a signed bundle keeps `bundle.sha256` and `bundle.sig`; both are checked again whenever
it is taken or loaded, so that a file changed on the disk is noticed too.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import InvalidConfig, InvalidModel, PermissionDenied, Unsupported
from .digests import of_file
from .manifest import Manifest
from .repository import DIGESTS, SIGNATURE, StoredModel, open_inside, read_inside

if TYPE_CHECKING:
    from .bundle import Signature

_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count. Without keys, and none required, only a signature that is there must be right."""

    #: Raw ed25519 public keys, 32 bytes each.
    keys: tuple[bytes, ...] = ()
    #: Refuse what is not signed.
    required: bool = False

    def check(self, stored: StoredModel) -> None:
        """Check a model directory. Blocking.

        PermissionDenied: not signed, or not by a trusted key. InvalidModel: changed after signing.
        Unsupported: the package cryptography is missing and a signature must be checked.
        """
        if not (stored.path / SIGNATURE).exists():
            if self.required:
                raise PermissionDenied(
                    f"model {stored.key!r} is not signed, and only models signed by a trusted key are accepted here "
                    "(models.require_signature); sign it with `edgeai model bundle --key`"
                )
            return
        from .bundle import Signature, parse_digests  # few models are signed

        signature = Signature.parse(read_inside(stored.path, SIGNATURE, 1024))
        if (self.keys or self.required) and not any(hmac.compare_digest(signature.public_key, k) for k in self.keys):
            raise PermissionDenied(
                f"model {stored.key!r} is signed by {signature.public_key.hex()}, "
                "which is not among models.trusted_keys"
            )
        listed = read_inside(stored.path, DIGESTS, 4 << 20)
        self._verify(signature, listed, stored.key)
        digests = parse_digests(listed)
        for name in ("model.toml", *stored.manifest.files):
            if name not in digests:
                raise InvalidModel(f"model {stored.key!r}: {name!r} is not covered by its signature")
            with open(open_inside(stored.path, name), "rb") as stream:
                if of_file(stream) != digests[name]:
                    raise InvalidModel(f"model {stored.key!r}: {name!r} was changed after signing")

    def _verify(self, signature: Signature, listed: bytes, key: str) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            if not self.keys:
                return  # not required
            raise Unsupported("checking signatures needs the Python package 'cryptography'; install it") from error
        try:
            Ed25519PublicKey.from_public_bytes(signature.public_key).verify(signature.signature, listed)
        except (InvalidSignature, ValueError) as error:
            raise InvalidModel(f"model {key!r}: its signature does not fit; it was changed after signing") from error


def trust_of(trusted_keys: Iterable[str], require_signature: bool) -> Trust:
    """The trust that [models] describes: each key is 64 hexadecimal digits, or a file that has them. InvalidConfig."""
    keys = tuple(_key(text) for text in trusted_keys)
    if require_signature and not keys:
        raise InvalidConfig("models.require_signature needs models.trusted_keys: nothing could be accepted")
    return Trust(keys, require_signature)


def _key(text: str) -> bytes:
    digits = text
    if text.startswith("/"):
        try:
            digits = Path(text).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(f"models.trusted_keys: {text}: {getattr(error, 'strerror', error)}") from error
    if not _KEY.fullmatch(digits):
        raise InvalidConfig(
            f"models.trusted_keys: {text!r:.100} is neither an ed25519 public key (64 hexadecimal digits) "
            "nor the path of a file with one"
        )
    return bytes.fromhex(digits)


def check_serial(new: Manifest, others: Iterable[Manifest]) -> None:
    """PermissionDenied when `new` has a smaller serial than a version of the model that is here."""
    newest = max((other.serial for other in others), default=0)
    if new.serial < newest:
        raise PermissionDenied(
            f"model {new.name!r}: serial {new.serial} is older than {newest}, which is here already; "
            "go back on purpose with `edgeai push --allow-older` (HTTP: X-Allow-Older: true)"
        )
