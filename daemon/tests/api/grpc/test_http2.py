"""HTTP/2 as the daemon speaks it to clients of gRPC: whole, in pieces, late, damaged and too much of it."""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid.models.repository import EMBEDDED

from ...support import http2
from ...support.daemon import Running
from ...support.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    block,
    frame,
)  # fmt: skip

pytest.importorskip("hpack", reason="needs edgeaid[grpc]")

from edgeaid.api.grpc.schema import HEALTH_MESSAGES, MESSAGES

SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"
STREAM = f"{SERVICE}/ModelStreamInfer"
LIVE = f"{SERVICE}/ServerLive"
WATCH = "/grpc.health.v1.Health/Watch"
IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
ALIVE = MESSAGES["ServerLiveResponse"](live=True).SerializeToString()
OPENED = PREFACE + frame(SETTINGS, 0, 0)


def digits(**more: str) -> bytes:
    """A request for inference."""
    request = MESSAGES["ModelInferRequest"](model_name="digits", **more)
    datatype = {"int8": "INT8", "uint8": "UINT8"}[IMAGE.dtype.name]
    request.inputs.add(name="image", datatype=datatype, shape=IMAGE.shape)
    request.raw_input_contents.append(IMAGE.tobytes())
    return bytes(request.SerializeToString())


def scores(data: bytes) -> bytes:
    return bytes(MESSAGES["ModelInferResponse"].FromString(data).raw_output_contents[0])


def opening(stream: int, path: str, **fields: str) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block(path, **fields))


def body(stream: int, data: bytes, flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream, http2.message(data))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("http2")
    running = launch(directory, f'[server]\ngrpc_socket = "{directory}/run/g.sock"\n')
    yield running
    assert running.stop() == 0


class Wire:
    """A connection, and what came on it by stream."""

    def __init__(self, server: Running) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(f"{server.directory}/run/g.sock")
        self.send = self.sock.sendall
        self.data: dict[int, bytes] = {}
        #: Blocks of headers and trailers.
        self.said: dict[int, bytes] = {}
        self.reset: dict[int, int] = {}
        self.ended: set[int] = set()
        self.acked: list[bytes] = []
        #: Bytes by which windows were widened.
        self.granted: dict[int, int] = {}
        self.away: tuple[int, bytes] | None = None
        self.closed = False
        self._kept = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def read(self) -> None:
        """Take in what comes next."""
        try:
            piece = self.sock.recv(1 << 16)
        except ConnectionError:
            piece = b""
        self.closed = not piece
        self._kept += piece
        while len(self._kept) >= 9 and len(self._kept) >= 9 + (size := int.from_bytes(self._kept[:3], "big")):
            kind, flags = self._kept[3], self._kept[4]
            stream = int.from_bytes(self._kept[5:9], "big")
            payload, self._kept = self._kept[9 : 9 + size], self._kept[9 + size :]
            self._take(kind, flags, stream, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self.data[stream] = self.data.get(stream, b"") + payload
        elif kind == HEADERS:
            self.said[stream] = self.said.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.reset[stream] = int.from_bytes(payload, "big")
        elif kind == PING and flags & ACK:
            self.acked.append(payload)
        elif kind == WINDOW_UPDATE:
            self.granted[stream] = self.granted.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.away = struct.unpack_from(">I", payload, 4)[0], payload[8:]
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)

    def finish(self, stream: int) -> bytes:
        """The message that a call is answered with; whatever comes until its end."""
        while stream not in self.ended | set(self.reset):
            assert not self.closed
            self.read()
        data = self.data.get(stream, b"")
        assert int.from_bytes(data[1:5], "big") == max(len(data) - 5, 0)
        return data[5:]

    def status(self, stream: int) -> int:
        """gRPC's status of a call, once it has ended."""
        while stream not in self.ended:
            assert not self.closed
            self.read()
        rest = self.said[stream].partition(b"grpc-status")[2]
        return int(rest[1 : 1 + rest[0]])


@pytest.fixture
def wire(server: Running) -> Iterator[Wire]:
    with Wire(server) as opened:
        opened.send(OPENED)
        yield opened


@pytest.fixture(scope="module")
def expected(server: Running) -> bytes:
    with Wire(server) as opened:
        opened.send(OPENED + opening(1, INFER) + body(1, digits()))
        return scores(opened.finish(1))


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_call_is_answered_however_its_bytes_are_cut(server: Running, expected: bytes, step: int) -> None:
    data = OPENED + opening(1, INFER) + body(1, digits()) + opening(3, LIVE) + body(3, b"")
    with Wire(server) as wire:
        for at in range(0, len(data), step):
            wire.send(data[at : at + step])
        assert scores(wire.finish(1)) == expected
        assert wire.finish(3) == ALIVE


def test_a_body_in_many_frames_with_padding_and_headers_in_parts_are_understood(wire: Wire, expected: bytes) -> None:
    said = block(INFER)
    wire.send(frame(HEADERS, PADDED | WITH_PRIORITY, 1, b"\3" + bytes(5) + said[:10] + bytes(3)))
    wire.send(frame(CONTINUATION, 0, 1, said[10:20]) + frame(CONTINUATION, END_HEADERS, 1, said[20:]))
    data = http2.message(digits())
    for at in range(0, len(data), 100):
        wire.send(frame(DATA, PADDED, 1, b"\7" + data[at : at + 100] + bytes(7)))
        wire.send(frame(PRIORITY, 0, 1, bytes(5)) + frame(77, 255, 1, b"unknown") + frame(DATA, 0, 1))
    wire.send(frame(DATA, PADDED | END_STREAM, 1, b"\1\0"))
    assert scores(wire.finish(1)) == expected


def test_calls_on_one_connection_are_answered_side_by_side(wire: Wire, expected: bytes) -> None:
    wire.send(opening(1, WATCH) + body(1, b""))
    for number in range(3, 103, 2):
        wire.send(opening(number, INFER))
    for number in range(3, 103, 2):
        wire.send(body(number, digits(id=str(number))))
    for number in range(3, 103, 2):
        answer = MESSAGES["ModelInferResponse"].FromString(wire.finish(number))
        assert (answer.id, answer.raw_output_contents[0]) == (str(number), expected)
    assert 1 not in wire.ended


def test_headers_that_the_client_keeps_in_its_table_mean_what_they_meant_when_they_came(wire: Wire) -> None:
    import hpack

    encoder = hpack.Encoder()
    number = 1
    for path in (LIVE, LIVE, f"{SERVICE}/ServerReady", LIVE, f"{SERVICE}/ServerReady", LIVE):
        fields = [(":method", "POST"), (":path", path), ("content-type", "application/grpc"), ("x", path)]
        wire.send(frame(HEADERS, END_HEADERS, number, encoder.encode(fields)) + body(number, b""))
        kind = "ServerLiveResponse" if path == LIVE else "ServerReadyResponse"
        assert MESSAGES[kind].FromString(wire.finish(number)).ByteSize()
        number += 2
    # The table is emptied, and what has the old numbers are other headers.
    encoder.header_table_size = 0
    wire.send(frame(HEADERS, END_HEADERS, number, encoder.encode([(":path", LIVE)])) + body(number, b""))
    wire.finish(number)
    assert b"405" in wire.said[number]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_messages_are_unpacked(wire: Wire, expected: bytes, encoding: str, pack: type[bytes]) -> None:
    packed = pack(digits())
    data = b"\1" + len(packed).to_bytes(4, "big") + packed
    for number, path in ((1, INFER), (3, STREAM)):
        wire.send(opening(number, path, grpc_encoding=encoding) + frame(DATA, END_STREAM, number, data))
    assert scores(wire.finish(1)) == expected
    answer = MESSAGES["ModelStreamInferResponse"].FromString(wire.finish(3)).infer_response
    assert answer.raw_output_contents[0] == expected
    assert answer.parameters["triton_final_response"].bool_param


@pytest.mark.parametrize(
    ("encoding", "packed", "status"),
    [
        ("snappy", b"x", 12),
        ("gzip", b"damaged", 3),
        ("gzip", gzip.compress(bytes(64 << 20)), 8),
        ("identity", gzip.compress(digits()), 3),
    ],
)
def test_what_cannot_be_unpacked_or_is_too_much_then_is_refused(
    wire: Wire, encoding: str, packed: bytes, status: int
) -> None:
    data = b"\1" + len(packed).to_bytes(4, "big") + packed
    wire.send(opening(1, INFER, grpc_encoding=encoding) + frame(DATA, END_STREAM, 1, data))
    assert wire.status(1) == status


def test_an_answer_comes_as_the_client_has_a_window_for_it(server: Running, expected: bytes) -> None:
    with Wire(server) as wire:
        wire.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 7)))  # 7 bytes on each stream
        wire.send(opening(1, INFER) + body(1, digits()))
        while len(wire.data.get(1, b"")) < 7:
            wire.read()
        wire.send(frame(PING, 0, 0, b"12345678"))
        while not wire.acked:
            wire.read()
        assert len(wire.data[1]) == 7
        for given in (1, 10):
            size = len(wire.data[1]) + given
            wire.send(frame(WINDOW_UPDATE, 0, 1, given.to_bytes(4, "big")))
            while len(wire.data[1]) < size:
                wire.read()
            assert len(wire.data[1]) == size
        wire.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)))
        assert scores(wire.finish(1)) == expected


def test_a_stream_takes_more_than_its_window_when_its_messages_are_answered(wire: Wire, expected: bytes) -> None:
    count, room = 1500, 1 << 20  # messages of 1.6 MB in all, and the window that a stream begins with
    message = http2.message(digits())
    wire.send(frame(WINDOW_UPDATE, 0, 0, b"\x01\0\0\0") + opening(1, STREAM))
    wire.send(frame(WINDOW_UPDATE, 0, 1, b"\x01\0\0\0"))
    for _ in range(count):
        room -= len(message)
        while room + wire.granted.get(1, 0) < 0:
            wire.read()
        wire.send(frame(DATA, 0, 1, message))
    assert wire.granted[1] + room >= 0
    wire.send(frame(DATA, END_STREAM, 1))
    while 1 not in wire.ended:
        wire.read()
    data, answers = wire.data[1], []
    while data:
        size = 5 + int.from_bytes(data[1:5], "big")
        answers.append(MESSAGES["ModelStreamInferResponse"].FromString(data[5:size]).infer_response)
        data = data[size:]
    assert len(answers) == count
    assert {answer.raw_output_contents[0] for answer in answers} == {expected}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pseudo_method": "GET"}, b"405"),
        ({"content_type": "text/plain"}, b"415"),
        ({"pseudo_path": f"{SERVICE}/NoSuchMethod"}, b"grpc-status\x0212"),
    ],
)
def test_what_is_no_call_of_a_method_is_refused(wire: Wire, fields: dict[str, str], said: bytes) -> None:
    wire.send(opening(1, LIVE, **fields) + opening(3, LIVE) + body(1, b"") + body(3, b""))
    assert wire.finish(1) == b""
    assert said in wire.said[1]
    assert wire.finish(3) == ALIVE


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0\0\5abc", b"\0\0\0\0\1abc", http2.message(b"") * 2, b"\2\0\0\0\1a", http2.message(b"\xff" * 9)],
)
@pytest.mark.parametrize("path", [INFER, f"{SERVICE}/ModelMetadata"])
def test_a_body_that_is_no_message_is_an_invalid_argument(wire: Wire, path: str, data: bytes) -> None:
    wire.send(opening(1, path) + frame(DATA, END_STREAM, 1, data))
    assert wire.status(1) == 3


@pytest.mark.parametrize("data", [b"\0\0\0\0\5abc", b"\2\0\0\0\1a", http2.message(b"\xff" * 9)])
def test_in_a_stream_too(wire: Wire, data: bytes) -> None:
    wire.send(opening(1, STREAM) + frame(DATA, END_STREAM, 1, data))
    assert wire.status(1) == 3


OPEN = opening(1, LIVE)
DAMAGE = {
    "not HTTP/2": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1),
    "a stream of the server's": (OPENED + opening(2, LIVE), 1),
    "headers without a stream": (OPENED + opening(0, LIVE), 1),
    "a body without a call": (OPENED + frame(DATA, 0, 1, b"x"), 1),
    "a frame as long as can be": (OPENED + OPEN + b"\xff\xff\xff\0\0\0\0\0\1", 6),
    "a long frame of settings": (OPENED + frame(SETTINGS, 0, 0, bytes(6 * 4000)), 6),
    "half a setting": (OPENED + frame(SETTINGS, 0, 0, bytes(5)), 6),
    "settings of a stream": (OPENED + frame(SETTINGS, 0, 1), 6),
    "a window of 4 GiB": (OPENED + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0xFFFFFFFF)), 3),
    "frames of 1 byte": (OPENED + frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)), 1),
    "a short ping": (OPENED + frame(PING, 0, 0, bytes(7)), 6),
    "no window": (OPENED + frame(WINDOW_UPDATE, 0, 0, bytes(4)), 1),
    "a short window": (OPENED + frame(WINDOW_UPDATE, 0, 0, bytes(3)), 6),
    "a window too wide": (OPENED + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), 3),
    "a window of no stream": (OPENED + frame(WINDOW_UPDATE, 0, 9, b"\0\0\0\1"), 1),
    "headers interrupted": (OPENED + frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)), 1),
    "headers of another stream": (OPENED + frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 4, 3, b""), 1),
    "headers that go on after their end": (OPENED + OPEN + frame(CONTINUATION, 4, 1, b""), 1),
    "empty headers without end": (OPENED + frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b""), 11),
    "padding longer than its frame": (OPENED + OPEN + frame(DATA, PADDED, 1, b"\7abc"), 1),
    "padding and nothing": (OPENED + OPEN + frame(DATA, PADDED, 1, b""), 1),
    "padded headers of nothing": (OPENED + frame(HEADERS, PADDED | END_HEADERS, 1, b""), 1),
    "headers that are none": (OPENED + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), 9),
    "an entry that no table has": (OPENED + frame(HEADERS, END_HEADERS, 1, b"\xfe"), 9),
    "the empty entry": (OPENED + frame(HEADERS, END_HEADERS, 1, b"\x80"), 9),
    "text that is no Huffman code": (OPENED + frame(HEADERS, END_HEADERS, 1, b"\x00\x84\xff\xff\xff\xff\x01a"), 9),
    "a table of 1 GiB": (OPENED + frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\xff\x03"), 9),
    "more sizes of the table than there may be": (OPENED + frame(HEADERS, END_HEADERS, 1, b"\x20" * 8000), 9),
    "headers again": (OPENED + OPEN + OPEN, 1),
    "a promise": (OPENED + frame(PUSH_PROMISE, 4, 1, bytes(4)), 1),
    "a short reset": (OPENED + OPEN + frame(RST_STREAM, 0, 1, bytes(3)), 1),
    "a reset of nothing": (OPENED + frame(RST_STREAM, 0, 5, bytes(4)), 1),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_ends_the_connection_with_its_reason_and_no_other(server: Running, wire: Wire, name: str) -> None:
    data, code = DAMAGE[name]
    before = server.log.stat().st_size
    with Wire(server) as damaged:
        damaged.send(data)
        while not damaged.closed:
            damaged.read()
        assert damaged.away is not None
        assert damaged.away[0] == code
        assert damaged.away[1]
    wire.send(opening(1, LIVE) + body(1, b""))
    assert wire.finish(1) == ALIVE
    assert server.log.stat().st_size == before


PATHS = [
    LIVE,
    INFER,
    STREAM,
    WATCH,
    f"{SERVICE}/ModelMetadata",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
]
PAYLOADS = st.one_of(
    st.sampled_from([block(path) for path in PATHS]), st.sampled_from([b"", bytes(4), b"\0\0\0\1", http2.message(b"")]),
    st.just(http2.message(digits())), st.binary(max_size=30),
)  # fmt: skip
FRAMES = st.builds(
    frame, st.integers(0, 10), st.sampled_from([0, 1, 4, 5, 8, 32, 45, 255]), st.integers(0, 9), PAYLOADS
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(FRAMES, max_size=20), cut=st.integers(0, 40))
def test_frames_in_any_order_are_answered_or_end_their_connection(
    server: Running, sequence: list[bytes], cut: int
) -> None:
    before = server.log.stat().st_size
    data = OPENED + b"".join(sequence)
    with Wire(server) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(data[: len(data) - cut])
            wire.sock.shutdown(socket.SHUT_WR)
        while not wire.closed:
            wire.read()
    with Wire(server) as other:
        other.send(OPENED + opening(1, LIVE) + body(1, b""))
        assert other.finish(1) == ALIVE
    assert server.log.stat().st_size == before, server.log.read_text()[before:]


def test_headers_that_no_request_may_have_end_their_call(wire: Wire) -> None:
    for number, fields in ((1, {"connection": "close"}), (3, {"X": "y"})):
        wire.send(opening(number, LIVE, **fields) + body(number, b""))
        wire.finish(number)
        assert wire.reset[number] == 1


def test_a_few_bytes_that_unpack_to_many_headers_end_the_connection(wire: Wire) -> None:
    text = "x" * 120
    field = b"\x40" + bytes([len(text)]) + text.encode() + bytes([len(text)]) + text.encode()  # kept in the table
    wire.send(frame(HEADERS, END_HEADERS, 1, field + b"\xbe" * 100))
    while not wire.closed:
        wire.read()
    assert wire.away is not None
    assert b"the headers of a call have more than" in wire.away[1]


def test_more_calls_at_once_than_there_may_be_are_refused_and_others_take_their_place(wire: Wire) -> None:
    numbers = range(1, 2 * 64 + 1, 2)
    wire.send(b"".join(opening(number, LIVE) for number in numbers) + opening(129, LIVE) + body(129, b""))
    wire.finish(129)
    assert wire.reset == {129: 7}
    wire.send(b"".join(body(number, b"") for number in numbers))
    for number in numbers:
        assert wire.finish(number) == ALIVE
    wire.send(opening(131, LIVE) + body(131, b""))
    assert wire.finish(131) == ALIVE


def test_calls_that_are_taken_back_cost_nobody_anything(server: Running, wire: Wire, expected: bytes) -> None:
    data = b"".join(
        opening(n, INFER if n % 4 == 1 else WATCH) + body(n, digits() if n % 4 == 1 else b"")
        + frame(RST_STREAM, 0, n, b"\0\0\0\x08") for n in range(1, 4001, 2)
    )  # fmt: skip
    with Wire(server) as other:
        other.send(OPENED)
        sender = threading.Thread(target=wire.send, args=(data,))
        sender.start()
        for number in range(1, 41, 2):
            other.send(opening(number, INFER) + body(number, digits()))
            assert scores(other.finish(number)) == expected
        sender.join()
    wire.send(opening(4001, INFER) + body(4001, digits()))
    assert scores(wire.finish(4001)) == expected
    assert not set(wire.data) - set(range(1, 4002, 4)), "a call that was taken back goes on"


def test_a_deadline_ends_a_call(wire: Wire) -> None:
    asked = time.monotonic()
    wire.send(opening(1, WATCH, grpc_timeout="200m") + body(1, b""))
    assert wire.status(1) == 4
    assert time.monotonic() - asked >= 0.2


def test_one_that_sends_on_after_a_refusal_is_answered_on_other_streams(wire: Wire) -> None:
    large = http2.message(bytes(8 << 20))
    wire.send(opening(1, INFER))
    for at in range(0, len(large), 1 << 14):
        wire.send(frame(DATA, 0, 1, large[at : at + (1 << 14)]))
    assert wire.status(1) == 8
    while 1 not in wire.reset:
        wire.read()
    assert wire.reset[1] == 0
    wire.send(opening(3, LIVE) + body(3, b""))
    assert wire.finish(3) == ALIVE


def test_the_end_of_the_daemon_is_announced_and_calls_under_way_are_ended(
    launch: type[Running], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("ending")
    running = launch(directory, f'[server]\ngrpc_socket = "{directory}/run/g.sock"\n')
    with Wire(running) as waiting, Wire(running) as idle:
        waiting.send(OPENED + opening(1, STREAM))
        idle.send(OPENED + opening(1, LIVE) + body(1, b""))
        assert idle.finish(1) == ALIVE
        assert running.stop() == 0
        while not idle.closed:
            idle.read()
        assert waiting.status(1) == 14
        for wire in (idle, waiting):
            assert wire.away is not None
            assert wire.away[0] == 0
    assert not (directory / "run" / "g.sock").exists()


class Activated(Running):
    """A daemon whose listening socket for gRPC comes from the service manager."""

    def start(self, *, wait: bool = True) -> None:
        place = self.directory / "run" / "g.sock"
        place.parent.mkdir()
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='grpc');"
            "os.execv(sys.executable, [sys.executable, '-m', 'edgeaid', *sys.argv[2:]])"
        )
        options = ["--config", self.config, "--socket", self.socket, "--model-repository", self.repository]
        with socket.socket(socket.AF_UNIX) as listening, open(self.log, "ab") as log:
            listening.bind(str(place))
            listening.listen()
            number = listening.fileno()
            command = [sys.executable, "-c", code, str(number), *map(str, options)]
            self._process = subprocess.Popen(command, stderr=log, env=self.env, pass_fds=[number])
        if wait:
            self.wait()


def test_the_listening_socket_may_come_from_the_service_manager(tmp_path: Path) -> None:
    running = Activated(tmp_path)
    with Wire(running) as wire:
        wire.send(OPENED + opening(1, LIVE) + body(1, b""))
        assert wire.finish(1) == ALIVE
    assert running.stop() == 0
    assert (tmp_path / "run" / "g.sock").exists(), "it is the service manager's"


def test_health_is_watched_with_headers_of_its_own(wire: Wire) -> None:
    wire.send(opening(1, WATCH) + body(1, b""))
    while len(wire.data.get(1, b"")) < 7:
        wire.read()
    assert HEALTH_MESSAGES["HealthCheckResponse"].FromString(wire.data[1][5:]).status == 1
    wire.send(frame(RST_STREAM, 0, 1, b"\0\0\0\x08") + opening(3, LIVE) + body(3, b""))
    assert wire.finish(3) == ALIVE
