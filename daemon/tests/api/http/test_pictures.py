"""Pictures over HTTP: the short way of plain ones, and processes that do not answer while they are asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import tomllib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import psutil
import pytest

from edgeaid.api.http.plain import plain_head
from edgeaid.client import Client
from edgeaid.errors import Unavailable
from edgeaid.models.repository import EMBEDDED
from edgeaid.models.rules import OutputRules
from edgeaid.serving import media
from edgeaid.tensors import Quantization, TensorSpec
from edgeaid.vision.placement import Placement
from edgeaid.vision.postprocess import results

from ...support.daemon import Running
from ...support.waiting import eventually

PATH = "/edgeai/v1/models/digits/classify"
IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
SAMPLES = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))


def head(path: str, size: int, *more: str) -> bytes:
    """A plain request's head."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *more, "", ""]).encode()


def answers(sock: socket.socket, count: int) -> list[dict[str, Any]]:
    """The JSON bodies of the next answers on a connection."""
    data = b""
    bodies: list[dict[str, Any]] = []
    while len(bodies) < count:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
        while b"\r\n\r\n" in data:
            start = data.index(b"\r\n\r\n") + 4
            length = int(data[:start].lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(data) < start + length:
                break
            bodies.append(json.loads(data[start : start + length]))
            data = data[start + length :]
    return bodies


def decoding_process(daemon: Running) -> psutil.Process:
    """The one process that decodes pictures."""
    (process,) = (c for c in psutil.Process(daemon.process.pid).children() if c.name().startswith("edgeai-media"))
    return process


def test_a_plain_picture_takes_the_short_way_and_is_answered_as_by_the_library(daemon: Running, three: bytes) -> None:
    status, short, body = daemon.http("POST", f"{PATH}?max_results=3&version=1", three)
    _, library, same = daemon.http("POST", f"{PATH}?max_results=3&version=1", three, {"Connection": "close"})
    assert status == 200
    assert "aiohttp" in library["server"]
    assert "server" not in short
    assert short["content-type"] == library["content-type"]
    plain, other = json.loads(body), json.loads(same)
    assert set(plain.pop("timing")) == set(other.pop("timing"))
    assert plain == other
    assert len(plain["classes"]) == 3


@pytest.mark.parametrize(
    ("path", "size", "more"),
    [
        (PATH, 10, ["Accept: image/png"]),
        (PATH, 10, ["Content-Type: application/octet-stream"]),
        (f"{PATH}?max_results=many", 10, []),
        (f"{PATH}?threshold=1e3", 10, []),
        (f"{PATH}?version=%31", 10, []),
        ("/edgeai/v1/models/digits/draw", 10, []),
        ("/edgeai/v1/models/di%67its/classify", 10, []),
    ],
)
def test_a_picture_that_asks_for_more_is_left_to_the_library(path: str, size: int, more: list[str]) -> None:
    assert plain_head(head(path, size)) is None or more
    assert plain_head(head(path, size, *more)) is None


def test_what_a_plain_picture_asks_for_is_read_from_its_path() -> None:
    read = plain_head(head("/edgeai/v1/models/bird-2/detect?threshold=0.25&max_results=4&timeout=2.5&priority=3", 12))
    assert read is not None
    assert read.wish is not None
    assert (read.wish.model, read.wish.task, read.length) == ("bird-2", "detect", 12)
    assert (read.wish.threshold, read.wish.max_results, read.wish.timeout, read.wish.priority) == (0.25, 4, 2.5, 3)


def test_wrong_plain_pictures_get_the_errors_of_the_library(daemon: Running, three: bytes) -> None:
    for path, body in ((PATH, b"nothing"), (PATH, b""), (PATH.replace("classify", "detect"), three), (f"{PATH}x", b"")):
        short = daemon.json("POST", path, body)
        assert short == daemon.json("POST", path, body, {"Connection": "close"})
        assert short[0] >= 400
    missing = daemon.json("POST", PATH.replace("digits", "nobody"), three)
    assert missing[0] == 404


def test_pictures_that_come_in_a_row_or_in_pieces_are_answered_in_their_order(daemon: Running) -> None:
    bodies = [sample.read_bytes() for sample in SAMPLES * 2]
    sent = b"".join(head(f"{PATH}?max_results=1", len(body)) + body for body in bodies)
    with daemon.raw() as sock:
        for at in range(0, len(sent), 100):
            sock.sendall(sent[at : at + 100])
        rows = answers(sock, len(bodies))
        sock.sendall(sent)
        assert [r["classes"] for r in answers(sock, len(bodies))] == [r["classes"] for r in rows]
    with daemon.client() as client:
        for row, body in zip(rows, bodies, strict=True):
            assert [row["classes"]] == [[{"index": c.index, "label": c.label, "score": c.score}
                                         for c in client.classify("digits", body, max_results=1).classes]]  # fmt: skip


def test_the_best_classes_are_said_where_the_scores_were_computed(start: Callable[..., Running]) -> None:
    """The process that decodes pictures is not asked about what needs no decoding, and would answer the same."""
    daemon = start("[limits]\ndecoders = 1\n")
    with daemon.client() as client:
        (spec,) = client.metadata("digits")["outputs"]
        scores = client.infer("digits", IMAGE)["scores"]
    manifest = tomllib.loads((EMBEDDED / "digits" / "1" / "model.toml").read_text())
    rules = OutputRules.from_table(manifest["output"])
    quantization = Quantization((0.22190141677856445,), (-6,))  # the file's own
    described = TensorSpec("scores", spec["datatype"], tuple(spec["shape"]), quantization)
    labels = (EMBEDDED / "digits" / "1" / manifest["labels"]["file"]).read_text().split()
    decoding_process(daemon).send_signal(signal.SIGSTOP)
    for count in (1, 3, 10, 100):
        path = f"{PATH}?max_results={count}"
        status, _, body = daemon.http("POST", path, IMAGE.tobytes(), {"Content-Type": "application/octet-stream"})
        assert status == 200
        side = IMAGE.shape[1]
        expected = results(rules, [described], [scores], labels, Placement(side, side), max_results=count).to_json()
        answer = json.loads(body)
        assert {key: answer[key] for key in expected} == expected
    decoding_process(daemon).send_signal(signal.SIGCONT)


def test_a_slot_into_which_a_picture_is_still_decoded_is_not_given_to_the_next_request(
    start: Callable[..., Running], three: bytes
) -> None:
    daemon = start("[limits]\ndecoders = 1\nqueue = 1\n")
    request = head(PATH, len(three)) + three

    def waiting(stack: ExitStack) -> int:
        """How many clients can wait for an answer before the next one is told that every slot is in use."""
        for count in range(64):
            sock = stack.enter_context(daemon.raw())
            sock.sendall(request)
            sock.settimeout(0.2)
            with suppress(TimeoutError):
                assert b" 503 " in sock.recv(65536).split(b"\r\n")[0]
                return count
        raise AssertionError("nobody was refused")

    with daemon.client() as client:
        client.classify("digits", three)
        process = decoding_process(daemon)
        counts = []
        for gone in (0, media.AT_ONCE):
            with ExitStack() as stack:
                process.send_signal(signal.SIGSTOP)
                stack.callback(process.send_signal, signal.SIGCONT)
                for _ in range(gone):  # the decoder has their pictures before it
                    with daemon.raw() as sock:
                        sock.sendall(request)
                        sock.settimeout(0.2)
                        with pytest.raises(TimeoutError):
                            sock.recv(1)
                counts.append(waiting(stack))
                with pytest.raises(Unavailable):
                    client.infer("digits", IMAGE)
            eventually(lambda: _answered(client))
        assert counts[0] - counts[1] == media.AT_ONCE
    assert os.path.exists(f"/proc/{daemon.process.pid}")


def _answered(client: Client) -> bool:
    try:
        client.infer("digits", IMAGE)
    except Unavailable:
        return False
    return True
