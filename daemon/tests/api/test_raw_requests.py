"""Requests whose body is nothing but a tensor: its shape is found out, or the refusal says why it cannot be."""

from __future__ import annotations

import pytest

from edgeaid.api import oip
from edgeaid.errors import InvalidRequest
from edgeaid.tensors import TensorSpec

OUTPUT = (TensorSpec("out", "FP32", (1,)),)


def parsed(body: bytes, *specs: TensorSpec) -> oip.InputTensor:
    return oip.parse_raw(memoryview(body), specs, OUTPUT).inputs[0]


@pytest.mark.parametrize("shape", [(1,), (1, 1), (-1, 1)])
def test_a_text_is_the_whole_body_without_its_length(shape: tuple[int, ...]) -> None:
    given = parsed(b"427", TensorSpec("in", "BYTES", shape, room=1000))
    assert isinstance(given.data, bytes)
    assert given.data == b"\x03\x00\x00\x00" + b"427"


@pytest.mark.parametrize("shape", [(-1,), (2,), (1, 16), (-1, -1)])
def test_a_body_is_not_several_texts(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"raw input 'in', the model must have input shape \[1\]"):
        parsed(b"427", TensorSpec("in", "BYTES", shape, room=1000))


def test_one_variable_dimension_follows_from_the_size_beside_a_batch_of_one() -> None:
    assert parsed(bytes(32), TensorSpec("in", "FP32", (-1, -1), room=1000)).shape == (1, 8)
    assert parsed(bytes(32), TensorSpec("in", "FP32", (4, -1), room=1000)).shape == (4, 2)


def test_two_variable_dimensions_and_two_inputs_cannot_be_told() -> None:
    with pytest.raises(InvalidRequest, match="more than one variable-sized dimension"):
        parsed(bytes(32), TensorSpec("in", "FP16", (-1, -1, -1), room=1000))
    spec = TensorSpec("in", "FP32", (1, 8))
    with pytest.raises(InvalidRequest, match="must only have 1 input"):
        parsed(bytes(64), spec, spec)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([2**4, 2**60 + 2], "total element count"),
        ([2**2, 2**60 + 2], "byte size overflow for input 'in'"),
        ([1, -8], "negative"),
    ],
)
def test_shapes_beyond_every_memory_are_refused(shape: list[int], words: str) -> None:
    tensor = {"name": "in", "shape": shape, "datatype": "FP32", "data": [1.0]}
    spec = TensorSpec("in", "FP32", (-1, -1), room=1000)
    with pytest.raises(InvalidRequest, match=words):
        oip.parse_message({"inputs": [tensor]}, memoryview(b""), (spec,), OUTPUT)
