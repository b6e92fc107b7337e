"""TFLite / LiteRT models: everything a runtime would follow is checked before a runtime sees the file.

tflite-runtime 2.14 dies with SIGSEGV on damaged files, so this is the gate in front of it. Table slots:
google-ai-edge/LiteRT:tflite/converter/schema/schema.fbs.
"""

from __future__ import annotations

from typing import Final

from ...errors import InvalidModel
from ...tensors import Quantization
from ..wire.binary import Data, text
from ..wire.flatbuffer import Flatbuffer, Table
from . import kernels as tflite_kernels
from . import operators as tflite_ops
from .model import (
    EDGETPU_OP,
    Buffer,
    Operator,
    Signature,
    Subgraph,
    Tensor,
    TfliteModel,
)

__all__ = [
    "EDGETPU_OP", "Buffer", "Operator", "Signature", "Subgraph", "Tensor", "TfliteModel", "constant", "is_tflite",
    "read",
]  # fmt: skip

#: Dimensions of a tensor; runtimes use 4 to 8.
MAX_RANK: Final = 64
_CUSTOM: Final = 32


def is_tflite(data: Data) -> bool:
    """Whether the file says it is TFLite."""
    return bytes(memoryview(data)[4:8]) == b"TFL3"


def read(data: Data) -> TfliteModel:
    """Read and check a model.

    Raises InvalidModel, with what is wrong and where, for anything that would lead a runtime outside the file or that
    contradicts itself: offsets, buffer sizes against shapes, tensor and operator indices, recursion of subgraphs.
    """
    flat = Flatbuffer(data, "TFLite model")
    root = flat.root(b"TFL3")
    version = root.integer(0, "I")
    if version != 3:
        raise InvalidModel(f"TFLite model: schema version {version}; only 3 is in use, the file is damaged or very old")
    codes = [_operator_code(t) for t in root.tables(1, "operator_codes")]
    buffers = tuple(_buffer(t) for t in root.tables(4, "buffers"))
    graphs = root.tables(2, "subgraphs")
    if not graphs:
        raise flat.contradiction("it has no subgraph")
    subgraphs = tuple(_subgraph(t, codes, buffers, len(graphs)) for t in graphs)
    _check_calls(subgraphs, flat)
    metadata = []
    for table in root.tables(6, "metadata"):
        name, index = table.string(0), table.integer(1, "I")
        if index >= len(buffers):
            raise table.contradiction(f"metadata {name!r} is in buffer {index} of {len(buffers)}")
        metadata.append((name, index))
    model = TfliteModel(
        version=version,
        description=root.string(3),
        size=len(flat.view),
        subgraphs=subgraphs,
        signatures=tuple(_signature(t, subgraphs) for t in root.tables(7, "signature_defs")),
        buffers=buffers,
        metadata=tuple(metadata),
        min_runtime_version=_min_runtime(flat, metadata, buffers),
    )
    for index in subgraphs[0].inputs:
        if subgraphs[0].tensors[index].constant:
            raise flat.contradiction(f"input {subgraphs[0].tensors[index].name!r} is a constant")
    return model


def constant(data: Data, model: TfliteModel, tensor: Tensor) -> memoryview:
    """Stored values of a constant tensor, row-major, little-endian, without a copy; empty when it has none."""
    if not tensor.constant:
        return memoryview(b"")
    where = model.buffers[tensor.buffer]
    return memoryview(data)[where.offset : where.offset + where.size]


def _min_runtime(flat: Flatbuffer, metadata: list[tuple[str, int]], buffers: tuple[Buffer, ...]) -> str:
    for name, index in metadata:
        if name == "min_runtime_version":
            where = buffers[index]
            return text(bytes(flat.view[where.offset : where.offset + min(where.size, 64)]).split(b"\0", 1)[0])
    return ""


def _operator_code(table: Table) -> tuple[str, str, int]:
    """(name, custom code, version)."""
    code = max(table.integer(0, "b"), table.integer(3, "i"))
    custom = table.string(1) if code == _CUSTOM else ""
    if code == _CUSTOM and not custom:
        raise table.contradiction("custom operator without a name")
    return tflite_ops.operator_name(code), custom, table.integer(2, "i", 1)


def _buffer(table: Table) -> Buffer:
    pos, size = table.span(0)
    if size:
        return Buffer(pos, size)
    offset, length = table.integer(1, "Q"), table.integer(2, "Q")
    if offset <= 1 or not length:  # 0 = none, 1 = a placeholder of the writer
        return Buffer(0, 0)
    if offset + length > len(table.buffer.view):
        raise table.fail(f"data at bytes {offset}..{offset + length - 1} runs past the end of the file")
    return Buffer(offset, length)


def _subgraph(table: Table, codes: list[tuple[str, str, int]], buffers: tuple[Buffer, ...], graphs: int) -> Subgraph:
    tensors = tuple(_tensor(i, t, buffers) for i, t in enumerate(table.tables(0, "tensors")))
    inputs, outputs = table.ints(1), table.ints(2)
    for what, indices in (("input", inputs), ("output", outputs)):
        for index in indices:
            if not 0 <= index < len(tensors):
                raise table.contradiction(f"{what} is tensor {index} of {len(tensors)}")
    operators = tuple(_operator(i, t, codes, len(tensors), graphs) for i, t in enumerate(table.tables(3, "operators")))
    for operator in operators:
        problem = tflite_kernels.problem(operator, tensors)
        if problem:
            raise table.contradiction(f"operator {operator.index} ({operator.name}): {problem}")
    return Subgraph(table.string(4), tensors, inputs, outputs, operators)


def _tensor(index: int, table: Table, buffers: tuple[Buffer, ...]) -> Tensor:
    name = table.string(3)
    number, buffer = table.integer(1, "b"), table.integer(2, "I")
    # Number 0 means "no values" whatever it holds, and may even be missing.
    if buffer and buffer >= len(buffers):
        raise table.contradiction(f"tensor {name!r} is in buffer {buffer} of {len(buffers)}")
    shape, signature = table.ints(0), table.ints(7)
    if len(shape) > MAX_RANK or len(signature) > MAX_RANK:
        raise table.contradiction(f"tensor {name!r} has {len(shape)} dimensions, more than {MAX_RANK}")
    if any(d < -1 for d in shape):
        raise table.contradiction(f"tensor {name!r} has the impossible shape {list(shape)}")
    datatype, bits = tflite_ops.datatype(number)
    tensor = Tensor(
        index=index, name=name, datatype=datatype, shape=shape, shape_signature=signature,
        quantization=_quantization(table.table(4, "quantization"), name, shape), buffer=buffer,
        buffer_size=buffers[buffer].size if buffer else 0, is_variable=bool(table.integer(5, "b")), sparse=table.has(6),
    )  # fmt: skip
    if tensor.constant:
        if tensor.is_variable:
            raise table.contradiction(f"variable tensor {name!r} has constant data")
        if tensor.sparse:
            _check_sparsity(table, name)
        elif bits and (-1 in shape or tensor.nbytes != tensor.buffer_size):
            raise table.contradiction(
                f"tensor {name!r} of {datatype} {list(shape)} needs {tensor.nbytes} bytes but has {tensor.buffer_size}"
            )
    return tensor


def _quantization(table: Table | None, name: str, shape: tuple[int, ...]) -> Quantization | None:
    if table is None:
        return None
    scale, zero = table.vector(2, "f"), table.ints(3, "q")
    if not scale:
        return None
    if len(zero) <= 1:
        zero = (zero or (0,)) * len(scale)
    axis = table.integer(6)
    if len(zero) != len(scale):
        raise table.contradiction(f"tensor {name!r} has {len(scale)} scales but {len(zero)} zero points")
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] in (-1, len(scale))):
        raise table.contradiction(f"tensor {name!r} {list(shape)} has {len(scale)} scales along dimension {axis}")
    return Quantization(scale, zero, axis)


def _check_sparsity(table: Table, name: str) -> None:
    """Follow the vectors a runtime follows to expand a sparse tensor."""
    sparsity = table.table(6, "sparsity")
    if sparsity is None:
        return
    order = sparsity.ints(0)
    blocks = sparsity.ints(1)
    dims = sparsity.tables(2, "dim_metadata")
    if len(dims) != len(order) or any(not 0 <= d < len(order) for d in order) or len(blocks) > len(order):
        raise table.contradiction(f"sparse tensor {name!r} contradicts itself")
    for dim in dims:
        for slot in (2, 4):
            kind = {1: "i", 2: "H", 3: "B"}.get(dim.integer(slot, "B"))
            values = dim.table(slot + 1, "values")
            if kind and values is not None:
                values.vector(0, kind)


def _operator(index: int, table: Table, codes: list[tuple[str, str, int]], tensors: int, graphs: int) -> Operator:
    opcode = table.integer(0, "I")
    if opcode >= len(codes):
        raise table.contradiction(f"operator code {opcode} of {len(codes)}")
    name, custom, version = codes[opcode]
    inputs, outputs = table.ints(1), table.ints(2)
    for what, indices in (("input", inputs), ("output", outputs), ("intermediate", table.ints(8))):
        for i in indices:
            # -1 = left out; a builtin operator has no optional outputs.
            if not (0 <= i < tensors or (i == -1 and (what == "input" or custom))):
                raise table.contradiction(f"{custom or name}: {what} is tensor {i} of {tensors}")
    table.raw(7)
    options: dict[str, int | float | bool | str | tuple[int, ...] | tuple[float, ...]] = {}
    layout = tflite_ops.OPTIONS.get(name, ())
    builtin = table.table(4, name)
    if builtin is not None:
        for key, slot, kind, default in layout:
            options[key] = _option(builtin, slot, kind, default)
            if kind == "G" and not 0 <= builtin.integer(slot) < graphs:
                raise builtin.contradiction(f"{key} is subgraph {builtin.integer(slot)} of {graphs}")
    elif any(kind == "G" for _, _, kind, _ in layout):
        raise table.contradiction(f"{name} does not say which subgraph it runs")
    table.table(12, "options2")
    offset, size = table.span(5)
    if not size:
        offset, size = table.integer(9, "Q"), table.integer(10, "Q")
        if offset <= 1 or not size:
            offset, size = 0, 0
        elif offset + size > len(table.buffer.view):
            raise table.fail(f"{custom or name}: custom options of {size} bytes at byte {offset} run past the end")
    return Operator(index, name, custom, version, inputs, outputs, options, Buffer(offset, size))


def _option(
    table: Table, slot: int, kind: str, default: int
) -> int | float | bool | str | tuple[int, ...] | tuple[float, ...]:
    if kind == "V":
        return table.ints(slot)
    if kind == "F":
        return table.vector(slot, "f")
    if kind == "S":
        return table.string(slot)
    if kind in "AP":
        names = tflite_ops.ACTIVATION if kind == "A" else tflite_ops.PADDING
        number = table.integer(slot, "b", default)
        return names[number] if 0 <= number < len(names) else str(number)
    if kind == "?":
        return bool(table.integer(slot, "b", default))
    value: int | float = table.scalar(slot, "i" if kind == "G" else kind, default)
    return value


def _signature(table: Table, subgraphs: tuple[Subgraph, ...]) -> Signature:
    graph = table.integer(4, "I")
    if graph >= len(subgraphs):
        raise table.contradiction(f"signature is of subgraph {graph} of {len(subgraphs)}")
    maps = []
    for slot, what in ((0, "inputs"), (1, "outputs")):
        pairs = []
        for entry in table.tables(slot, what):
            name, index = entry.string(0), entry.integer(1, "I")
            if index >= len(subgraphs[graph].tensors):
                raise entry.contradiction(f"{name!r} is tensor {index} of {len(subgraphs[graph].tensors)}")
            pairs.append((name, index))
        maps.append(tuple(pairs))
    return Signature(table.string(2), graph, maps[0], maps[1])


def _check_calls(subgraphs: tuple[Subgraph, ...], flat: Flatbuffer) -> None:
    """Refuse subgraphs that run themselves: a runtime would recurse until its stack ends."""
    calls = [
        {
            int(str(o.options[key]))
            for o in g.operators
            for key, _, kind, _ in tflite_ops.OPTIONS.get(o.name, ())
            if kind == "G"
        }
        for g in subgraphs
    ]
    state = [0] * len(subgraphs)  # 1 = being followed, 2 = done
    for start in range(len(subgraphs)):
        stack = [(start, iter(calls[start]))] if not state[start] else []
        while stack:
            node, rest = stack[-1]
            state[node] = 1
            callee = next(rest, None)
            if callee is None:
                state[node] = 2
                stack.pop()
            elif state[callee] == 1:
                raise flat.contradiction(f"subgraph {callee} runs itself")
            elif not state[callee]:
                stack.append((callee, iter(calls[callee])))
