"""Headers of calls: HPACK is the library's; a block that came before is not decoded again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from .frames import Broken, Code

#: Bytes of a call's headers; HTTP/2 counts 32 for each beside its texts.
MAX_METADATA: Final = 8 << 10
#: Blocks that are remembered.
BLOCKS: Final = 16
#: A block of bytes from here on has only fields from the tables: decoding it changes nothing.
_INDEXED: Final = 0x80
#: More new sizes of the table at the beginning of a block than the two there may be (RFC 7541, 4.2), or a long one.
_SIZES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]{0,4}[\x00-\x7f]){3}|\x3f[\x80-\xff]{5}")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the headers of a call say."""

    method: str = ""
    path: str = ""
    content_type: str = ""
    #: How messages of the call are packed that say that they are.
    encoding: str = "identity"
    #: Seconds; None = as long as it takes.
    timeout: float | None = None
    #: A header that no client may send.
    malformed: bool = False


def _timeout(text: str) -> float | None:
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _SECONDS[match[2]] if match is not None else None


class Headers:
    """The headers that a client sends on one connection."""

    __slots__ = ("_decoder", "_known")

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_METADATA)
        self._known: dict[bytes, Asked] = {}

    def read(self, block: bytes) -> Asked:
        """What a block says. Broken."""
        asked = self._known.get(block)
        if asked is not None:
            return asked
        if _SIZES.match(block):
            raise Broken(Code.COMPRESSION_ERROR, "the table of headers changes its size more often than it may")
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise too_many() from error
        except (HPACKError, ValueError, IndexError) as error:
            raise Broken(Code.COMPRESSION_ERROR, f"the headers of a call cannot be read: {error}") from error
        asked = _asked([(bytes(name), bytes(value)) for name, value in fields])
        if not block or min(block) < _INDEXED:
            self._known.clear()  # the client's table may have changed, and what the others mean with it
        elif len(self._known) < BLOCKS:
            self._known[block] = asked
        return asked


def too_many() -> Broken:
    """More headers than a call may have."""
    return Broken(Code.ENHANCE_YOUR_CALM, f"the headers of a call have more than {MAX_METADATA} bytes")


def _asked(fields: list[tuple[bytes, bytes]]) -> Asked:
    values: dict[str, str] = {}
    malformed = False
    for name, value in fields:
        key = name.decode("latin-1")
        malformed |= key in values if key.startswith(":") else key != key.lower() or key == "connection"
        values[key] = value.decode("latin-1")
    return Asked(
        method=values.get(":method", ""),
        path=values.get(":path", ""),
        content_type=values.get("content-type", ""),
        encoding=values.get("grpc-encoding", "identity"),
        timeout=_timeout(values.get("grpc-timeout", "")),
        malformed=malformed,
    )
