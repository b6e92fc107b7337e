"""A plain request and its answer in HTTP/1.1: tensors or a picture for one model, a Content-Length, nothing more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidRequest
from ..inference import BINARY
from ..large_json import LARGE
from ..oip import Body
from ..pictures import TASKS, Wish, wish

#: What they begin with.
STARTS: Final = (b"POST /v2/models/", b"POST /edgeai/v1/models/")
_MAX_HEAD: Final = 8190
#: A name is what models may be called; headers are tokens and visible text, nothing folded.
_NAME: Final = rb"([A-Za-z0-9][A-Za-z0-9._-]{0,63})"
_HEADERS: Final = rb" HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t !-~]*\r\n){0,64})\r\n"
_INFER: Final = re.compile(rb"POST /v2/models/" + _NAME + rb"(?:/versions/([0-9]{1,9}))?/infer(?:\?[!-~]*)?" + _HEADERS)
_PICTURE: Final = re.compile(
    rb"POST /edgeai/v1/models/" + _NAME + rb"/(" + "|".join(TASKS).encode() + rb")"
    rb"(?:\?((?:[a-z_]{1,20}=[0-9.]{1,20}&?){0,8}))?" + _HEADERS
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
    """The head of a plain request."""

    raw: bytes
    model: str
    version: str
    length: int
    json_length: str | None
    accept: str
    #: What is asked about the picture in the body; None = the body has tensors.
    wish: Wish | None = None
    #: It has JSON that is not read in one step.
    large: bool = False


def plain_head(data: bytes) -> Head | None:
    """The head at the start of `data` when it is whole and plain."""
    match = _INFER.match(data, 0, _MAX_HEAD)
    if match is None:
        return _picture_head(data)
    headers = _headers(match[3])
    if headers is None:
        return None
    length = headers["content-length"]
    json_length = headers.get("inference-header-content-length", length)
    if not json_length.isdecimal() or len(json_length) > 10:
        return None
    return Head(
        match[0],
        match[1].decode(),
        match[2].decode() if match[2] else "",
        int(length),
        headers.get("inference-header-content-length"),
        headers.get("accept-encoding", ""),
        large=int(json_length) > LARGE,
    )


def _picture_head(data: bytes) -> Head | None:
    match = _PICTURE.match(data, 0, _MAX_HEAD)
    headers = _headers(match[4]) if match is not None else None
    if match is None or headers is None:
        return None
    if "image/png" in headers.get("accept", "") or headers.get("content-type", "").startswith(BINARY):
        return None  # to be drawn, or perhaps a tensor
    pairs = [pair.partition("=") for pair in (match[3] or b"").decode().split("&")]
    try:
        wanted = wish(match[1].decode(), match[2].decode(), {name: value for name, _, value in reversed(pairs)})
    except InvalidRequest:
        return None
    return Head(match[0], wanted.model, wanted.version, int(headers["content-length"]), None, "", wanted)


def _headers(text: bytes) -> dict[str, str] | None:
    """Headers by lower-case name, a Content-Length among them; None where they are not plain."""
    lines = text.decode("ascii").split("\r\n")[:-1]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    plain = (
        len(headers) == len(lines)  # nothing is said twice
        and _NOT_PLAIN.isdisjoint(headers)
        and headers.get("connection", "keep-alive").lower() == "keep-alive"
        and length.isdecimal()
        and len(length) <= 10
    )
    return headers if plain else None


def plain_answer(status: int, headers: dict[str, str], pieces: list[Body]) -> bytes:
    """Status line, headers and body."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nContent-Length: {sum(map(len, pieces))}\r\n{lines}\r\n"
    return b"".join((head.encode("ascii"), *pieces))
