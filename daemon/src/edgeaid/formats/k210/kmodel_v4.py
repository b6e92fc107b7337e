"""kmodel version 4, written by nncase 0.2 (kendryte/nncase tag v0.2.0-beta4). Body layouts: docs/formats.md.

Body sizes and opcodes 0x01-0x0A, 0x0C, 0x0E, 0x11, 0x2001 and 0x2002 were compared with real files, the rest comes from
the compiler's source.
"""

from __future__ import annotations

import struct
from typing import Final

from ...tensors import TensorSpec
from ..wire.binary import need
from . import kpu
from .base import (
    MAX_NODES,
    MAX_SHORTFALL,
    Kmodel,
    Node,
    Range,
    fail,
)

_MEMORIES: Final = ("constants", "main", "kpu")
_TYPES: Final = ("FP32", "UINT8")

#: Opcode -> name, input ranges, output ranges, fixed bytes. Outputs follow inputs in the body.
OPCODES: Final[dict[int, tuple[str, int, int, int]]] = {
    0x00: ("binary", 2, 1, 108),
    0x01: ("concat", 0, 1, 28),
    0x02: ("conv2d", 1, 1, 104),
    0x03: ("dequantize", 1, 1, 40),
    0x04: ("matmul", 2, 1, 68),
    0x05: ("pad", 1, 1, 88),
    0x06: ("quantize", 1, 1, 40),
    0x07: ("reduce", 1, 1, 72),
    0x08: ("reduce_window2d", 1, 1, 104),
    0x09: ("memory_copy", 1, 1, 32),
    0x0A: ("resize_image", 1, 1, 64),
    0x0B: ("softmax", 1, 1, 44),
    0x0C: ("transpose", 1, 1, 64),
    0x0D: ("strided_slice", 1, 1, 116),
    0x0E: ("unary", 1, 1, 36),
    0x0F: ("quantized_conv2d", 1, 1, 116),
    0x10: ("quantized_matmul", 2, 1, 80),
    0x11: ("quantized_binary", 2, 1, 136),
    0x12: ("table_lookup1d", 2, 1, 48),
    0x13: ("conv2d_transpose", 1, 1, 116),
    0x14: ("nnil_unary_method", 1, 1, 32),
    0x1001: ("cpu_conv2d", 1, 1, 32),
    0x1002: ("cpu_depthwise_conv2d", 1, 1, 32),
    0x1003: ("cpu_reduce_window2d", 1, 1, 32),
    0x1004: ("cpu_quantized_conv2d", 1, 1, 32),
    0x1005: ("cpu_quantized_depthwise_conv2d", 1, 1, 32),
    0x2001: ("kpu_upload", 1, 1, 48),
    0x2002: ("kpu_conv2d", 0, 1, 120),
}
_SHAPED: Final = (0x02, 0x05, 0x07, 0x08, 0x0A, 0x0C, 0x0D, 0x0F, 0x13, 0x2001)
_VARIANTS: Final[dict[int, tuple[int, tuple[str, ...]]]] = {
    0x00: (48, ("add", "sub", "mul", "div", "min", "max")),
    0x07: (32, ("mean", "min", "max", "sum")),
    0x08: (32, ("mean", "min", "max", "sum")),
    0x0E: (32, ("abs", "ceil", "cos", "exp", "floor", "log", "neg", "rsqrt", "sin", "square")),
    0x11: (48, ("add", "sub", "mul", "div", "min", "max")),
}


def read(view: memoryview) -> Kmodel:
    """Read a v4 file; raises InvalidModel for damage."""
    need(view, 0, 40, "kmodel v4 header")
    target, constants, main, count, inputs, outputs = struct.unpack_from("<12x6I", view)
    if not 0 < count <= MAX_NODES or not 0 < inputs <= MAX_NODES or not 0 < outputs <= MAX_NODES:
        raise fail(4, f"{count} nodes, {inputs} inputs and {outputs} outputs")
    limits = {"constants": constants, "main": main, "kpu": kpu.KPU_RAM}
    pos = 40
    need(view, pos, 32 * inputs + 16 * outputs + constants + 8 * count, "kmodel v4 tables")
    input_ranges = [_range(view, pos + 16 * i, limits, f"input {i}") for i in range(inputs)]
    pos += 16 * inputs
    shapes = [struct.unpack_from("<4i", view, pos + 16 * i) for i in range(inputs)]
    for i, shape in enumerate(shapes):
        if min(shape) < 1 or max(shape) > 65536:
            raise fail(4, f"input {i} has the impossible shape {list(shape)}")
    pos += 16 * inputs
    output_ranges = [_range(view, pos + 16 * i, limits, f"output {i}") for i in range(outputs)]
    pos += 16 * outputs + constants
    table = struct.unpack_from(f"<{2 * count}I", view, pos)
    pos += 8 * count
    nodes: list[Node] = []
    shortfall = 0
    for index in range(count):
        opcode, size = table[2 * index], table[2 * index + 1]
        missing = pos + size - len(view)
        if missing > (MAX_SHORTFALL if index == count - 1 else 0):
            raise fail(4, f"node {index} of {size} bytes at byte {pos} runs past the end")
        shortfall = max(0, missing)
        nodes.append(_node(view, index, opcode, (pos, min(size, len(view) - pos)), limits))
        pos += size
    peak = max((n.convolution.peak for n in nodes if n.convolution), default=0)
    placed = [r.end for n in nodes for r in (*n.inputs, *n.outputs) if r.memory == "kpu"]
    return Kmodel(
        version=4,
        target="k210" if target == 1 else "cpu",
        size=len(view),
        inputs=tuple(
            TensorSpec(f"input{i}", r.datatype, s) for i, (r, s) in enumerate(zip(input_ranges, shapes, strict=True))
        ),
        outputs=tuple(
            TensorSpec(f"output{i}", r.datatype, (r.size // (4 if r.datatype == "FP32" else 1),))
            for i, r in enumerate(output_ranges)
        ),
        input_ranges=tuple(input_ranges),
        output_ranges=tuple(output_ranges),
        nodes=tuple(nodes),
        memory={"file": len(view), "constants": constants, "main memory": main},
        kpu_peak=max([peak, *placed, *(r.end for r in input_ranges if r.memory == "kpu")]),
        ram_need=main + len(view),
        shortfall=shortfall,
    )


def _range(view: memoryview, pos: int, limits: dict[str, int], what: str) -> Range:
    memory, kind, start, size = struct.unpack_from("<4I", view, pos)
    if memory >= len(_MEMORIES) or kind >= len(_TYPES):
        raise fail(4, f"{what} lies in memory {memory} with type {kind}")
    name = _MEMORIES[memory]
    if start + size > limits[name]:
        raise fail(4, f"{what} at {start} of {size} bytes lies outside the {limits[name]} bytes of {name} memory")
    return Range(name, _TYPES[kind], start, size)


def _node(view: memoryview, index: int, opcode: int, where: tuple[int, int], limits: dict[str, int]) -> Node:
    pos, size = where
    if opcode not in OPCODES:
        raise fail(4, f"node {index} has the unknown opcode {opcode:#x}")
    name, n_in, n_out, fixed = OPCODES[opcode]
    what = f"node {index} ({name})"
    if size < fixed:
        raise fail(4, f"{what} has a body of {size} bytes, too small")
    ranges = [_range(view, pos + 16 * i, limits, what) for i in range(n_in + n_out)]
    inputs, outputs = ranges[:n_in], ranges[n_in:]
    details: dict[str, int | float | str | tuple[int, ...]] = {}
    convolution = None
    data = 0
    if opcode in _SHAPED:
        details["in"] = struct.unpack_from("<4i", view, pos + (36 if opcode in (0x07, 0x08) else 32))
    if opcode in _VARIANTS:
        at, names = _VARIANTS[opcode]
        number = struct.unpack_from("<I", view, pos + at)[0]
        details["op"] = names[number] if number < len(names) else number
    if opcode == 0x01:
        inner, outer, parts = struct.unpack_from("<3I", view, pos + 16)
        data = 20 * parts
        details |= {"inner": inner, "outer": outer}
        if fixed + data <= size:
            inputs = [_range(view, pos + 28 + 16 * i, limits, what) for i in range(parts)]
    elif opcode in (0x02, 0x0F, 0x13):
        data = _conv_data(view, pos, opcode, details, what)
    elif opcode in (0x04, 0x10):
        rows, inner, columns = struct.unpack_from("<3i", view, pos + 48)
        if min(rows, inner, columns) < 0:
            raise fail(4, f"{what} has the impossible sizes {rows} x {inner} x {columns}")
        details |= {"a": (rows, inner), "b": (inner, columns)}
        data = 4 * columns
    elif opcode == 0x0A:
        details["out"] = struct.unpack_from("<2i", view, pos + 48)
    elif opcode == 0x2002:
        convolution = kpu.convolution(struct.unpack_from("<12Q", view, pos + 24))
        data = _kpu_tables(view, pos + 24, convolution)
        details |= {"in": convolution.input, "out": convolution.output, "kernel": convolution.kernel}
        outputs = [r for r in outputs if r.size]
    if fixed + data > size:
        raise fail(4, f"{what} needs {fixed + data} bytes, its body has {size}")
    device = "kpu" if opcode >= 0x2000 else "cpu"
    return Node(index, name, device, pos, size, tuple(inputs), tuple(outputs), details, convolution, data)


def _conv_data(
    view: memoryview, pos: int, opcode: int, details: dict[str, int | float | str | tuple[int, ...]], what: str
) -> int:
    """Bytes of weights and bias behind the fixed part of a CPU convolution."""
    shape = struct.unpack_from("<4i", view, pos + 32)
    if opcode == 0x13:
        out = struct.unpack_from("<4i", view, pos + 48)
        groups = struct.unpack_from("<i", view, pos + 64)[0]
        channels, kernel_at = out[1], pos + 84
    else:
        groups, channels = struct.unpack_from("<2i", view, pos + 48)
        kernel_at = pos + 72
    height, width, stride_h, stride_w = struct.unpack_from("<4i", view, kernel_at)
    if groups < 1 or min(channels, height, width, *shape) < 0:
        raise fail(4, f"{what} has impossible sizes")
    details |= {"kernel": (height, width), "stride": (stride_h, stride_w), "groups": groups, "out_channels": channels}
    weights: int = channels * (shape[1] // groups) * height * width * (1 if opcode == 0x0F else 4)
    biases: int = 4 * channels
    return weights + biases


def _kpu_tables(view: memoryview, registers: int, convolution: kpu.Convolution) -> int:
    """Bytes behind the registers: three tables, each behind as many padding bytes as its register says."""
    r: tuple[int, ...] = struct.unpack_from("<12Q", view, registers)
    channels, taps = convolution.output[0], convolution.kernel * convolution.kernel
    weights = taps * channels * (1 if convolution.depthwise else convolution.input[0])
    padding: int = sum(r[i] >> 32 for i in (4, 7, 5))
    return padding + 8 * channels + 144 + weights
