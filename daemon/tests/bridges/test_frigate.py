"""The Frigate bridge on a running daemon, asked by a client written from the description of Frigate's own plug-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.bridges.frigate import EMPTY, Detector, rows
from edgeaid.errors import Unavailable
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.examples import examples

zmq = pytest.importorskip("zmq", reason="pyzmq is not installed")

SCENES = EMBEDDED / "digit-scenes" / "1"
SCENE = np.load(SCENES / "golden" / "0.in.npy")


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("frigate")
    daemon = Running(directory)
    endpoint = f"ipc://{directory}/zmq"
    command = [
        sys.executable,
        "-m",
        "edgeaid.bridges.frigate",
        "digit-scenes",
        "--endpoint",
        endpoint,
        "--socket",
        str(daemon.socket),
    ]
    process = subprocess.Popen(command)
    yield daemon, endpoint
    process.terminate()
    process.wait(10)
    daemon.stop()


class Frigate:
    """What the plug-in does: handshake, then tensors, with its time-out."""

    def __init__(self, endpoint: Any) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, 30_000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def ask(self, header: Any, *frames: Any) -> Any:
        self.socket.send_multipart([json.dumps(header).encode(), *frames])
        return self.socket.recv_multipart()

    def detect(self, tensor: Any) -> Any:
        header = {"shape": list(tensor.shape), "dtype": str(tensor.dtype), "model_type": "ssd"}
        (reply,) = self.ask(header, tensor.tobytes())
        return np.frombuffer(reply, np.float32).reshape(20, 6)


def test_the_handshake_says_that_the_model_is_there_and_uploads_are_not_taken(bridge: Any) -> None:
    frigate = Frigate(bridge[1])
    assert json.loads(frigate.ask({"model_request": True, "model_name": "../x.onnx"})[0]) == {
        "model_available": True,
        "model_loaded": True,
    }
    assert json.loads(frigate.ask({"model_data": True, "model_name": "x"}, b"bytes")[0]) == {
        "model_saved": False,
        "model_loaded": True,
    }


def test_detections_come_best_first_with_boxes_in_frigates_order(bridge: Any) -> None:
    daemon, endpoint = bridge
    detections = Frigate(endpoint).detect(SCENE)
    used = detections[detections[:, 1] > 0]
    assert len(used)
    assert (np.diff(detections[:, 1]) <= 0).all()
    assert ((used[:, 2:] >= 0) & (used[:, 2:] <= 1)).all()
    assert (used[:, 4] > used[:, 2]).all()
    assert (used[:, 5] > used[:, 3]).all()
    with daemon.client() as client:
        same = client.detect_tensor("digit-scenes", SCENE.tobytes())["objects"]
    assert [int(r[0]) for r in used] == [o["index"] for o in sorted(same, key=lambda o: -o["score"])]


def test_wrong_tensors_and_nonsense_get_zeros_at_once_and_the_bridge_lives(bridge: Any) -> None:
    frigate = Frigate(bridge[1])
    assert not frigate.detect(np.zeros((1, 3), np.uint8)).any()
    frigate.socket.send(os.urandom(100))
    assert frigate.socket.recv() == EMPTY
    assert frigate.detect(SCENE).any()


def test_a_wrong_size_is_said_once_with_both_shapes_and_not_with_every_frame(caplog: pytest.LogCaptureFixture) -> None:
    class Model:
        def get(self, _path: Any) -> dict[str, Any]:
            return {"inputs": [{"name": "in", "datatype": "UINT8", "shape": [1, 300, 300, 3]}]}

    detector = Detector(cast(Any, Model()), "ssd")
    frame = np.zeros((1, 320, 320, 3), np.uint8)
    for _ in range(5):
        assert detector.answer(
            [json.dumps({"shape": [1, 320, 320, 3], "dtype": "uint8"}).encode(), frame.tobytes()]
        ) == [EMPTY]
    said = [r.getMessage() for r in caplog.records if "Frigate sent" in r.getMessage()]
    assert len(said) == 1
    assert "Frigate sent [1, 320, 320, 3] uint8, model 'ssd' wants [1, 300, 300, 3] uint8" in said[0]


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float32"},
        {"dtype": "object"},
        {"shape": [1, -1]},
        {"shape": "x"},
        {"dtype": 3},
        {"dtype": "x" * 999},
        {"shape": [1] * 5000},
        {"shape": [True, 96, 96, 3]},
        {"shape": [1.0, 96, 96, 3]},
        {"shape": []},
        {"dtype": None},
        {"shape": [65535] * 8},
        {"shape": {"0": 1}},
    ],
)
def test_a_header_that_lies_about_its_tensor_gets_zeros(bridge: Any, change: dict[str, Any]) -> None:
    header = {"shape": list(SCENE.shape), "dtype": str(SCENE.dtype), "model_type": "ssd", **change}
    frigate = Frigate(bridge[1])
    assert frigate.ask(header, SCENE.tobytes()) == [EMPTY]
    assert frigate.detect(SCENE).any()


def test_what_frigate_sent_is_said_in_a_few_words(caplog: pytest.LogCaptureFixture) -> None:
    class Model:
        def get(self, _path: Any) -> dict[str, Any]:
            return {"inputs": [{"name": "in", "datatype": "UINT8", "shape": [1, 300, 300, 3]}]}

    detector = Detector(cast(Any, Model()), "ssd")
    for header in ({"shape": [1] * 9000, "dtype": "uint8"}, {"shape": [1, 3], "dtype": "x" * 50_000}):
        assert detector.answer([json.dumps(header).encode(), b"abc"]) == [EMPTY]
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2
    assert max(map(len, said)) < 400


def test_tensors_with_channels_first_and_unsigned_pixels_are_turned_into_what_the_model_takes(bridge: Any) -> None:
    frigate = Frigate(bridge[1])
    right = frigate.detect(SCENE)
    assert right.any()
    assert (frigate.detect(np.ascontiguousarray(SCENE.transpose(0, 3, 1, 2))) == right).all()
    assert (frigate.detect(SCENE.view(np.uint8) ^ 0x80) == right).all()


def test_a_model_file_is_refused_with_the_way_it_comes_instead(caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector(cast(Any, _Broken()), "m")
    answer = json.loads(detector.answer([b'{"model_data":true,"model_name":"x"}', b"bytes"])[0])
    assert answer["model_saved"] is False
    assert "edgeai push m" in caplog.text


class _Broken:
    def get(self, _path: Any) -> None:
        raise Unavailable("gone")

    def detect_tensor(self, _model: Any, _tensor: Any) -> None:
        raise Unavailable("gone")


def test_without_a_daemon_nothing_is_detected_and_nothing_raised() -> None:
    detector = Detector(cast(Any, _Broken()), "m")
    assert detector.answer([b'{"shape":[1]}', b"x"]) == [EMPTY]
    assert json.loads(detector.answer([b'{"model_request":true}'])[0])["model_loaded"] is False


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=3))
def test_no_request_breaks_the_bridge(frames: Any) -> None:
    assert Detector(cast(Any, _Broken()), "m").answer(frames)


def test_more_than_twenty_objects_are_cut_to_the_best() -> None:
    box = {"ymin": 0.1, "xmin": 0.2, "ymax": 0.3, "xmax": 0.4}
    values = np.frombuffer(rows([{"index": i, "score": i / 100, "box": box} for i in range(50)]), np.float32).reshape(
        20, 6
    )
    assert values[0, 0] == 49
    assert values[-1, 0] == 30
