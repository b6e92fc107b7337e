"""Arrays of numbers in JSON are the same tensors with orjson and without it."""

from __future__ import annotations

import json
import math
import struct

import pytest

from edgeaid.api import json_text, large_json, tensor_json
from edgeaid.errors import InvalidRequest
from edgeaid.tensors import TensorSpec

ROWS, COLUMNS = 8, 1024
SPEC = TensorSpec("x", "INT32", (ROWS, COLUMNS))
VALUES = [[row * COLUMNS + column for column in range(COLUMNS)] for row in range(ROWS)]
BYTES = struct.pack(f"<{ROWS * COLUMNS}i", *range(ROWS * COLUMNS))


@pytest.fixture(params=["orjson", "standard library"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(json_text, "orjson", None)


def tensor(text: str, spec: TensorSpec = SPEC) -> bytes:
    value = large_json.parse(text.encode(), 64)
    assert isinstance(value, large_json.Numbers), "long enough to be cut out"
    return value.encode(spec)


@pytest.mark.parametrize("indent", [None, 1, "\t"])
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", ": ")])
def test_nested_and_flat_arrays_with_any_white_space_are_one_tensor(
    indent: int | str | None, separators: tuple[str, str]
) -> None:
    nested = json.dumps(VALUES, indent=indent, separators=separators)
    assert tensor(nested) == BYTES
    assert tensor(nested.replace("[", "").replace("]", "").join("[]")) == BYTES


@pytest.mark.parametrize("rows", [2, ROWS])
def test_more_or_fewer_dimensions_of_one_make_no_difference(rows: int) -> None:
    values = VALUES[:rows]
    raw = BYTES[: 4 * rows * COLUMNS]
    forms = (
        ("[%s]", [[[n] for n in row] for row in values]),
        ("[[%s]]", values),
        ("%s", [[row] for row in values]),
        ("[[%s]]", [n for row in values for n in row]),
    )
    for wrapped, value in forms:
        text = wrapped % json.dumps(value)
        for shape in ((rows, COLUMNS), (1, rows, COLUMNS), (rows, 1, COLUMNS, 1)):
            assert tensor(text, TensorSpec("x", "INT32", shape)) == raw
            assert tensor_json.encode(json.loads(text), TensorSpec("x", "INT32", shape)) == raw
    for shape in ((COLUMNS, rows), (rows, COLUMNS // 2, 2), (rows, COLUMNS + 1)):
        spec = TensorSpec("x", "INT32", shape)
        with pytest.raises(InvalidRequest, match="nested differently"):
            tensor(json.dumps(values), spec)
        with pytest.raises(InvalidRequest, match="nested differently"):
            tensor_json.encode(values, spec)


@pytest.mark.parametrize("depth", [1, 50, 98])
def test_one_value_may_be_nested_as_deep_as_json_may(depth: int) -> None:
    assert (
        tensor_json.encode(json.loads("[" * depth + "7" + "]" * depth), TensorSpec("x", "INT32", (1, 1))) == b"\7\0\0\0"
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("],[", "]5,["), ("],[", "] 5,["), ("],[", "],5["), ("],[", "],5\t["), ("],[", "]\r\n5 ,["),
        ("[[", "[5["), ("]]", "]5]"), ("],[", "]["), ("],[", ",]["), (",7,", ",7 7,"), (",7,", ",,"), (",7,", ",-,"),
        (",7,", ",07,"), (",7,", ",7.5,"), (",7,", ",2147483648,"), (",7,", ",true7,"), (",7,", ",1e400,"),
        (",7,", f",{'1' * 5000},"),
    ],
)  # fmt: skip
def test_what_is_not_an_array_of_that_shape_is_refused(right: str, wrong: str) -> None:
    text = json.dumps(VALUES, separators=(",", ":"))
    assert right in text
    with pytest.raises(InvalidRequest, match="'x'"):
        tensor(text.replace(right, wrong, 1))


def test_floats_keep_every_bit() -> None:
    values = [math.ldexp(math.sin(n), n % 200 - 100) for n in range(4000)]
    spec = TensorSpec("x", "FP64", (4000,))
    raw = struct.pack("<4000d", *values)
    assert tensor(json.dumps(values), spec) == raw
    assert tensor(tensor_json.dumps(memoryview(raw), "FP64").decode(), spec) == raw


@pytest.mark.parametrize(
    ("datatype", "form", "low", "high"),
    [("INT64", "q", -(2**63), 2**63 - 1), ("UINT64", "Q", 0, 2**64 - 1), ("INT8", "b", -128, 127)],
)
def test_the_ends_of_a_datatype_go_through_and_the_numbers_beyond_do_not(
    datatype: str, form: str, low: int, high: int
) -> None:
    values = [low, high] * 2000
    spec = TensorSpec("x", datatype, (len(values),))
    raw = struct.pack(f"<{len(values)}{form}", *values)
    assert tensor(json.dumps(values), spec) == raw
    assert json.loads(tensor_json.dumps(memoryview(raw), datatype)) == values
    for beyond in (low - 1, high + 1):
        with pytest.raises(InvalidRequest, match="does not fit"):
            tensor(json.dumps([beyond, *values[1:]]), spec)


def test_what_json_cannot_say_is_null() -> None:
    values = [0.5, math.nan, math.inf, -math.inf] * 5000
    text = tensor_json.dumps(memoryview(struct.pack(f"<{len(values)}f", *values)), "FP32")
    assert json.loads(text) == [0.5, None, None, None] * 5000


def test_booleans_are_booleans() -> None:
    raw = bytes([1, 0] * 5000)
    text = tensor_json.dumps(memoryview(raw), "BOOL")
    assert json.loads(text) == [True, False] * 5000
    assert tensor(text.decode(), TensorSpec("x", "BOOL", (10000,))) == raw


@pytest.mark.parametrize("label", ["bird", "Käfer \N{BEETLE}", 'a "b" \\ \n\x00', "half \ud83d of a pair", ""])
def test_an_answer_is_the_same_value_whoever_writes_it(label: str) -> None:
    answer = {"width": 640, "timing": {"queue_ms": 0.125}, "classes": [{"index": 3, "label": label, "score": 0.1}]}
    assert json.loads(json_text.dump(answer)) == answer
