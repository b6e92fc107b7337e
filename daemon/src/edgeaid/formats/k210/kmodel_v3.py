"""kmodel version 3, written by nncase 0.1 (kendryte/nncase tag v0.1.0-rc5). Word lists: docs/formats.md."""

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

_ACTIVATIONS: Final = ("linear", "relu", "relu6")
_POOLING: Final = (
    "in", "out", "in_w", "in_h", "channels", "out_w", "out_h", "out_channels", "kernel_w", "kernel_h", "stride_w",
    "stride_h", "pad_w", "pad_h",
)  # fmt: skip
_COUNTED: Final = ("in", "out", "count")
_CHANNELS: Final = ("in", "out", "channels")

#: Type -> name, words after the flags. Words called in/out/addr_* are main-memory addresses.
LAYERS: Final[dict[int, tuple[str, tuple[str, ...]]]] = {
    1: ("add", ("addr_a", "addr_b", "addr_out", "count")),
    2: ("quantized_add", ("addr_a", "addr_b", "addr_out", "count")),
    3: ("global_max_pool", ()),
    4: ("quantized_global_max_pool", ()),
    5: ("global_average_pool", ("in", "out", "kernel_size", "channels")),
    6: ("quantized_global_average_pool", ()),
    7: ("max_pool", (*_POOLING, "activation")),
    8: ("quantized_max_pool", _POOLING),
    9: ("average_pool", (*_POOLING, "activation")),
    10: ("quantized_average_pool", ()),
    11: ("quantize", _COUNTED),
    12: ("dequantize", _COUNTED),
    13: ("requantize", _COUNTED),
    14: ("l2_normalization", _CHANNELS),
    15: ("softmax", _CHANNELS),
    16: ("concat", ("out", "input_count")),
    17: ("quantized_concat", ("out", "input_count")),
    18: ("fully_connected", ("in", "out", "in_channels", "out_channels", "activation")),
    19: ("quantized_fully_connected", ()),
    20: ("tf_flatten", ("in", "out", "width", "height", "channels")),
    21: ("quantized_tf_flatten", ()),
    22: ("resize_nearest", ("in", "out", "in_w", "in_h", "channels", "out_w", "out_h", "align_corners")),
    23: ("quantized_resize_nearest", ("in", "out", "in_w", "in_h", "channels", "out_w", "out_h", "align_corners")),
    24: ("channelwise_dequantize", ("in", "out", "channels", "channel_size")),
    25: ("logistic", _CHANNELS),
    10240: ("kpu_conv2d", ("main_out", "layer_offset", "weights_offset", "batch_norm_offset", "activation_offset")),
    10241: ("kpu_add_padding", ("main_in", "kpu_out", "channels")),
    10242: ("kpu_remove_padding", ("main_in", "main_out", "channels")),
    10243: ("kpu_upload", ("main_in", "kpu_out", "width", "height", "channels")),
}

_CONV: Final = 10240
_FULLY_CONNECTED: Final = 18


def read(view: memoryview) -> Kmodel:
    """Read a v3 file; raises InvalidModel for damage."""
    need(view, 0, 28, "kmodel v3 header")
    _, flags, arch, layers, kpu_bytes, main_bytes, outputs = struct.unpack_from("<7I", view)
    if not 0 < layers <= MAX_NODES or not 0 < outputs <= MAX_NODES:
        raise fail(3, f"{layers} layers and {outputs} outputs")
    if arch:
        raise fail(3, f"architecture {arch}, only 0 is known")
    need(view, 28, 8 * (outputs + layers), "kmodel v3 tables of outputs and layers")
    table = struct.unpack_from(f"<{2 * (outputs + layers)}I", view, 28)
    ranges = []
    for address, size in zip(table[: 2 * outputs : 2], table[1 : 2 * outputs : 2], strict=True):
        if address + size > main_bytes:
            raise fail(3, f"output at {address} of {size} bytes lies outside the {main_bytes} bytes of main memory")
        ranges.append(Range("main", "FP32", address, size))
    pos = 28 + 8 * (outputs + layers)
    nodes: list[Node] = []
    shortfall = 0
    for index in range(layers):
        kind, size = table[2 * (outputs + index)], table[2 * (outputs + index) + 1]
        missing = pos + size - len(view)
        if missing > (MAX_SHORTFALL if index == layers - 1 else 0):
            raise fail(3, f"layer {index} of {size} bytes at byte {pos} runs past the end")
        shortfall = max(0, missing)
        nodes.append(_layer(view, index, kind, (pos, min(size, len(view) - pos)), main_bytes))
        pos += size
    convolutions = [n.convolution for n in nodes if n.convolution]
    inputs = _inputs(nodes)
    if nodes[-1].name == "kpu_conv2d" and nodes[-1].convolution:
        ranges = [Range(r.memory, "UINT8", r.start, r.size) for r in ranges]
    return Kmodel(
        version=3,
        target="k210" if any(n.device == "kpu" for n in nodes) else "cpu",
        size=len(view),
        inputs=inputs,
        outputs=tuple(
            TensorSpec(f"output{i}", r.datatype, (r.size // (4 if r.datatype == "FP32" else 1),))
            for i, r in enumerate(ranges)
        ),
        input_ranges=nodes[0].inputs,
        output_ranges=tuple(ranges),
        nodes=tuple(nodes),
        memory={
            "file": len(view),
            "main memory": main_bytes,
            "KPU (stated)": kpu_bytes,
            "weight bits": 8 if flags & 1 else 16,
        },
        kpu_peak=max((c.peak for c in convolutions), default=0),
        ram_need=main_bytes + len(view),
        shortfall=shortfall,
    )


def _layer(view: memoryview, index: int, kind: int, where: tuple[int, int], main_bytes: int) -> Node:
    pos, size = where
    if kind not in LAYERS:
        raise fail(3, f"layer {index} has the unknown type {kind}")
    name, words = LAYERS[kind]
    if size < 4 * (1 + len(words)):
        raise fail(3, f"layer {index} ({name}) has a body of {size} bytes, too small")
    _, *values = struct.unpack_from(f"<{1 + len(words)}I", view, pos)
    details: dict[str, int | float | str | tuple[int, ...]] = dict(zip(words, values, strict=True))
    for word, value in zip(words, values, strict=True):
        if (word in ("in", "out", "main_in", "main_out") or word.startswith("addr")) and value > main_bytes:
            raise fail(3, f"layer {index} ({name}): {word} {value} lies outside the {main_bytes} bytes of main memory")
    if "activation" in details and values[words.index("activation")] < len(_ACTIVATIONS):
        details["activation"] = _ACTIVATIONS[values[words.index("activation")]]
    convolution, constants = None, 0
    if kind == _CONV:
        convolution, constants = _convolution(view, index, values[1:])
        details = {"in": convolution.input, "out": convolution.output, "kernel": convolution.kernel}
    elif kind == _FULLY_CONNECTED:
        constants = 4 * (values[2] * values[3] + values[3])
        if 24 + constants > size:
            raise fail(3, f"layer {index} ({name}) needs {24 + constants} bytes, its body has {size}")
    elif kind in (16, 17) and 12 + 8 * values[1] > size:
        raise fail(3, f"layer {index} ({name}) has {values[1]} inputs, its body {size} bytes")
    elif kind == 24 and 20 + 8 * values[2] > size:
        raise fail(3, f"layer {index} ({name}) has {values[2]} channels, its body {size} bytes")
    elif kind == 13 and size < 16 + 256:
        raise fail(3, f"layer {index} ({name}): the table of 256 values does not fit in {size} bytes")
    return Node(
        index, name, "kpu" if kind >= _CONV else "cpu", pos, size, (), (), details, convolution, constants
    )  # fmt: skip


def _convolution(view: memoryview, index: int, offsets: list[int]) -> tuple[kpu.Convolution, int]:
    """(registers decoded, bytes of weights and tables); `offsets` count from the start of the file."""
    layer, weights, batch_norm, activation = offsets
    what = f"kmodel v3 layer {index} (kpu_conv2d)"
    need(view, layer, 96, f"{what} registers")
    decoded = kpu.convolution(struct.unpack_from("<12Q", view, layer))
    channels = decoded.output[0]
    taps = decoded.kernel * decoded.kernel * channels * (1 if decoded.depthwise else decoded.input[0])
    need(view, weights, taps, f"{what} weights")
    need(view, batch_norm, 8 * channels, f"{what} batch-norm table")
    need(view, activation, 144, f"{what} activation table")
    return decoded, taps + 8 * channels + 144


def _inputs(nodes: list[Node]) -> tuple[TensorSpec, ...]:
    """The format has no input table: the first layer's input is taken."""
    first = nodes[0]
    for node in nodes:
        if node.convolution:
            return (TensorSpec("input0", "UINT8", (1, *node.convolution.input)),)
        if node.name not in ("kpu_upload", "kpu_add_padding"):
            break
    details = first.details
    if first.name == "fully_connected":
        return (TensorSpec("input0", "FP32", (1, int(str(details["in_channels"])))),)
    for key in ("count", "channels"):
        if key in details:
            return (TensorSpec("input0", "FP32", (1, int(str(details[key])))),)
    return ()
