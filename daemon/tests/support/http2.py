"""As much of an HTTP/2 client as it takes to be a bad client of gRPC: one that does not read what it asked for."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    size = len(payload)
    return struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def block(path: str, **fields: str) -> bytes:
    """The headers of a call; `fields` are more, or other ones: "_" stands for "-", and "pseudo_" for ":"."""
    said = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers",
            "content-type": "application/grpc"}  # fmt: skip
    said |= {name.replace("pseudo_", ":").replace("_", "-"): text for name, text in fields.items()}
    # Literal fields that are not indexed: two lengths below 127 and the texts (RFC 7541, 6.2.2).
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(text)]) + text.encode() for name, text in said.items()
    )


def call(path: str) -> bytes:
    """The frames that open a gRPC call as stream 1."""
    return PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block(path))


def message(data: bytes) -> bytes:
    """gRPC's frame around a message, not compressed."""
    return struct.pack(">BI", 0, len(data)) + data


def answer(sock: socket.socket) -> bytes:
    """What is received until a call has data or its end, or the connection ends."""
    data, at = b"", 0
    while piece := sock.recv(1 << 16):
        data += piece
        while len(data) >= at + 9 and len(data) >= at + 9 + (size := int.from_bytes(data[at : at + 3], "big")):
            kind, flags = data[at + 3], data[at + 4]
            at += 9 + size
            if kind in (DATA, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
                return data
    return data
