"""What a large request took is free again when it has been answered, whatever the answer was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ...support import tflite
from ...support.daemon import Running
from ...support.memory import anonymous, settled

MIB = 1 << 20
SIZE = 12 * MIB
LOAD = "/v2/repository/models/nothing/load"
#: As in the unit: the C library keeps blocks up to these sizes.
UNIT = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "8388608", "MALLOC_TRIM_THRESHOLD_": "67108864"}


@pytest.fixture(scope="module")
def server(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon with a model of two large inputs."""
    directory = tmp_path_factory.mktemp("memory")
    model = directory / "wide.tflite"
    shape = [1, MIB]
    tensors = [tflite.T(name, "FP32", shape) for name in ("a", "b", "sum")]
    model.write_bytes(tflite.build(tflite.Graph(tensors, [tflite.Op("ADD", [0, 1], [2])], [0, 1], [2])))
    running = launch(directory, "[models]\nembedded = false\n", models={"wide": model}, env=UNIT)
    yield running
    assert running.stop() == 0, running.log.read_text()


def many(unit: bytes) -> bytes:
    """A load request that is refused for what it has beside files."""
    return b'{"a":[' + unit * (SIZE // len(unit)) + b"0]}"


def file_of(text: bytes) -> bytes:
    """A load request with a file that is not a model."""
    return b'{"parameters":{"config":"{}","file:1/model.tflite":"' + text * (SIZE // len(text)) + b'"}}'


BODIES: dict[str, Callable[[], bytes]] = {
    "objects": lambda: many(b"{},"),
    "texts": lambda: many(b'"a",'),
    "keys": lambda: b"{" + b",".join(b'"%d":0' % n for n in range(SIZE // 11)) + b"}",
    "files": lambda: file_of(b"AAAA"),
    "damaged files": lambda: file_of(b"A$A="),
    "not JSON": lambda: b"[" * SIZE,
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_refused_body_leaves_nothing_in_memory(server: Running, kind: str) -> None:
    before = anonymous(server.process.pid)
    body = BODIES[kind]()
    for _ in range(2):
        status, answer = server.json("POST", LOAD, body)
        assert status in (400, 413), answer
    assert settled(server, before + SIZE // 2) <= before + SIZE // 2


def test_a_request_that_fails_later_leaves_nothing_in_memory(server: Running) -> None:
    before = anonymous(server.process.pid)
    head = {
        "inputs": [
            {"name": n, "datatype": "FP32", "shape": [1, MIB], "parameters": {"binary_data_size": 4 * MIB}}
            for n in ("a", "b")
        ],
        "parameters": {"timeout": 50_000},
    }
    text = json.dumps(head).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    worker = server.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        for way in ({}, {"Expect": "100-continue"}):  # the plain way, and aiohttp's
            for _ in range(4):
                asked = {**length, **way}
                status, answer = server.json("POST", "/v2/models/wide/infer", text + bytes(8 * MIB), asked)
                assert status == 504, answer
    finally:
        os.kill(worker, signal.SIGCONT)
    assert settled(server, before + 8 * MIB) <= before + 8 * MIB


def test_a_body_whose_client_leaves_is_gone_with_it(server: Running, tmp_path: Path) -> None:
    before = anonymous(server.process.pid)
    body = file_of(b"AAAA")
    for part in (len(body) // 2, len(body)):
        with contextlib.closing(server.raw()) as sock:
            sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LOAD.encode(), len(body)))
            sock.sendall(body[:part])
    assert settled(server, before + SIZE // 2) <= before + SIZE // 2
