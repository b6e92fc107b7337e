"""Frames between the daemon and a worker: one SOCK_SEQPACKET message each.

Every frame starts with HEADER. INFER and RESULT are binary because they are the path of every tensor; everything else
carries a JSON object after the header. An INFER may carry one too: the best classes are wanted; they are behind its
RESULT. A PICTURE carries the picture's file, or comes with a memfd that has it. Tensors never travel in a frame: they
lie in the slots of a memfd that both sides map (see `regions`). Both ends are of one build, so the format has no
version.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
from enum import IntEnum
from typing import Any, Final

from .. import errors


class Kind(IntEnum):
    """First byte of a frame."""

    # daemon -> worker, JSON
    OPEN = 1
    LOAD = 2
    ATTACH = 3
    UNLOAD = 4
    SELFTEST = 5
    PING = 6
    PICTURE = 7
    DECODE = 8
    # daemon -> worker, binary
    INFER = 16
    # worker -> daemon
    REPLY = 32
    RESULT = 33


#: kind u8, status u8, slot u16, model number u32, request number u64
HEADER: Final = struct.Struct("<BBHIQ")
#: after HEADER in a RESULT: nanoseconds of input, infer and output phase; error text (UTF-8) follows when status != 0,
#: the best classes (JSON) when they were asked for
PHASES: Final = struct.Struct("<QQQ")
#: Well below the kernel's limit for one message (212,960 bytes with default buffers).
MAX_MESSAGE: Final = 160_000
#: Descriptors in one message.
MAX_FDS: Final = 4

#: The socket module's flags are enums, whose arithmetic costs more than the system call.
_FLAGS: Final = int(socket.MSG_CMSG_CLOEXEC)
_CUT_SHORT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_ANCILLARY: Final = socket.CMSG_SPACE(MAX_FDS * 4)

#: Exceptions that cross the wire, by status byte. 0 = success.
ERRORS: Final[tuple[type[errors.EdgeaiError], ...]] = (
    errors.EdgeaiError,
    errors.InvalidRequest,
    errors.InvalidData,
    errors.InvalidModel,
    errors.NotFound,
    errors.TooLarge,
    errors.Unsupported,
    errors.DeviceError,
    errors.Unavailable,
    errors.QueueFull,
    errors.DeadlineExceeded,
)


def status_of(error: BaseException) -> int:
    """Status byte (from 1) for an exception: the nearest class in ERRORS, 1 for anything unforeseen."""
    for kind in type(error).__mro__:
        if kind in ERRORS:
            return ERRORS.index(kind) + 1
    return 1


def error_of(status: int, text: str) -> errors.EdgeaiError:
    """The exception that a status byte and its text stand for."""
    kind = ERRORS[status - 1] if 0 < status <= len(ERRORS) else errors.EdgeaiError
    return kind(text)


def json_body(kind: IntEnum, body: dict[str, Any]) -> bytes:
    """What follows the header of a JSON frame; raises TooLarge when it would not fit into one message."""
    text = json.dumps(body, separators=(",", ":")).encode()
    if HEADER.size + len(text) > MAX_MESSAGE:
        raise errors.TooLarge(f"{kind.name} message of {HEADER.size + len(text)} bytes is over {MAX_MESSAGE}")
    return text


def pack_json(kind: IntEnum, request: int, body: dict[str, Any], status: int = 0) -> bytes:
    """A JSON frame; raises TooLarge when it would not fit into one message."""
    return HEADER.pack(kind, status, 0, 0, request) + json_body(kind, body)


class _Buffer(threading.local):
    """Room for the longest message, one per thread: a new one for every message would cost more than the message."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(MAX_MESSAGE))
        self.whole = (self.view,)


_buffer: Final = _Buffer()


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors (close-on-exec). b"" = the peer is gone. BlockingIOError when there is none.

    A truncated message or lost descriptors raise InvalidRequest; descriptors that did arrive are closed.
    """
    size, ancillary, flags, _ = sock.recvmsg_into(_buffer.whole, _ANCILLARY, _FLAGS)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            fds.extend(numbers)
    if flags & _CUT_SHORT:
        close_all(fds)
        raise errors.InvalidRequest("message cut short: too long, or too many descriptors")
    return bytes(_buffer.view[:size]), fds


def close_all(fds: list[int]) -> None:
    """Close descriptors of a message that is dropped."""
    for fd in fds:
        os.close(fd)
