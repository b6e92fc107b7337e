"""TFLite files with exactly one fault: each is refused, and the message says what and where."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from typing import Any

import pytest

from edgeaid.errors import InvalidModel, TooLarge
from edgeaid.formats.tflite import metadata as tflite_metadata
from edgeaid.formats.tflite import reader as tflite
from edgeaid.formats.wire.flatbuffer import Flatbuffer

from .builders import Tree, flat, metadata_bytes, tensor, tflite_tree, with_labels


def broken(change: Callable[[Tree], Any]) -> bytes:
    """The good model with one change."""
    tree = copy.deepcopy(tflite_tree())
    change(tree)
    return flat(tree, b"TFL3")


def graph(tree: Tree) -> Tree:
    subgraph: Tree = tree[2][0]
    return subgraph


def test_a_good_model_is_read_whole() -> None:
    model = tflite.read(flat(tflite_tree(), b"TFL3"))
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [("image", "UINT8", (1, 4, 4, 1))]
    assert [(t.name, t.shape) for t in model.outputs] == [("scores", (1, 8))]
    assert [o.name for o in model.operators] == ["CONV_2D", "RESHAPE"]
    assert model.operators[0].options["padding"] == "VALID"
    assert model.operators[0].options["activation"] == "RELU"
    assert model.operators[1].options["new_shape"] == (1, 8)
    assert model.subgraphs[0].tensors[0].shape_signature == (-1, 4, 4, 1)
    weights = model.subgraphs[0].tensors[1]
    assert weights.quantization is not None
    assert (weights.quantization.scale, weights.quantization.axis) == ((0.5, 0.25), 0)
    assert model.signatures[0].inputs == (("image", 0),)
    assert model.min_runtime_version == "1.5.0"
    assert (model.version, model.description) == (3, "made by a test")


def test_constants_come_back_without_a_copy() -> None:
    data = flat(tflite_tree(), b"TFL3")
    model = tflite.read(data)
    tensors = model.subgraphs[0].tensors
    assert bytes(tflite.constant(data, model, tensors[1])) == bytes(range(18))
    assert bytes(tflite.constant(data, model, tensors[0])) == b""


FAULTS: list[tuple[str, Callable[[Tree], Any], str]] = [
    ("another schema version", lambda t: t.update({0: ("I", 2)}), "schema version 2"),
    ("no subgraph", lambda t: t.pop(2), "no subgraph"),
    ("an input tensor that is not there", lambda t: graph(t).update({1: ("i", [9])}), "input is tensor 9 of 5"),
    ("a negative output tensor", lambda t: graph(t).update({2: ("i", [-1])}), "output is tensor -1"),
    ("an operator code that is not there", lambda t: graph(t)[3][0].update({0: ("I", 7)}), "operator code 7 of 2"),
    ("an operator that reads a missing tensor", lambda t: graph(t)[3][1].update({1: ("i", [77])}), "RESHAPE: input is"),
    ("an operator that writes nothing", lambda t: graph(t)[3][1].update({2: ("i", [-1])}), "output is tensor -1"),
    ("a tensor in a missing buffer", lambda t: graph(t)[0][1].update({2: ("I", 50)}), "'weights' is in buffer 50 of 5"),
    ("too few bytes of weights", lambda t: t[4][1].update({0: bytes(17)}), "needs 18 bytes but has 17"),
    ("too many bytes of weights", lambda t: t[4][1].update({0: bytes(19)}), "needs 18 bytes but has 19"),
    ("a constant of variable shape", lambda t: graph(t)[0][2].update({0: ("i", [-1])}), "'bias'"),
    ("an impossible shape", lambda t: graph(t)[0][0].update({0: ("i", [1, -7])}), "impossible shape"),
    ("more scales than zero points", lambda t: graph(t)[0][1][4].update({3: ("q", [1, 2, 3])}), "but 3 zero"),
    ("scales along a missing dimension", lambda t: graph(t)[0][1][4].update({6: ("i", 4)}), "along dimension 4"),
    ("scales that do not fit the dimension", lambda t: graph(t)[0][1][4].update({6: ("i", 1)}), "along dimension 1"),
    ("a variable with constant data", lambda t: graph(t)[0][1].update({5: ("?", True)}), "variable tensor 'weights'"),
    ("a constant input", lambda t: graph(t).update({1: ("i", [1])}), "input 'weights' is a constant"),
    ("metadata in a missing buffer", lambda t: t[6][0].update({1: ("I", 99)}), "'min_runtime_version' is in buffer 99"),
    ("a signature of a missing tensor", lambda t: t[7][0][0][0].update({1: ("I", 99)}), "'image' is tensor 99"),
    ("a signature of a missing subgraph", lambda t: t[7][0].update({4: ("I", 3)}), "subgraph 3 of 1"),
    ("a custom operator without a name", lambda t: t[1][0].update({0: ("b", 32), 3: ("i", 32)}), "without a name"),
    ("external data past the end", lambda t: t[4].append({1: ("Q", 64), 2: ("Q", 1 << 40)}), "past the end"),
    ("options past the end", lambda t: graph(t)[3][0].update({9: ("Q", 64), 10: ("Q", 1 << 40)}), "run past the end"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change", "message"), FAULTS, ids=[f[0].replace(" ", "-") for f in FAULTS])
def test_one_fault_is_found_and_named(what: str, change: Callable[[Tree], Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        tflite.read(broken(change))


def test_buffer_zero_holds_nothing_even_when_the_list_of_buffers_is_missing() -> None:
    tree = {0: ("I", 3), 1: [], 2: [{0: [tensor("a", [2])], 1: ("i", [0]), 2: ("i", [0]), 3: []}]}
    assert tflite.read(flat(tree, b"TFL3")).inputs[0].name == "a"


def test_data_outside_the_flatbuffer_counts_when_the_file_holds_it() -> None:
    def change(tree: Tree) -> None:
        tree[4][1] = {1: ("Q", 8192), 2: ("Q", 18)}

    data = broken(change).ljust(8192, b"\0") + bytes(range(18))
    model = tflite.read(data)
    assert bytes(tflite.constant(data, model, model.subgraphs[0].tensors[1])) == bytes(range(18))


@pytest.mark.parametrize(("kind", "shape", "size"), [(17, [5], 3), (6, [5], 5), (1, [5], 10), (4, [2, 2], 32)])
def test_constants_of_every_width_are_measured(kind: int, shape: list[int], size: int) -> None:
    def build(stored: int) -> bytes:
        tensors = [tensor("in", [1]), tensor("c", shape, kind=kind, buffer=1)]
        tree = {0: ("I", 3), 2: [{0: tensors, 1: ("i", [0]), 2: ("i", [0])}], 4: [{}, {0: bytes(stored)}]}
        return flat(tree, b"TFL3")

    assert tflite.read(build(size)).subgraphs[0].tensors[1].nbytes == size
    with pytest.raises(InvalidModel, match=f"needs {size} bytes"):
        tflite.read(build(size + 1))


def _looping(target: int) -> bytes:
    one = {0: [tensor("a", [1])], 1: ("i", [0]), 2: ("i", [0])}
    call = {0: ("I", 0), 1: ("i", [0]), 2: ("i", [0]), 3: ("B", 92), 4: {0: ("i", target), 1: ("i", target)}}
    tree = {0: ("I", 3), 1: [{0: ("b", 119), 3: ("i", 119)}], 2: [one | {3: [call]}, one], 4: [{}]}
    return flat(tree, b"TFL3")


def test_a_subgraph_that_runs_itself_is_refused() -> None:
    assert tflite.read(_looping(1)).operators[0].name == "WHILE"
    with pytest.raises(InvalidModel, match="runs itself"):
        tflite.read(_looping(0))
    with pytest.raises(InvalidModel, match="subgraph 5 of 2"):
        tflite.read(_looping(5))


def test_an_operator_newer_than_the_table_is_shown_by_number() -> None:
    def change(tree: Tree) -> None:
        tree[1][0] = {0: ("b", 127), 3: ("i", 400)}

    assert tflite.read(broken(change)).operators[0].name == "BUILTIN_400"


def test_tables_that_contain_each_other_end_in_an_error_and_not_in_a_hang() -> None:
    # One table whose vector lists the table itself 5000 times.
    count = 5000
    vtable = struct.pack("<HHH", 6, 8, 4)
    table_at = 8 + 8
    body = struct.pack("<iI", table_at - 8, 4) + struct.pack("<I", count)
    base = table_at + 12
    body += b"".join(struct.pack("<i", table_at - (base + 4 * i)) for i in range(count))
    data = struct.pack("<I", table_at) + b"TEST" + vtable + b"\0\0" + body

    def walk(node: list[Any]) -> None:
        for t in node:
            walk(t.tables(0, "child"))

    with pytest.raises(InvalidModel):
        walk([Flatbuffer(data, "loop").root(b"TEST")])


def test_labels_stop_at_the_first_empty_line() -> None:
    data = with_labels(flat(tflite_tree(), b"TFL3"))
    assert tflite_metadata.labels(data).names == ("none", "cat", "dog")


def test_labels_that_unpack_to_too_much_are_refused() -> None:
    data = with_labels(flat(tflite_tree(), b"TFL3"), "x\n" * 2_000_000)
    assert len(data) < 100_000
    with pytest.raises(TooLarge, match=r"labels\.txt"):
        tflite_metadata.labels(data)


def test_damaged_metadata_does_not_make_the_model_unreadable() -> None:
    def change(tree: Tree) -> None:
        tree[4][4][0] = b"\xff" * len(metadata_bytes())

    data = with_labels(broken(change))
    model = tflite.read(data)
    with pytest.raises(InvalidModel, match="TFLITE_METADATA"):
        tflite_metadata.metadata(data, model)
    assert tflite_metadata.labels(data, model).names == ("none", "cat", "dog")


def test_control_characters_in_names_do_not_reach_the_terminal() -> None:
    def change(tree: Tree) -> None:
        graph(tree)[0][0][3] = "in\x1b[2Jput"

    assert tflite.read(broken(change)).inputs[0].name == "in\N{REPLACEMENT CHARACTER}[2Jput"


def _depthwise(tree: Tree, inputs: list[int]) -> None:
    tree[1][0] = {0: ("b", 4), 3: ("i", 4)}
    graph(tree)[0][1][0] = ("i", [1, 3, 3, 2])
    graph(tree)[0][1][4][6] = ("i", 3)
    graph(tree)[3][0] |= {1: ("i", inputs), 4: {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 3: ("i", 2)}}


def test_a_quantised_depthwise_convolution_without_bias_is_refused_because_a_runtime_crashes_on_it() -> None:
    assert tflite.read(broken(lambda t: _depthwise(t, [0, 1, 2]))).operators[0].name == "DEPTHWISE_CONV_2D"
    with pytest.raises(InvalidModel, match="2 inputs, at least 3"):
        tflite.read(broken(lambda t: _depthwise(t, [0, 1])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: graph(t)[0][0].update({0: ("i", [1, 4, 4, 158])}), "158 channels does not fit"),
        (lambda t: graph(t)[0][0].update({0: ("i", [1, 4, 4, 0])}), "empty input"),
        (lambda t: graph(t)[3][0].update({4: {0: ("b", 1), 1: ("i", 0), 2: ("i", 1)}}), "stride_w is 0"),
        (lambda t: graph(t)[3][0].pop(4), "stride_w is 0"),
        (lambda t: graph(t)[0][3].update({0: ("i", [1, 2, 2, 3])}), "make 2 channels, the output has 3"),
    ],
)
def test_operands_that_make_a_kernel_divide_by_zero_are_refused(change: Callable[[Tree], Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        tflite.read(broken(change))
