"""kmodel version 5, written by nncase 1.x: modules with memory pools, functions and sections. Layout: docs/formats.md.

The byte code of a `stackvm` module differs between releases and is not decoded; `k210` modules are, step by step.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ...errors import Unsupported
from ...tensors import TensorSpec
from ..wire.binary import c_text, need, unpack
from . import kpu
from .base import (
    MAX_NODES,
    Kmodel,
    Module,
    Node,
    Range,
    fail,
)

_MEMORIES: Final = {0: "input", 1: "output", 2: "constants", 3: "data", 4: "shared", 64: "kpu"}
_TYPES: Final = (
    "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BF16",
)  # fmt: skip
#: Opcode of a k210 module -> name, bytes with the opcode word.
_STEPS: Final[dict[int, tuple[str, int]]] = {
    0: ("kpu_upload", 44),
    1: ("kpu_download", 44),
    2: ("kpu_conv2d", 152),
    3: ("copy", 76),
}
_MAX_RANK: Final = 16


@dataclass(frozen=True, slots=True)
class _Function:
    inputs: tuple[Range, ...]
    outputs: tuple[Range, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    input_pool: int
    output_pool: int
    entrypoint: int
    text_size: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    #: Position in the file and bytes.
    start: int
    size: int


def read(view: memoryview) -> Kmodel:
    """Read a v5 file. Raises InvalidModel for damage, Unsupported for files of early 1.0 compilers."""
    _, _, header_size, _, alignment, count, entry_module, entry_function = unpack("<8I", view, 0, "kmodel v5 header")
    if header_size != 32:
        raise Unsupported(f"kmodel v5 with a header of {header_size} bytes is of an early compiler; compile it again")
    if not 0 < count <= 64 or entry_module >= count or not 0 < alignment <= 65536:
        raise fail(5, f"{count} modules, entry in module {entry_module}, alignment {alignment}")
    modules: list[Module] = []
    functions: list[list[_Function]] = []
    nodes: list[Node] = []
    data_pools = 0
    pos = 32
    for index in range(count):
        module, own, sections = _module(view, pos, index)
        modules.append(module)
        functions.append(own)
        data_pools += sum(size for name, size in module.pools if name == "data")
        if module.type == "k210":
            nodes += _steps(view, own, sections, len(nodes))
        if len(nodes) > MAX_NODES:
            raise fail(5, f"more than {MAX_NODES} instructions")
        pos += module.size
    if pos != len(view):
        raise fail(5, f"the modules end at byte {pos}, the file at {len(view)}")
    if entry_function >= len(functions[entry_module]):
        raise fail(5, f"entry function {entry_function} of {len(functions[entry_module])}")
    entry = functions[entry_module][entry_function]
    placed = [r.end for n in nodes for r in (*n.inputs, *n.outputs) if r.memory == "kpu"]
    memory = {"file": len(view), "input pool": entry.input_pool, "output pool": entry.output_pool}
    for index, module in enumerate(modules):
        memory |= {f"module {index} {module.type} {name}": size for name, size in (*module.sections, *module.pools)}
    return Kmodel(
        version=5,
        target="k210" if any(m.type == "k210" for m in modules) else "cpu",
        size=len(view),
        inputs=tuple(
            TensorSpec(f"input{i}", r.datatype, s)
            for i, (r, s) in enumerate(zip(entry.inputs, entry.input_shapes, strict=True))
        ),
        outputs=tuple(
            TensorSpec(f"output{i}", r.datatype, s)
            for i, (r, s) in enumerate(zip(entry.outputs, entry.output_shapes, strict=True))
        ),
        input_ranges=entry.inputs,
        output_ranges=entry.outputs,
        nodes=tuple(nodes),
        memory=memory,
        kpu_peak=max([*(n.convolution.peak for n in nodes if n.convolution), *placed], default=0),
        ram_need=len(view) + data_pools + entry.input_pool + entry.output_pool,
        modules=tuple(modules),
    )


def _module(view: memoryview, pos: int, index: int) -> tuple[Module, list[_Function], dict[str, _Section]]:
    what = f"kmodel v5 module {index}"
    kind = c_text(view, pos, 16, what)
    _, header, size, pools, shared, sections, functions, _ = unpack("<8I", view, pos + 16, what)
    end = pos + size
    if header != 48 or size < 48 or max(pools, shared, sections, functions) > MAX_NODES:
        raise fail(5, f"module {index} has a header of {header} bytes and a size of {size}")
    need(view, pos, size, what)
    at = pos + 48
    need(view, at, 8 * (pools + shared), f"{what} memory pools")
    found_pools = []
    for i in range(pools):
        location, pool_size = struct.unpack_from("<B3xI", view, at + 8 * i)
        found_pools.append((_MEMORIES.get(location, f"memory {location}"), pool_size))
    at += 8 * (pools + shared)
    limits = {name: bytes_ for name, bytes_ in found_pools if name != "kpu"} | {"kpu": kpu.KPU_RAM}
    own = []
    for i in range(functions):
        function, length = _function(view, at, f"{what} function {i}", limits)
        own.append(function)
        at += length
    kept: dict[str, _Section] = {}
    for i in range(sections):
        name = c_text(view, at, 16, f"{what} section {i}")
        flags, start, length, _ = unpack("<4I", view, at + 16, f"{what} section {i}")
        at += 32
        if flags & 1:  # merged into .rdata, which comes later or came before; nothing follows here
            kept[name] = _Section(name, -1, length)
            continue
        kept[name] = _Section(name, at + start, length)
        at += start + length
        if at > end:
            raise fail(5, f"section {name!r} of module {index} runs past the module's end at byte {end}")
    if end - at > 7:
        raise fail(5, f"{end - at} bytes of module {index} belong to nothing")
    module = Module(kind, size, functions, tuple((s.name, s.size) for s in kept.values()), tuple(found_pools))
    return module, own, kept


def _function(view: memoryview, pos: int, what: str, limits: dict[str, int]) -> tuple[_Function, int]:
    header, size, input_pool, output_pool, inputs, outputs, entrypoint, text_size = unpack("<8I", view, pos, what)
    if header != 32 or size < 32 or inputs + outputs > 1024:
        raise fail(5, f"{what} has a header of {header} bytes, {inputs} inputs and {outputs} outputs")
    need(view, pos, size, what)
    limits = limits | {"input": input_pool, "output": output_pool}
    at, end = pos + 32, pos + size
    ranges: list[tuple[Range, ...]] = []
    shapes: list[tuple[tuple[int, ...], ...]] = []
    for count in (inputs, outputs):
        if at + 12 * count > end:
            raise fail(5, f"{what}: {count} ranges do not fit in its {size} bytes")
        ranges.append(tuple(_range(view, at + 12 * i, limits, what) for i in range(count)))
        at += 12 * count
        listed = []
        for _ in range(count):
            shape, length = _shape(view, at, end, what)
            listed.append(shape)
            at += length
        shapes.append(tuple(listed))
    return _Function(ranges[0], ranges[1], shapes[0], shapes[1], input_pool, output_pool, entrypoint, text_size), size


def _shape(view: memoryview, pos: int, end: int, what: str) -> tuple[tuple[int, ...], int]:
    rank = struct.unpack_from("<I", view, pos)[0] if pos + 4 <= end else _MAX_RANK + 1
    if rank > _MAX_RANK or pos + 4 + 4 * rank > end:
        raise fail(5, f"{what}: a shape does not fit")
    return struct.unpack_from(f"<{rank}I", view, pos + 4), 4 + 4 * rank


def _range(view: memoryview, pos: int, limits: dict[str, int], what: str) -> Range:
    location, kind, _, start, size = struct.unpack_from("<BBHII", view, pos)
    if location not in _MEMORIES or kind >= len(_TYPES):
        raise fail(5, f"{what}: memory {location} with type {kind}")
    memory = _MEMORIES[location]
    limit = limits.get(memory)
    if limit is not None and start + size > limit:
        raise fail(5, f"{what}: {size} bytes at {start} lie outside the {limit} bytes of {memory} memory")
    return Range(memory, _TYPES[kind], start, size)


def _steps(view: memoryview, functions: list[_Function], sections: dict[str, _Section], first: int) -> list[Node]:
    """Decode the text of every function of a k210 module."""
    text = sections.get(".text")
    if text is None or text.start < 0:
        raise fail(5, "the k210 module has no .text section")
    nodes: list[Node] = []
    for number, function in enumerate(functions):
        at, end = text.start + function.entrypoint, text.start + function.entrypoint + function.text_size
        if end > text.start + text.size:
            raise fail(5, f"function {number} lies outside the text of {text.size} bytes")
        while at < end:
            opcode = view[at]
            size = _STEPS[opcode][1] if opcode in _STEPS else 0
            if not size or at + size > end:
                raise fail(5, f"function {number} holds the unknown or cut-off instruction {opcode} at byte {at}")
            nodes.append(_step(view, at, opcode, first + len(nodes), number))
            at += size
            if len(nodes) > MAX_NODES:
                raise fail(5, f"more than {MAX_NODES} instructions")
    return nodes


def _step(view: memoryview, at: int, opcode: int, index: int, function: int) -> Node:
    name, size = _STEPS[opcode]
    details: dict[str, int | float | str | tuple[int, ...]] = {"function": function}
    count = 4 if opcode == 2 else 2
    ranges = [
        _range(view, at + 4 + 12 * i, {"kpu": kpu.KPU_RAM}, f"instruction {index} ({name})") for i in range(count)
    ]
    if opcode == 2:
        convolution = kpu.convolution(struct.unpack_from("<12Q", view, at + 56))
        details |= {"in": convolution.input, "out": convolution.output, "kernel": convolution.kernel}
        tables = sum(r.size for r in ranges[:3])
        main = tuple(r for r in ranges[3:] if r.size)
        return Node(index, name, "kpu", at, size, tuple(ranges[:3]), main, details, convolution, tables)
    details["in"] = struct.unpack_from("<4I", view, at + 28)
    device = "cpu" if opcode == 3 else "kpu"
    return Node(index, name, device, at, size, (ranges[0],), (ranges[1],), details)
