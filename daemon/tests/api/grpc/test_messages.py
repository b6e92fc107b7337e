"""Requests for inference are taken apart without protobuf, and say the same as with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("google.protobuf", reason="needs edgeaid[grpc]")

from edgeaid.api.grpc.frames import varint
from edgeaid.api.grpc.messages import split
from edgeaid.api.grpc.schema import MESSAGES

REQUEST = MESSAGES["ModelInferRequest"]


@given(
    name=st.text(max_size=300),
    inputs=st.lists(st.tuples(st.text(), st.lists(st.integers(-1, 1 << 40))), max_size=3),
    tensors=st.lists(st.binary(max_size=400), min_size=1, max_size=4),
)
def test_what_is_left_without_tensors_is_the_request_without_them(
    name: str, inputs: list[tuple[str, list[int]]], tensors: list[bytes]
) -> None:
    request = REQUEST(model_name=name, raw_input_contents=tensors)
    for text, shape in inputs:
        request.inputs.add(name=text, shape=shape)
    said = split(request.SerializeToString())
    assert said is not None
    assert (bytes(said.tail), said.count) == (b"".join(tensors), len(tensors))
    sizes, _, rest = said.head.partition(b"]")
    assert sizes == str([len(tensor) for tensor in tensors]).encode()[:-1]
    del request.raw_input_contents[:]
    assert REQUEST.FromString(rest) == request


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_apart_or_left_to_protobuf(data: bytes) -> None:
    said = split(data)
    if said is not None:
        assert said.count > 0
        assert len(said.tail) < len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\x01x",
        b"\x3a",
        b"\x3a\x05abc",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
        b"\x3a\x01a\x08\x01",
        b"\x3a\x01a\x8a\x01\x00",
    ],
)
def test_what_has_no_raw_tensors_or_is_damaged_or_unknown_is_left_to_protobuf(data: bytes) -> None:
    assert split(data) is None


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1 << 21])
def test_lengths_are_protobufs(size: int) -> None:
    tensor = bytes(size)
    assert REQUEST.FromString(b"\x3a" + varint(size) + tensor).raw_input_contents == [tensor]
