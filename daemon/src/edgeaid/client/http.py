"""HTTP/1.1 over a Unix socket, as much of it as edgeaid's answers need.

The standard library's client sends head and body apart, which wakes the daemon twice, and parses headers with its mail
package; both together cost more than a small model's inference.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from .. import errors

Buffer = bytes | memoryview
#: Whole, in pieces that are sent together, or as it comes.
Body = Sequence[Buffer] | Iterator[bytes]
#: Status, headers by lower-case name, body.
Answer = tuple[int, dict[str, str], bytes]
MAX_HEAD: Final = 65536
#: Bytes of the longest answer on the fast socket.
MAX_REPLY: Final = 65536
#: Bytes of a socket's path (sun_path without its end).
MAX_PATH: Final = 107
#: Bytes that are received at once while an answer's length is unknown.
PIECE: Final = 1 << 16
_TIMEVAL: Final = struct.Struct("@ll")


class Closed(Exception):
    """The daemon closed the connection before it answered: worth one new attempt on a fresh connection."""


class Late(Exception):
    """No answer within the client's timeout."""


def meaning(error: OSError) -> Exception:
    """Closed or Late for an error that means it; any other as it is."""
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        return Closed(str(error))
    if isinstance(error, BlockingIOError | TimeoutError):
        return Late()
    return error


class FastEnd:
    """A transport's end of the fast socket; it may be closed."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def open(self, sock: socket.socket) -> None:
        """Use a socket that is connected."""
        self._sock = sock

    @property
    def sock(self) -> socket.socket:
        """The socket. Closed where there is none."""
        if self._sock is None:
            raise Closed("not connected")
        return self._sock

    def close(self) -> None:
        """Close it where it is open."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def connect(path: str, timeout: float, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A connection to the daemon; Unavailable when no daemon listens.

    Operations raise BlockingIOError after `timeout` seconds: the kernel keeps the time, which saves a poll before each.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    limit = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise unreachable(path, error) from error
    return sock


def unreachable(path: str, error: OSError) -> errors.EdgeaiError:
    """Why no daemon is reached at `path`, and what to do."""
    if isinstance(error, PermissionError):
        return errors.PermissionDenied(f"you may not use edgeaid at {path}: {error.strerror}; {_remedy(path)}")
    if len(os.fsencode(path)) > MAX_PATH:
        return errors.InvalidRequest(f"the socket's path has more than {MAX_PATH} bytes: {path}")
    return errors.Unavailable(
        f"cannot reach edgeaid at {path}: {error.strerror}; is it running? (systemctl start edgeaid, or: "
        "edgeaid --socket PATH; one that listens elsewhere is named with --socket or EDGEAI_SOCKET)"
    )


def _remedy(path: str) -> str:
    """How to come to use a socket: its group, or where it cannot be seen the one that systemd's unit gives it."""
    import grp

    try:
        facts = os.stat(path)
        if facts.st_gid == 0 or not facts.st_mode & 0o020:
            return "its owner has not opened it to a group: run this with sudo, or as the user who started it"
        group = grp.getgrgid(facts.st_gid).gr_name
    except (OSError, KeyError):
        group = "edgeai"
    return f"join its group and log in again: sudo usermod -aG {group} $USER"


def request_head(method: str, target: str, headers: Mapping[str, str], body: Body) -> bytes:
    """Request line and headers with their empty line. InvalidRequest for a target that would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{n}: {v}" for n, v in headers.items())]
    if not isinstance(body, Iterator) and (body or method in ("POST", "PUT")):
        lines.append(f"Content-Length: {sum(map(len, body))}")
    if any("\r" in line or "\n" in line for line in lines):
        raise errors.InvalidRequest(f"a request has a line break in its path or headers: {target[:80]!r}")
    return "\r\n".join((*lines, "", "")).encode("ascii")


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """(status, headers by lower-case name) of an answer's head without its empty line; ValueError for anything else."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or len(code) != 3 or not (code.isascii() and code.isdecimal()):
        raise ValueError(f"not an HTTP answer: {first[:80]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"not a header: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    return int(code), headers


#: The same request is mostly answered with the same head. What is remembered must not be changed.
_parsed_head: Final = lru_cache(16)(parse_head)


def content_length(headers: Mapping[str, str]) -> int:
    """Bytes of an answer's body. ValueError when it does not say."""
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()) or len(length) > 12:
        raise ValueError(f"the answer has no usable Content-Length: {length[:80]!r}")
    return int(length)


class Connection:
    """A kept-alive connection; opened at its first exchange and again after the daemon closed it."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self._sock: socket.socket | None = None
        #: Head of the last answer, without its empty line.
        self.head = b""

    @property
    def is_open(self) -> bool:
        """True between exchanges of one connection."""
        return self._sock is not None

    def close(self) -> None:
        """Close; the next exchange connects again."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> Answer:
        """(status, headers by lower-case name, body) of one request.

        An iterator as body needs a Content-Length among the headers. Raises Closed, Late after the timeout, OSErrors,
        and ValueError when the answer is not HTTP; the connection is closed then.
        """
        if self._sock is None:
            self._sock = connect(self.path, self.timeout)
        try:
            answer = self._exchange(self._sock, method, target, headers, body)
        except BaseException as error:
            self._failed(error)
            raise
        return self._finished(answer)

    def again(self, pieces: list[Any], size: int, start: bytes, length: int) -> bytes | Answer:
        """Send a request of `size` bytes that is made already, on the connection that is open. Closed where none is.

        An answer of `length` bytes that begins with `start` is returned as it came, head and all: what was read from
        the one before holds for it. Any other as `exchange` does.
        """
        sock = self._sock
        if sock is None:
            raise Closed("not connected")
        try:
            sent = sock.sendmsg(pieces)
            if sent < size:  # a signal came in between
                sock.sendall(b"".join(pieces)[sent:])
            data = sock.recv(length + 1)  # one more than expected would be an answer to nothing
            if len(data) == length and data.startswith(start):
                return data
            answer = self._receive(sock, data)
        except (BrokenPipeError, ConnectionResetError) as error:
            self.close()
            raise Closed(str(error)) from error
        except BaseException as error:
            self._failed(error)
            raise
        return self._finished(answer)

    def _failed(self, error: BaseException) -> None:
        """Close after an exchange that has no answer. Late after the timeout."""
        self.close()
        if isinstance(error, BlockingIOError):
            raise Late from error

    def _finished(self, answer: Answer) -> Answer:
        """The answer; closed when the daemon hangs up after it."""
        if answer[1].get("connection", "").lower() == "close":
            self.close()
        return answer

    def _exchange(
        self,
        sock: socket.socket,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> Answer:
        head = request_head(method, target, headers, body)
        try:
            if isinstance(body, Iterator):
                sock.sendall(head)
                for piece in body:
                    sock.sendall(piece)
            else:
                _send(sock, [head, *body])
        except (BrokenPipeError, ConnectionResetError) as error:
            # A refused upload is answered and hung up on before its end: the answer says why.
            try:
                status, answered, data = self._receive(sock)
            except (Closed, OSError):
                raise Closed(str(error)) from error
            return status, {**answered, "connection": "close"}, data
        return self._receive(sock)

    def _receive(self, sock: socket.socket, data: bytes = b"") -> Answer:
        """The answer, of which `data` has come already."""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > MAX_HEAD:
                raise ValueError(f"the answer's headers are longer than {MAX_HEAD} bytes")
            try:
                piece = sock.recv(PIECE)
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed("no answer")
            data += piece
        self.head = data[:end]
        status, parsed = _parsed_head(self.head)
        headers = parsed.copy()
        if status == 204:
            return status, headers, b""
        body = data[end + 4 :]
        missing = content_length(headers) - len(body)
        if missing < 0:
            raise ValueError("the answer is longer than its Content-Length")
        if not missing:
            return status, headers, body
        parts = [body]
        while missing:
            piece = sock.recv(min(missing, 1 << 20))
            if not piece:
                raise ConnectionError(f"the answer ended {missing} bytes early")
            parts.append(piece)
            missing -= len(piece)
        return status, headers, b"".join(parts)


def _send(sock: socket.socket, pieces: list[Buffer]) -> None:
    sent = sock.sendmsg(pieces)
    if sent < sum(map(len, pieces)):  # a signal came in between
        sock.sendall(b"".join(pieces)[sent:])
