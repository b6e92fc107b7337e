"""Small TFLite models that are served in ways of their own: with state, texts, signatures, sizes that vary."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeaid.formats.tflite.operators import OPERATORS, TENSOR_TYPES

from ..formats.builders import Tree, flat

TYPES = {name: number for number, (name, _) in enumerate(TENSOR_TYPES)}
#: Members of the BuiltinOptions union.
UNION = {
    "CALL_ONCE": 103, "VAR_HANDLE": 111, "READ_VARIABLE": 112, "ASSIGN_VARIABLE": 113, "HASHTABLE": 107,
    "HASHTABLE_FIND": 108, "HASHTABLE_IMPORT": 109, "ADD": 11, "SUB": 28, "RESHAPE": 17, "TILE": 0,
}  # fmt: skip


@dataclass
class T:
    """A tensor; `data` makes it a constant, `signature` says which dimensions are variable."""

    name: str
    type: str
    shape: Sequence[int]
    data: Any = None
    signature: Sequence[int] | None = None
    #: Quantised with scale 1 and zero point 0: the stored numbers are the real ones.
    whole: bool = False


@dataclass
class Op:
    """An operator on tensors by position; `options` by slot."""

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: Tree | None = None


@dataclass
class Graph:
    """A subgraph; inputs and outputs are positions of tensors."""

    tensors: Sequence[T]
    operators: Sequence[Op]
    inputs: Sequence[int]
    outputs: Sequence[int]


def texts(items: Sequence[bytes]) -> bytes:
    """A constant of type BYTES as TFLite stores it: count, offsets, characters."""
    start = 4 * (len(items) + 2)
    ends = np.cumsum([0, *(len(i) for i in items)]) + start
    return struct.pack(f"<{len(items) + 2}i", len(items), *ends) + b"".join(items)


def _bytes(tensor: T) -> bytes:
    if tensor.type == "BYTES":
        return texts(tensor.data)
    kind = {"INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "BOOL": "?"}[tensor.type]
    return np.broadcast_to(np.asarray(tensor.data, kind), tuple(tensor.shape)).tobytes()


def build(
    *graphs: Graph, signature: tuple[Mapping[str, int], Mapping[str, int]] | None = None, metadata: bytes = b""
) -> bytes:
    """The file. `signature` = (input name -> position of its tensor, the same of the outputs)."""
    names = sorted({o.name for g in graphs for o in g.operators})
    buffers: list[Tree] = [{}]
    subgraphs: list[Tree] = []
    for graph in graphs:
        tensors: list[Tree] = []
        for tensor in graph.tensors:
            number = 0
            if tensor.data is not None:
                number = len(buffers)
                buffers.append({0: _bytes(tensor)})
            table: Tree = {
                0: ("i", list(tensor.shape)), 1: ("b", TYPES[tensor.type]), 2: ("I", number), 3: tensor.name,
            }  # fmt: skip
            if tensor.signature is not None:
                table[7] = ("i", list(tensor.signature))
            if tensor.whole:
                table[4] = {2: ("f", [1.0]), 3: ("q", [0])}
            tensors.append(table)
        operators: list[Tree] = []
        for op in graph.operators:
            entry: Tree = {0: ("I", names.index(op.name)), 1: ("i", list(op.inputs)), 2: ("i", list(op.outputs))}
            if UNION.get(op.name):
                entry |= {3: ("B", UNION[op.name]), 4: op.options or {}}
            operators.append(entry)
        subgraphs.append(
            {0: tensors, 1: ("i", list(graph.inputs)), 2: ("i", list(graph.outputs)), 3: operators, 4: "main"}
        )
    codes: list[Tree] = [
        {0: ("b", min(OPERATORS.index(n), 127)), 2: ("i", 1), 3: ("i", OPERATORS.index(n))} for n in names
    ]
    tree: Tree = {0: ("I", 3), 1: codes, 2: subgraphs, 3: "made by a test", 4: buffers}
    if metadata:
        buffers.append({0: metadata})
        tree[6] = [{0: "TFLITE_METADATA", 1: ("I", len(buffers) - 1)}]
    if signature is not None:
        maps = [[{0: name, 1: ("I", index)} for name, index in side.items()] for side in signature]
        tree[7] = [{0: maps[0], 1: maps[1], 2: "serving_default", 4: ("I", 0)}]
    return flat(tree, b"TFL3")


def sum_and_difference(kind: str = "INT32") -> bytes:
    """INPUT0, INPUT1 [1,16] -> OUTPUT0 their sum, OUTPUT1 their difference; the graph has the inputs swapped."""
    names = ("serving_b:0", "serving_a:0", "Call:0", "Call:1")
    tensors = [T(n, kind, [1, 16], whole=kind == "INT8") for n in names]
    graph = Graph(tensors, [Op("ADD", [1, 0], [2]), Op("SUB", [1, 0], [3])], [0, 1], [2, 3])
    return build(graph, signature=({"INPUT0": 1, "INPUT1": 0}, {"OUTPUT0": 2, "OUTPUT1": 3}))


def batches() -> bytes:
    """x float [-1,2] -> y = x + x, whose first dimension is dynamic."""
    tensors = [T("x", "FP32", [1, 2], signature=[-1, 2]), T("y", "FP32", [1, 2], signature=[-1, 2])]
    return build(Graph(tensors, [Op("ADD", [0, 0], [1])], [0], [1]))


def nameless() -> bytes:
    """Two inputs and an output, int32 [2], none of which has a name."""
    tensors = [T("", "INT32", [2]), T("", "INT32", [2]), T("", "INT32", [2])]
    return build(Graph(tensors, [Op("SUB", [0, 1], [2])], [0, 1], [2]))


def tiles() -> bytes:
    """flags bool [2] and times int32 [1] -> as many repetitions: the output's size is known after a run only."""
    tensors = [T("flags", "BOOL", [2]), T("times", "INT32", [1]), T("repeated", "BOOL", [])]
    return build(Graph(tensors, [Op("TILE", [0, 1], [2])], [0, 1], [2]))


def echo(*shape: int) -> bytes:
    """INPUT0 -> OUTPUT0, texts of a shape, [1,16] unless said otherwise; -1 = variable."""
    signature = shape or (1, 16)
    now = [max(1, d) for d in signature]
    tensors = [T("in", "BYTES", now, signature=signature), T("form", "INT32", [len(now)], list(signature)),
               T("out", "BYTES", now, signature=signature)]  # fmt: skip
    graph = Graph(tensors, [Op("RESHAPE", [0, 1], [2], {0: ("i", list(signature))})], [0], [2])
    return build(graph, signature=({"INPUT0": 0}, {"OUTPUT0": 2}))


def sequence() -> bytes:
    """INPUT int32 [1,1] -> OUTPUT, which is INPUT, plus 1 in the first run of an interpreter."""
    handle: Tree = {0: "here", 1: "first"}
    main = Graph(
        [T("in", "INT32", [1, 1]), T("handle", "RESOURCE", []), T("first", "INT32", [1, 1]), T("out", "INT32", [1, 1]),
         T("zero", "INT32", [1, 1], 0)],
        [Op("CALL_ONCE", [], [], {0: ("i", 1)}), Op("VAR_HANDLE", [], [1], handle), Op("READ_VARIABLE", [1], [2]),
         Op("ADD", [0, 2], [3]), Op("ASSIGN_VARIABLE", [1, 4], [])],
        [0], [3],
    )  # fmt: skip
    start = Graph(
        [T("handle", "RESOURCE", []), T("one", "INT32", [1, 1], 1)],
        [Op("VAR_HANDLE", [], [0], handle), Op("ASSIGN_VARIABLE", [0, 1], [])],
        [], [],
    )  # fmt: skip
    return build(main, start, signature=({"INPUT": 0}, {"OUTPUT": 3}))


def text_sum() -> bytes:
    """INPUT0, INPUT1: numbers from -100 to 100 as texts [1,16] -> OUTPUT0 their sum, OUTPUT1 their difference."""
    numbers = list(range(-200, 201))
    words = [str(n).encode() for n in numbers]
    key_of: Tree = {0: ("i", 1), 1: ("b", TYPES["BYTES"]), 2: ("b", TYPES["INT64"])}
    word_of: Tree = {0: ("i", 2), 1: ("b", TYPES["INT64"]), 2: ("b", TYPES["BYTES"])}
    size = len(numbers)
    main = Graph(
        [T("a", "BYTES", [1, 16]), T("b", "BYTES", [1, 16]), T("keys", "RESOURCE", [1]), T("words", "RESOURCE", [1]),
         T("none", "INT64", [1], 0), T("nothing", "BYTES", [1], [b"?"]), T("x", "INT64", [1, 16]),
         T("y", "INT64", [1, 16]), T("sum", "INT64", [1, 16]), T("difference", "INT64", [1, 16]),
         T("out0", "BYTES", [1, 16]), T("out1", "BYTES", [1, 16])],
        [Op("CALL_ONCE", [], [], {0: ("i", 1)}), Op("HASHTABLE", [], [2], key_of), Op("HASHTABLE", [], [3], word_of),
         Op("HASHTABLE_FIND", [2, 0, 4], [6]), Op("HASHTABLE_FIND", [2, 1, 4], [7]), Op("ADD", [6, 7], [8]),
         Op("SUB", [6, 7], [9]), Op("HASHTABLE_FIND", [3, 8, 5], [10]), Op("HASHTABLE_FIND", [3, 9, 5], [11])],
        [0, 1], [10, 11],
    )  # fmt: skip
    start = Graph(
        [T("keys", "RESOURCE", [1]), T("words", "RESOURCE", [1]), T("texts", "BYTES", [size], words),
         T("numbers", "INT64", [size], numbers)],
        [Op("HASHTABLE", [], [0], key_of), Op("HASHTABLE", [], [1], word_of),
         Op("HASHTABLE_IMPORT", [0, 2, 3], []), Op("HASHTABLE_IMPORT", [1, 3, 2], [])],
        [], [],
    )  # fmt: skip
    return build(main, start, signature=({"INPUT0": 0, "INPUT1": 1}, {"OUTPUT0": 10, "OUTPUT1": 11}))
