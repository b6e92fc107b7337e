"""Damaged parts of files that have readers of their own: label files, flexbuffers, values of Caffe networks."""

from __future__ import annotations

from contextlib import suppress

from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.errors import EdgeaiError
from edgeaid.formats.exchange import caffe
from edgeaid.formats.labels import parse
from edgeaid.formats.wire import flexbuffer, protobuf

from ..support.examples import examples
from .damage import damaged
from .targets import WORDS

LABELS = [
    b"background\nperson\nbicycle\n", b"0 person\n1  bicycle\n3 car\n", b"0: cat\n1: dog\n", b'["cat", "dog"]',
    b"{0: 'cat', 1: 'dog'}", b'item {\n  id: 1\n  name: "/m/01"\n  display_name: "person"\n}\n', b"cat,dog,cow\n",
    b'{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', "\ufeffna\u00efve\r\nb\r\n".encode(),
]  # fmt: skip
FLEX = [
    bytes(flexbuffers.Dumps(value))
    for value in ({"1": 0, "4": "text", "6": [17, 18], "7": []}, [1, 2.5, "a", None], {"a": {"b": [True, -1]}}, 7)
]


@settings(max_examples=examples(400), deadline=None)
@given(label=st.sampled_from(LABELS), number=st.integers(0, 2**48), classes=st.sampled_from([None, 0, 3, 1000]))
def test_damaged_label_files_give_labels_or_our_own_error(label: bytes, number: int, classes: int | None) -> None:
    with suppress(EdgeaiError):
        names = parse(damaged(label, number), classes).names
        assert all(isinstance(name, str) for name in names)


@settings(max_examples=examples(400), deadline=None)
@given(value=st.sampled_from(FLEX), number=st.integers(0, 2**48))
def test_damaged_flexbuffers_give_values_or_our_own_error(value: bytes, number: int) -> None:
    with suppress(EdgeaiError):
        flexbuffer.decode(damaged(value, number))


@settings(max_examples=examples(400), deadline=None)
@given(number=st.integers(0, 2**48))
def test_damaged_values_of_caffe_networks_give_values_or_our_own_error(number: int) -> None:
    with suppress(EdgeaiError):
        for blobs in caffe.read_values(damaged(WORDS["caffemodel"], number)).values():
            assert all(isinstance(shape, tuple) for shape, _, _ in blobs)


@settings(max_examples=examples(400), deadline=None)
@given(noise=st.binary(max_size=300))
def test_any_bytes_may_be_guessed_to_be_of_some_protobuf(noise: bytes) -> None:
    assert isinstance(protobuf.guess(noise), str)
