"""Frozen TensorFlow graphs that were trained with rounding: which arrays have no range.

TensorFlow 1's converter (`tflite_convert --inference_type=QUANTIZED_UINT8`) takes the ranges of arrays from FakeQuant
nodes and stops at the first array without one: "... is lacking min/max data, which is necessary for quantization".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ...formats.exchange.tensorflow import GraphDef, Node
from .rules import Findings

_FAKE: Final = "FakeQuantWithMinMax"
#: Operators with weights, and those whose own result needs a range.
_WEIGHTED: Final = frozenset({"Conv2D", "DepthwiseConv2dNative", "MatMul", "Conv2DBackpropInput"})
_SUMS: Final = frozenset({"Add", "AddV2", "Sub", "Mul"})
#: The converter makes these a part of the operator before them, or they keep its range.
_FOLLOWING: Final = frozenset({
    "BiasAdd", "Add", "AddV2", "Relu", "Relu6", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Identity",
    "Squeeze", "Reshape",
})  # fmt: skip
_STORED: Final = frozenset({"Identity", "Reshape", "Transpose", "ReadVariableOp", "Squeeze"})
#: A range belongs to an operator at most this many nodes away.
_FAR: Final = 8


def check(graph: GraphDef, findings: Findings) -> None:
    """Note every array without a range, if the graph has ranges at all."""
    nodes = {n.name: n for n in graph.nodes}
    if not any(n.op.startswith(_FAKE) for n in graph.nodes):
        return
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for source in _sources(node):
            readers.setdefault(source, []).append(node)
    findings.facts["fake_quant_nodes"] = sum(n.op.startswith(_FAKE) for n in graph.nodes)
    for name, what in _missing(graph.nodes, nodes, readers):
        findings.add("TFL010", name, what)


def _sources(node: Node) -> tuple[str, ...]:
    return tuple(i.split(":", 1)[0] for i in node.inputs if not i.startswith("^"))


def _missing(
    order: Sequence[Node], nodes: Mapping[str, Node], readers: Mapping[str, list[Node]]
) -> Iterator[tuple[str, str]]:
    for node in order:
        sources = _sources(node)
        weighted = node.op in _WEIGHTED
        # A sum with a constant is a bias, which goes with the operator before it.
        sums = node.op in _SUMS and len(sources) == 2 and not any(_constant(nodes, s) for s in sources)
        if weighted and len(sources) > 1 and not _ranged_before(nodes, sources[1]):
            yield node.name, f"its weights {sources[1]!r}"
        if (weighted or sums) and not _ranged_behind(node, readers):
            yield node.name, "what it makes"


def _constant(nodes: Mapping[str, Node], name: str) -> bool:
    """Whether a value is stored in the graph."""
    for _ in range(_FAR):
        node = nodes.get(name)
        if node is None or node.op == "Const":
            return node is not None
        sources = _sources(node)
        if not (node.op in _STORED or node.op.startswith(_FAKE)) or not sources:
            return False
        name = sources[0]
    return False


def _ranged_before(nodes: Mapping[str, Node], name: str) -> bool:
    for _ in range(_FAR):
        node = nodes.get(name)
        if node is None:
            return False
        if node.op.startswith(_FAKE):
            return True
        sources = _sources(node)
        if node.op not in _STORED or not sources:
            return False
        name = sources[0]
    return False


def _ranged_behind(node: Node, readers: Mapping[str, list[Node]]) -> bool:
    for _ in range(_FAR):
        behind = readers.get(node.name, [])
        if any(r.op.startswith(_FAKE) for r in behind):
            return True
        follow = [r for r in behind if r.op in _FOLLOWING]
        if len(behind) != 1 or not follow:
            return False
        node = follow[0]
    return False
