"""HTTP/2 frames (RFC 9113), and the headers that a gRPC server sends.

What is sent is in literal fields that no table keeps (RFC 7541, 6.2.2): a few bytes more, and nothing to keep in step.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final
from urllib.parse import quote

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = struct.Struct(">BHBBI")
#: Bytes in the payload of a frame that any peer takes.
FRAME_BYTES: Final = 1 << 14
#: Bytes of a window that nobody has said anything about, and the most of one.
WINDOW: Final = 65535
MAX_WINDOW: Final = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32


class Setting(IntEnum):
    """Parameters of SETTINGS."""

    HEADER_TABLE_SIZE = 1
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Error codes of RST_STREAM and GOAWAY."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Status(IntEnum):
    """Status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Broken(Exception):
    """What came is not HTTP/2, or more of it than is taken: the connection ends."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return head(len(payload), kind, flags, stream) + payload


def head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The header of a frame whose payload of `size` bytes follows."""
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream)


def settings(values: dict[Setting, int]) -> bytes:
    """A frame with settings."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))


def reset(stream: int, code: Code) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window(stream: int, size: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def go_away(last: int, code: Code, text: str = "") -> bytes:
    """GOAWAY: streams above `last` were not looked at."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + text[:500].encode())


def varint(value: int) -> bytes:
    """A whole number in groups of seven bits, the lowest first: as protobuf writes all, and HPACK long ones."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(data: bytes) -> bytes:
    size = len(data)
    return (bytes((size,)) if size < 0x7F else b"\x7f" + varint(size - 0x7F)) + data


def field(name: str, value: str) -> bytes:
    """A literal field."""
    return b"\x00" + _text(name.encode()) + _text(value.encode())


#: Index of `:status: 200` in the table that all have (RFC 7541, appendix A).
_OK: Final = b"\x88"
RESPONSE: Final = (
    _OK + field("content-type", "application/grpc") + field("grpc-accept-encoding", "identity,deflate,gzip")
)
DONE: Final = field("grpc-status", "0")


def refusal(http: int) -> bytes:
    """Headers of an answer to what is not gRPC."""
    return field(":status", str(http))


def failed(status: Status, text: str) -> bytes:
    """Trailers of a call that failed. `text` is percent-encoded where it is not ASCII, and cut where it is long."""
    message = quote(text[:2000], safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
    if len(message) > 6000:
        message = quote(text[:500])
    return field("grpc-status", str(int(status))) + field("grpc-message", message)
