"""Configurations that clients give to `load`: legitimate ones are taken and shown, wrong ones are 400."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
            if key not in ("input", "max_batch_size", "platform", "version_policy"):
                assert shown[key] == value
    finally:
        assert load(daemon, {})[0] == 200
