"""Where requests end among the bytes that aiohttp is given.

The short way for plain requests may be taken only where a request begins. aiohttp does not say whether it has the
beginning of one in hand, so what it is given is followed here: heads without doubt and bodies with a
Content-Length. Once there is any doubt, the connection is aiohttp's for good.
"""

from __future__ import annotations

import re
from typing import Final

_HEAD: Final = re.compile(
    rb"[A-Z]{1,20} [!-~]{1,8000} HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[\t -~\x80-\xff]*\r\n){0,100})\r\n"
)
_LENGTH: Final = re.compile(rb"^content-length:[ \t]*([0-9]{1,10})[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_DOUBTFUL: Final = re.compile(
    rb"^(?:transfer-encoding|upgrade|connection:(?![ \t]*keep-alive[ \t]*\r))", re.IGNORECASE | re.MULTILINE
)
_ANY_LENGTH: Final = re.compile(rb"^content-length", re.IGNORECASE | re.MULTILINE)


class Framing:
    """Follows one connection. `clean` = what comes next begins a request."""

    __slots__ = ("_body", "_lost")

    def __init__(self) -> None:
        #: Bytes that the body under way still lacks.
        self._body = 0
        self._lost = False

    @property
    def clean(self) -> bool:
        """Whether a request begins with the next byte."""
        return not self._lost and not self._body

    @property
    def followed(self) -> bool:
        """Whether it is known where requests begin."""
        return not self._lost

    @property
    def missing(self) -> int:
        """Bytes that the body under way still lacks."""
        return self._body

    def feed(self, data: bytes) -> None:
        """Bytes that aiohttp gets."""
        at = 0
        while not self._lost and at < len(data):
            if self._body:
                step = min(self._body, len(data) - at)
                self._body -= step
                at += step
                continue
            match = _HEAD.match(data, at)
            if match is None:
                self._lost = True
                return
            length = self._length(match[1])
            if length is None:
                self._lost = True
                return
            self._body = length
            at = match.end()

    @staticmethod
    def _length(headers: bytes) -> int | None:
        if _DOUBTFUL.search(headers):
            return None
        said = len(_ANY_LENGTH.findall(headers))
        match = _LENGTH.search(headers)
        if said == 0:
            return 0
        return int(match[1]) if match is not None and said == 1 else None
