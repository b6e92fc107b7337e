"""ONNX models: inputs, outputs, operators and weights, without the onnx package.

Field numbers: onnx/onnx:onnx/onnx.proto3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel
from ...tensors import TensorSpec
from ..wire.binary import Data
from ..wire.protobuf import Wire, signed, string

_TYPES: Final = (
    "", "FP32", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BYTES", "BOOL", "FP16", "FP64", "UINT32",
    "UINT64", "COMPLEX64", "COMPLEX128", "BF16", "FP8_E4M3FN", "FP8_E4M3FNUZ", "FP8_E5M2", "FP8_E5M2FNUZ", "UINT4",
    "INT4",
)  # fmt: skip
_BITS: Final = (0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4)

Attribute = int | float | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """An operator."""

    name: str
    op_type: str
    #: "" = the standard operator set.
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: Numbers, texts and lists of integers; subgraphs are left out.
    attributes: Mapping[str, Attribute]
    #: What a Constant holds, and other operators in an attribute.
    tensor: Initializer | None = None


@dataclass(frozen=True, slots=True)
class Initializer:
    """A weight."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    #: Bytes stored in this file; 0 when they lie in another one.
    size: int
    external: bool


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An ONNX file."""

    ir_version: int
    producer: str
    #: (domain, version) pairs; "" = the standard operators.
    opsets: tuple[tuple[str, int], ...]
    name: str
    #: Without weights, which old files list as inputs too.
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    initializers: tuple[Initializer, ...]
    #: Shapes of intermediate tensors where the file has them.
    values: tuple[TensorSpec, ...]

    @property
    def opset(self) -> int:
        """Version of the standard operators, 0 when not given."""
        return next((version for domain, version in self.opsets if domain in ("", "ai.onnx")), 0)


def read(data: Data) -> OnnxModel:
    """Read a model. Raises InvalidModel for damage, among it weights whose bytes do not fit their shape."""
    wire = Wire(data, "ONNX model")
    ir_version, producer, producer_version = 0, "", ""
    opsets: list[tuple[str, int]] = []
    graph: memoryview | None = None
    for number, _, value in wire.fields():
        if number == 1 and isinstance(value, int):
            ir_version = value
        elif number == 2:
            producer = string(value)
        elif number == 3:
            producer_version = string(value)
        elif number == 7 and not isinstance(value, int):
            graph = value
        elif number == 8 and not isinstance(value, int):
            opsets.append(_opset(wire, value))
    if graph is None or not ir_version:
        raise InvalidModel("ONNX model: no graph or no version in it; the file is damaged or of another kind")
    name = ""
    nodes: list[Node] = []
    initializers: list[Initializer] = []
    values: dict[int, list[TensorSpec]] = {11: [], 12: [], 13: []}
    for number, _, value in wire.fields(graph):
        if isinstance(value, int):
            continue
        if number == 1:
            nodes.append(_node(wire, value))
        elif number == 2:
            name = string(value)
        elif number == 5:
            initializers.append(_initializer(wire, value))
        elif number in values:
            values[number].append(_value_info(wire, value))
    weights = {i.name for i in initializers}
    return OnnxModel(
        ir_version=ir_version,
        producer=f"{producer} {producer_version}".strip(),
        opsets=tuple(opsets),
        name=name,
        inputs=tuple(v for v in values[11] if v.name not in weights),
        outputs=tuple(values[12]),
        nodes=tuple(nodes),
        initializers=tuple(initializers),
        values=tuple(values[13]),
    )


def _opset(wire: Wire, message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value in wire.fields(message):
        if number == 1:
            domain = string(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _node(wire: Wire, message: memoryview) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    name = op_type = domain = ""
    attributes: dict[str, Attribute] = {}
    tensor: Initializer | None = None
    for number, _, value in wire.fields(message):
        if number == 1:
            inputs.append(string(value))
        elif number == 2:
            outputs.append(string(value))
        elif number == 3:
            name = string(value)
        elif number == 4:
            op_type = string(value)
        elif number == 5 and not isinstance(value, int):
            key, attribute = _attribute(wire, value)
            if isinstance(attribute, Initializer):
                tensor = attribute
            elif attribute is not None:
                attributes[key] = attribute
        elif number == 7:
            domain = string(value)
    return Node(name, op_type, domain, tuple(inputs), tuple(outputs), attributes, tensor)


def _attribute(wire: Wire, message: memoryview) -> tuple[str, Attribute | Initializer | None]:
    name = ""
    attribute: Attribute | Initializer | None = None
    ints: list[int] = []
    for number, _, value in wire.fields(message):
        if number == 1:
            name = string(value)
        elif number == 2 and isinstance(value, int):
            attribute = float(struct.unpack("<f", (value & 0xFFFFFFFF).to_bytes(4, "little"))[0])
        elif number == 3 and isinstance(value, int):
            attribute = signed(value)
        elif number == 4 and not isinstance(value, int):
            attribute = string(value[:1024])
        elif number == 5 and not isinstance(value, int):
            attribute = _initializer(wire, value)
        elif number == 8:
            ints += wire.ints(value)
    return name, tuple(ints) if ints else attribute


def _initializer(wire: Wire, message: memoryview) -> Initializer:
    dims: list[int] = []
    kind = size = raw = 0
    name = ""
    external = False
    for number, _, value in wire.fields(message):
        if number == 1:
            dims += wire.ints(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = string(value)
        elif number == 9 and not isinstance(value, int):
            raw = len(value)
        elif number in (4, 5, 6, 7, 10, 11):
            size += len(value) if not isinstance(value, int) else 4
        elif number == 14:
            external = value == 1
    if any(d < 0 for d in dims) or len(dims) > 64:
        raise wire.fail(f"weight {name!r} has the impossible shape {dims[:64]}")
    known = 0 < kind < len(_TYPES)
    if raw and known and _BITS[kind] and (math.prod(dims) * _BITS[kind] + 7) // 8 != raw:
        raise wire.fail(f"weight {name!r} of {_TYPES[kind]} {dims} has {raw} bytes")
    return Initializer(name, _TYPES[kind] if known else f"TYPE_{kind}", tuple(dims), raw or size, external)


def _value_info(wire: Wire, message: memoryview) -> TensorSpec:
    name, datatype = "", ""
    shape: tuple[int, ...] = ()
    for number, _, value in wire.fields(message):
        if number == 1:
            name = string(value)
        elif number == 2 and not isinstance(value, int):
            for kind, _, inner in wire.fields(value):
                if kind == 1 and not isinstance(inner, int):  # tensor_type
                    datatype, shape = _tensor_type(wire, inner)
    return TensorSpec(name, datatype, shape)


def _tensor_type(wire: Wire, message: memoryview) -> tuple[str, tuple[int, ...]]:
    datatype = ""
    shape: list[int] = []
    for number, _, value in wire.fields(message):
        if number == 1 and isinstance(value, int):
            datatype = _TYPES[value] if 0 < value < len(_TYPES) else f"TYPE_{value}"
        elif number == 2 and not isinstance(value, int):
            for _, _, dim in wire.fields(value):
                size = -1
                if not isinstance(dim, int):
                    for key, _, item in wire.fields(dim):
                        if key == 1 and isinstance(item, int):
                            size = max(-1, signed(item))
                shape.append(size)
    return datatype, tuple(shape)
