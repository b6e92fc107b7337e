"""TensorFlow files: frozen GraphDef, SavedModel, MetaGraph and checkpoint index, without TensorFlow.

Field numbers: tensorflow/tensorflow:tensorflow/core/framework/{graph,node_def,attr_value}.proto, core/protobuf/
{saved_model,meta_graph,tensor_bundle}.proto. A checkpoint index is a LevelDB table: google/leveldb:doc/table_format.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...errors import InvalidModel, Unsupported
from ...tensors import TensorSpec
from ..wire.binary import Data, as_view, text
from ..wire.protobuf import Wire, signed, string

_TYPES: Final[dict[int, str]] = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", 7: "BYTES", 8: "COMPLEX64", 9: "INT64",
    10: "BOOL", 11: "INT8", 12: "UINT8", 13: "INT32", 14: "BF16", 17: "UINT16", 18: "COMPLEX128", 19: "FP16",
    20: "RESOURCE", 21: "VARIANT", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
_LEVELDB_MAGIC: Final = bytes.fromhex("57fb808b247547db")
#: Operators that end a graph without being a result.
_PLUMBING: Final = frozenset({"Placeholder", "Const", "Identity", "IdentityN", "NoOp", "ReadVariableOp", "VarHandleOp"})
#: Functions that do nothing but call the next one.
_MAX_CALLS: Final = 8
_NO_RESULT: Final = frozenset({"NoOp", "Assert", "Const", "Placeholder", "SaveV2", "RestoreV2", "VarIsInitializedOp"})


@dataclass(frozen=True, slots=True)
class Node:
    """An operator."""

    name: str
    op: str
    #: "name:port" or "^name" for control.
    inputs: tuple[str, ...]
    device: str
    #: "" when the node does not say.
    datatype: str
    #: Shape attribute; () when the node does not say; -1 = variable.
    shape: tuple[int, ...]
    #: Bytes of a constant's value.
    constant_bytes: int
    #: Function of the library that it runs, "" for other operators.
    calls: str = ""


@dataclass(frozen=True, slots=True)
class GraphDef:
    """A graph."""

    #: Version of the producer, 0 when not given.
    producer: int
    nodes: tuple[Node, ...]
    #: The library: function -> its nodes.
    functions: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Placeholders, without those of the saver that a checkpoint's graph contains."""
        return tuple(
            TensorSpec(n.name, n.datatype, n.shape)
            for n in self.nodes
            if n.op.startswith("Placeholder") and not n.name.startswith("save/")
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Nodes whose results no node reads."""
        read_by_others = {i.removeprefix("^").split(":", 1)[0] for n in self.nodes for i in n.inputs}
        return tuple(
            TensorSpec(n.name, n.datatype, n.shape)
            for n in self.nodes
            if n.name not in read_by_others and n.op not in _NO_RESULT and not n.name.startswith("save/")
        )

    def body(self, names: tuple[str, ...] = ()) -> tuple[Node, ...]:
        """The nodes that compute: of TensorFlow 2's SavedModels they lie in functions that do nothing but call each
        other. `names` = nodes to start from, () = all.
        """
        nodes = self.nodes
        wanted = set(names)
        for _ in range(_MAX_CALLS):
            called = [n.calls for n in nodes if n.calls in self.functions and (not wanted or n.name in wanted)]
            others = [n for n in nodes if n.op not in _PLUMBING and not n.calls]
            if len(set(called)) != 1 or (others and not wanted):
                break
            nodes, wanted = self.functions[called[0]], set()
        return nodes

    @property
    def operators(self) -> Counter[str]:
        """How often each operator occurs."""
        return Counter(n.op for n in self.nodes)

    @property
    def variables(self) -> int:
        """Nodes that hold variables: a frozen graph has none."""
        return sum(n.op in ("Variable", "VariableV2", "VarHandleOp", "VarIsInitializedOp") for n in self.nodes)


@dataclass(frozen=True, slots=True)
class SignatureDef:
    """A named entry point of a SavedModel; names are the signature's."""

    key: str
    method: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    #: Nodes of the graph that make the outputs.
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetaGraph:
    """A graph with what belongs to it."""

    tags: tuple[str, ...]
    tensorflow_version: str
    graph: GraphDef
    signatures: tuple[SignatureDef, ...]


@dataclass(frozen=True, slots=True)
class CheckpointIndex:
    """Variables of a checkpoint; their values lie in `shards` .data files."""

    shards: int
    variables: tuple[TensorSpec, ...]
    #: Bytes of all values.
    size: int


def read_graphdef(data: Data) -> GraphDef:
    """Read a frozen graph (.pb). Raises InvalidModel."""
    wire = Wire(data, "TensorFlow graph")
    graph = _graph(wire, wire.view)
    if not graph.nodes:
        raise InvalidModel("TensorFlow graph: it has no nodes; the file is damaged or of another kind")
    return graph


def read_saved_model(data: Data) -> tuple[MetaGraph, ...]:
    """Read saved_model.pb. Raises InvalidModel."""
    wire = Wire(data, "SavedModel")
    graphs = tuple(_meta(wire, v) for n, _, v in wire.fields() if n == 2 and not isinstance(v, int))
    if not graphs:
        raise InvalidModel("SavedModel: it holds no graph; the file is damaged or of another kind")
    return graphs


def read_meta(data: Data) -> MetaGraph:
    """Read a checkpoint's .meta file. Raises InvalidModel."""
    wire = Wire(data, "MetaGraph")
    return _meta(wire, wire.view)


def _meta(wire: Wire, message: memoryview) -> MetaGraph:
    tags: list[str] = []
    version = ""
    graph = GraphDef(0, ())
    signatures = []
    for number, _, value in wire.fields(message):
        if isinstance(value, int):
            continue
        if number == 1:
            for key, _, item in wire.fields(value):
                if key == 4:
                    tags.append(string(item))
                elif key == 5:
                    version = string(item)
        elif number == 2:
            graph = _graph(wire, value)
        elif number == 5:
            signatures.append(_signature(wire, value))
    return MetaGraph(tuple(tags), version, graph, tuple(signatures))


def _graph(wire: Wire, message: memoryview) -> GraphDef:
    nodes = []
    producer = 0
    functions: dict[str, tuple[Node, ...]] = {}
    for number, _, value in wire.fields(message):
        if isinstance(value, int):
            continue
        if number == 1:
            nodes.append(_node(wire, value))
        elif number == 2:
            functions |= dict(_function(wire, v) for n, _, v in wire.fields(value) if n == 1 and not isinstance(v, int))
        elif number == 4:
            producer = next((v for n, _, v in wire.fields(value) if n == 1 and isinstance(v, int)), 0)
    return GraphDef(producer, tuple(nodes), functions)


def _function(wire: Wire, message: memoryview) -> tuple[str, tuple[Node, ...]]:
    """(name, nodes) of a FunctionDef."""
    name, nodes = "", []
    for number, _, value in wire.fields(message):
        if isinstance(value, int):
            continue
        if number == 1:
            name = next((string(v) for n, _, v in wire.fields(value) if n == 1), "")
        elif number == 3:
            nodes.append(_node(wire, value))
    return name, tuple(nodes)


def _node(wire: Wire, message: memoryview) -> Node:
    name = op = device = datatype = calls = ""
    inputs = []
    shape: tuple[int, ...] = ()
    constant = 0
    for number, _, value in wire.fields(message):
        if isinstance(value, int):
            continue
        if number == 1:
            name = string(value)
        elif number == 2:
            op = string(value)
        elif number == 3:
            inputs.append(string(value))
        elif number == 4:
            device = string(value)
        elif number == 5:
            key, attribute = _map_entry(wire, value)
            if attribute is None or key not in ("dtype", "T", "shape", "value", "f"):
                continue
            for kind, _, item in wire.fields(attribute):
                if kind == 6 and isinstance(item, int) and (key == "dtype" or not datatype):
                    datatype = _TYPES.get(item % 100, f"TYPE_{item}")
                elif kind == 7 and not isinstance(item, int):
                    shape = _shape(wire, item)
                elif kind == 8 and not isinstance(item, int):
                    constant = len(item)
                elif kind == 10 and key == "f" and not isinstance(item, int):
                    calls = next((string(v) for n, _, v in wire.fields(item) if n == 1), "")
    return Node(name, op, tuple(inputs), device, datatype, shape, constant, calls)


def _map_entry(wire: Wire, message: memoryview) -> tuple[str, memoryview | None]:
    key, entry = "", None
    for number, _, value in wire.fields(message):
        if number == 1:
            key = string(value)
        elif number == 2 and not isinstance(value, int):
            entry = value
    return key, entry


def _shape(wire: Wire, message: memoryview) -> tuple[int, ...]:
    dims = []
    for number, _, value in wire.fields(message):
        if number == 2 and not isinstance(value, int):
            size = next((v for n, _, v in wire.fields(value) if n == 1 and isinstance(v, int)), 0)
            dims.append(max(-1, signed(size)))
    return tuple(dims)


def _signature(wire: Wire, message: memoryview) -> SignatureDef:
    key, body = _map_entry(wire, message)
    sides: dict[int, list[TensorSpec]] = {1: [], 2: []}
    method = ""
    nodes = []
    for number, _, value in wire.fields(body) if body is not None else ():
        if number == 3:
            method = string(value)
        elif number in sides and not isinstance(value, int):
            name, info = _map_entry(wire, value)
            datatype = ""
            shape: tuple[int, ...] = ()
            for kind, _, item in wire.fields(info) if info is not None else ():
                if kind == 1 and number == 2:
                    nodes.append(string(item).split(":", 1)[0])
                elif kind == 2 and isinstance(item, int):
                    datatype = _TYPES.get(item, f"TYPE_{item}")
                elif kind == 3 and not isinstance(item, int):
                    shape = _shape(wire, item)
            sides[number].append(TensorSpec(name, datatype, shape))
    return SignatureDef(key, method, tuple(sides[1]), tuple(sides[2]), tuple(nodes))


def read_checkpoint_index(data: Data) -> CheckpointIndex:
    """Read a checkpoint's .index file. Raises InvalidModel, Unsupported for a compressed one."""
    view = as_view(data)
    wire = Wire(view, "checkpoint index")
    if len(view) < 48 or bytes(view[-8:]) != _LEVELDB_MAGIC:
        raise wire.fail("it does not end like a checkpoint index")
    footer = wire.varints_at(view[len(view) - 48 : len(view) - 8], 0, 4)[0]
    shards, variables, size = 1, [], 0
    for _, handle in _block(wire, view, footer[2], footer[3]):
        where = wire.varints_at(handle, 0, 2)[0]
        for key, value in _block(wire, view, where[0], where[1]):
            fields = [(n, v) for n, _, v in wire.fields(value)]
            if not key:
                shards = next((v for n, v in fields if n == 1 and isinstance(v, int)), 1)
                continue
            kind = next((v for n, v in fields if n == 1 and isinstance(v, int)), 0)
            shape = next((_shape(wire, v) for n, v in fields if n == 2 and not isinstance(v, int)), ())
            size += next((v for n, v in fields if n == 5 and isinstance(v, int)), 0)
            variables.append(TensorSpec(text(key), _TYPES.get(kind, f"TYPE_{kind}"), shape))
    return CheckpointIndex(shards, tuple(variables), size)


def _block(wire: Wire, view: memoryview, offset: int, size: int) -> list[tuple[bytes, memoryview]]:
    """(key, value) pairs of one table block."""
    if offset + size + 5 > len(view):
        raise wire.fail(f"block at byte {offset} of {size} bytes runs past the end")
    if view[offset + size]:
        raise Unsupported("checkpoint index: it is compressed; TensorFlow itself writes it plain")
    block = view[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little") if size >= 4 else size
    end = size - 4 - 4 * restarts
    if end < 0:
        raise wire.fail(f"block at byte {offset} has {restarts} restart points")
    pairs: list[tuple[bytes, memoryview]] = []
    key, pos = b"", 0
    while pos < end:
        (shared, own, length), pos = wire.varints_at(block, pos, 3)
        if shared > len(key) or pos + own + length > end or shared + own > 4096:
            raise wire.fail(f"an entry of the block at byte {offset} runs past its end")
        key = key[:shared] + bytes(block[pos : pos + own])
        pairs.append((key, block[pos + own : pos + own + length]))
        pos += own + length
    return pairs
