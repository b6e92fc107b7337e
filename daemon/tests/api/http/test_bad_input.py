"""What a broken or hostile client sends ends in a clear error, and the daemon goes on."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid import errors
from edgeaid.api import oip, tensor_json
from edgeaid.tensors import TensorSpec

from ...support.daemon import Running
from ...support.examples import examples
from ...support.users import OTHER, STRANGER, connect_as
from ...support.waiting import eventually, has_read_all

PATH = "/v2/models/digits/infer"
LIMITS = "[limits]\nbody_bytes = 200000\nidle_seconds = 1.0\nconnections = 20\nchunks = 100\n"


def answers(daemon: Any) -> bool:
    return bool(daemon.json("GET", "/v2/health/ready")[0] == 200)


def shape(daemon: Any) -> list[int]:
    return list(daemon.json("GET", "/v2/models/digits")[1]["inputs"][0]["shape"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    running = launch(tmp_path_factory.mktemp("small"), LIMITS)
    yield running
    assert running.stop() == 0


def test_an_oversized_body_is_413_and_says_the_limit(small: Any) -> None:
    status, answer = small.json("POST", PATH, b"x" * 200_001)
    assert status == 413
    assert "the limit is" in answer["error"]
    assert answers(small)


def test_a_decompression_bomb_is_cut_off_at_the_limit(small: Any) -> None:
    bomb = zlib.compress(b" " * 300_000_000)
    assert len(bomb) < 300_000
    status, answer = small.json("POST", PATH, bomb[:199_000], {"Content-Encoding": "deflate"})
    assert status in (400, 413), answer
    assert answers(small)


def test_damaged_compression_is_400(small: Any) -> None:
    assert small.json("POST", PATH, b"\x1f\x8bnonsense", {"Content-Encoding": "gzip"})[0] == 400
    assert answers(small)


@pytest.mark.parametrize("length", ["-1", "x", "999999", "4294967296", "1e3", "", "0x10", "٣"])
def test_a_header_length_out_of_range_is_400(daemon: Running, length: str) -> None:
    assert (
        daemon.json(
            "POST", PATH, b'{"inputs":[]}', {"Inference-Header-Content-Length": length.encode().decode("latin-1")}
        )[0]
        == 400
    )


def test_bad_tensors_are_400_with_the_reason(daemon: Running) -> None:
    dims = shape(daemon)
    meta = daemon.json("GET", "/v2/models/digits")[1]["inputs"][0]
    count = int(np.prod(dims))
    good = {"name": "image", "datatype": meta["datatype"], "shape": dims, "data": [0] * count}
    for change, word in (
        ({"shape": [-1, *dims[1:]]}, "negative"),
        ({"shape": [1 << 62, 1 << 62]}, "elements"),
        ({"shape": [0]}, "expects"),
        ({"shape": [*dims, 2]}, "expects"),
        ({"shape": [1.5]}, "whole numbers"),
        ({"shape": "4"}, "whole numbers"),
        ({"data": [0] * (count - 1)}, "values"),
        ({"data": [0.5] * count}, "does not fit"),
        ({"data": [100_000] * count}, "does not fit"),
        ({"data": "zeros"}, "array"),
        ({"data": [[0], [0, 1]]}, "nested"),
        ({"datatype": "FP32"}, "expects"),
        ({"datatype": None}, "expects"),
        ({"name": "picture"}, "unexpected"),
        ({"name": 3}, "name"),
        ({"parameters": {"binary_data_size": 4}}, "exactly one"),
    ):
        status, answer = daemon.json("POST", PATH, {"inputs": [{**good, **change}]})
        assert (status, word in answer["error"]) == (400, True), (change, answer)
    twice = daemon.json("POST", PATH, {"inputs": [good, good]})
    assert twice[0] == 400
    assert "twice" in twice[1]["error"]
    outputs = daemon.json("POST", PATH, {"inputs": [good], "outputs": [{"name": "scores"}, {"name": "scores"}]})
    assert (outputs[0], "twice" in outputs[1]["error"]) == (400, True)
    assert daemon.json("POST", PATH, {"inputs": [good], "outputs": [{"name": "x"}]})[0] == 400
    assert daemon.json("POST", PATH, {"inputs": []})[0] == 400
    assert daemon.json("POST", PATH, [])[0] == 400
    assert daemon.json("POST", PATH, b"{")[0] == 400
    assert daemon.json("POST", PATH, b"\xff\xfe")[0] == 400


def test_a_short_or_left_over_binary_tail_is_400(daemon: Running) -> None:
    dims = shape(daemon)
    meta = daemon.json("GET", "/v2/models/digits")[1]["inputs"][0]
    size = int(np.prod(dims))
    head = json.dumps(
        {
            "inputs": [
                {"name": "image", "datatype": meta["datatype"], "shape": dims, "parameters": {"binary_data_size": size}}
            ]
        }
    ).encode()
    for tail in (size - 1, size + 1):
        assert (
            daemon.json("POST", PATH, head + b"\0" * tail, {"Inference-Header-Content-Length": str(len(head))})[0]
            == 400
        )


def test_deep_json_is_refused_and_flat_brackets_in_texts_are_not(daemon: Running) -> None:
    assert "nested" in daemon.json("POST", PATH, b"[" * 10_000)[1]["error"]
    assert daemon.json("POST", PATH, b"[" * 100_000)[0] == 400
    status, answer = daemon.json("POST", PATH, json.dumps({"id": "[" * 500, "inputs": []}).encode())
    assert status == 400
    assert "inputs" in answer["error"]


def test_json_that_no_request_of_the_model_needs_is_413(daemon: Running) -> None:
    values = json.dumps({"inputs": [{"name": "image", "data": [1234567] * 40_000}]}).encode()
    status, answer = daemon.json("POST", PATH, values)
    assert status == 413
    assert "the limit is" in answer["error"]


LINES = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 9\r\n"


def test_bodies_of_all_connections_together_are_bounded(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nbuffer_bytes = 300000\n")
    head = f"{LINES}Content-Length: 200000\r\n\r\n".encode()
    chunked = f"{LINES}Transfer-Encoding: chunked\r\n\r\n".encode()
    piece = b"x" * 120_000
    with daemon.raw() as first, daemon.raw() as second, daemon.raw() as third:
        first.sendall(head + piece)
        second.sendall(chunked + b"1d4c0\r\n" + piece + b"\r\n")
        eventually(lambda: has_read_all(first) and has_read_all(second))
        third.sendall(head + piece)
        assert b"503" in third.recv(1000).split(b"\r\n")[0]
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with daemon.raw() as later:
            later.sendall(head + b"y" * 200_000)
            if b"400" in later.recv(1000).split(b"\r\n")[0]:  # read whole, and then nonsense
                return
        time.sleep(0.1)
    raise AssertionError("what went with its clients is still counted")


def test_listeners_to_events_are_bounded_per_user_and_root_gets_in(start: Callable[..., Running]) -> None:
    daemon = start('[access]\nobserve = ["root"]\n')
    held = []
    try:
        for uid in [STRANGER] * 50 + [OTHER] * 50 + [OTHER - 1] * 50 + [0]:
            held.append(connect_as(uid, daemon.socket))
            held[-1].sendall(b"GET /edgeai/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        firsts = [sock.recv(12)[-3:] for sock in held]
        accepted = [firsts[at : at + 50].count(b"200") for at in (0, 50, 100)]
        assert accepted == [48, 48, 32]
        assert firsts[-1] == b"200"
        assert set(firsts) == {b"200", b"503"}
    finally:
        for sock in held:
            sock.close()


def test_nan_is_taken_and_comes_back_as_null() -> None:
    spec = TensorSpec("x", "FP32", (3,))
    data = tensor_json.encode([1.0, float("nan"), float("inf")], spec)
    assert tensor_json.to_list(memoryview(data), "FP32") == [1.0, None, None]


def test_thousands_of_tiny_chunks_are_refused(small: Any) -> None:
    with small.raw() as sock:
        sock.sendall(b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(400):
                sock.sendall(b"1\r\n \r\n")
                time.sleep(0.0005)
            sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = sock.recv(65536)
    assert b"400" in answer.split(b"\r\n")[0]
    assert answers(small)


def test_a_client_that_vanishes_mid_body_costs_nothing(daemon: Running) -> None:
    for _ in range(30):
        with daemon.raw() as sock:
            sock.sendall(b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    assert answers(daemon)
    with daemon.client() as client:
        eventually(lambda: all(d["in_flight"] == 0 for d in client.devices()))


def test_a_stalled_body_and_a_slow_header_are_cut_off(small: Any) -> None:
    with small.raw() as body, small.raw() as header:
        body.sendall(b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        header.sendall(b"GET /v2 HT")
        assert b"stalled" in body.recv(65536)
        header.settimeout(10)
        assert header.recv(100) == b""


def test_garbage_instead_of_http_is_400(daemon: Running) -> None:
    for junk in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", os.urandom(2000)):
        with daemon.raw() as sock:
            sock.sendall(junk + b"\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(65536).split(b"\r\n")[0][:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"")
    assert answers(daemon)


def test_bad_pictures_are_400_and_wrong_tasks_too(daemon: Running, three: bytes) -> None:
    for body in (b"", b"no picture", three[:100], b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        status, answer = daemon.json("POST", "/edgeai/v1/models/digits/classify", body)
        assert status == 400, answer
    assert daemon.json("POST", "/edgeai/v1/models/digits/detect", three)[0] == 400
    assert daemon.json("POST", "/edgeai/v1/models/digits/classify?timeout=-3", three)[0] == 400
    assert daemon.json("POST", "/edgeai/v1/models/digits/classify", three)[0] == 200


def test_a_picture_that_the_client_packed_or_changed_is_named_for_what_came(daemon: Running, three: bytes) -> None:
    form = (
        b'--f00\r\nContent-Disposition: form-data; name="image"; filename="3.png"\r\n\r\n' + three + b"\r\n--f00--\r\n"
    )
    stripped = three.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"")
    for body, what in ((form, "form with a file in it, as `curl -F`"), (stripped, "line ends were taken out")):
        status, answer = daemon.json("POST", "/edgeai/v1/models/digits/classify", body)
        assert status == 400
        assert what in answer["error"]


def test_http2_without_asking_is_refused_by_its_name(daemon: Running) -> None:
    with daemon.raw() as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        answer = sock.recv(65536)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b"HTTP/2 is not spoken here" in answer


def test_shared_memory_belongs_to_its_caller_and_ends_where_it_ends(daemon: Running, tmp_path: Path) -> None:
    region = Path("/dev/shm") / f"edgeai-test-{os.getpid()}"
    region.write_bytes(b"\0" * 4096)
    try:
        path = "/v2/systemsharedmemory/region/r1"
        body = {"key": "/" + region.name, "offset": 0, "byte_size": 4096}
        assert daemon.json("POST", f"{path}/register", {**body, "offset": 1})[0] == 400
        assert daemon.json("POST", f"{path}/register", {**body, "key": "../etc/passwd"})[0] == 400
        assert daemon.json("POST", f"{path}/register", {**body, "byte_size": -1})[0] == 400
        assert daemon.json("POST", f"{path}/register", body)[0] == 200
        assert daemon.json("POST", f"{path}/register", body)[0] == 400
        assert daemon.json("GET", f"{path}/status")[1][0]["byte_size"] == 4096
        meta = daemon.json("GET", "/v2/models/digits")[1]["inputs"][0]
        size = int(np.prod(meta["shape"]))
        tensor = {
            **{k: meta[k] for k in ("name", "datatype", "shape")},
            "parameters": {"shared_memory_region": "r1", "shared_memory_byte_size": size},
        }
        want = {
            "name": "scores",
            "parameters": {"shared_memory_region": "r1", "shared_memory_byte_size": 10, "shared_memory_offset": 2048},
        }
        status, answer = daemon.json("POST", PATH, {"inputs": [tensor], "outputs": [want]})
        assert status == 200, answer
        assert "data" not in answer["outputs"][0]
        assert any(region.read_bytes()[2048:2058])
        tensor["parameters"]["shared_memory_offset"] = 4000
        assert daemon.json("POST", PATH, {"inputs": [tensor]})[0] == 400
        os.truncate(region, 10)
        tensor["parameters"]["shared_memory_offset"] = 0
        assert daemon.json("POST", PATH, {"inputs": [tensor]})[0] == 400
        assert daemon.json("POST", "/v2/systemsharedmemory/unregister", b"")[0] == 200
        assert daemon.json("GET", "/v2/systemsharedmemory/status")[1] == []
    finally:
        region.unlink()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "shape", "data", "datatype", "parameters", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)
SPECS = (TensorSpec("a", "FP32", (2,)), TensorSpec("b", "UINT8", (1, 3)))


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["inputs", "outputs", "parameters", "id"]), json_values), st.binary(max_size=40))
def test_no_request_raises_anything_but_our_errors(message: Any, tail: Any) -> None:
    with contextlib.suppress(errors.EdgeaiError):
        oip.parse(json.dumps(message).encode(), memoryview(tail), SPECS, SPECS)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=200), st.none() | st.text(max_size=12))
def test_no_body_raises_anything_but_our_errors(body: Any, length: Any) -> None:
    try:
        head, tail = oip.split(body, length)
        oip.parse(head, tail, SPECS, SPECS)
    except errors.EdgeaiError:
        pass


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/models/digits/infer", "/edgeai/v1/models/new"])
@pytest.mark.parametrize("damage", [b"zz\r\n", b"2\r\n{}xx", b"2;\x00\r\n", b"2;" + b"e=1;" * 200_000 + b"\r\n"])
def test_a_chunk_that_cannot_be_read_is_refused_at_once_and_not_when_the_body_counts_as_stalled(
    daemon: Running, path: str, damage: bytes
) -> None:
    method = b"PUT" if path.endswith("new") else b"POST"
    with daemon.raw() as sock:
        sock.sendall(b"%s %s HTTP/1.1\r\nHost: x\r\n" % (method, path.encode()))
        sock.sendall(b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100")  # the request is under way
        sock.sendall(damage)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].startswith("the body cannot be read: ")
