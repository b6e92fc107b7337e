"""Frames of the K210 wire protocol, version 1: bytes in, frames out; no I/O.

A frame on the line is `00 | COBS(header | payload | crc32) | 00`. The header is u8 type, u8 flags, u16 seq, u16 index,
u16 payload length, all little endian; crc32 (IEEE, as zlib) covers header and payload. The protocol is in docs/k210.md;
the board's side of it, with the same rules, is boards/maixpy/agent.py.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PROTOCOL: Final = 1
HEADER: Final = struct.Struct("<BBHHH")
CRC: Final = struct.Struct("<I")
MAX_PAYLOAD: Final = 1024
#: Header, payload and checksum before COBS.
MAX_BODY: Final = HEADER.size + MAX_PAYLOAD + CRC.size
#: The same after COBS: one byte in front and one per 254 bytes.
MAX_CHUNK: Final = MAX_BODY + 1 + MAX_BODY // 254
#: Pieces of a transfer are 2^4 to 2^10 bytes.
MIN_SHIFT: Final = 4
MAX_SHIFT: Final = 10
#: Flag of the last piece (DATA) and of a transfer that is whole and checked (ACK).
LAST: Final = 1
#: Flag of an OUT without a request: a camera frame of a stream.
STREAMED: Final = 2


class Type(IntEnum):
    """First byte of the header."""

    HELLO = 0x01
    LOAD = 0x02
    SETOUT = 0x03
    INPUT = 0x04
    DATA = 0x05
    RUN = 0x06
    OUT = 0x07
    ERR = 0x08
    PING = 0x09
    BAUD = 0x0A
    ACK = 0x0B
    NAK = 0x0C
    BYE = 0x0D
    UNLOAD = 0x0E
    PUT = 0x0F
    STAT = 0x10
    STREAM = 0x11
    REMOVE = 0x12


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    #: A Type, or another number when the other side is newer.
    type: int
    #: LAST, STREAMED; for DATA bits 4-7 hold log2(piece size) - 4.
    flags: int
    #: Number of the request that this belongs to.
    seq: int
    #: Piece number (DATA, its ACK, NAK) or model slot (everything else).
    index: int
    payload: bytes = b""


def stuff(data: bytes) -> bytes:
    """COBS: `data` without a zero byte."""
    out = bytearray()
    for part in data.split(b"\0"):
        at = 0
        while len(part) - at >= 254:
            out.append(255)
            out += part[at : at + 254]
            at += 254
        out.append(len(part) - at + 1)
        out += part[at:]
    return bytes(out)


def unstuff(chunk: bytes) -> bytes | None:
    """Undo COBS; None when `chunk` is not COBS."""
    out = bytearray()
    at, end = 0, len(chunk)
    while at < end:
        code = chunk[at]
        if code == 0 or at + code > end:
            return None
        out += chunk[at + 1 : at + code]
        at += code
        if code != 255 and at < end:
            out.append(0)
    return bytes(out)


def encode(frame: Frame) -> bytes:
    """The bytes to send, both delimiters included. Raises ValueError for a payload over MAX_PAYLOAD."""
    if len(frame.payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(frame.payload)} bytes is over {MAX_PAYLOAD}")
    body = HEADER.pack(frame.type, frame.flags, frame.seq, frame.index, len(frame.payload)) + frame.payload
    return b"\0" + stuff(body + CRC.pack(zlib.crc32(body))) + b"\0"


def parse(chunk: bytes) -> Frame | None:
    """The frame between two delimiters, or None when it is damaged, too long or no frame at all."""
    if len(chunk) > MAX_CHUNK:
        return None
    body = unstuff(chunk)
    if body is None or len(body) < HEADER.size + CRC.size:
        return None
    kind, flags, seq, index, size = HEADER.unpack_from(body)
    if size != len(body) - HEADER.size - CRC.size:
        return None
    if CRC.unpack_from(body, len(body) - CRC.size)[0] != zlib.crc32(body[: -CRC.size]):
        return None
    return Frame(kind, flags, seq, index, body[HEADER.size : -CRC.size])


class Decoder:
    """Finds frames in a stream of anything. Never holds more than MAX_CHUNK + 1 bytes, never raises."""

    def __init__(self) -> None:
        self._rest = bytearray()
        #: Valid frames seen.
        self.frames = 0
        #: Stretches between zeros that were not valid frames: noise, text, damaged frames.
        self.bad = 0
        #: Bytes in those stretches.
        self.discarded = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream; the frames that they complete, in order."""
        frames: list[Frame] = []
        *whole, rest = data.split(b"\0")
        for part in whole:
            chunk = part
            if self._rest:
                chunk = bytes(self._rest) + part
                self._rest.clear()
            if not chunk:
                continue
            frame = parse(chunk)
            if frame is None:
                self.bad += 1
                self.discarded += len(chunk)
            else:
                self.frames += 1
                frames.append(frame)
        # One byte over the limit is kept so that an overlong stretch stays overlong; the others are dropped.
        room = MAX_CHUNK + 1 - len(self._rest)
        self._rest += rest[:room]
        self.discarded += max(0, len(rest) - room)
        return frames

    def reset(self) -> None:
        """Forget a half-received frame."""
        self._rest.clear()
