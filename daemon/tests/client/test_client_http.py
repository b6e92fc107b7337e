"""The client's HTTP against servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid import errors
from edgeaid.client import Client, http
from edgeaid.client.arguments import Address
from edgeaid.client.blocking import BlockingTransport, run
from edgeaid.client.core import Core

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Serve connections one after the other with the given functions; returns the socket's path."""
    sock = socket.socket(socket.AF_UNIX)
    path = tmp_path / "http.sock"
    sock.bind(str(path))
    sock.listen()
    threads: list[threading.Thread] = []

    def start(*answers: Callable[[socket.socket], None]) -> Path:
        def run() -> None:
            for answer in answers:
                connection, _ = sock.accept()
                with connection:
                    answer(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(10)
    sock.close()


def request_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


def says(answer: bytes) -> Callable[[socket.socket], None]:
    def run(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(answer)

    return run


def test_an_answer_in_single_bytes_is_read_whole(serve: Any) -> None:
    def slowly(connection: socket.socket) -> None:
        request_of(connection)
        for byte in OK:
            connection.send(bytes([byte]))

    with Client(serve(slowly)) as client:
        assert client.get("/v2") == {}


def test_a_connection_closed_between_requests_is_opened_again(serve: Any) -> None:
    with Client(serve(says(OK), says(OK))) as client:
        assert client.get("/v2") == {}
        assert client.get("/v2") == {}


def test_a_daemon_that_hangs_up_on_a_fresh_connection_is_not_asked_twice(serve: Any) -> None:
    with Client(serve(request_of)) as client, pytest.raises(errors.Unavailable, match="closed the connection"):
        client.get("/v2")


def test_connection_close_is_obeyed(serve: Any) -> None:
    closing = OK.replace(b"Content", b"Connection: close\r\nContent", 1)
    with Client(serve(says(closing), says(OK))) as client:
        assert client.get("/v2") == {}
        assert client.get("/v2") == {}


def test_the_reason_of_a_refused_upload_arrives(serve: Any, tmp_path: Path) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b'HTTP/1.1 413 No\r\nContent-Length: 23\r\n\r\n{"error":"far too big"} '[:-1])
        connection.shutdown(socket.SHUT_RD)

    file = tmp_path / "model.tflite"
    file.write_bytes(bytes(4 << 20))
    with Client(serve(refuse)) as client, pytest.raises(errors.TooLarge, match="far too big"):
        client.push("model", file)


def test_a_large_answer_and_a_large_request(serve: Any) -> None:
    body = bytes(range(256)) * 8192

    def echo(connection: socket.socket) -> None:
        data = request_of(connection)
        head, _, rest = data.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head
        while len(rest) < len(body):
            rest += connection.recv(1 << 20)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(rest) + rest)

    with Client(serve(echo)) as client:
        assert client.request("POST", "/echo", body)[0] == body


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "not a header"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", "longer than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "8 bytes early"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000, "headers are longer"),
    ],
)
def test_answers_that_are_not_ours(serve: Any, answer: bytes, text: str) -> None:
    with Client(serve(says(answer))) as client, pytest.raises(errors.Unavailable, match=text):
        client.get("/v2")


def inferred(values: bytes, version: int = 1, device: str = "cpu0", *, extra: bytes = b"") -> bytes:
    """An answer to an inference with one output of bytes, with binary tensors."""
    size = {"binary_data_size": len(values)}
    output = {"name": "out", "datatype": "UINT8", "shape": [len(values)], "parameters": size}
    said = {"model_name": "m", "model_version": str(version), "parameters": {"device": device}, "outputs": [output]}
    body = json.dumps(said).encode()
    head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\nInference-Header-Content-Length: %d\r\n\r\n"
    return head % (extra, len(body) + len(values), len(body)) + body + values


def repeats(*answers: list[bytes]) -> Callable[[socket.socket], None]:
    """Metadata of a model with one UINT8 input of 3 values, then for each inference the pieces of its answer."""
    tensor = {"name": "in", "datatype": "UINT8", "shape": [3]}
    metadata = json.dumps({"name": "m", "inputs": [tensor], "outputs": []}).encode()
    first = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(metadata) + metadata

    def run(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(first)
        for pieces in answers:
            data = b""
            while not data.endswith(b"\7\7\7"):
                data += connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)

    return run


def test_each_answer_to_a_repeated_request_is_read_for_what_it_says(serve: Any) -> None:
    plain = inferred(b"abc")
    answers = [
        [plain],
        [plain],
        [inferred(b"xyz")],  # the same beginning
        [inferred(b"abc", version=2)],
        [inferred(b"abc", device="tpu0")],
        [inferred(b"abcdef")],
        [inferred(b"")],
        [bytes([byte]) for byte in inferred(b"uvw")],
        [inferred(b"abc")[:-2], b"bc"],
        [inferred(bytes(range(256)) * 300)],  # longer than one read
        [plain],
    ]
    expected = [
        *((b"abc", "1", "cpu0"), (b"abc", "1", "cpu0"), (b"xyz", "1", "cpu0"), (b"abc", "2", "cpu0")),
        *((b"abc", "1", "tpu0"), (b"abcdef", "1", "cpu0"), (b"", "1", "cpu0"), (b"uvw", "1", "cpu0")),
        *((b"abc", "1", "cpu0"), (bytes(range(256)) * 300, "1", "cpu0"), (b"abc", "1", "cpu0")),
    ]
    with Client(serve(repeats(*answers)), fast=False) as client:
        told = [client.infer("m", np.full(3, 7, np.uint8)) for _ in answers]
    assert [(a["out"].tobytes(), a.version, a.device) for a in told] == expected


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (inferred(b"abc") + b"HTTP/1.1", errors.Unavailable, "longer than"),
        (inferred(b"abc")[:-1], errors.Unavailable, "1 bytes early"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", errors.Unavailable, "not an HTTP answer"),
        (
            b'HTTP/1.1 504 Late\r\nContent-Length: 16\r\n\r\n{"error":"late"}',
            errors.DeadlineExceeded,
            "late",
        ),
    ],
)
def test_a_repeated_request_is_refused_for_the_same_reasons_as_the_first(
    serve: Any, answer: bytes, kind: type[errors.EdgeaiError], text: str
) -> None:
    good = [inferred(b"abc")]
    with Client(serve(repeats(good, good, [answer])), fast=False) as client:
        for _ in range(2):
            client.infer("m", np.full(3, 7, np.uint8))
        with pytest.raises(kind, match=text):
            client.infer("m", np.full(3, 7, np.uint8))


def test_a_repeated_request_opens_a_new_connection_after_one_that_was_closed(serve: Any) -> None:
    closing = inferred(b"abc", extra=b"Connection: close\r\n")
    good = [inferred(b"abc")]

    def second(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(good[0])

    with Client(serve(repeats(good, [closing]), second), fast=False) as client:
        for _ in range(3):
            assert client.infer("m", np.full(3, 7, np.uint8))["out"].tobytes() == b"abc"


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b"HTTP/1.1 200 OK\r\n" + b))
def test_a_damaged_head_is_a_value_error(head: bytes) -> None:
    try:
        status, headers = http.parse_head(head)
    except ValueError:
        return
    assert 0 <= status <= 999
    assert all(name == name.lower() for name in headers)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_daemon_that_never_answers_is_given_up_after_the_timeout(tmp_path: Path, kind: int) -> None:
    path = tmp_path / ("fast.sock" if kind == socket.SOCK_SEQPACKET else "edgeaid.sock")
    with socket.socket(socket.AF_UNIX, kind) as silent:
        silent.bind(str(path))
        silent.listen(5)
        transport = BlockingTransport(Address(str(path), str(path), 0.3, "it"))
        if kind == socket.SOCK_STREAM:
            with pytest.raises(errors.DeadlineExceeded, match=r"within 0\.3 s"):
                run(Core(transport, fast_socket=False).get("/v2"))
        else:
            run(transport.open_fast())
            with pytest.raises(http.Late):
                run(transport.exchange_fast(b"{}", -1))
        transport.close()
