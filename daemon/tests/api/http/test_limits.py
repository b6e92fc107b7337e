"""What a client can make the daemon do and hold has limits, per user and in all; refusals are answers, others go on."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED
from edgeaid.serving.metrics import rss_bytes

from ...support.daemon import Running
from ...support.users import STRANGER, connect_as
from ...support.waiting import eventually, has_read_all

IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
INFER = "/v2/models/digits/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
#: The role of a user in root's group, which the connections of STRANGER are in.
ROLE = '[access]\n{} = ["root"]\n'


@pytest.fixture(scope="module")
def guarded(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon where STRANGER may run models, with small limits."""
    limits = "[limits]\nconnections = 40\nconnections_per_user = 8\nbuffer_bytes_per_user = 2000000\nidle_seconds = 4\n"
    running = launch(tmp_path_factory.mktemp("guarded"), limits + ROLE.format("infer"))
    yield running
    assert running.stop() == 0, running.log.read_text()


def head(sock: socket.socket) -> bytes:
    """The first bytes of an answer."""
    return sock.recv(65536)


class Watcher(threading.Thread):
    """Asks for something small all the time; `worst` is the longest that it waited, in seconds."""

    def __init__(self, daemon: Running) -> None:
        super().__init__()
        self.daemon_under_test = daemon
        self.worst = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        with self.daemon_under_test.raw() as sock:
            while not self.done.is_set():
                asked = time.monotonic()
                sock.sendall(LIVE)
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
                self.worst = max(self.worst, time.monotonic() - asked)
                time.sleep(0.002)

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


#: On an idle machine it is under 0.05; a test machine has other things to do.
PAUSE = float(os.environ.get("EDGEAI_TEST_PAUSE", "1.0"))


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"0,", b'"a",', b"[" * 50 + b"]" * 50 + b","])
@pytest.mark.parametrize(
    "path",
    ["/v2/repository/index", "/v2/logging", "/v2/repository/models/digits/unload"],
)
def test_routes_that_need_little_json_take_little(daemon: Running, path: str, unit: bytes) -> None:
    body = b'{"a":[' + unit * ((1 << 20) // len(unit)) + b"0]}"
    status, answer = daemon.json("POST", path, body)
    assert status == 413
    assert "the limit is" in answer["error"]


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"0,", b'"a",', b'"\\"",', b"[" * 50 + b"]" * 50 + b","])
@pytest.mark.parametrize("path", ["/v2/repository/models/nothing/load", INFER])
def test_large_json_where_it_may_be_large_holds_up_nobody(daemon: Running, path: Any, unit: bytes) -> None:
    body = b'{"a":[' + unit * ((24 << 20) // len(unit)) + b"0]}"
    with Watcher(daemon) as watcher:
        status, answer = daemon.json("POST", path, body)
    assert status in (400, 404, 413), answer
    assert watcher.worst < PAUSE


def test_a_large_file_in_a_load_request_is_taken_and_holds_up_nobody(start: Callable[..., Running]) -> None:
    daemon = start()
    model = (EMBEDDED / "digits" / "1" / "model.tflite").read_bytes()
    text = json.dumps({"parameters": {"config": "{}", "file:7/model.tflite": "@"}}).encode()
    import base64

    padded = base64.b64encode(model + bytes(16 << 20)).replace(b"/", b"\\/")
    with Watcher(daemon) as watcher:
        status, answer = daemon.json("POST", "/v2/repository/models/big/load", text.replace(b"@", padded))
    assert status == 200, answer
    assert watcher.worst < PAUSE


def tensor_request(data: object, shape: Any = IMAGE.shape) -> bytes:
    return json.dumps({"inputs": [{"name": "image", "datatype": "INT8", "shape": list(shape), "data": data}]}).encode()


def test_a_long_array_of_numbers_gives_what_a_short_one_gives(daemon: Running) -> None:
    for data in (IMAGE.tolist(), IMAGE.ravel().tolist(), [float(v) for v in IMAGE.ravel()]):
        short = tensor_request(data)
        long = tensor_request(data).replace(b", ", b"," + b" " * 90)
        assert len(long) > 1 << 16 > len(short)
        answers = [daemon.json("POST", INFER, body) for body in (short, long)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 200


@pytest.mark.parametrize("wrong", ["1.5", "300", "null", '"a"', "[1]", "1 2", "1e", "1][2"])
def test_a_wrong_value_among_many_is_refused(daemon: Running, wrong: str) -> None:
    text = tensor_request(IMAGE.ravel().tolist()).replace(b", ", b"," + b" " * 90)
    at = text.index(b"data") + 40_000
    at = text.index(b",", at) + 1
    status, answer = daemon.json("POST", INFER, text[:at] + wrong.encode() + b"," + text[text.index(b",", at) + 1 :])
    assert status == 400, answer


def test_only_gzip_and_deflate_are_inflated_and_only_so_far(daemon: Running) -> None:
    good = tensor_request(IMAGE.tolist())
    for name, packed in (
        ("gzip", gzip.compress(good)),
        ("deflate", zlib.compress(good)),
        ("x-gzip", gzip.compress(good)),
    ):
        assert daemon.json("POST", INFER, packed, {"Content-Encoding": name})[0] == 200
    for name in ("br", "zstd", "gzip, gzip", "compress"):
        status, answer = daemon.json("POST", INFER, good, {"Content-Encoding": name})
        assert status == 415
        assert "gzip" in answer["error"]
    bomb = gzip.compress(bytes(40 << 20))
    status, answer = daemon.json("POST", INFER, bomb, {"Content-Encoding": "gzip"})
    assert status == 413
    assert daemon.json("POST", "/v2/repository/index", bomb, {"Content-Encoding": "gzip"})[0] == 413
    for broken in (gzip.compress(good)[:-9], gzip.compress(good) + b"more", good):
        assert daemon.json("POST", INFER, broken, {"Content-Encoding": "gzip"})[0] == 400


def test_who_has_no_role_is_refused_before_the_body(start: Callable[..., Running]) -> None:
    daemon = start()
    bomb = gzip.compress(bytes(200 << 20))
    with Watcher(daemon) as watcher:
        for path in ("/v2/repository/index", INFER):
            with connect_as(STRANGER, daemon.socket) as sock:
                lines = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
                sock.sendall(f"{lines}Content-Length: {len(bomb) + 9}\r\n\r\n".encode() + bomb)
                assert head(sock).startswith(b"HTTP/1.1 403")
    assert watcher.worst < PAUSE


def test_a_user_at_its_limit_of_connections_is_refused_with_an_answer_and_root_gets_in(guarded: Any) -> None:
    held = []
    try:
        for _ in range(8):
            sock = connect_as(STRANGER, guarded.socket)
            sock.sendall(b"GET /edgeai/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in head(sock)
            held.append(sock)
        with connect_as(STRANGER, guarded.socket) as late:
            late.sendall(LIVE)
            answer = head(late)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"Retry-After" in answer
            assert b'{"error"' in answer
        assert guarded.json("GET", "/v2/health/live")[0] == 200
    finally:
        for sock in held:
            sock.close()


def test_bodies_that_never_end_make_room_for_others_and_end_with_an_answer(guarded: Any) -> None:
    held = []
    try:
        for number in range(20):
            sock = connect_as(STRANGER, guarded.socket)
            kind = b"Content-Length: 900\r\n\r\n{" if number % 2 else b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
            sock.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode() + kind)
            held.append(sock)
        with connect_as(STRANGER, guarded.socket) as other:
            other.sendall(LIVE)
            assert head(other).startswith(b"HTTP/1.1 200")
        assert guarded.json("GET", "/v2/health/ready")[0] == 200
        until = time.monotonic() + 20
        with pytest.raises(OSError, match=r"."):  # noqa: PT012  a byte now and then does not keep it open
            while time.monotonic() < until:
                held[-1].sendall(b" ")
                time.sleep(0.5)
        assert b"stalled" in held[-1].recv(4096)
    finally:
        for sock in held:
            sock.close()


def test_answers_that_nobody_reads_are_bounded_per_user(start: Callable[..., Running], shared_data: Path) -> None:
    daemon = start("[limits]\nbuffer_bytes_per_user = 4000000\n" + ROLE.format("infer"))
    model = shared_data / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    if not model.is_file():
        pytest.skip(f"{model} is not here")
    with daemon.client() as client:
        client.push("seg", model)
    given = daemon.json("GET", "/v2/models/seg")[1]["inputs"][0]
    size = int(np.prod(given["shape"]))
    text = json.dumps(
        {
            "inputs": [{**given, "parameters": {"binary_data_size": size}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    lines = f"POST /v2/models/seg/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(text)}\r\n"
    message = f"{lines}Content-Length: {len(text) + size}\r\n\r\n".encode() + text + bytes(size)
    held, statuses = [], []
    before = rss_bytes(daemon.process.pid)
    try:
        for _ in range(24):
            sock = connect_as(STRANGER, daemon.socket)
            held.append(sock)
            with contextlib.suppress(BrokenPipeError):  # refused before it was all sent
                sock.sendall(message)
            statuses.append(sock.recv(12, socket.MSG_PEEK))
        assert statuses[0] == b"HTTP/1.1 200"
        assert statuses[-1] == b"HTTP/1.1 503"
        assert rss_bytes(daemon.process.pid) - before < 32 << 20
        assert daemon.json("GET", "/v2/health/ready")[0] == 200
    finally:
        for sock in held:
            sock.close()


def test_what_is_not_http_reaches_neither_log_nor_answer_beyond_some_characters(start: Callable[..., Running]) -> None:
    daemon = start()
    before = daemon.log.stat().st_size
    sizes = []
    for _ in range(20):
        with daemon.raw() as sock:
            sock.sendall(LIVE)
            assert head(sock).startswith(b"HTTP/1.1 200")
            try:
                sock.sendall(b"\xff\xd8" + b"\x00" * 200_000 + b"\r\n")
            except OSError:
                continue
            answer = b""
            while piece := _read(sock):
                answer += piece
            sizes.append(len(answer))
            if answer:
                assert answer.split()[1] == b"400"
                assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])
    assert max(sizes) < 1000
    assert daemon.log.stat().st_size - before < 2000
    assert daemon.json("GET", "/v2/health/live")[0] == 200


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""


def test_a_second_segment_that_looks_like_a_request_is_part_of_the_first(daemon: Running) -> None:
    hidden = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n".encode()
    with daemon.raw() as sock:
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nX: ")
        eventually(lambda: has_read_all(sock))
        sock.sendall(hidden + b"{}")
        answer = head(sock)
        assert not answer.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9"), "the hidden request was run"
        assert b"inputs" not in answer


def test_chunks_are_counted_as_they_were_sent(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nchunks = 100\n")
    body = tensor_request(IMAGE.tolist())

    def chunked(count: int) -> bytes:
        size = -(-len(body) // count)
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"

    for count, status in ((90, b"200"), (150, b"400")):
        with daemon.raw() as sock:
            sock.sendall(
                f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunked(count)
            )
            assert head(sock).startswith(b"HTTP/1.1 " + status), count


def test_integers_of_thousands_of_digits_are_refused_cleanly(daemon: Running) -> None:
    digits = "9" * 5000
    with daemon.raw() as sock:
        sock.sendall(f"GET /edgeai/v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {digits}\r\n\r\n".encode())
        assert b"200 OK" in head(sock)
    for path in (f"/v2/models/digits/versions/{digits}", "/v2/models/digits/versions/999999999999999999"):
        assert daemon.json("GET", path)[0] == 404
    status, answer = daemon.json("POST", INFER, b'{"inputs": [], "id": %s}' % digits.encode())
    assert status == 400, answer
    for name in ("priority", "timeout"):
        status, answer = daemon.json("POST", f"/edgeai/v1/models/digits/classify?{name}={digits}", b"x")
        assert status == 400, answer


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\uDFFFb"', '"\\udc00\\ud800"', '{"\\ud812": 1}'])
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(daemon: Running, text: str) -> None:
    for path, body in (
        ("/v2/systemsharedmemory/region/a/register", '{"key": %s, "offset": 0, "byte_size": 1}'),
        (INFER, '{"inputs": [], "id": %s}'),
        ("/v2/repository/models/digits/load", '{"parameters": {"config": %s}}'),
    ):
        status, answer = daemon.json("POST", path, (body % text).encode())
        assert status == 400, answer
        assert "surrogate" in answer["error"]
    whole = '{"inputs": [], "id": "\\ud83d\\ude00"}'
    assert "surrogate" not in daemon.json("POST", INFER, whole.encode())[1]["error"]


def test_expect_100_continue_is_answered_before_the_body_and_only_to_who_may(daemon: Running) -> None:
    body = tensor_request(IMAGE.tolist())
    lines = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with daemon.raw() as sock:
        sock.sendall(lines.encode())
        assert head(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert head(sock).startswith(b"HTTP/1.1 200")
    with connect_as(STRANGER, daemon.socket) as sock:
        sock.sendall(lines.encode())
        assert head(sock).startswith(b"HTTP/1.1 403")


def test_head_answers_like_get_without_a_body_and_405_says_what_is_allowed(daemon: Running) -> None:
    for path in ("/v2/health/live", "/v2/models/digits", "/metrics", "/edgeai/v1/events"):
        status, headers, data = daemon.http("HEAD", path)
        assert (status, data) == (200, b""), path
        assert "content-type" in headers
    for method, path, allow in (
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", INFER, "POST"),
        ("OPTIONS", "/v2/logging", "GET, HEAD, POST"),
        ("HEAD", INFER, "POST"),
    ):
        status, headers, _ = daemon.http(method, path)
        assert (status, headers["allow"]) == (405, allow)


def test_a_version_that_could_have_no_next_one_is_refused(daemon: Running) -> None:
    model = (EMBEDDED / "digits" / "1" / "model.tflite").read_bytes()
    for version in ("999999999999999999", "1000000000", "0", "-1", "1.5"):
        status, answer = daemon.json("PUT", f"/edgeai/v1/models/far/versions/{version}", model)
        assert status == 400, version
        assert "version" in answer["error"]
