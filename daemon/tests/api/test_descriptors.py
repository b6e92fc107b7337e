"""Descriptors that clients send along: closing them may block, but no other client waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeaid.api.descriptors import MAX_RIGHTS, Closer, ListeningSocket, closer, interruptible
from edgeaid.api.sockets import bind

from ..support.daemon import Running
from ..support.waiting import eventually

SECONDS = 20
#: What another client may have to wait while the sender's descriptor is closed.
PAUSE = 2.0


def lingering() -> int:
    """A TCP socket that takes SECONDS to close: SO_LINGER, and bytes that nobody takes."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    receiver, _ = listener.accept()
    KEPT.extend((listener, receiver))
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(bytes(65536))
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, SECONDS))
    return sender.detach()


KEPT: list[socket.socket] = []


def give_up(fd: int) -> None:
    """Close our own copy. Where it is the last one, because the kernel kept the other out, that takes long: aside."""
    closing = threading.Thread(target=os.close, args=(fd,), daemon=True)
    closing.start()
    closing.join(0.5)


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    while KEPT:
        KEPT.pop().close()


class Echo(asyncio.Protocol):
    """Says back what it hears."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        if data == b"bye":
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.3, self.transport.close)


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    """A stream server as the daemon's are, on a kernel that lets descriptors in."""
    path = tmp_path / "echo.sock"
    interruptible()
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        sock = ListeningSocket.of(bind(path, socket.SOCK_STREAM), refusing=False)
        server = await asyncio.get_running_loop().create_unix_server(Echo, sock=sock)
        started.set()
        while not stop.is_set():
            await asyncio.sleep(0.01)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield path
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def connect(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.settimeout(SECONDS - 5)
    sock.connect(str(path))
    return sock


def pause(path: Path, during: float = 1.5) -> float:
    """The longest that an answer takes, in seconds."""
    worst = 0.0
    until = time.monotonic() + during
    with connect(path) as sock:
        while time.monotonic() < until:
            asked = time.monotonic()
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            worst = max(worst, time.monotonic() - asked)
            time.sleep(0.01)
    return worst


def test_a_descriptor_that_blocks_on_closing_holds_up_nobody(echo: Path) -> None:
    with connect(echo) as sender:
        fd = lingering()
        socket.send_fds(sender, [b"hello"], [fd])
        give_up(fd)
        assert pause(echo) < PAUSE
        answer = sender.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"descriptors are not taken here" in answer
        assert sender.recv(4096) == b"", "and the connection is closed"


def test_all_the_descriptors_that_a_message_can_carry_are_taken_out_by_the_closer(echo: Path) -> None:
    with connect(echo) as sender:
        fds = [lingering(), *(os.dup(0) for _ in range(MAX_RIGHTS - 1))]
        socket.send_fds(sender, [b"hello"], fds[::-1])
        for fd in fds:
            give_up(fd)
        assert pause(echo) < PAUSE
    eventually(lambda: closer.backlog == 0, SECONDS / 2)


def test_what_nobody_has_read_when_a_connection_is_closed_holds_up_nobody_either(echo: Path) -> None:
    with connect(echo) as sender:
        sender.sendall(b"bye")
        assert sender.recv(3) == b"bye"
        fd = lingering()
        socket.send_fds(sender, [b"never read"], [fd])
        give_up(fd)
        assert pause(echo) < PAUSE
        with contextlib.suppress(ConnectionResetError):
            assert sender.recv(1) == b""


def test_an_urgent_byte_may_carry_one_too(echo: Path) -> None:
    with connect(echo) as sender:
        fd = lingering()
        try:
            socket.send_fds(sender, [b"!"], [fd], flags=socket.MSG_OOB)
        except OSError:
            pytest.skip("this kernel has no urgent bytes on Unix sockets")
        give_up(fd)
        assert pause(echo) < PAUSE


def test_a_close_that_waits_is_interrupted() -> None:
    interruptible()
    mine = Closer()
    mine.close([lingering()])
    eventually(lambda: mine.backlog == 0, SECONDS / 2)


@pytest.mark.parametrize(("name", "kind"), [("edgeaid", socket.SOCK_STREAM), ("fast", socket.SOCK_SEQPACKET)])
def test_nothing_that_a_client_sends_along_stops_the_daemon(
    start: Callable[..., Running], name: str, kind: Any
) -> None:
    daemon = start()
    path = daemon.directory / "run" / f"{name}.sock"
    with connect(path, kind) as sender, daemon.raw() as other:
        if kind == socket.SOCK_SEQPACKET:
            sender.send(b'{"op": "hello", "version": 1}')
            assert b'"version":1' in sender.recv(4096)
        fd = lingering()
        with contextlib.suppress(PermissionError):  # the kernel keeps it out
            socket.send_fds(sender, [b'{"op": "attach"}'], [fd])
        give_up(fd)
        asked = time.monotonic()
        other.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in other.recv(500)
        assert time.monotonic() - asked < PAUSE
    assert daemon.stop(signal.SIGTERM) == 0


def test_a_new_connection_of_the_fast_socket_may_not_bring_descriptors(start: Callable[..., Running]) -> None:
    daemon = start()
    with connect(daemon.directory / "run" / "fast.sock", socket.SOCK_SEQPACKET) as sender:
        fd = lingering()
        with contextlib.suppress(PermissionError):
            socket.send_fds(sender, [b'{"op": "hello", "version": 1}'], [fd])
            assert sender.recv(4096) == b""
        give_up(fd)
    assert daemon.json("GET", "/v2/health/live")[0] == 200
