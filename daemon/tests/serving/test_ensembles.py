"""Ensembles: one request to a detector and the models that are asked about what it detects."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.client import Client
from edgeaid.models import pack
from edgeaid.streams.process.pictures import Digits
from tests.support.daemon import Running
from tests.support.streams import SIZE
from tests.support.waiting import eventually

READ = """
schema = 1
name = "read"
description = "Digits, each read by a second model"
[ensemble]
[[ensemble.stage]]
detect = "digit-scenes"
[[ensemble.stage]]
classify = "digits"
on = ["2", "7"]
threshold = 0.5
"""
SCENE = Digits(SIZE, SIZE)


def directory(base: Path, text: str) -> Path:
    """A model directory of nothing but a manifest."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "model.toml").write_text(text)
    return base


def bundle(base: Path, text: str) -> Path:
    """The same as a bundle, as `edgeai push DIRECTORY` makes one."""
    return pack.write(directory(base, text), base.parent)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    """A daemon with the ensemble `read`, pushed as a user does it."""
    place = tmp_path_factory.mktemp("ensembles")
    running = launch(place, f'[server]\nfast_socket = "{place}/run/fast.sock"\ngrpc_socket = "{place}/run/grpc.sock"\n')
    with running.client() as client:
        pushed = client.push("read", bundle(place / "read", READ))
        assert pushed["devices"] == ["ensemble0"]
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def client(served: Running) -> Iterator[Client]:
    with served.client() as opened:
        yield opened


def frame(number: int = 5) -> Any:
    """Pixels [1,height,width,3] of a scene with three digits."""
    return np.asarray(SCENE.frame(number).convert("RGB"))[None]


def places(answer: Any) -> dict[str, tuple[float, ...]]:
    """Boxes by label."""
    return {label.decode(): tuple(box) for label, box in zip(answer["labels"], answer["boxes"].tolist(), strict=True)}


def near(boxes: dict[str, tuple[float, ...]], number: int = 5) -> bool:
    """Each digit of the scene has a box where it is."""
    truth = {label: np.array(box) / SIZE for label, box in SCENE.truth(number)}
    return boxes.keys() == truth.keys() and all(abs(np.array(boxes[k]) - truth[k]).max() < 0.1 for k in truth)


def test_a_picture_is_answered_with_objects_and_what_the_second_model_calls_them(
    client: Client, tmp_path: Path
) -> None:
    SCENE.frame(5).save(tmp_path / "scene.png")
    answer = client.detect("read", tmp_path / "scene.png")
    assert {o.label: o.sub_label[0] if o.sub_label else None for o in answer} == {"2": "2", "5": None, "7": "7"}
    assert near({o.label: (o.box.xmin, o.box.ymin, o.box.xmax, o.box.ymax) for o in answer})
    two = next(o for o in answer if o.label == "2")
    assert two.attributes["digits"]["classes"][0]["label"] == "2"
    assert (answer.device, answer.width, answer.height) == ("ensemble0", SIZE, SIZE)
    assert len(client.detect("read", tmp_path / "scene.png", threshold=0.9).objects) == 2
    assert client.draw("detect", "read", tmp_path / "scene.png")[:4] == b"\x89PNG"


def test_one_request_of_the_protocol_is_answered_by_all_stages(client: Client) -> None:
    answer = client.infer("read", {"picture": frame()})
    assert near(places(answer.outputs))
    assert dict(zip(answer["labels"], answer["sub_labels"], strict=True)) == {b"2": b"2", b"5": b"", b"7": b"7"}
    assert [json.loads(a).keys() >= {"digits"} for a in answer["attributes"]] == [
        s != b"" for s in answer["sub_labels"]
    ]
    assert answer["scores"].tolist() == sorted(answer["scores"], reverse=True)


def test_members_answer_as_if_they_were_asked_one_by_one(client: Client, tmp_path: Path) -> None:
    SCENE.frame(9).save(tmp_path / "scene.png")
    alone = client.detect("digit-scenes", tmp_path / "scene.png")
    together = client.infer("read", {"picture": frame(9)})
    assert together["labels"].tolist() == [o.label.encode() for o in alone]
    np.testing.assert_allclose(together["scores"], [o.score for o in alone], atol=1e-6)
    np.testing.assert_allclose(together["boxes"], [[*vars_of(o.box)] for o in alone], atol=1e-5)


def vars_of(box: Any) -> tuple[float, ...]:
    """Corners of a box."""
    return box.xmin, box.ymin, box.xmax, box.ymax


def test_the_fast_socket_carries_ensembles(served: Running) -> None:
    with Client(served.socket, fast=True) as fast:
        assert near(places(fast.infer("read", {"picture": frame(7)}).outputs), 7)


def test_grpc_carries_ensembles(served: Running) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    pixels = frame(3)
    given = triton.InferInput("picture", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels)
    with triton.InferenceServerClient(f"unix:{served.directory}/run/grpc.sock") as asking:
        answer = asking.infer("read", [given])
        assert near(places({n: answer.as_numpy(n) for n in ("labels", "boxes")}), 3)
        assert asking.get_model_config("read").config.platform == "ensemble"


def test_a_picture_without_objects_has_empty_tensors(client: Client) -> None:
    answer = client.infer("read", {"picture": np.zeros((1, 40, 60, 3), np.uint8)})
    assert answer["boxes"].shape == (0, 4)
    assert [answer[n].shape for n in ("scores", "classes", "labels", "sub_labels", "attributes")] == [(0,)] * 5


@pytest.mark.parametrize("shape", [(1, 0, 4, 3), (1, 2000, 2000, 3), (2, 40, 60, 3), (1, 40, 60, 1)])
def test_tensors_that_are_not_a_picture_that_fits_are_refused(client: Client, shape: tuple[int, ...]) -> None:
    with pytest.raises((errors.InvalidRequest, errors.InvalidArgument, errors.TooLarge)):
        client.infer("read", {"picture": np.zeros(shape, np.uint8)})
    assert len(client.infer("read", {"picture": frame()})["labels"]) == 3


def test_an_encoded_picture_may_stand_for_the_tensor(served: Running) -> None:
    buffer = io.BytesIO()
    SCENE.frame(5).convert("RGB").save(buffer, "PNG")
    data = buffer.getvalue()
    given = {"name": "picture", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [given], "outputs": [{"name": "labels"}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = served.json("POST", "/v2/models/read/infer", head + data, headers)
    assert (status, sorted(answer["outputs"][0]["data"])) == (200, ["2", "5", "7"])


def test_a_stream_says_that_it_needs_the_stages_and_not_the_ensemble(served: Running) -> None:
    status, answer = served.json(
        "PUT", "/edgeai/v1/streams/s", {"source": "test:digits", "stage": [{"detect": "read"}]}
    )
    assert (status, "is an ensemble" in answer["error"]) == (400, True)


def test_several_clients_at_once_get_each_their_own_answer(served: Running) -> None:
    def ask(number: int) -> bool:
        with served.client() as asking:
            return all(
                near(places(asking.infer("read", {"picture": frame(n)}).outputs), n) for n in (number, number + 7)
            )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(1, 5)))


def test_an_ensemble_has_statistics_of_its_own_and_its_members_count_theirs(served: Running, client: Client) -> None:
    def count(name: str) -> int:
        return int(served.json("GET", f"/v2/models/{name}/stats")[1]["model_stats"][0]["inference_count"])

    before = [count(n) for n in ("read", "digit-scenes", "digits")]
    client.infer("read", {"picture": frame()})
    assert [count(n) - b for n, b in zip(("read", "digit-scenes", "digits"), before, strict=True)] == [1, 1, 2]


STAGE = '[[ensemble.stage]]\ndetect = "digit-scenes"\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x", '[[ensemble.stage]]\ndetect = "nobody"', "there is no model 'nobody'"),
        ("x", '[[ensemble.stage]]\ndetect = "x"', "a cycle"),
        ("x", '[[ensemble.stage]]\ndetect = "read"', "is an ensemble too"),
        ("x", '[[ensemble.stage]]\ndetect = "digits"', "made for the task 'classify', not 'detect'"),
        ("x", f'{STAGE}[[ensemble.stage]]\nclassify = "digit-mask"', "made for the task 'segment', not 'classify'"),
        ("x", '[[ensemble.stage]]\nclassify = "digits"', "must be the detector"),
        ("x", f'{STAGE}[[ensemble.stage]]\ntrack = {{}}', "must have exactly one of classify"),
        ("x", f'{STAGE}every_s = 1', "every_s"),
        ("x", f'size = 9\n{STAGE}', "size"),
        ("x", f'{STAGE}[labels]\nfile = "l.txt"', "its members have that"),
    ],
)  # fmt: skip
def test_an_ensemble_that_cannot_work_is_refused_with_the_reason(
    client: Client, tmp_path: Path, name: str, text: str, reason: str
) -> None:
    manifest = f'schema = 1\nname = "{name}"\n[ensemble]\n{text}\n'
    directory(tmp_path / "x", manifest)
    with pytest.raises(errors.EdgeaiError, match=reason):
        client.push(name, pack.write(tmp_path / "x", tmp_path))
    assert name not in {m["name"] for m in client.models()}


def test_a_missing_member_is_said_and_its_return_heals_the_ensemble(served: Running, client: Client) -> None:
    client.unload("digits")
    row = next(m for m in client.models() if m["name"] == "read")
    assert row["state"] == "UNAVAILABLE"
    assert "'digits', which is not loaded" in row["reason"]
    assert served.http("GET", "/v2/models/read/ready")[0] == 503
    with pytest.raises(errors.Unavailable, match="'digits'"):
        client.infer("read", {"picture": frame()})
    client.load("digits")
    assert len(client.infer("read", {"picture": frame()})["labels"]) == 3
    client.load("digit-scenes")  # another instance takes the place of the one that was asked
    assert near(places(client.infer("read", {"picture": frame()}).outputs))


def test_members_go_with_an_ensemble_that_is_unloaded_with_its_dependents(served: Running, client: Client) -> None:
    body = {"parameters": {"unload_dependents": True}}
    assert served.json("POST", "/v2/repository/models/read/unload", body)[0] == 200
    assert {m["name"] for m in client.models() if m["state"] == "READY"} == {"digit-mask"}
    client.load("read")  # brings its members with it
    assert {m["name"] for m in client.models() if m["state"] == "READY"} >= {"digits", "digit-scenes", "read"}
    assert near(places(client.infer("read", {"picture": frame()}).outputs))


def test_an_ensemble_goes_on_when_its_process_was_killed(served: Running, client: Client) -> None:
    os.kill(served.worker("ensemble0"), signal.SIGKILL)
    eventually(lambda: next(d for d in client.devices() if d["id"] == "ensemble0")["restarts"] == 1)
    assert near(places(client.infer("read", {"picture": frame()}).outputs))


@pytest.mark.slow
def test_an_ensemble_brings_members_that_come_later_in_the_alphabet(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    directory(repository / "a-read" / "1", READ.replace('"read"', '"a-read"'))
    daemon = start(repository=repository)
    with daemon.client() as asking:
        assert near(places(asking.infer("a-read", {"picture": frame()}).outputs))
