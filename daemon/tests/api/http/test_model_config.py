"""Configurations that clients give to `load`: legitimate ones are taken and shown, wrong ones are 400."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ...support import tflite
from ...support.daemon import Running

SHAPE = [1, 32, 32, 1]


def load(daemon: Running, config: object) -> Any:
    body = {"parameters": {"config": config if isinstance(config, str) else json.dumps(config)}}
    return daemon.json("POST", "/v2/repository/models/digits/load", body)


@pytest.mark.parametrize(
    "config",
    [
        {"input": "x"},
        {"max_batch_size": "abc"},
        {"max_batch_size": 1 << 40},
        {"max_batch_size": -1},
        {"max_batch_size": True},
        {"input": [{"data_type": "foo", "name": "image"}]},
        {"input": [{"data_type": "TYPE_INT8"}]},
        {"input": [{"name": "other"}]},
        {"input": [{"name": "image", "data_type": "TYPE_FP32"}]},
        {"input": [{"name": "image", "dims": [4]}]},
        {"input": [{"name": "image", "dims": ["x"]}]},
        {"input": [{"name": "image", "format": "FORMAT_X"}]},
        {"input": [{"name": "image", "format": 7}]},
        {"input": [{"name": "image", "data_type": 99}]},
        {"input": [{"name": "image", "data_type": []}]},
        {"input": [{"name": "image", "dims": [1.5]}]},
        {"max_batch_size": 1.5},
        {"max_batch_size": "1e3"},
        {"input": [{"name": "image", "reshape": [16]}]},
        {"output": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}]},
        {"name": 5},
        {"name": "other"},
        {"backend": ["x"]},
        {"version_policy": {"latest": {"num_versions": 0}}},
        {"version_policy": []},
        {"instance_group": {}},
        {"no_such_field": 1},
        [],
        "{",
        "[" * 5000,
        '{"max_batch_size": ' + "9" * 5000 + "}",
        '{"a": "' + "x" * 70_000 + '"}',
    ],
)
def test_a_wrong_configuration_is_400_and_the_model_serves_on(daemon: Running, config: Any) -> None:
    status, answer = load(daemon, config)
    assert status == 400, answer
    assert "failed to load" in answer["error"]
    assert daemon.json("GET", "/v2/models/digits/ready")[0] == 200
    assert daemon.json("GET", "/v2/models/digits/config")[0] == 200


@pytest.mark.parametrize(
    "config",
    [
        {"max_batch_size": "0"},
        {"input": [{"name": "image"}]},
        {"input": [{"name": "image", "data_type": "TYPE_INT8", "dims": ["32", "32"], "reshape": {"shape": SHAPE}}]},
        {"input": [{"name": "image", "format": "FORMAT_NHWC"}]},
        {"version_policy": {"all": {}}},
        {"version_policy": {"specific": {"versions": ["1"]}}},
        {"instance_group": [{"kind": "KIND_CPU", "count": 1}]},
        {"platform": None, "name": "digits"},
        {"parameters": {"a": {"string_value": "b"}}},
        {"dynamic_batching": {"max_queue_delay_microseconds": 100}},
        {"model_repository_agents": {"agents": [{"name": "checksum"}]}},
        {"input": [{"name": "image", "data_type": 6, "format": 1, "dims": [1.0, 32, "32", 1], "optional": True}]},
        {"input": [{"name": "image", "data_type": "TYPE_INVALID", "allow_ragged_batch": False}]},
        {"output": [{"name": "scores", "label_filename": "labels.txt", "is_shape_tensor": False}]},
        {"max_batch_size": 0.0, "model_warmup": [{"name": "w", "batch_size": 1, "inputs": {}}]},
    ],
)
def test_what_tritons_clients_may_say_is_taken(daemon: Running, config: dict[str, Any]) -> None:
    try:
        status, answer = load(daemon, config)
        assert status == 200, answer
        status, shown = daemon.json("GET", "/v2/models/digits/config")
        assert status == 200
        assert shown["input"][0]["data_type"] == "TYPE_INT8"
        for key, value in config.items():
            if key not in ("input", "output", "max_batch_size", "platform", "version_policy"):
                assert shown[key] == value
    finally:
        assert load(daemon, {})[0] == 200


def test_the_names_of_protos_json_mapping_are_understood_too(daemon: Running) -> None:
    config = {
        "maxBatchSize": "0",
        "instanceGroup": [{"kind": "KIND_CPU"}],
        "input": [{"name": "image", "dataType": "TYPE_INT8"}],
        "parameters": {"ownName": {"stringValue": "b"}},
    }
    try:
        assert load(daemon, config)[0] == 200
        shown = daemon.json("GET", "/v2/models/digits/config")[1]
        assert shown["instance_group"] == [{"kind": "KIND_CPU"}]
        assert "ownName" in shown["parameters"]
    finally:
        assert load(daemon, {})[0] == 200
    status, answer = load(daemon, {"input": [{"name": "image", "dataType": "TYPE_FP32"}]})
    assert status == 400
    assert "TYPE_INT8" in answer["error"]


def test_every_configuration_that_was_seen_to_fail_is_taken_or_refused_and_the_model_serves_on(
    start: Callable[..., Running], tmp_path: Path, shared_findings: Path
) -> None:
    model = tmp_path / "simple.tflite"
    model.write_bytes(tflite.sum_and_difference())
    daemon = start(models={"simple": model})
    statuses = []
    for config in json.loads((shared_findings / "clients" / "overrides.json").read_text()):
        body = {"parameters": {"config": json.dumps(config)}}
        status, answer = daemon.json("POST", "/v2/repository/models/simple/load", body)
        assert status in (200, 400), (config, answer)
        assert daemon.json("GET", "/v2/models/simple/config")[0] == 200, config
        assert daemon.json("GET", "/v2/models/simple/ready")[0] == 200, config
        statuses.append(status)
    assert {200, 400} == set(statuses)
    assert "Traceback" not in daemon.log.read_text()


def test_a_shape_that_differs_in_dimensions_of_one_is_taken(start: Callable[..., Running], tmp_path: Path) -> None:
    model = tmp_path / "simple.tflite"
    model.write_bytes(tflite.sum_and_difference())
    daemon = start("[models]\nembedded = false\n", models={"simple": model})

    def ask(shape: list[int]) -> tuple[int, Any]:
        rows = (("INPUT0", list(range(16))), ("INPUT1", list(range(0, 160, 10))))
        inputs = [{"name": name, "datatype": "INT32", "shape": shape, "data": data} for name, data in rows]
        return daemon.json("POST", "/v2/models/simple/infer", {"inputs": inputs})

    for shape in ([16], [16, 1], [1, 1, 16]):
        status, answer = ask(shape)
        assert status == 200, answer
        assert answer["outputs"][0]["data"] == [11 * n for n in range(16)]
    assert ask([4, 4])[0] == 400
