"""The fast socket: sealed memfds, bindings, 32-byte requests, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid import errors
from edgeaid.client.fast import INFER, RESULT
from edgeaid.models.repository import EMBEDDED

from ...support.daemon import Running
from ...support.examples import examples
from ...support.users import STRANGER, connect_as

GOLDEN = EMBEDDED / "digits" / "1" / "golden"


class Raw:
    """A hand-driven connection."""

    def __init__(self, path: Any, hello: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        if hello:
            assert self.ask({"op": "hello", "version": 1})["version"] == 1

    def ask(self, message: Any, *fds: Any) -> Any:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        socket.send_fds(self.sock, [data], list(fds)) if fds else self.sock.send(data)
        return json.loads(self.sock.recv(65536))


def memfd(size: Any, seals: Any = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL) -> Any:
    fd = os.memfd_create("t", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.fixture
def raw(daemon: Running) -> Iterator[Raw]:
    connection = Raw(daemon.directory / "run" / "fast.sock")
    yield connection
    connection.sock.close()


def test_the_client_takes_the_fast_socket_and_gets_what_http_gives(daemon: Running) -> None:
    image = np.load(GOLDEN / "1.in.npy")
    with daemon.client() as fast, daemon.client(fast=False) as plain:
        a, b = fast.infer("digits", image), plain.infer("digits", image)
        assert a.timing["compute_ms"] > 0
        assert not b.timing
        assert np.array_equal(a["scores"], b["scores"])
        assert np.abs(a["scores"].astype(int) - np.load(GOLDEN / "1.out.npy").astype(int)).max() <= 2


def test_versions_are_agreed_on_connect(daemon: Running) -> None:
    raw = Raw(daemon.directory / "run" / "fast.sock", hello=False)
    assert "hello first" in raw.ask({"op": "attach"})["error"]
    answer = raw.ask({"op": "hello", "version": 99})
    assert answer["code"] == 501
    assert "versions 1 to 2" in answer["error"]


def test_unsealed_small_and_foreign_descriptors_are_refused(raw: Any, tmp_path: Path) -> None:
    fd = memfd(4096, seals=0)
    assert "not sealed" in raw.ask({"op": "attach"}, fd)["error"]
    os.close(fd)
    with open(tmp_path / "f", "w+b") as file:
        file.truncate(4096)
        assert "not a memfd" in raw.ask({"op": "attach"}, file.fileno())["error"]
    fd = memfd(0)
    assert "bytes" in raw.ask({"op": "attach"}, fd)["error"]
    os.close(fd)
    assert "exactly one" in raw.ask({"op": "attach"})["error"]
    fd = memfd(64)
    region = raw.ask({"op": "attach"}, fd)["region"]
    places = {"inputs": [{"name": "image", "region": region, "offset": 0}], "outputs": []}
    assert "does not lie within" in raw.ask({"op": "bind", "model": "digits", **places})["error"]
    os.close(fd)


def test_a_sealed_memfd_cannot_be_truncated_after_passing() -> None:
    fd = memfd(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_more_descriptors_than_allowed_are_closed_and_refused(raw: Any) -> None:
    fds = [memfd(4096) for _ in range(10)]
    assert "exactly one descriptor" in raw.ask({"op": "attach"}, *fds)["error"]
    for fd in fds:
        os.close(fd)
    assert "unknown op" in raw.ask({"op": "?"})["error"]


def test_nonsense_gets_an_error_and_the_connection_lives(raw: Any) -> None:
    for message in (b"{", b"[]", b"\x01", b"\x07" * 200, b"{" * 5000, json.dumps({"op": "bind", "model": 5}).encode()):
        assert "error" in raw.ask(message)
    raw.sock.send(INFER.pack(1, 0, 0, 77, 5, 0, 0))
    reply = raw.sock.recv(8192)
    assert RESULT.unpack_from(reply)[2:5] == (404, 77, 5)


def test_unknown_models_tensors_and_places_are_named(raw: Any) -> None:
    fd = memfd(1 << 16)
    region = raw.ask({"op": "attach"}, fd)["region"]
    os.close(fd)
    good = {
        "inputs": [{"name": "image", "region": region, "offset": 0}],
        "outputs": [{"name": "scores", "region": region, "offset": 60000}],
    }
    assert "unknown model" in raw.ask({"op": "bind", "model": "nosuch", **good})["error"]
    assert "unexpected" in raw.ask({"op": "bind", "model": "digits", **good, "inputs": [{"name": "x"}]})["error"]
    assert "inputs" in raw.ask({"op": "bind", "model": "digits", **good, "inputs": []})["error"]
    assert (
        "within"
        in raw.ask(
            {
                "op": "bind",
                "model": "digits",
                **good,
                "outputs": [{"name": "scores", "region": region, "offset": 65530}],
            }
        )["error"]
    )
    assert (
        "within"
        in raw.ask(
            {"op": "bind", "model": "digits", **good, "outputs": [{"name": "scores", "region": region, "offset": -1}]}
        )["error"]
    )
    binding = raw.ask({"op": "bind", "model": "digits", **good})["binding"]
    assert "error" not in raw.ask({"op": "unbind", "binding": binding})
    assert raw.ask({"op": "unbind", "binding": binding})["code"] == 404


def test_several_requests_may_be_under_way_and_each_is_answered(daemon: Running, raw: Any) -> None:
    with daemon.client() as client:
        metadata = client.metadata("digits")
    size = int(np.prod(metadata["inputs"][0]["shape"]))
    fd = memfd(1 << 16)
    memory = mmap.mmap(fd, 1 << 16)
    region = raw.ask({"op": "attach"}, fd)["region"]
    os.close(fd)
    memory[:size] = np.load(GOLDEN / "0.in.npy").tobytes()
    places = {
        "inputs": [{"name": "image", "region": region, "offset": 0}],
        "outputs": [{"name": "scores", "region": region, "offset": 1 << 15}],
    }
    binding = raw.ask({"op": "bind", "model": "digits", **places})["binding"]
    for number in range(20):
        raw.sock.send(INFER.pack(1, 0, 0, binding, number, 0, 0))
    seen = {RESULT.unpack_from(raw.sock.recv(8192))[2:5] for _ in range(20)}
    assert seen == {(200, binding, n) for n in range(20)}
    got = np.frombuffer(memory, np.load(GOLDEN / "0.out.npy").dtype, 10, 1 << 15).astype(int)
    assert np.abs(got - np.load(GOLDEN / "0.out.npy").ravel().astype(int)).max() <= 2


def test_a_binding_follows_a_reload_of_its_model(start: Callable[..., Running]) -> None:
    daemon = start()
    image = np.load(GOLDEN / "0.in.npy")
    with daemon.client() as client:
        first = client.infer("digits", image)
        daemon.json("POST", "/v2/repository/models/digits/load", {})
        assert np.array_equal(client.infer("digits", image)["scores"], first["scores"])
        daemon.json("POST", "/v2/repository/models/digits/unload", {})
        with pytest.raises(errors.NotFound, match="unknown model"):
            client.infer("digits", image)


def test_a_vanished_client_leaves_nothing_behind(daemon: Running) -> None:
    def descriptors() -> Any:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    with daemon.client() as client:
        client.infer("digits", np.load(GOLDEN / "0.in.npy"))
    before = descriptors()
    for _ in range(20):
        raw = Raw(daemon.directory / "run" / "fast.sock")
        fd = memfd(1 << 16)
        region = raw.ask({"op": "attach"}, fd)["region"]
        places = {"inputs": [{"name": "image", "region": region, "offset": 0}], "outputs": []}
        binding = raw.ask({"op": "bind", "model": "digits", **places})["binding"]
        raw.sock.send(INFER.pack(1, 0, 0, binding, 1, 0, 0))
        raw.sock.close()
        os.close(fd)
    assert daemon.json("GET", "/v2/health/live")[0] == 200
    with daemon.client() as client:
        client.infer("digits", np.load(GOLDEN / "0.in.npy"))
    until = time.monotonic() + 10  # a thread closes them
    while descriptors() > before + 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert struct.calcsize(INFER.format) == 32


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "region", "offset", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["hello", "attach", "bind", "unbind", "?"]),
    st.dictionaries(
        st.sampled_from(["version", "model", "inputs", "outputs", "binding", "id"]), json_values, max_size=5
    ),
)
def test_every_control_message_is_answered(raw: Any, operation: Any, fields: Any) -> None:
    answer = raw.ask({"model": "digits", "op": operation, **fields})
    assert "error" in answer or operation == "hello"


def test_a_client_goes_on_after_the_daemon_was_restarted(start: Callable[..., Running]) -> None:
    daemon = start()
    image = np.load(GOLDEN / "1.in.npy")
    with daemon.client() as client:
        before = client.infer("digits", image)
        assert before.timing
        assert daemon.stop() == 0
        with pytest.raises(errors.Unavailable):
            client.infer("digits", image)
        daemon.start()
        after = client.infer("digits", image)
        assert after.timing, "over the fast socket again"
        assert np.array_equal(before["scores"], after["scores"])
        daemon.stop()
        daemon.start()
        assert np.array_equal(before["scores"], client.infer("digits", image)["scores"]), "nobody noticed"


def test_a_region_that_is_given_back_takes_its_bindings_along_and_makes_room(raw: Any) -> None:
    for _ in range(20):
        fd = memfd(1 << 16)
        region = raw.ask({"op": "attach"}, fd)["region"]
        os.close(fd)
        places = {"inputs": [{"name": "image", "region": region, "offset": 0}], "outputs": []}
        binding = raw.ask({"op": "bind", "model": "digits", **places})["binding"]
        assert "error" not in raw.ask({"op": "detach", "region": region})
        assert raw.ask({"op": "unbind", "binding": binding})["code"] == 404
        assert raw.ask({"op": "detach", "region": region})["code"] == 404


def test_a_role_that_is_taken_away_ends_the_connection(start: Callable[..., Running]) -> None:
    daemon = start()
    raw = Raw(daemon.directory / "run" / "fast.sock")
    daemon.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while "read again" not in daemon.log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert "unknown op" in raw.ask({"op": "?"})["error"], "who may still be here stays"


def test_shared_memory_counts_by_size_per_user(start: Callable[..., Running]) -> None:
    daemon = start('[limits]\nregion_bytes_per_user = 1000000\n[access]\ninfer = ["root"]\n')
    path = daemon.directory / "run" / "fast.sock"
    connections = []
    for _ in range(2):
        raw = Raw.__new__(Raw)
        raw.sock = connect_as(STRANGER, path, socket.SOCK_SEQPACKET)
        assert raw.ask({"op": "hello", "version": 1})["version"] == 1
        connections.append(raw)
    first, second = connections
    big = memfd(900_000)  # without a single page
    assert first.ask({"op": "attach"}, big)["size"] == 900_000
    refused = second.ask({"op": "attach"}, big)
    assert refused["code"] == 503
    assert "1000000" in refused["error"]
    first.sock.close()
    until = time.monotonic() + 10
    while "error" in second.ask({"op": "attach"}, big):
        assert time.monotonic() < until
    os.close(big)


@pytest.mark.parametrize(
    "wrong", [{"offset": True}, {"offset": 1.0}, {"offset": "0"}, {"region": True}, {"region": 1.0}]
)
def test_a_place_is_given_by_whole_numbers_and_nothing_that_resembles_them(raw: Raw, wrong: dict[str, Any]) -> None:
    region = raw.ask({"op": "attach"}, memfd(1 << 16))["region"]
    place = {"name": "image", "region": region, "offset": 0, **wrong}
    assert raw.ask({"op": "bind", "model": "digits", "inputs": [place], "outputs": []})["code"] == 400
    assert raw.ask({"op": "detach", "region": True})["code"] == 404
    assert raw.ask({"op": "unbind", "binding": True})["code"] == 404


def test_a_memfd_with_huge_pages_is_refused(raw: Raw) -> None:
    fd = os.memfd_create("t", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    try:
        os.ftruncate(fd, 2 << 20)
    except OSError:
        pytest.skip("no huge pages here")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    answer = raw.ask({"op": "attach"}, fd)
    assert (answer["code"], "huge pages" in answer["error"]) == (400, True)
