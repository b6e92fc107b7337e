"""A plain inference request and its answer as bytes of HTTP/1.1: one model's infer path, a Content-Length, no more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from ..large_json import LARGE
from ..oip import Body

START: Final = b"POST /v2/models/"
_MAX_HEAD: Final = 8190
#: A whole plain head. A name is what models may be called; headers are tokens and visible text, nothing folded.
_PLAIN: Final = re.compile(
    rb"POST /v2/models/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/versions/([0-9]{1,9}))?/infer(?:\?[!-~]*)? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[\t !-~]*\r\n){0,64})\r\n"
)
#: Headers that ask for more than a plain exchange.
_NOT_PLAIN: Final = frozenset(
    {"transfer-encoding", "content-encoding", "expect", "upgrade", "te", "trailer", "authorization"}
)
_REASONS: Final[dict[int, Any]] = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 413: "Request Entity Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a plain inference request."""

    raw: bytes
    model: str
    version: str
    length: int
    json_length: str | None
    accept: str


def plain_head(data: bytes) -> Head | None:
    """The head at the start of `data` when it is whole and plain."""
    match = _PLAIN.match(data, 0, _MAX_HEAD)
    if match is None:
        return None
    lines = match[3].decode("ascii").split("\r\n")[:-1]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    if (
        len(headers) != len(lines)  # something is said twice
        or not _NOT_PLAIN.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or not length.isdecimal()
        or len(length) > 10
    ):
        return None
    json_length = headers.get("inference-header-content-length", length)
    if not json_length.isdecimal() or len(json_length) > 6 or int(json_length) > LARGE:
        return None  # not a valid length, or JSON that is not for the event loop
    return Head(
        match[0],
        match[1].decode(),
        match[2].decode() if match[2] else "",
        int(length),
        headers.get("inference-header-content-length"),
        headers.get("accept-encoding", ""),
    )


def plain_answer(status: int, headers: dict[str, str], pieces: list[Body]) -> bytes:
    """Status line, headers and body."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nContent-Length: {sum(map(len, pieces))}\r\n{lines}\r\n"
    return b"".join((head.encode("ascii"), *pieces))
