"""The Open Inference Protocol over HTTP: rules C1 to C24 on a running daemon."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeaid.api import answers, oip
from edgeaid.models.repository import EMBEDDED
from edgeaid.tensors import TensorSpec

from ...support.daemon import Running

GOLDEN = EMBEDDED / "digits" / "1" / "golden"
INPUT = np.load(GOLDEN / "0.in.npy")
OUTPUT = np.load(GOLDEN / "0.out.npy")
PATH = "/v2/models/digits/infer"


def tensor(**changes: Any) -> dict[str, Any]:
    datatype = {"int8": "INT8", "uint8": "UINT8"}[INPUT.dtype.name]
    return {"name": "image", "datatype": datatype, "shape": list(INPUT.shape), **changes}


def binary(head: dict[str, Any], *parts: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(head).encode()
    return text + b"".join(parts), {"Inference-Header-Content-Length": str(len(text))}


def close(values: Any) -> bool:
    return bool(np.abs(np.array(values, np.int64).ravel() - OUTPUT.astype(np.int64).ravel()).max() <= 2)


def test_health_answers_exactly_200_with_json_bodies(daemon: Running) -> None:
    assert daemon.json("GET", "/v2/health/live") == (200, {"live": True})
    assert daemon.json("GET", "/v2/health/ready") == (200, {"ready": True, "live": True})
    assert daemon.json("GET", "/v2/models/digits/ready") == (200, {"name": "digits", "ready": True})
    assert daemon.json("GET", "/v2/models/digits/versions/1/ready")[0] == 200


def test_metadata_has_both_path_forms_and_query_strings_are_ignored(daemon: Running) -> None:
    status, metadata = daemon.json("GET", "/v2/?format=json")
    assert status == 200
    assert metadata["name"] == "edgeaid"
    assert "binary_tensor_data" in metadata["extensions"]
    status, model = daemon.json("GET", "/v2/models/digits?x=1")
    assert status == 200
    assert model["platform"] == "tensorflow_tflite"
    assert model["versions"] == ["1"]
    assert model["inputs"][0] == tensor()
    assert "digits" in daemon.json("GET", "/v2/models")[1]["models"]


def test_json_tensors_may_be_flat_or_nested(daemon: Running) -> None:
    for data in (INPUT.ravel().tolist(), INPUT.tolist()):
        status, answer = daemon.json("POST", PATH, {"id": "a7", "inputs": [tensor(data=data)]})
        assert status == 200, answer
        assert answer["id"] == "a7"
        assert (answer["model_name"], answer["model_version"]) == ("digits", "1")
        assert close(answer["outputs"][0]["data"])


def test_binary_tensors_need_no_content_type(daemon: Running) -> None:
    body, headers = binary(
        {"inputs": [tensor(parameters={"binary_data_size": INPUT.nbytes})], "parameters": {"binary_data_output": True}},
        INPUT.tobytes(),
    )
    status, received, data = daemon.http("POST", PATH, body, headers)
    assert status == 200
    assert received["content-type"] == "application/octet-stream"
    length = int(received["inference-header-content-length"])
    head = json.loads(data[:length])
    assert head["outputs"][0]["parameters"]["binary_data_size"] == OUTPUT.nbytes
    assert close(np.frombuffer(data[length:], OUTPUT.dtype))


def test_an_output_can_be_json_although_the_default_is_binary(daemon: Running) -> None:
    body, headers = binary(
        {
            "inputs": [tensor(parameters={"binary_data_size": INPUT.nbytes})],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "scores", "parameters": {"binary_data": False}}],
        },
        INPUT.tobytes(),
    )
    status, received, data = daemon.http("POST", PATH, body, {k.upper(): v for k, v in headers.items()})
    assert status == 200
    assert received["content-type"] == "application/json"
    assert close(json.loads(data)["outputs"][0]["data"])


def test_a_raw_request_is_only_the_tensor(daemon: Running) -> None:
    status, received, data = daemon.http("POST", PATH, INPUT.tobytes(), {"Inference-Header-Content-Length": "0"})
    assert status == 200
    assert close(np.frombuffer(data[int(received["inference-header-content-length"]) :], OUTPUT.dtype))


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_bodies_travel_compressed_both_ways(daemon: Running, encoding: str, pack: Any) -> None:
    body, headers = binary(
        {"inputs": [tensor(parameters={"binary_data_size": INPUT.nbytes})], "outputs": [{"name": "scores"}]},
        INPUT.tobytes(),
    )
    status, received, data = daemon.http(
        "POST", PATH, pack(body), {**headers, "Content-Encoding": encoding, "Accept-Encoding": encoding}
    )
    assert status == 200
    if "content-encoding" in received:
        data = zlib.decompress(data, 47 if encoding == "gzip" else 15)
    assert close(json.loads(data)["outputs"][0]["data"])


def test_large_answers_are_compressed_when_the_client_asks(daemon: Running) -> None:
    status, received, data = daemon.http(
        "POST", PATH, {"inputs": [tensor(data=INPUT.tolist())], "id": "x" * 400}, {"Accept-Encoding": "gzip"}
    )
    assert status == 200
    assert received["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(data))["id"] == "x" * 400


def test_classification_gives_value_index_label(daemon: Running) -> None:
    request = {
        "inputs": [tensor(data=INPUT.tolist())],
        "outputs": [{"name": "scores", "parameters": {"classification": 3}}],
    }
    status, answer = daemon.json("POST", PATH, request)
    assert status == 200
    output = answer["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 3])
    value, index, label = output["data"][0].split(":")
    assert int(index) == int(OUTPUT.argmax())
    assert label == str(int(OUTPUT.argmax()))
    assert abs(int(value) - int(OUTPUT.max())) <= 2
    # capped at the number of classes, and binary on request
    request["outputs"][0]["parameters"] = {"classification": 99, "binary_data": True}
    status, received, data = daemon.http("POST", PATH, request)
    tail = data[int(received["inference-header-content-length"]) :]
    assert struct.unpack_from("<I", tail)[0] == len(tail.split(b":")[0]) - 4 + len(
        tail[4 : 4 + struct.unpack_from("<I", tail)[0]]
    ) - len(tail[4:].split(b":")[0])


def test_a_picture_may_stand_for_the_tensor(daemon: Running, three: bytes) -> None:
    request = {
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(three) + 4}}
        ]
    }
    body, headers = binary(request, struct.pack("<I", len(three)) + three)
    status, answer = daemon.json("POST", PATH, body, headers)
    assert status == 200, answer
    assert len(answer["outputs"][0]["data"]) == 10


def test_repository_index_takes_an_empty_body(daemon: Running) -> None:
    status, rows = daemon.json("POST", "/v2/repository/index", b"")
    assert status == 200
    assert {"name": "digits", "version": "1", "state": "READY", "reason": ""} in rows
    assert daemon.json("POST", "/v2/repository/index", {"ready": True})[1] == [r for r in rows if r["state"] == "READY"]


def test_config_and_statistics_are_served(daemon: Running) -> None:
    status, config = daemon.json("GET", "/v2/models/digits/config")
    assert status == 200
    assert (config["name"], config["max_batch_size"]) == ("digits", 0)
    before = daemon.json("GET", "/v2/models/digits/stats")[1]["model_stats"][0]
    daemon.json("POST", PATH, {"inputs": [tensor(data=INPUT.tolist())]})
    after = daemon.json("GET", "/v2/models/digits/versions/1/stats")[1]["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 1
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert after["last_inference"] > 1_600_000_000_000
    assert {m["name"] for m in daemon.json("GET", "/v2/models/stats")[1]["model_stats"]} >= {"digits"}


def test_load_and_unload_as_the_client_libraries_call_them(start: Callable[..., Running]) -> None:
    daemon = start()
    assert (
        daemon.json("POST", "/v2/repository/models/digits/unload", {"parameters": {"unload_dependents": False}})[0]
        == 200
    )
    status, answer = daemon.json("POST", PATH, {"inputs": []})
    assert status == 404
    assert "Request for unknown model" in answer["error"]
    override = {"parameters": {"config": json.dumps({"max_batch_size": "16"})}}
    assert daemon.json("POST", "/v2/repository/models/digits/load", override)[0] == 200
    assert daemon.json("GET", "/v2/models/digits/config")[1]["max_batch_size"] == 16
    status, answer = daemon.json("POST", "/v2/repository/models/digits/load", {"parameters": {"config": "{"}})
    assert status == 400
    assert "failed to load" in answer["error"]
    status, answer = daemon.json("POST", "/v2/repository/models/nosuch/load", {})
    assert status == 404
    assert "failed to load" in answer["error"]


def test_the_largest_batch_of_a_configuration_given_to_load_is_in_force_until_the_next_load(
    start: Callable[..., Running],
) -> None:
    daemon = start()

    def batch(count: int) -> tuple[int, dict[str, Any]]:
        data = np.repeat(INPUT, count, axis=0).tolist()
        return daemon.json("POST", PATH, {"inputs": [tensor(data=data, shape=[count, *INPUT.shape[1:]])]})

    assert batch(2)[0] == 400
    override = {"parameters": {"config": json.dumps({"max_batch_size": 4})}}
    assert daemon.json("POST", "/v2/repository/models/digits/load", override)[0] == 200
    assert daemon.json("GET", "/v2/models/digits/config")[1]["max_batch_size"] == 4
    status, answer = batch(4)
    assert (status, answer["outputs"][0]["shape"]) == (200, [4, 10])
    assert answer["outputs"][0]["data"] == batch(1)[1]["outputs"][0]["data"] * 4
    status, answer = batch(5)
    assert (status, "takes at most" in answer["error"]) == (413, True)
    assert daemon.json("POST", "/v2/repository/models/digits/load", {})[0] == 200
    assert batch(2)[0] == 400


def test_errors_are_json_whatever_goes_wrong(daemon: Running) -> None:
    for method, path, status in (
        ("GET", "/v2/models/nosuch", 404),
        ("GET", "/v2/models/digits/versions/9", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/v2/models/digits", 405),
        ("GET", "/v2/models/digits/infer", 405),
    ):
        got, answer = daemon.json(method, path)
        assert got == status
        assert answer["error"]


def test_percent_encoded_names_are_decoded(daemon: Running) -> None:
    assert daemon.json("GET", "/v2/models/%64igits")[0] == 200


def test_priority_and_timeout_are_read_from_parameters(daemon: Running) -> None:
    request = {"inputs": [tensor(data=INPUT.tolist())], "parameters": {"priority": 1, "timeout": 5_000_000}}
    assert daemon.json("POST", PATH, request)[0] == 200
    for bad in (-1, 1.5, "soon", True):
        request["parameters"] = {"timeout": bad}
        assert daemon.json("POST", PATH, request)[0] == 400


def test_settings_can_be_read_and_changed_but_files_not(daemon: Running) -> None:
    assert daemon.json("GET", "/v2/logging")[1]["log_info"] is True
    assert daemon.json("POST", "/v2/logging", {"log_verbose_level": 1})[1]["log_verbose_level"] == 1
    assert daemon.json("POST", "/v2/logging", {"log_verbose_level": 0})[0] == 200
    assert daemon.json("POST", "/v2/logging", {"log_file": "/etc/passwd"})[0] == 400
    assert daemon.json("GET", "/v2/trace/setting")[1]["trace_level"] == ["OFF"]
    changed = daemon.json(
        "POST", "/v2/models/digits/trace/setting", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
    )[1]
    assert changed["trace_level"] == ["TIMESTAMPS"]
    assert daemon.json("POST", "/v2/models/digits/trace/setting", {"trace_level": None, "trace_rate": None})[1][
        "trace_level"
    ] == ["OFF"]
    assert daemon.json("POST", "/v2/trace/setting", {"trace_file": "/tmp/x"})[0] == 400


def test_cuda_calls_of_clients_without_a_gpu_are_harmless(daemon: Running) -> None:
    assert daemon.json("GET", "/v2/cudasharedmemory/status") == (200, [])
    assert daemon.json("POST", "/v2/cudasharedmemory/unregister")[0] == 200
    assert daemon.json("POST", "/v2/cudasharedmemory/region/x/register", {"raw_handle": {"b64": ""}})[0] == 501


def test_a_traced_request_is_in_the_log_and_others_are_not(start: Callable[..., Running]) -> None:
    daemon = start()
    image = np.load(GOLDEN / "0.in.npy")
    with daemon.client() as fast, daemon.client(fast=False) as plain:
        fast.infer("digits", image)
        assert "trace of" not in daemon.log.read_text()
        wanted = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "3"}
        assert daemon.json("POST", "/v2/models/digits/trace/setting", wanted)[0] == 200
        for _ in range(3):
            fast.infer("digits", image)
            plain.infer("digits", image)
        lines = [line for line in daemon.log.read_text().splitlines() if "trace of a request to digits" in line]
        assert len(lines) == 3
        assert all(word in lines[0] for word in ("'device': 'cpu0'", "queue", "compute", "total"))
        assert daemon.json("GET", "/v2/models/digits/trace/setting")[1]["trace_count"] == "0"


def test_a_json_and_a_binary_input_and_output_go_together() -> None:
    specs = (TensorSpec("a", "FP32", (1, 2)), TensorSpec("b", "UINT8", (3,)))
    head = {
        "id": "x",
        "inputs": [
            {"name": "b", "shape": [3], "datatype": "UINT8", "parameters": {"binary_data_size": 3}},
            {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [[0.5, -2]]},
        ],
        "outputs": [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}],
        "parameters": {"binary_data_output": True, "priority": 1, "timeout": 2_000_000},
    }
    wanted = oip.parse(json.dumps(head).encode(), memoryview(b"\x01\x02\x03"), specs, specs)
    data = {given.index: given.data for given in wanted.inputs}
    sent = {i: bytes(d) for i, d in data.items() if isinstance(d, bytes | memoryview)}
    assert sent == {
        1: b"\x01\x02\x03",
        0: struct.pack("<2f", 0.5, -2),
    }
    assert (wanted.priority, wanted.timeout) == (1, 2.0)
    values = (memoryview(struct.pack("<2f", 1.5, float("nan"))), memoryview(b"\x07\x08\x09"))
    text, parts = answers.answer(wanted, "m", "1", specs, values, ())
    answer = json.loads(text)
    assert list(map(bytes, parts)) == [b"\x07\x08\x09"]
    assert answer["id"] == "x"
    assert answer["outputs"][0] == {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}
    assert answer["outputs"][1]["parameters"] == {"binary_data_size": 3}
