"""Clients that send as fast as they can, on every socket: others are answered soon, and memory does not grow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..support import http2
from ..support.daemon import Running
from ..support.memory import Peak

#: On an idle machine it is under 0.05; a test machine has other things to do.
PAUSE = float(os.environ.get("EDGEAI_TEST_PAUSE", "10"))
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
#: How long each flood lasts.
SECONDS = float(os.environ.get("EDGEAI_TEST_FLOOD_SECONDS", "1.0"))


def post(body: bytes) -> bytes:
    return b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


DIGITS = json.dumps(
    {"inputs": [{"name": "image", "datatype": "INT8", "shape": [1, 32, 32, 1], "data": [0] * 1024}]}
).encode()
LISTS = b'{"a":[' + b"[]," * 5000 + b"0]}"


@pytest.fixture(scope="module")
def started(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Running]]:
    """Start daemons with the fast socket and gRPC."""
    pytest.importorskip("hpack", reason="needs edgeaid[grpc]")
    daemons: list[Running] = []

    def make() -> Running:
        directory = tmp_path_factory.mktemp("floods")
        run = directory / "run"
        server = f'[server]\nfast_socket = "{run / "fast.sock"}"\ngrpc_socket = "{run / "grpc.sock"}"\n'
        daemons.append(launch(directory, server))
        return daemons[-1]

    yield make
    for running in daemons:
        running.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def sockets(started: Callable[[], Running]) -> Iterator[Running]:
    """One daemon for all floods."""
    running = started()
    yield running
    assert running.stop() == 0, running.log.read_text()


def flood(
    daemon: Running, name: str, kind: Any, first: bytes, more: bytes, *, reads: bool, seconds: float = SECONDS
) -> None:
    """Send `first` and then `more` again and again on one connection until the time is over, or the connection."""
    until = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(0.2)
        sock.connect(str(daemon.directory / "run" / name))
        if first:
            sock.sendall(first)
        while time.monotonic() < until:
            try:
                sock.send(more)
            except TimeoutError:
                pass
            except OSError:
                return
            if reads:
                with contextlib.suppress(OSError):
                    while sock.recv(1 << 16, socket.MSG_DONTWAIT):
                        pass


def longest_pause(daemon: Running, senders: list[threading.Thread]) -> float:
    """Seconds that a client with a new connection for each question waited at most while the senders send."""
    worst = 0.0
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        asked = time.monotonic()
        with daemon.raw() as sock:
            sock.sendall(LIVE)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        worst = max(worst, time.monotonic() - asked)
        time.sleep(0.01)
    return worst


HELLO = b'{"op": "hello", "version": 2}'
OPENED = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0)
FLOODS = {
    "inference": ("edgeaid.sock", socket.SOCK_STREAM, b"", post(DIGITS) * 60),
    "bad inference": ("edgeaid.sock", socket.SOCK_STREAM, b"", post(b"{}") * 2000),
    "many lists": ("edgeaid.sock", socket.SOCK_STREAM, b"", post(LISTS) * 15),
    "questions": ("edgeaid.sock", socket.SOCK_STREAM, b"", LIVE * 5000),
    "the description": ("edgeaid.sock", socket.SOCK_STREAM, b"", LIVE.replace(b"/v2/health/live", b"/metrics") * 99),
    "chunks": (
        "edgeaid.sock",
        socket.SOCK_STREAM,
        post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
        b"1\r\n \r\n" * 9000,
    ),
    "control messages": ("fast.sock", socket.SOCK_SEQPACKET, HELLO, LISTS),
    "unknown bindings": ("fast.sock", socket.SOCK_SEQPACKET, HELLO, b"\1" + bytes(31)),
    "pings": ("grpc.sock", socket.SOCK_STREAM, OPENED, http2.frame(http2.PING, 0, 0, bytes(8)) * 3000),
    "settings": ("grpc.sock", socket.SOCK_STREAM, OPENED, http2.frame(http2.SETTINGS, 0, 0) * 5000),
    "windows": ("grpc.sock", socket.SOCK_STREAM, OPENED, http2.frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 5000),
}


#: Those of the fast suite: one for each socket.
USUAL = ("inference", "control messages", "pings")
CASES = [
    pytest.param(name, reads, marks=() if name in USUAL and reads else pytest.mark.slow)
    for name in FLOODS
    for reads in (True, False)
]


@pytest.mark.parametrize(("name", "reads"), CASES)
def test_clients_that_send_fast_hold_up_nobody_and_make_the_daemon_hold_little(
    sockets: Running, name: str, reads: bool
) -> None:
    path, kind, first, more = FLOODS[name]

    def send() -> None:
        flood(sockets, path, kind, first, more, reads=reads)

    before = sockets.log.stat().st_size
    with Peak(sockets) as peak:
        worst = longest_pause(sockets, [threading.Thread(target=send) for _ in range(4)])
    assert worst < PAUSE
    assert peak.grown < 48 << 20
    assert sockets.log.stat().st_size - before < 4000
    assert sockets.json("GET", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "questions" else pytest.mark.slow) for n in FLOODS])
def test_the_daemon_ends_by_itself_while_clients_send_and_never_read(
    started: Callable[..., Running], name: str
) -> None:
    daemon = started()
    path, kind, first, more = FLOODS[name]

    def send() -> None:
        with contextlib.suppress(OSError):
            flood(daemon, path, kind, first, more, reads=False, seconds=60)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    time.sleep(SECONDS / 2)  # until much has come; right whether or not it has
    code = daemon.stop()
    for sender in senders:
        sender.join()
    assert code == 0  # by SIGALRM, if the end of the event loop or of the interpreter waited for something
    assert "not everything ended in time" not in daemon.log.read_text()


def test_headers_of_a_call_that_never_end_end_the_connection(sockets: Running) -> None:
    endless = http2.frame(http2.HEADERS, 0, 1, bytes(100)) + http2.frame(9, 0, 1, bytes(4000)) * 3
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(sockets.directory / "run" / "grpc.sock"))
        sock.sendall(OPENED + endless)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(1 << 16):
                received += piece
    assert b"the headers of a call have more than" in received


def test_a_row_of_requests_is_answered_whole_though_its_client_reads_late(sockets: Running) -> None:
    count = 200
    with sockets.raw() as sock:
        sock.settimeout(110)
        sender = threading.Thread(target=sock.sendall, args=(post(DIGITS) * count + LIVE,))
        sender.start()
        time.sleep(0.2)  # until the daemon has answers that it cannot send; right whether or not it has
        received = b""
        while b'{"live":true}' not in received[-200:]:
            piece = sock.recv(1 << 16)
            assert piece
            received += piece
        sender.join()
    assert received.count(b"HTTP/1.1 200 OK") == count + 1


def test_large_bodies_behind_each_other_arrive_whole(start: Callable[..., Running]) -> None:
    daemon = start()
    text = json.dumps({"parameters": {"text": "x" * 600_000}}).encode()
    load = b"POST /v2/repository/models/nothing/load HTTP/1.1\r\nHost: x\r\n"
    whole = load + b"Content-Length: %d\r\n\r\n" % len(text) + text
    chunked = load + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
    with daemon.raw() as sock:
        sender = threading.Thread(target=sock.sendall, args=(whole + LIVE + whole + chunked + LIVE,))
        sender.start()
        received = b""
        while received.count(b'{"live":true}') < 2:
            piece = sock.recv(1 << 16)
            assert piece, received
            received += piece
        sender.join()
    assert re.findall(rb"HTTP/1\.1 ([0-9]+)", received) == [b"404", b"200", b"404", b"404", b"200"]


def test_what_is_wrong_with_a_request_whose_client_has_left_is_not_written_to_the_log(sockets: Running) -> None:
    wrong = json.dumps({"inputs": ["x" * 40_000]}).encode()  # so large that a thread reads it
    before = sockets.log.stat().st_size
    for _ in range(20):
        with sockets.raw() as sock:
            sock.sendall(post(wrong))
    for _ in range(3):
        assert sockets.json("POST", "/v2/models/digits/infer", wrong)[0] == 400
    assert sockets.log.stat().st_size == before
