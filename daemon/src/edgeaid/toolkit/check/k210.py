"""Rules KPU: what the K210's neural processor takes, for float TFLite files to compile and for compiled kmodels."""

from __future__ import annotations

import math
from typing import Final

from ...formats.k210 import kmodel, kpu
from ...formats.k210.base import Kmodel
from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Operator, Subgraph, Tensor, TfliteModel
from ..files import output_channels, weights
from .rules import Findings
from .tflite import layer_name

#: Operators that nncase 0.2.0-beta4 refuses (docs/tflite_ops.md of that tag).
UNSUPPORTED: Final = frozenset(
    {
        "ARG_MAX", "ARG_MIN", "BATCH_TO_SPACE_ND", "CAST", "EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL",
        "NOT_EQUAL", "EXPAND_DIMS", "GATHER", "GATHER_ND", "LOG_SOFTMAX", "PACK", "UNPACK", "POW", "SELECT",
        "SHAPE", "SPACE_TO_DEPTH", "SPACE_TO_BATCH_ND", "SPARSE_TO_DENSE", "SPLIT", "SPLIT_V", "SQUEEZE", "TILE",
        "TOPK_V2", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "ONE_HOT", "FLOOR_DIV", "FLOOR_MOD", "FILL", "RANGE",
        "MIRROR_PAD", "UNIQUE", "REVERSE_SEQUENCE", "REVERSE_V2", "ADD_N", "WHERE", "RANK", "ELU", "L2_POOL_2D",
        "REDUCE_PROD", "REDUCE_ANY", "ZEROS_LIKE", "CUSTOM", "WHILE", "IF", "CALL_ONCE",
    }
)  # fmt: skip
_MAX_CHANNELS: Final = 1024
_CONVS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
_MAX_W, _MAX_H = 320, 240
#: Width, height and strides of the poolings that the KPU does.
_POOLS: Final = ((2, 2, 2, 2), (4, 4, 4, 4))


def check_kmodel(data: bytes, findings: Findings) -> None:
    """A compiled model against memory and firmware."""
    model = kmodel.read(data)
    profile = findings.profile
    if model.version not in profile.kmodel_versions:
        findings.add("KPU018", "", f"version {model.version}")
    if model.kpu_peak > profile.kpu_ram:
        findings.add("KPU013", _peak_layer(model), f"{model.kpu_peak} bytes")
    if model.ram_need > profile.k210_free:
        findings.add("KPU014", "", f"{model.ram_need} bytes")
    if model.size > profile.k210_flash:
        findings.add("KPU019", "", f"{model.size} bytes")
    cpu = [n for n in model.nodes if n.device == "cpu"]
    if cpu:
        kinds = ", ".join(sorted({n.name for n in cpu}))
        findings.add("KPU021", f"{cpu[0].index} {cpu[0].name}", f"{len(cpu)} of {len(model.nodes)} operations: {kinds}")
    findings.facts |= {
        "version": model.version, "kpu_operations": len(model.nodes) - len(cpu), "cpu_operations": len(cpu),
        "kpu_peak_bytes": model.kpu_peak, "ram_bytes": model.ram_need,
    }  # fmt: skip


def _peak_layer(model: Kmodel) -> str:
    peak = max((n for n in model.nodes if n.convolution), key=lambda n: n.convolution.peak if n.convolution else 0,
               default=None)  # fmt: skip
    return f"{peak.index} {peak.name}" if peak else ""


def check_tflite(data: bytes, model: TfliteModel, findings: Findings) -> None:
    """A TFLite file against what the compilers accept and what the KPU computes."""
    graph = model.subgraphs[0]
    quantised = [o for o in graph.operators if any(_quantised(graph.tensors[i]) for i in o.outputs if i >= 0)]
    if quantised:
        findings.add("KPU002", layer_name(graph, quantised[0]), f"{len(quantised)} of {len(graph.operators)} operators")
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if len(tensor.shape) == 4:
            batch, height, width, _ = tensor.shape
            if batch != 1 or -1 in (tensor.shape_signature or tensor.shape):
                findings.add("KPU020", tensor.name, f"shape {list(tensor.shape_signature or tensor.shape)}")
            if width > _MAX_W or height > _MAX_H:
                findings.add("KPU003", tensor.name, f"{width}x{height}")
    before = len(findings.violations)
    slow = 0
    for operator in graph.operators:
        seen = len(findings.violations)
        _operator(data, model, graph, operator, findings)
        slow += any(v.rule.severity == "warning" for v in findings.violations[seen:])
    if slow:
        findings.add("KPU021", findings.violations[before].layer, f"{slow} of {len(graph.operators)} operators")
    findings.facts["cpu_operators"] = slow


def _quantised(tensor: Tensor) -> bool:
    return tensor.datatype in ("INT8", "UINT8") and tensor.quantization is not None


def _operator(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator, findings: Findings) -> None:
    layer = layer_name(graph, operator)
    if operator.name == "PRELU":
        findings.add("KPU011", layer, "PReLU")
    if operator.name in UNSUPPORTED:
        findings.add("KPU012", layer, operator.label)
    elif operator.name == "TRANSPOSE_CONV":
        _transposed(graph, operator, layer, findings)
    elif operator.name in _CONVS:
        _convolution(data, model, graph, operator, findings)
    elif operator.name in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        size = _window(operator)
        # Pooling over the whole map is a reduction, which nncase does as such.
        whole = size[:2] == graph.tensors[operator.inputs[0]].shape[2:0:-1]
        if size not in _POOLS and not whole:
            findings.add("KPU010", layer, f"{size[0]}x{size[1]} stride {size[2]}x{size[3]}")
    elif operator.name == "FULLY_CONNECTED":
        shape = weights(graph, operator) or (0, 0)
        constant = graph.tensors[operator.inputs[1]].constant
        if not constant or math.prod(shape) < 1024 or max(shape) > _MAX_CHANNELS:
            findings.add("KPU017", layer, f"{shape[-1]} x {shape[0]}")
        else:
            # It becomes a 1x1 convolution of maps padded to 4x4.
            _memory(findings, layer, kpu.feature_map_bytes(shape[-1], 4, 4) + kpu.feature_map_bytes(shape[0], 4, 4))
        _range(data, model, graph, operator, findings)


def _transposed(graph: Subgraph, operator: Operator, layer: str, findings: Findings) -> None:
    """The compilers lay out transposed convolutions of one form only: of twelve forms tried, this one compiles."""
    kernel = graph.tensors[operator.inputs[1]].shape[1:3]
    strides = (operator.options.get("stride_h", 1), operator.options.get("stride_w", 1))
    padding = operator.options.get("padding", "SAME")
    if (kernel, strides, padding) != ((3, 3), (1, 1), "SAME"):
        size = "x".join(map(str, kernel))
        findings.add("KPU022", layer, f"{size} stride {strides[1]}x{strides[0]} {padding}")


def _convolution(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator, findings: Findings) -> None:
    layer = layer_name(graph, operator)
    shape = weights(graph, operator)
    source, result = graph.tensors[operator.inputs[0]].shape, graph.tensors[operator.outputs[0]].shape
    if shape is None or len(shape) != 4 or len(source) != 4 or len(result) != 4:
        return
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    height, width, channels = source[1:]
    out = output_channels(operator, shape)
    before = len(findings.violations)
    if max(channels, out) > _MAX_CHANNELS:
        findings.add("KPU004", layer, f"{channels} in, {out} out")
    kernel = (shape[1], shape[2])
    if kernel not in ((1, 1), (3, 3)):
        findings.add("KPU006", layer, f"{kernel[1]}x{kernel[0]}")
    dilation = (operator.options.get("dilation_w", 1), operator.options.get("dilation_h", 1))
    groups = channels // shape[3] if not depthwise and shape[3] else 1
    if dilation != (1, 1) or groups > 1 or (depthwise and operator.options.get("depth_multiplier", 1) not in (0, 1)):
        findings.add("KPU008", layer, f"{groups} groups, dilation {dilation[0]}x{dilation[1]}")
    for h, w in ((height, width), result[1:3]):
        if not (4 <= h <= 256 and 4 <= w <= 512) and kernel in ((1, 1), (3, 3)):
            findings.add("KPU005" if min(h, w) >= 4 or (h, w) == (height, width) else "KPU015", layer, f"{w}x{h}")
            break
    on_kpu = not any(v.rule.severity != "note" for v in findings.violations[before:])
    strides = (operator.options.get("stride_w", 1), operator.options.get("stride_h", 1))
    if strides not in ((1, 1), (2, 2)):
        findings.add("KPU007", layer, f"{strides[0]}x{strides[1]}")
    if on_kpu:
        _maps(data, model, graph, operator, findings, channels, out)
    _range(data, model, graph, operator, findings)


def _maps(
    data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator, findings: Findings, channels: int, out: int
) -> None:
    """Padding and memory of a convolution that runs on the KPU.

    The KPU pads 3x3 by 1 on all sides, and takes every second pixel of even sizes at stride 2. Where a layer wants
    something else, the compiler pads the map and crops the result (sizes as nncase 1.9 makes them, measured).
    """
    layer = layer_name(graph, operator)
    kernel = 3 if graph.tensors[operator.inputs[1]].shape[1] == 3 else 1
    stride = 2 if operator.options.get("stride_h", 1) == 2 else 1  # for others it convolves at 1, see KPU007
    explicit, (height, width) = _padding(data, model, graph, operator)
    wanted = (kernel // 2, kernel // 2)
    sides = []
    for size, (first, last) in zip((height, width), explicit, strict=True):
        total = 0
        if operator.options.get("padding") == "SAME":
            padded = size + first + last
            total = max(0, (math.ceil(padded / stride) - 1) * stride + kernel - padded)
        sides.append((first + total // 2, last + total - total // 2))
    fits = all(side == wanted for side in sides) and (stride != 2 or not (height % 2 or width % 2))
    kept: tuple[int, ...] = (height, width)
    if stride == 2:
        if not fits:
            height, width = height + (1 if height % 2 else 2), width + width % 2
        kept = (height // 2, width // 2)
    if not fits:
        words = ", ".join(f"{a}+{b}" for a, b in sides)
        findings.add("KPU009", layer, f"pads {words} at stride {stride} on {width}x{height}")
    elif pooled := _pooled(graph, operator):
        # A pooling right behind is done on the way out: only what is left is stored.
        kept = pooled[1:3]
    _memory(findings, layer, kpu.feature_map_bytes(channels, height, width) + kpu.feature_map_bytes(out, *kept))


def _padding(
    data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator
) -> tuple[tuple[tuple[int, int], tuple[int, int]], tuple[int, int]]:
    """Pixels that a PAD right before an operator adds (above, below), (left, right); and height and width before it."""
    none = ((0, 0), (0, 0))
    source = operator.inputs[0]
    height, width = graph.tensors[source].shape[1:3]
    pad = next((o for o in graph.operators if o.name == "PAD" and source in o.outputs), None)
    if pad is None or len(pad.inputs) < 2 or len(graph.tensors[pad.inputs[0]].shape) != 4:
        return none, (height, width)
    tensor = graph.tensors[pad.inputs[1]]
    raw = bytes(tflite.constant(data, model, tensor))
    step = 8 if tensor.datatype == "INT64" else 4
    values = [int.from_bytes(raw[i : i + step], "little", signed=True) for i in range(0, len(raw), step)]
    if len(values) != 8 or any(values[:2]) or any(values[6:]) or min(values) < 0:
        return none, (height, width)
    height, width = graph.tensors[pad.inputs[0]].shape[1:3]
    return ((values[2], values[3]), (values[4], values[5])), (height, width)


def _memory(findings: Findings, layer: str, need: int) -> None:
    """Note what a layer's maps take together."""
    if need > findings.profile.kpu_ram:
        findings.add("KPU013", layer, f"{need} bytes")
    findings.facts["kpu_peak_bytes"] = max(need, findings.facts.get("kpu_peak_bytes", 0))


def _window(operator: Operator) -> tuple[object, ...]:
    """Width, height and strides of a pooling."""
    return tuple(operator.options.get(k, 0) for k in ("filter_w", "filter_h", "stride_w", "stride_h"))


def _pooled(graph: Subgraph, operator: Operator) -> tuple[int, ...]:
    """Shape behind a pooling that the KPU does together with this convolution, () where there is none."""
    readers = [o for o in graph.operators if operator.outputs[0] in o.inputs]
    if len(readers) == 1 and readers[0].name in ("MAX_POOL_2D", "AVERAGE_POOL_2D") and _window(readers[0]) in _POOLS:
        return graph.tensors[readers[0].outputs[0]].shape
    return ()


def _range(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator, findings: Findings) -> None:
    tensor = graph.tensors[operator.inputs[1]]
    if tensor.datatype != "FP32" or not tensor.constant or tensor.sparse:
        return
    import numpy as np

    values = np.frombuffer(tflite.constant(data, model, tensor), "<f4")
    # In double precision: float32 may overflow, and damaged weights may be anything.
    spread = float(values.max()) - float(values.min()) if values.size else 0.0
    if spread > findings.profile.weights_range:
        findings.add("KPU016", layer_name(graph, operator), f"{spread:.3g}")
