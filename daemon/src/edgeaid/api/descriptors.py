"""Descriptors that clients send along, and sockets that may still hold some: never closed by the event loop.

Any process can attach descriptors to a message on a Unix socket. Dropping the last reference to one waits for what its
file does on closing: a TCP socket with SO_LINGER waits for as long as its owner chose, a FUSE file for its server.
So (1) the kernel is asked to refuse them, where it can (Linux 6.16); (2) every read has room for all descriptors that a
message can carry, because the kernel closes in our name what does not fit; (3) they are closed in threads of their own,
and so is a socket whose queue is not empty, because unread messages are dropped, with what they carry, on closing.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import logging
import os
import queue
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..errors import EdgeaiError, InvalidRequest

log = logging.getLogger(__name__)

#: Linux 6.16, asm-generic/socket.h. Switched off, the sender of a descriptor gets EPERM.
SO_PASSRIGHTS: Final = 83
#: Descriptors in one message (SCM_MAX_FD), and room for them.
MAX_RIGHTS: Final = 253
ROOM: Final = socket.CMSG_SPACE(MAX_RIGHTS * 4)
#: Threads that close. One is enough until a client sends what does not close.
MAX_THREADS: Final = 16
#: A close that takes longer is interrupted: waiting for SO_LINGER ends with any signal.
PATIENCE_SECONDS: Final = 0.5
#: With so many waiting to be closed, a message is looked at before its descriptors are received.
MANY: Final = 64

_FLAGS: Final = int(socket.MSG_CMSG_CLOEXEC)
#: Connections accepted at once; the others wait for the next turn of the event loop.
ACCEPTED: Final = 4
_CUT_SHORT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)


class Closer:
    """Runs what may block on closing in threads of its own, and interrupts what blocks for long."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        #: Thread id -> since when it has been closing something.
        self._busy: dict[int, float] = {}
        self._threads = 0
        self._waiting = 0
        #: Set while something waits to be closed; None until there was anything.
        self._watch: threading.Event | None = None

    @property
    def backlog(self) -> int:
        """How many wait to be closed, those under way included."""
        return self._waiting

    def run(self, close: Callable[[], None]) -> None:
        """Have a thread call `close`. No thread starts when the process ends: the kernel closes what is left then."""
        if sys.is_finalizing():
            return
        with self._lock:
            self._waiting += 1
            start = self._waiting > self._threads and self._threads < MAX_THREADS
            self._threads += start
            if self._watch is None:
                self._watch = threading.Event()
                threading.Thread(target=self._hurry, args=(self._watch,), name="closer-watch", daemon=True).start()
        self._work.put(close)
        self._watch.set()
        if start:
            threading.Thread(target=self._thread, name=f"closer-{self._threads}", daemon=True).start()

    def close(self, fds: Sequence[int]) -> None:
        """Close descriptors."""
        for fd in fds:
            self.run(lambda fd=fd: os.close(fd))  # type: ignore[misc]  # mypy cannot infer a default's type

    def _hurry(self, watch: threading.Event) -> None:
        while watch.wait():
            time.sleep(PATIENCE_SECONDS)
            late = time.monotonic() - PATIENCE_SECONDS
            for thread, since in list(self._busy.items()):
                if since < late:
                    with contextlib.suppress(OSError):
                        signal.pthread_kill(thread, signal.SIGURG)
            with self._lock:
                if not self._waiting:
                    watch.clear()

    def _thread(self) -> None:
        me = threading.get_ident()
        while True:
            close = self._work.get()
            self._busy[me] = time.monotonic()
            try:
                close()
            except OSError as error:
                log.debug("closing: %s", error)
            finally:
                self._busy.pop(me, None)
                with self._lock:
                    self._waiting -= 1


closer: Final = Closer()


def interruptible() -> None:
    """Let SIGURG interrupt a system call instead of being ignored; once, from the main thread."""
    signal.signal(signal.SIGURG, lambda *_: None)


class Refused(ConnectionAbortedError):
    """A message brought descriptors where none are taken."""


def set_rights(sock: socket.socket, taken: bool) -> None:
    """Whether the kernel lets descriptors in; without effect before Linux 6.16."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, int(taken))


def rights(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Descriptors among the control messages of a recvmsg."""
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return fds.tolist()


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """(data, descriptors) of one read of at most `size` bytes. Refused, BlockingIOError."""
    if closer.backlog > MANY:
        _, _, flags, _ = sock.recvmsg(size, 0, socket.MSG_PEEK)
        if flags & socket.MSG_CTRUNC:
            raise Refused("a message brought descriptors while too many wait to be closed")
    data, ancillary, _, _ = sock.recvmsg(size, ROOM, _FLAGS)
    return data, rights(ancillary) if ancillary else []


def receive_into(sock: socket.socket, buffer: memoryview) -> tuple[int, list[int], bool]:
    """The same into a buffer: (bytes, descriptors, cut short)."""
    if closer.backlog > MANY:
        _, _, flags, _ = sock.recvmsg(len(buffer), 0, socket.MSG_PEEK)
        if flags & socket.MSG_CTRUNC:
            raise Refused("a message brought descriptors while too many wait to be closed")
    size, ancillary, flags, _ = sock.recvmsg_into((buffer,), ROOM, _FLAGS)
    return size, rights(ancillary) if ancillary else [], bool(flags & _CUT_SHORT)


class ClientSocket(socket.socket):
    """A stream from a client: takes no descriptors, and closing it never waits."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Like socket.recv. Refused, after an answer in HTTP, when descriptors came along."""
        if flags:
            return super().recv(size, flags)
        data, fds = receive(self, size)
        if fds:
            closer.close(fds)
            with contextlib.suppress(OSError):
                self.send(REFUSAL)
            raise Refused("descriptors came with a request")
        return data

    def close(self) -> None:
        """Close, by a thread when something unread is in the queue."""
        if self.fileno() >= 0 and self.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_RDWR)  # the other end knows at once, and nothing more can come
            if self.type == socket.SOCK_SEQPACKET or _unread(self):
                closer.close([self.detach()])
                return
        super().close()


class ListeningSocket(socket.socket):
    """A listening Unix socket whose connections are ClientSockets."""

    #: Whether the kernel is asked to keep descriptors out.
    refusing = True
    #: Accepted since the loop was last made to come back.
    _accepted = 0
    #: No descriptor was left at the last call, which said so.
    _short = False

    @staticmethod
    def of(sock: socket.socket, *, refusing: bool = True) -> ListeningSocket:
        """Take over a listening socket."""
        listening = ListeningSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        listening.setblocking(False)
        listening.refusing = refusing
        if refusing:
            set_rights(listening, False)
        return listening

    def accept(self) -> tuple[ClientSocket, Any]:
        """Like socket.accept; BlockingIOError after every few, for the loop to come back: asyncio takes a hundred."""
        if self._accepted >= ACCEPTED:
            self._accepted = 0
            raise BlockingIOError
        try:
            accepted, address = super().accept()
        except OSError as error:
            # asyncio tells of it, pauses for a second, and asks on, as often as connections may wait.
            short = error.errno in (errno.EMFILE, errno.ENFILE)
            self._short = short and not self._short
            if short and not self._short:
                raise BlockingIOError from error
            raise
        self._accepted += 1
        client = ClientSocket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        client.setblocking(False)
        if self.refusing:
            set_rights(client, False)  # one that waited in the backlog since before ours
        # An urgent byte may carry descriptors too: read in line, it comes with them; else it is dropped by our read.
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        return client, address


def _unread(sock: socket.socket) -> bool:
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    except OSError:
        return True
    return any(answer)


def _refusal() -> bytes:
    import json

    error: EdgeaiError = InvalidRequest("descriptors are not taken here; the fast socket takes sealed memfds")
    body = json.dumps({"error": str(error)}).encode()
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


REFUSAL: Final = _refusal()
