"""Models of other people's making: with state, texts, batches, names from signatures, sizes known after a run only."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ..support import tflite
from ..support.daemon import Running
from ..toolkit.tflite_builder import Graph, Op, T, build

MODELS = {
    "signed": tflite.sum_and_difference,
    "batches": tflite.batches,
    "nameless": tflite.nameless,
    "tiles": tflite.tiles,
    "echo": tflite.echo,
    "sequence": tflite.sequence,
    "text_sum": tflite.text_sum,
}


@pytest.fixture(scope="module")
def served(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("open")
    files = {}
    for name, make in MODELS.items():
        files[name] = directory / f"{name}.tflite"
        files[name].write_bytes(make())
    running = launch(directory, models=files)
    running.store("renamed", files["signed"], extra="[names]\nINPUT0 = 'left'\n'serving_b:0' = 'right'")
    running.store("looped", files["signed"], extra="max_batch_size = 4")
    with running.client() as client:
        client.load("renamed")
        client.load("looped")
    yield running
    assert running.stop() == 0, running.log.read_text()


def ask(served: Running, model: str, inputs: dict[str, Any], **parameters: Any) -> tuple[int, Any]:
    """A JSON request; the answer's data by output name, or the error's text."""
    described = [
        {"name": n, "datatype": kind, "shape": list(np.shape(data)), "data": data} for n, (kind, data) in inputs.items()
    ]
    body = {"inputs": described, "parameters": parameters}
    status, answer = served.json("POST", f"/v2/models/{model}/infer", body)
    if status != 200:
        return status, answer["error"]
    return status, {o["name"]: np.array(o["data"]).reshape(o["shape"]).tolist() for o in answer["outputs"]}


def test_a_signatures_names_are_those_that_clients_use(served: Running) -> None:
    a, b = [list(range(16))], [[1] * 16]
    status, outputs = ask(served, "signed", {"INPUT0": ("INT32", a), "INPUT1": ("INT32", b)})
    assert status == 200
    assert outputs == {"OUTPUT0": [list(range(1, 17))], "OUTPUT1": [list(range(-1, 15))]}


def test_the_files_own_names_are_understood_beside_a_signatures(served: Running) -> None:
    a, b = [[5] * 16], [[3] * 16]
    assert ask(served, "signed", {"serving_a:0": ("INT32", a), "serving_b:0": ("INT32", b)})[1]["OUTPUT1"] == [[2] * 16]


def test_a_manifest_renames_tensors(served: Running) -> None:
    _, metadata = served.json("GET", "/v2/models/renamed")
    assert {t["name"] for t in metadata["inputs"]} == {"left", "right"}
    a, b = [[5] * 16], [[3] * 16]
    assert ask(served, "renamed", {"left": ("INT32", a), "right": ("INT32", b)})[1]["OUTPUT1"] == [[2] * 16]


def test_tensors_without_names_are_numbered(served: Running) -> None:
    status, outputs = ask(served, "nameless", {"input_0": ("INT32", [7, 8]), "input_1": ("INT32", [1, 2])})
    assert (status, outputs) == (200, {"output_0": [6, 6]})


def test_a_dynamic_first_dimension_takes_batches_up_to_a_limit(served: Running) -> None:
    _, metadata = served.json("GET", "/v2/models/batches")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    _, config = served.json("GET", "/v2/models/batches/config")
    assert (config["max_batch_size"], config["input"][0]["dims"], config["output"][0]["dims"]) == (8, [2], [2])
    for rows in (1, 3, 8, 1):
        x = np.arange(rows * 2).reshape(rows, 2).astype(float).tolist()
        assert ask(served, "batches", {"x": ("FP32", x)}) == (200, {"y": (2 * np.array(x)).tolist()})
    status, text = ask(served, "batches", {"x": ("FP32", [[1.0, 2.0]] * 9)})
    assert (status, "batch-size must be from 1 to 8" in text) == (400, True)


def test_a_batch_of_a_model_with_fixed_shapes_is_run_one_after_the_other(served: Running) -> None:
    a = np.arange(48).reshape(3, 16)
    status, outputs = ask(served, "looped", {"INPUT0": ("INT32", a.tolist()), "INPUT1": ("INT32", (a + 1).tolist())})
    assert status == 200
    assert outputs["OUTPUT0"] == (2 * a + 1).tolist()
    assert outputs["OUTPUT1"] == [[-1] * 16] * 3
    uneven = {"INPUT0": ("INT32", a.tolist()), "INPUT1": ("INT32", a[:1].tolist())}
    assert ask(served, "looped", uneven)[0] == 400


def test_an_output_has_the_size_that_its_run_gave_it(served: Running) -> None:
    for times in (0, 1, 3):
        status, outputs = ask(served, "tiles", {"flags": ("BOOL", [True, False]), "times": ("INT32", [times])})
        assert (status, outputs) == (200, {"repeated": [True, False] * times})


def test_texts_go_in_and_out_as_json_and_as_binary_data(served: Running) -> None:
    words = ["", "a", "ä", "\N{SNOWMAN}"] * 4
    assert ask(served, "echo", {"INPUT0": ("BYTES", [words])}) == (200, {"OUTPUT0": [words]})
    sent = np.array([[b"\0\xff", b"", b"x" * 1000, b"1"] * 4], dtype=object)
    with served.client() as client:
        assert client.infer("echo", {"INPUT0": sent})["OUTPUT0"].tolist() == sent.tolist()
    numbers = ("BYTES", [[str(n) for n in range(16)]]), ("BYTES", [["1"] * 16])
    _, outputs = ask(served, "text_sum", {"INPUT0": numbers[0], "INPUT1": numbers[1]})
    assert outputs["OUTPUT0"] == [[str(n + 1) for n in range(16)]]


def test_bytes_that_json_cannot_hold_are_refused_there_and_given_as_binary_data(served: Running) -> None:
    tail = b"\2\0\0\0\xff\xfe" * 16
    entry = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 16], "parameters": {"binary_data_size": len(tail)}}
    for binary in (False, True):
        message = {"inputs": [entry], "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": binary}}]}
        head = json.dumps(message).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        status, _, answer = served.http("POST", "/v2/models/echo/infer", head + tail, headers)
        if binary:
            assert (status, answer[-len(tail) :]) == (200, tail)
        else:
            assert (status, b"binary_data" in answer) == (400, True)


@pytest.mark.parametrize("data", [["too", "few"], [["a"] * 16, ["b"] * 16], [[1] * 16]])
def test_texts_that_do_not_fit_are_the_callers_mistake(served: Running, data: list[Any]) -> None:
    entry = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 16], "data": data}
    status, answer = served.json("POST", "/v2/models/echo/infer", {"inputs": [entry]})
    assert (status, "INPUT0" in answer["error"]) == (400, True)


def test_binary_texts_whose_lengths_lie_are_refused_and_the_model_goes_on_serving(served: Running) -> None:
    for tail in (b"\xff\xff\xff\xff", b"\0\0\0\0" * 15, b"\0\0\0\0" * 17, b"\1"):
        entry = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 16]}
        head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": len(tail)}}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        assert served.http("POST", "/v2/models/echo/infer", head + tail, headers)[0] == 400
    assert ask(served, "echo", {"INPUT0": ("BYTES", [["a"] * 16])})[0] == 200


def test_each_request_of_a_model_with_variables_begins_anew(served: Running) -> None:
    answers = [ask(served, "sequence", {"INPUT": ("INT32", [[5]])}) for _ in range(3)]
    assert answers == [(200, {"OUTPUT": [[6]]})] * 3


def step(served: Running, value: int, identity: int | str, **flags: bool) -> tuple[int, Any]:
    return ask(served, "sequence", {"INPUT": ("INT32", [[value]])}, sequence_id=identity, **flags)


def test_sequences_keep_their_state_apart_from_each_other_and_from_single_requests(served: Running) -> None:
    assert step(served, 10, 1, sequence_start=True)[1] == {"OUTPUT": [[11]]}
    assert step(served, 20, "two", sequence_start=True)[1] == {"OUTPUT": [[21]]}
    assert ask(served, "sequence", {"INPUT": ("INT32", [[5]])})[1] == {"OUTPUT": [[6]]}
    assert step(served, 10, 1)[1] == {"OUTPUT": [[10]]}
    assert step(served, 20, "two", sequence_end=True)[1] == {"OUTPUT": [[20]]}
    assert step(served, 10, 1, sequence_start=True)[1] == {"OUTPUT": [[11]]}
    assert step(served, 10, 1, sequence_end=True)[1] == {"OUTPUT": [[10]]}


def test_a_model_with_variables_that_was_pushed_begins_anew_with_each_request_too(
    served: Running, tmp_path: Path
) -> None:
    """It is loaded where it waits to be accepted, and opened once more where it lies then."""
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite.sequence())
    with served.client() as client:
        client.push("pushed-sequence", file)
        for _ in range(3):
            assert client.infer("pushed-sequence", {"INPUT": np.array([[5]], np.int32)})["OUTPUT"].tolist() == [[6]]
        client.unload("pushed-sequence")


def test_a_sequence_that_was_not_begun_is_refused_with_what_to_do(served: Running) -> None:
    for identity in (77, "two"):
        status, text = step(served, 1, identity)
        assert (status, "START" in text) == (400, True)


def test_a_sequence_does_not_outlive_its_worker_in_silence(served: Running) -> None:
    assert step(served, 10, 5, sequence_start=True)[0] == 200
    pid = served.worker()
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until and served.json("GET", "/v2/models/sequence/ready")[0] != 200:
        time.sleep(0.05)
    status, text = step(served, 10, 5)
    assert status in (400, 503)
    assert "again" in text
    assert step(served, 10, 5, sequence_start=True, sequence_end=True)[1] == {"OUTPUT": [[11]]}


def test_a_bad_sequence_parameter_is_refused(served: Running) -> None:
    for parameters in ({"sequence_id": -1}, {"sequence_id": 1.5}, {"sequence_id": 1, "sequence_start": "yes"}):
        assert ask(served, "sequence", {"INPUT": ("INT32", [[5]])}, **parameters)[0] == 400


def test_a_manifest_that_renames_what_is_not_there_is_refused_with_the_names(served: Running, tmp_path: Path) -> None:
    file = tmp_path / "m.tflite"
    file.write_bytes(tflite.sum_and_difference())
    served.store("misnamed", file, extra="[names]\nINPUT9 = 'x'")
    status, answer = served.json("POST", "/v2/repository/models/misnamed/load", {})
    assert status == 400
    assert "INPUT9" in answer["error"]
    assert "INPUT0" in answer["error"]


def test_a_bare_float_model_is_pushed_with_what_was_assumed_of_it(served: Running, shared_findings: Path) -> None:
    file = shared_findings / "toolkit" / "digits_float.tflite"
    status, answer = served.json("PUT", "/edgeai/v1/models/bare-digits", file.read_bytes())
    assert status in (200, 201), answer
    assert any("ASSUMED" in note and "255" in note for note in answer["notes"])
    assert "ASSUMED" in served.log.read_text()
    assert served.json("POST", "/edgeai/v1/models/bare-digits/detect", b"")[0] == 400


def test_the_refusal_of_a_wrong_task_names_the_lines_to_add(served: Running) -> None:
    status, answer = served.json("POST", "/edgeai/v1/models/signed/detect", b"x")
    assert status == 400
    assert 'task = "detect"' in answer["error"]
    assert 'decoder = "ssd"' in answer["error"]


def classifier_with_batches() -> bytes:
    """A float picture [-1,8,8,3] -> the mean of each colour [-1,3]."""
    tensors = [
        T("in", [1, 8, 8, 3], signature=[-1, 8, 8, 3]),
        T("axes", [2], "INT32", [1, 2]),
        T("out", [1, 3], signature=[-1, 3]),
    ]
    return build(Graph(tensors, [Op("MEAN", ["in", "axes"], ["out"])], ["in"], ["out"]))


@pytest.mark.parametrize("first", ["a picture for classify", "a picture as a tensor"])
def test_a_picture_may_be_the_first_that_a_model_with_batches_is_asked_about(
    served: Running, tmp_path: Path, first: str
) -> None:
    file = tmp_path / "colours.tflite"
    file.write_bytes(classifier_with_batches())
    red = io.BytesIO()
    Image.new("RGB", (40, 40), (255, 0, 0)).save(red, "PNG")
    with served.client() as client:
        client.push("colours", file)
    if first == "a picture for classify":
        status, answer = served.json("POST", "/edgeai/v1/models/colours/classify?max_results=1", red.getvalue())
        assert (status, answer["classes"][0]["index"]) == (200, 0)
        return
    given = {
        "name": "in",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(red.getvalue()) + 4},
    }
    head = json.dumps({"inputs": [given]}).encode()
    body = head + len(red.getvalue()).to_bytes(4, "little") + red.getvalue()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = served.json("POST", "/v2/models/colours/infer", body, headers)
    assert status == 200, answer
    assert answer["outputs"][0]["shape"] == [1, 3]
    assert answer["outputs"][0]["data"] == [1.0, 0.0, 0.0]
