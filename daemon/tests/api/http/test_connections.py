"""Connections: thousands of idle ones, requests in pieces and in a row, clients that go away."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.api.http.plain import plain_head
from edgeaid.client.http import connect
from edgeaid.models.repository import EMBEDDED
from edgeaid.serving.metrics import rss_bytes

from ...support.daemon import Running
from ...support.waiting import eventually

PATH = "/v2/models/digits/infer"
IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
SCORES = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.out.npy")
IDLE = 10_000


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for the connections of a test in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 500:
        pytest.skip(f"this user may open {hard} files, the test needs {IDLE + 500}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (IDLE + 500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("edgeaid", socket.SOCK_STREAM), ("fast", socket.SOCK_SEQPACKET)])
def test_ten_thousand_idle_connections_cost_neither_memory_nor_answers(
    start: Callable[..., Running], many_descriptors: None, name: str, kind: Any
) -> None:
    daemon = start()
    before = rss_bytes(daemon.process.pid)
    held = []
    try:
        with daemon.client() as client:
            for number in range(IDLE):
                held.append(connect(str(daemon.directory / "run" / f"{name}.sock"), 30, kind))
                if number % 1000 == 999:
                    assert np.abs(client.infer("digits", IMAGE)["scores"].astype(int) - SCORES.astype(int)).max() <= 2
        with daemon.client() as late:  # somebody new among all of them
            assert late.is_ready()
            late.infer("digits", IMAGE)
        until = time.monotonic() + 30
        while (still_open := sum(not is_closed(s) for s in held)) > 1024 and time.monotonic() < until:
            time.sleep(0.1)
        assert 900 < still_open <= 1024
        assert is_closed(held[0]), "the oldest goes first"
        assert not is_closed(held[-1])
        assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) < 1200
        assert rss_bytes(daemon.process.pid) - before < 48 << 20
    finally:
        for sock in held:
            sock.close()
    assert daemon.json("GET", "/v2/health/ready")[0] == 200


def test_the_connection_idle_longest_makes_room_and_busy_ones_stay(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nconnections = 4\n")
    with daemon.raw() as listener, daemon.raw() as body:
        listener.sendall(b"GET /edgeai/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in listener.recv(200)
        body.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab".encode())
        for _ in range(20):
            with daemon.raw() as other:
                other.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" in other.recv(500)
        assert not is_closed(listener)


def request(identity: str = "", picture: bytes = b"") -> bytes:
    """A whole binary request as bytes, with a tensor or with a picture."""
    data = picture or IMAGE.tobytes()
    form = {"datatype": "BYTES", "shape": [1]} if picture else {"datatype": "INT8", "shape": list(IMAGE.shape)}
    given = {"name": "image", **form, "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"id": identity, "inputs": [given]}).encode()
    lines = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(text)}\r\n"
    return f"{lines}Content-Length: {len(text) + len(data)}\r\n\r\n".encode() + text + data


def answers(sock: socket.socket, count: int) -> list[tuple[int, dict[str, Any]]]:
    """Status and JSON of the next answers on a connection."""
    replies: list[tuple[int, dict[str, Any]]] = []
    data = b""
    while len(replies) < count:
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += sock.recv(65536)
        lines = data[:end].decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
        while len(data) < end + 4 + length:
            data += sock.recv(65536)
        replies.append((int(lines[0].split()[1]), json.loads(data[end + 4 : end + 4 + length])))
        data = data[end + 4 + length :]
    assert not data
    return replies


def test_a_request_may_come_in_any_pieces(daemon: Running) -> None:
    whole = request("in pieces")
    head = whole.index(b"\r\n\r\n") + 4
    end = len(whole)
    for cuts in ([1], [10, head - 2], [head], [head, head + 5], [head + 7], range(200, end, 97), [end - 1]):
        with daemon.raw() as sock:
            last = 0
            for cut in [*cuts, end]:
                sock.sendall(whole[last:cut])
                last = cut
                time.sleep(0.002)
            ((status, answer),) = answers(sock, 1)
            assert (status, answer["id"]) == (200, "in pieces")
            assert np.abs(np.array(answer["outputs"][0]["data"]) - SCORES.ravel()).max() <= 2


def test_requests_in_a_row_are_answered_in_their_order(daemon: Running, three: bytes) -> None:
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    row = [request("0"), request("1"), bad, request("3"), live, request("5"), request("6", three), bad, request("8")]
    for step in (1 << 30, 3000, 700):
        with daemon.raw() as sock:
            data = b"".join(row)
            for at in range(0, len(data), step):
                sock.sendall(data[at : at + step])
            replies = answers(sock, len(row))
        assert [status for status, _ in replies] == [200, 200, 400, 200, 200, 200, 200, 400, 200]
        assert [answer.get("id") for _, answer in replies] == ["0", "1", None, "3", None, "5", "6", None, "8"]


def test_hundreds_of_bad_requests_in_one_piece_are_all_answered(daemon: Running) -> None:
    bad = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    with daemon.raw() as sock:
        sock.sendall(bad * 700)
        assert {status for status, _ in answers(sock, 700)} == {400}


def test_the_same_question_about_other_tensors_gets_other_answers(daemon: Running) -> None:
    golden = EMBEDDED / "digits" / "1" / "golden"
    images = [(np.load(p), np.load(str(p).replace(".in.", ".out."))) for p in sorted(golden.glob("*.in.npy"))]
    with daemon.client(fast=False) as client:
        for _ in range(3):
            for image, scores in images:
                answer = client.infer("digits", image)["scores"]
                assert np.abs(answer.astype(int) - scores.astype(int)).max() <= 2
                named = client.infer("digits", image, priority=2, timeout=5.0)["scores"]
                assert np.array_equal(answer, named)


def test_a_client_that_leaves_takes_its_requests_with_it(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()
    with daemon.client() as watcher:
        before = watcher.stats("digits")[0]["inference_stats"]["success"]["count"]
        for _ in range(50):
            with daemon.raw() as sock:
                sock.sendall(request())
        free = b'edgeai_slots_in_use{model="digits",version="1"} 0'
        eventually(lambda: free in watcher.request("GET", "/metrics")[0])
        assert watcher.stats("digits")[0]["inference_stats"]["success"]["count"] <= before + 50


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v2/models/a/infer HTTP/1.0\r\nContent-Length: 1\r\n\r\n",
        b"GET /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        b"POST /v2/models/a%20b/infer HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        b"POST /v2/models/../infer HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\nContent-Encoding: gzip\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\n folded\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: 1\r\nX: \0\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\nContent-Length: 1\n\n",
    ],
)
def test_what_is_not_a_plain_request_is_left_to_the_library(head: bytes) -> None:
    assert plain_head(head + b"x") is None


def test_a_plain_head_is_read_whatever_the_case_of_its_headers() -> None:
    raw = (
        b"POST /v2/models/bird-2.1/versions/7/infer?x=1 HTTP/1.1\r\nHOST: y\r\ncontent-LENGTH: 12\r\n"
        b"inference-header-content-length: 5\r\nAccept-Encoding: gzip\r\nConnection: Keep-Alive\r\n\r\n"
    )
    head = plain_head(raw + b"abc")
    assert head is not None
    assert (head.raw, head.model, head.version) == (raw, "bird-2.1", "7")
    assert (head.length, head.json_length, head.accept) == (12, "5", "gzip")


def test_plain_inference_takes_the_short_way(daemon: Running) -> None:
    """The library names itself in a Server header; the short way, which needs a private part of it, does not."""
    body = json.dumps({"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1], "data": [0]}]}).encode()
    _, library, _ = daemon.http("GET", "/v2")
    _, short, _ = daemon.http("POST", PATH, body)
    assert "aiohttp" in library["server"]
    assert "server" not in short, "aiohttp has changed: plain requests no longer take the short way (_waiter)"
