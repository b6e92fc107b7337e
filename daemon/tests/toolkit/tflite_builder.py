"""A small writer of TFLite files for tests: minimal models that break, or keep, exactly one rule.

Only the slots that the tests need (google-ai-edge/LiteRT:tflite/converter/schema/schema.fbs). Values of options are
given by slot: (slot, struct letter, value).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

from edgeaid.formats.tflite.operators import OPERATORS, TENSOR_TYPES

TYPES = {name: number for number, (name, _) in enumerate(TENSOR_TYPES)}
#: Member of the BuiltinOptions union per operator (order of the union in the schema).
UNION = {
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "AVERAGE_POOL_2D": 5, "MAX_POOL_2D": 5, "FULLY_CONNECTED": 8, "SOFTMAX": 9,
    "CONCATENATION": 10, "ADD": 11, "LSTM": 14, "RESIZE_BILINEAR": 15, "RESHAPE": 17, "MUL": 21, "PAD": 22,
    "TRANSPOSE": 26, "MEAN": 27, "REDUCE_MAX": 27, "SQUEEZE": 30, "STRIDED_SLICE": 32, "TRANSPOSE_CONV": 49, "PACK": 59,
    "LEAKY_RELU": 75, "SPLIT": 35, "RESIZE_NEAREST_NEIGHBOR": 74, "GATHER": 23, "SUM": 27, "SUB": 28, "DIV": 29,
}  # fmt: skip


@dataclass
class T:
    """A tensor. `data` makes it a constant; `q` is (scale, zero point) or a list of such pairs along `axis`."""

    name: str
    shape: Sequence[int]
    type: str = "FP32"
    data: Any = None
    q: tuple[float, int] | list[tuple[float, int]] | None = None
    axis: int = 0
    signature: Sequence[int] | None = None


@dataclass
class Op:
    """An operator. `inputs` and `outputs` are tensor names; "" = left out."""

    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Sequence[tuple[int, str, Any]] = ()
    version: int = 1
    custom: str = ""


@dataclass
class Graph:
    """A model of one subgraph."""

    tensors: Sequence[T]
    operators: Sequence[Op]
    inputs: Sequence[str]
    outputs: Sequence[str]
    metadata: dict[str, bytes] = field(default_factory=dict)


_NUMPY = {"FP32": "<f4", "INT8": "i1", "UINT8": "u1", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "INT16": "<i2"}


def build(graph: Graph) -> bytes:
    """The file."""
    b = flatbuffers.Builder(1024)
    buffers = [b""]
    index = {t.name: i for i, t in enumerate(graph.tensors)}
    tensors = []
    for tensor in graph.tensors:
        number = 0
        if tensor.data is not None:
            number = len(buffers)
            values = np.asarray(tensor.data, _NUMPY[tensor.type])
            buffers.append(np.broadcast_to(values, tuple(tensor.shape)).astype(values.dtype).tobytes())
        tensors.append(_tensor(b, tensor, number))
    codes = sorted({(o.name, o.custom, o.version) for o in graph.operators})
    operators = [_operator(b, o, codes.index((o.name, o.custom, o.version)), index) for o in graph.operators]
    metadata = []
    for name, content in graph.metadata.items():
        text = b.CreateString(name)
        b.StartObject(2)
        b.PrependUOffsetTRelativeSlot(0, text, 0)
        b.PrependUint32Slot(1, len(buffers), 0)
        metadata.append(b.EndObject())
        buffers.append(content)
    fields = [
        _offsets(b, tensors), _ints(b, [index[n] for n in graph.inputs]), _ints(b, [index[n] for n in graph.outputs]),
        _offsets(b, operators),
    ]  # fmt: skip
    subgraph = _table(b, 5, list(enumerate(fields)))
    code_vector = _offsets(b, [_code(b, *c) for c in codes])
    buffer_vector = _offsets(b, [_buffer(b, content) for content in buffers])
    subgraphs = _offsets(b, [subgraph])
    metadata_vector = _offsets(b, metadata)
    b.StartObject(8)
    b.PrependUint32Slot(0, 3, 0)
    for slot, value in ((1, code_vector), (2, subgraphs), (4, buffer_vector), (6, metadata_vector)):
        b.PrependUOffsetTRelativeSlot(slot, value, 0)
    b.Finish(b.EndObject(), b"TFL3")
    return bytes(b.Output())


def _table(b: Any, slots: int, offsets: Sequence[tuple[int, int]]) -> int:
    b.StartObject(slots)
    for slot, value in offsets:
        b.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(b.EndObject())


def _offsets(b: Any, values: Sequence[int]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependUOffsetTRelative(value)
    return int(b.EndVector())


def _ints(b: Any, values: Sequence[int]) -> int:
    return int(b.CreateNumpyVector(np.asarray(values, np.int32)))


def _buffer(b: Any, content: bytes) -> int:
    if not content:
        return _table(b, 1, [])
    b.StartVector(1, len(content), 16)
    b.head -= len(content)
    b.Bytes[b.head : b.head + len(content)] = content
    return _table(b, 1, [(0, int(b.EndVector()))])


def _code(b: Any, name: str, custom: str, version: int) -> int:
    code = OPERATORS.index(name)
    text = b.CreateString(custom) if custom else 0
    b.StartObject(4)
    b.PrependInt8Slot(0, min(code, 127), 0)
    if text:
        b.PrependUOffsetTRelativeSlot(1, text, 0)
    b.PrependInt32Slot(2, version, 1)
    b.PrependInt32Slot(3, code, 0)
    return int(b.EndObject())


def _tensor(b: Any, tensor: T, number: int) -> int:
    name = b.CreateString(tensor.name)
    shape = _ints(b, tensor.shape)
    signature = _ints(b, tensor.signature) if tensor.signature is not None else 0
    quantization = 0
    if tensor.q is not None:
        pairs = tensor.q if isinstance(tensor.q, list) else [tensor.q]
        scale = b.CreateNumpyVector(np.asarray([s for s, _ in pairs], np.float32))
        zero = b.CreateNumpyVector(np.asarray([z for _, z in pairs], np.int64))
        b.StartObject(7)
        b.PrependUOffsetTRelativeSlot(2, scale, 0)
        b.PrependUOffsetTRelativeSlot(3, zero, 0)
        b.PrependInt32Slot(6, tensor.axis, 0)
        quantization = b.EndObject()
    b.StartObject(9)
    b.PrependUOffsetTRelativeSlot(0, shape, 0)
    b.PrependInt8Slot(1, TYPES[tensor.type], 0)
    b.PrependUint32Slot(2, number, 0)
    b.PrependUOffsetTRelativeSlot(3, name, 0)
    if quantization:
        b.PrependUOffsetTRelativeSlot(4, quantization, 0)
    if signature:
        b.PrependUOffsetTRelativeSlot(7, signature, 0)
    return int(b.EndObject())


def _operator(b: Any, op: Op, code: int, index: dict[str, int]) -> int:
    inputs = _ints(b, [index[n] if n else -1 for n in op.inputs])
    outputs = _ints(b, [index[n] for n in op.outputs])
    options = 0
    if op.name in UNION:
        vectors = {slot: _ints(b, value) for slot, kind, value in op.options if kind == "V"}
        b.StartObject(16)
        for slot, kind, value in op.options:
            if kind == "V":
                b.PrependUOffsetTRelativeSlot(slot, vectors[slot], 0)
            elif kind == "f":
                b.PrependFloat32Slot(slot, value, 0)
            elif kind in "bB?":
                b.PrependInt8Slot(slot, int(value), 0)
            else:
                # Written even when it is the default of another table's slot.
                b.PrependInt32Slot(slot, value, -1 if value != -1 else 0)
        options = b.EndObject()
    b.StartObject(13)
    b.PrependUint32Slot(0, code, 0)
    b.PrependUOffsetTRelativeSlot(1, inputs, 0)
    b.PrependUOffsetTRelativeSlot(2, outputs, 0)
    if options:
        b.PrependUint8Slot(3, UNION[op.name], 0)
        b.PrependUOffsetTRelativeSlot(4, options, 0)
    return int(b.EndObject())
