"""DeepStack and DOODS: clients written from what those servers' users describe, real pictures, bad input."""

from __future__ import annotations

import base64
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from edgeaid.models.repository import EMBEDDED

from ...support.daemon import Running

SCENES = sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))
TRUTH = json.loads((EMBEDDED / "digit-scenes" / "1" / "samples" / "truth.json").read_text())
TOKEN = "a-token-of-sixteen-characters"  # noqa: S105  of a daemon that lives for one test


@pytest.fixture(scope="module")
def recorder(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon with both dialects on."""
    config = "[dialects]\ndeepstack = true\ndoods = true\n[limits]\npicture_bytes = 300000\nidle_seconds = 3\n"
    running = launch(tmp_path_factory.mktemp("dialects"), config)
    yield running
    assert running.stop() == 0, running.log.read_text()


class Connection(HTTPConnection):
    """HTTP over the daemon's Unix socket."""

    def __init__(self, path: Any, timeout: float = 30.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def exchange(connection: Any, method: Any, path: Any, body: bytes = b"", headers: Any = None) -> Any:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def form(fields: Any) -> Any:
    """multipart/form-data, as every HTTP library makes it; values are bytes, or (file name, bytes)."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields:
        named = isinstance(value, tuple)
        file = f'; filename="{value[0]}"\r\nContent-Type: image/jpeg' if named else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + (value[1] if named else value) + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


class DeepStackClient:
    """What Frigate's detector does: one picture, first rows until one is too uncertain or unknown."""

    def __init__(self, path: Any, labels: Any) -> None:
        self.path, self.labels = path, labels

    def detect(self, picture: Any) -> Any:
        body, headers = form([("api_key", b""), ("image", ("image.jpg", picture))])
        connection = Connection(self.path)
        try:
            status, answer = exchange(connection, "POST", "/v1/vision/detection", body, headers)
        finally:
            connection.close()
        assert status == 200, answer
        rows = []
        for detected in answer["predictions"][:20]:
            if detected["confidence"] < 0.4 or detected["label"] not in self.labels:
                break
            assert 0 <= detected["x_min"] < detected["x_max"]
            assert 0 <= detected["y_min"] < detected["y_max"]
            rows.append(detected)
        return rows


def test_a_deepstack_client_finds_what_is_there(recorder: Any) -> None:
    """Frigate's own client waits 0.1 s; how long an answer takes is printed, and bounded in test_frigate_files.py."""
    client = DeepStackClient(recorder.socket, {str(n) for n in range(10)})
    took = []
    for scene in SCENES:
        begin = time.monotonic()
        rows = client.detect(scene.read_bytes())
        took.append(time.monotonic() - begin)
        scores = [row["confidence"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert {row["label"] for row in rows} & {detected["label"] for detected in TRUTH[scene.name]["objects"]}
    print(f"DeepStack: median {sorted(took)[len(took) // 2] * 1e3:.1f} ms")


def test_min_confidence_is_the_callers(recorder: Any) -> None:
    def detected(confidence: Any) -> Any:
        body, headers = form([("image", ("a.png", SCENES[0].read_bytes())), ("min_confidence", confidence)])
        status, answer = exchange(Connection(recorder.socket), "POST", "/v1/vision/detection", body, headers)
        assert (status, answer["success"]) == (200, True)
        return answer["predictions"]

    assert len(detected(b"0.05")) >= len(detected(b"0.4")) >= len(detected(b"0.999"))
    assert all(row["confidence"] >= 0.999 for row in detected(b"0.999"))


def ask(recorder: Any, body: Any, headers: Any) -> Any:
    return exchange(Connection(recorder.socket), "POST", "/v1/vision/detection", body, headers)


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ([("picture", b"x")], 400, "no picture in the field 'image'"),
        ([("image", b"")], 400, "no picture in the field 'image'"),
        ([("image", ("a.jpg", b"not a picture"))], 400, ""),
        ([("image", ("a.jpg", b"\xff\xd8\xff" + b"x" * 100))], 400, ""),
        ([("image", ("a.jpg", b"x" * 300_001))], 413, "more than 300000 bytes"),
        ([("image", ("a.jpg", b"x" * 500_000))], 413, "the limit is"),
        ([("api_key", b"k" * 5000), ("image", b"x")], 413, "more than 4096 bytes"),
        ([(f"f{n}", b"") for n in range(40)], 400, "at most 16 named parts"),
        ([("min_confidence", b"high"), ("image", ("a.png", SCENES[0].read_bytes()))], 400, "a number from 0 to 1"),
        ([("min_confidence", b"9" * 400), ("image", ("a.png", SCENES[0].read_bytes()))], 400, "a number from 0 to 1"),
        ([("min_confidence", b"nan"), ("image", ("a.png", SCENES[0].read_bytes()))], 400, "a number from 0 to 1"),
    ],
)
def test_a_form_that_cannot_be_is_refused_with_its_reason(recorder: Any, fields: Any, status: int, said: str) -> None:
    got, answer = ask(recorder, *form(fields))
    assert (got, answer["success"], answer["predictions"]) == (status, False, [])
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"x", "image/jpeg"),
        (b"x", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=b"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\n" + b"A: b\r\n" * 5000 + b"\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n'
            b"--c\r\n\r\nx\r\n--c--\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
        (b"", "multipart/form-data; boundary=" + "b" * 100),
    ],
)
def test_a_body_that_is_no_form_is_refused(recorder: Any, body: bytes, kind: str) -> None:
    status, answer = ask(recorder, body, {"Content-Type": kind})
    assert status == 400, answer
    assert answer["error"]


def test_a_form_that_stalls_is_given_up(recorder: Any) -> None:
    connection = Connection(recorder.socket)
    connection.putrequest("POST", "/v1/vision/detection")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx')
    response = connection.getresponse()
    assert response.status == 400
    assert "complete" in json.loads(response.read())["error"]


# --- DOODS ----------------------------------------------------------------------------------------------------------


def doods(recorder: Any, **body: Any) -> Any:
    connection = Connection(recorder.socket)
    return exchange(connection, "POST", "/detect", json.dumps(body).encode(), {"Content-Type": "application/json"})


def picture() -> Any:
    return base64.b64encode(SCENES[0].read_bytes()).decode()


def test_a_doods_client_lists_detectors_and_gets_shares_and_percentages(recorder: Any) -> None:
    status, answer = exchange(Connection(recorder.socket), "GET", "/detectors")
    assert status == 200
    (detector,) = answer["detectors"]
    assert (detector["name"], sorted(detector["labels"])) == ("digit-scenes", [str(n) for n in range(10)])
    assert detector["width"] > 0
    status, answer = doods(recorder, id="x1", detector_name="default", data=picture(), detect={"*": 40})
    assert (status, answer["id"]) == (200, "x1")
    assert answer["detections"]
    for detected in answer["detections"]:
        assert 0 <= detected["top"] < detected["bottom"] <= 1
        assert 0 <= detected["left"] < detected["right"] <= 1
        assert 40 <= detected["confidence"] <= 100
        assert detected["label"] in detector["labels"]


def test_doods_labels_and_regions_choose(recorder: Any) -> None:
    everything = doods(recorder, detector_name="digit-scenes", data=picture())[1]["detections"]
    best = everything[0]
    only = doods(recorder, data=picture(), detect={best["label"]: 1})[1]["detections"]
    assert only
    assert {row["label"] for row in only} == {best["label"]}
    around = {side: best[side] for side in ("top", "left", "bottom", "right")}
    inside = doods(recorder, data=picture(), regions=[{**around, "detect": {"*": 1}, "covers": True}])[1]["detections"]
    assert best in inside
    half = {**around, "bottom": (best["top"] + best["bottom"]) / 2}
    covered = doods(recorder, data=picture(), regions=[{**half, "detect": {"*": 1}, "covers": True}])[1]["detections"]
    touched = doods(recorder, data=picture(), regions=[{**half, "detect": {"*": 1}, "covers": False}])[1]["detections"]
    assert best not in covered
    assert best in touched


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "'data' must be a picture in base64"),
        ({"data": 5}, 400, "'data' must be"),
        ({"data": "§"}, 400, "not base64"),
        ({"data": base64.b64encode(b"no picture").decode()}, 400, ""),
        ({"data": "x", "detect": []}, 400, "'detect' must be an object"),
        ({"data": "x", "detect": {"1": 101}}, 400, "from 0 to 100"),
        ({"data": "x", "detect": {"1": 10**400}}, 400, "from 0 to 100"),
        ({"data": "x", "detect": {"1": "many"}}, 400, "from 0 to 100"),
        ({"data": "x", "detect": {"1": True}}, 400, "from 0 to 100"),
        ({"data": "x", "regions": {}}, 400, "'regions' must be"),
        ({"data": "x", "regions": [{}] * 65}, 400, "at most 64"),
        ({"data": "x", "regions": [{"top": 0, "left": 0, "bottom": 2, "right": 1}]}, 400, "'regions.bottom'"),
        ({"data": "x", "detector_name": 5}, 400, "must be a text"),
        ({"data": "x", "detector_name": "nothing"}, 404, "nothing"),
        ({"data": "x", "detector_name": "digits"}, 400, "not 'detect'"),
    ],
)
def test_a_doods_request_that_cannot_be_is_refused_with_its_reason(
    recorder: Any, body: dict[str, Any], status: int, said: str
) -> None:
    got, answer = doods(recorder, id="n7", **body)
    assert (got, answer["id"]) == (status, "n7"), answer
    assert said in answer["error"]


def test_doods_body_limits_hold(recorder: Any) -> None:
    assert exchange(Connection(recorder.socket), "POST", "/detect", b"[" * 500, {})[0] == 400
    assert exchange(Connection(recorder.socket), "POST", "/detect", b"[]", {})[0] == 400
    assert exchange(Connection(recorder.socket), "POST", "/detect", b"x" * 600_000, {})[0] == 413


# --- on TCP, and off ------------------------------------------------------------------------------------------------


def test_on_tcp_each_client_shows_the_token_where_it_can(start: Callable[..., Running], tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start(f'[dialects]\ndeepstack = true\ndoods = true\n[tcp]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{secret}"\n')

    def deepstack(key: Any) -> Any:
        body, headers = form([("image", ("a.png", SCENES[0].read_bytes())), ("api_key", key)])
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        return exchange(connection, "POST", "/v1/vision/detection", body, headers)

    def detectors(headers: Any) -> Any:
        return exchange(HTTPConnection("127.0.0.1", port, timeout=60), "GET", "/detectors", b"", headers)[0]

    assert deepstack(TOKEN.encode())[0] == 200
    assert [deepstack(key)[0] for key in (b"", b"wrong", "ü".encode())] == [403, 403, 403]
    assert detectors({"doods-auth-key": TOKEN}) == 200
    assert detectors({"Authorization": f"Bearer {TOKEN}"}) == 200
    assert [detectors({}), detectors({"doods-auth-key": "wrong"})] == [403, 403]


def test_without_the_section_there_is_nothing(daemon: Running) -> None:
    for method, path in (("GET", "/detectors"), ("POST", "/detect"), ("POST", "/v1/vision/detection")):
        assert exchange(Connection(daemon.socket), method, path)[0] == 404


def test_deepstacks_custom_models_are_listed_and_asked_by_name(recorder: Any) -> None:
    status, answer = exchange(Connection(recorder.socket), "POST", "/v1/vision/custom/list")
    assert status == 200
    assert "digit-scenes" in answer["models"]
    body, headers = form([("image", ("a.png", SCENES[0].read_bytes()))])
    status, answer = exchange(Connection(recorder.socket), "POST", "/v1/vision/custom/digit-scenes", body, headers)
    assert status == 200
    assert answer["success"]
    assert answer["predictions"]
    body, headers = form([("image", ("a.png", SCENES[0].read_bytes()))])
    status, answer = exchange(Connection(recorder.socket), "POST", "/v1/vision/custom/nothing", body, headers)
    assert (status, answer["success"]) == (404, False)
