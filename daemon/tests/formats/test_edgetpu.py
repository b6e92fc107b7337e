"""Compiled files: what the runtime accepts and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from flatbuffers import flexbuffers

from edgeaid.errors import InvalidModel
from edgeaid.formats.edgetpu import reader as edgetpu
from edgeaid.formats.edgetpu import rules as edgetpu_rules
from edgeaid.formats.wire import flexbuffer

from .builders import edgetpu as compiled
from .builders import executable_tree, flat, package, tflite_tree

STAND_ALONE, CACHING, EXECUTION = 0, 1, 2


def rules(inner: bytes, **more: Any) -> dict[str, str]:
    """Rule -> severity of the findings about a package."""
    return {f.rule: f.severity for f in edgetpu_rules.check(edgetpu.read(compiled(inner, **more)))}


def test_a_file_with_both_executables_is_accepted() -> None:
    model = edgetpu.read(compiled())
    assert (model.token, model.cached_bytes, model.streamed_bytes) == (0x1234, 160, 32)
    assert (model.operators[0].chips, model.operators[0].execution_preference) == ((18,), -1)
    assert {f.severity for f in edgetpu_rules.check(model)} == {"note"}


@pytest.mark.parametrize(
    ("executables", "rule"),
    [
        ([], "no-executable"),
        ([executable_tree(EXECUTION, 8), executable_tree(EXECUTION, 8)], "same-type-twice"),
        ([executable_tree(STAND_ALONE, 8), executable_tree(CACHING, 8)], "executables"),
        ([executable_tree(EXECUTION, 8, s3=("i", 0)), executable_tree(CACHING, 8)], "batch"),
    ],
)
def test_the_runtime_refuses_wrong_sets_of_executables(executables: list[Any], rule: str) -> None:
    assert rules(package(*executables))[rule] == "refused"


def test_one_executable_is_used_whatever_its_type() -> None:
    model = edgetpu.read(compiled(package(executable_tree(EXECUTION, 48))))
    assert (model.cached_bytes, model.streamed_bytes) == (0, 48)
    assert "refused" not in rules(package(executable_tree(EXECUTION, 48))).values()


def test_of_three_executables_the_stand_alone_one_runs_without_caching() -> None:
    inner = package(
        executable_tree(STAND_ALONE, 200, token=0), executable_tree(CACHING, 160), executable_tree(EXECUTION, 40)
    )
    model = edgetpu.read(compiled(inner))
    assert (model.token, model.cached_bytes, model.streamed_bytes) == (0, 0, 200)
    assert rules(inner)["no-caching"] == "note"


@pytest.mark.parametrize(("version", "severity"), [(9, "warning"), (10, None), (14, None), (15, "refused")])
def test_minimum_runtime_versions_are_judged_as_the_runtime_does(version: int, severity: str | None) -> None:
    inner = package(executable_tree(EXECUTION, 8), executable_tree(CACHING, 8), s0=("i", version))
    assert rules(inner).get("min-runtime") == severity


def test_a_package_for_several_chips_is_refused() -> None:
    inner = package(executable_tree(EXECUTION, 8), executable_tree(CACHING, 8), s5=("i", -1))
    assert rules(inner)["multi-chip"] == "refused"


def test_another_identifier_is_only_a_warning() -> None:
    inner = bytearray(package(executable_tree(EXECUTION, 8), executable_tree(CACHING, 8)))
    inner[4:8] = b"XXXX"
    assert rules(bytes(inner))["identifier"] == "warning"


def test_a_layer_of_another_size_than_its_tensor_fails_to_prepare() -> None:
    tree = executable_tree(EXECUTION, 8)
    tree[8][0][2] = ("i", 5)
    assert rules(package(tree, executable_tree(CACHING, 8)))["layer-size"] == "refused"


def test_a_layer_of_another_type_than_its_tensor_fails_to_prepare() -> None:
    tree = executable_tree(EXECUTION, 8)
    tree[9][0][6] = ("h", 8)
    assert rules(package(tree, executable_tree(CACHING, 8)))["layer-type"] == "refused"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no options"),
        (b"\x01\x02\x03", "FlexBuffer"),
        (bytes(flexbuffers.Dumps(7)), "not a map"),
        (bytes(flexbuffers.Dumps({"1": 0})), "no package"),
        (bytes(flexbuffers.Dumps({"4": "x" * 20, "6": []})), "list of chips is empty"),
        (bytes(flexbuffers.Dumps({"4": "x" * 20, "6": ["a"], "7": []})), "other things than numbers"),
        (bytes(flexbuffers.Dumps({"4": "x" * 20, "6": [17, 18], "7": []})), "2 chips need 1 more packages"),
    ],
)
def test_wrong_options_are_named(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        edgetpu.read(compiled(raw=raw))


def test_a_file_that_was_not_compiled_says_what_to_do() -> None:
    with pytest.raises(InvalidModel, match="edgetpu_compiler"):
        edgetpu.read(flat(tflite_tree(), b"TFL3"))


@pytest.mark.parametrize(
    "value",
    [0, -1, 300, -70000, 1 << 40, 1.5, {"a": 1, "b": {"c": [1, 2, 3]}}, [1, 2, 300], [1, {"x": -5}], {"": 0}, []],
)
def test_flexbuffers_decode_to_what_was_encoded(value: Any) -> None:
    assert flexbuffer.decode(bytes(flexbuffers.Dumps(value))) == value


def test_flexbuffer_text_comes_back_as_bytes() -> None:
    decoded = flexbuffer.decode(bytes(flexbuffers.Dumps({"k": "words"})))
    assert isinstance(decoded, dict)
    assert bytes(decoded["k"]) == b"words"  # type: ignore[arg-type]  # the union has a view here
