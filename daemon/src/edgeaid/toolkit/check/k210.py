"""Rules KPU: what the K210's neural processor takes, for float TFLite and ONNX files to compile and for kmodels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ...formats.exchange import onnx
from ...formats.k210 import kmodel
from ...formats.k210.base import Kmodel
from ...formats.tflite.reader import Tensor, TfliteModel
from . import k210_layout, k210_memory, k210_onnx, k210_tflite
from .k210_layout import Layout
from .k210_network import MAX_CHANNELS, MAX_HEIGHT, MAX_WIDTH, MIN_SIDE, POOLS, Layer, Network
from .k210_operators import ONNX_19, READS_OPTIONS, TFLITE_19, UNSUPPORTED
from .rules import Findings
from .tflite import layer_name

_MAX_W, _MAX_H = 320, 240


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
            _input_size(tensor.name, height, width, findings)
    newer = findings.profile.nncase.startswith("1.")
    operators = TFLITE_19 if newer else TFLITE_19 - UNSUPPORTED
    for operator in graph.operators if newer else ():
        if operator.name in READS_OPTIONS and (
            not operator.options or (operator.name == "SQUEEZE" and not operator.options["squeeze_dims"])
        ):
            findings.add("KPU027", layer_name(graph, operator), operator.name)
    check_network(k210_tflite.network(data, model), operators, findings, memory=not quantised)


def check_onnx(data: bytes, findings: Findings) -> None:
    """An ONNX file: as nncase 1.x takes it."""
    model = onnx.read(data)
    made = k210_onnx.network(model)
    for spec in model.inputs:
        shape = made.fixed.get(spec.name, spec.shape)
        if any(d < 1 for d in shape) or (len(shape) == 4 and shape[0] != 1):
            findings.add("KPU020", spec.name, f"shape {list(shape)}")
        elif len(shape) == 4:
            _input_size(spec.name, shape[2], shape[3], findings)
    if not findings.profile.nncase.startswith("1."):
        findings.add("KPU025", "", f"nncase {findings.profile.nncase}")
    check_network(made.network, ONNX_19, findings, memory=made.complete)
    if not made.complete and not findings.has("KPU020"):
        findings.facts["shapes"] = (
            f"not known behind {made.unknown}: layers there are not checked, memory is not foreseen"
        )


def _input_size(name: str, height: int, width: int, findings: Findings) -> None:
    if width > _MAX_W or height > _MAX_H:
        findings.add("KPU003", name, f"{width}x{height}")


def check_network(network: Network, operators: frozenset[str], findings: Findings, *, memory: bool) -> None:
    """The layers of a float network, whatever file it comes from; `operators` = those that the compiler takes."""
    live = network.live()
    layout = k210_layout.layout(live)
    before = len(findings.violations)
    slow = 0
    for layer in network.layers:
        seen = len(findings.violations)
        if layer.kind == "prelu":
            findings.add("KPU011", layer.name, "PReLU")
        elif layer.kind == "norm":
            findings.add("KPU026", layer.name, layer.operator)
        elif layer.operator not in operators:
            findings.add("KPU012", layer.name, layer.operator)
        elif layer.kind in _RULES and layer.inputs and layer.outputs:
            _RULES[layer.kind](network, layer, findings)
        if layer.spread > findings.profile.weights_range:
            findings.add("KPU016", layer.name, f"{layer.spread:.3g}")
        slow += any(v.rule.severity == "warning" for v in findings.violations[seen:])
    if slow:
        findings.add("KPU021", findings.violations[before].layer, f"{slow} of {len(network.layers)} operators")
    for name, why in layout.adjusted:
        findings.add("KPU009", name, why)
    findings.facts["cpu_operators"] = slow
    findings.facts["kpu_peak_bytes"] = layout.kpu_peak
    if layout.kpu_peak > findings.profile.kpu_ram:
        findings.add("KPU013", layout.peak_layer, f"{layout.kpu_peak} bytes")
    if memory:
        _general_memory(live, layout, findings)


def _general_memory(network: Network, layout: Layout, findings: Findings) -> None:
    need, free = k210_memory.memory(network, layout), findings.profile.k210_free
    findings.facts["ram_bytes_about"] = need.total
    findings.facts["ram_measured"] = k210_memory.MEASURED
    parts = f"about {need.total} bytes: kmodel {need.kmodel}, buffers {need.buffers}, input and output {need.ends}"
    if need.total * k210_memory.ABOVE > free and need.least > free:
        findings.add("KPU014", "", parts)
    elif need.total * k210_memory.BELOW > free:
        findings.add("KPU024", "", parts)


def _quantised(tensor: Tensor) -> bool:
    return tensor.datatype in ("INT8", "UINT8") and tensor.quantization is not None


def _pool(network: Network, layer: Layer, findings: Findings) -> None:
    window, source = layer.window, network.map(layer.inputs[0])
    # Pooling over the whole map is a reduction, which nncase does as such.
    if window is None or source is None or window.kernel == source[1:]:
        return
    size = (window.kernel[1], window.kernel[0], window.stride[1], window.stride[0])
    if size not in POOLS:
        findings.add("KPU010", layer.name, f"{size[0]}x{size[1]} stride {size[2]}x{size[3]}")


def _matrix(_: Network, layer: Layer, findings: Findings) -> None:
    shape = layer.matrix or (0, 0)
    small = math.prod(shape) < 1024 and not findings.profile.nncase.startswith("1.")
    if not layer.matrix or small or max(shape) > MAX_CHANNELS:
        findings.add("KPU017", layer.name, f"{shape[0]} x {shape[1]}")


def _transposed(_: Network, layer: Layer, findings: Findings) -> None:
    """The compilers lay out transposed convolutions of one form only: of twelve forms tried, this one compiles."""
    window = layer.window
    # ((1, 1), (1, 1)) are the pixels that SAME adds around a 3x3 kernel.
    if window is None or (window.kernel, window.stride, window.pads) != ((3, 3), (1, 1), ((1, 1), (1, 1))):
        size = (
            f"{window.kernel[1]}x{window.kernel[0]} stride {window.stride[1]}x{window.stride[0]}" if window else "open"
        )
        findings.add("KPU022", layer.name, size)


def _convolution(network: Network, layer: Layer, findings: Findings) -> None:
    window, source, result = layer.window, network.map(layer.inputs[0]), network.map(layer.outputs[0])
    if window is None or source is None or result is None:
        return
    if max(source[0], result[0]) > MAX_CHANNELS:
        findings.add("KPU004", layer.name, f"{source[0]} in, {result[0]} out")
    small = window.kernel in ((1, 1), (3, 3))
    if not small:
        findings.add("KPU006", layer.name, f"{window.kernel[1]}x{window.kernel[0]}")
    if window.dilation != (1, 1) or (window.groups > 1 and not window.depthwise) or window.multiplied:
        groups = 1 if window.depthwise else window.groups
        findings.add("KPU008", layer.name, f"{groups} groups, dilation {window.dilation[1]}x{window.dilation[0]}")
    for shape in (source, result):
        _, height, width = shape
        if small and (height > MAX_HEIGHT or width > MAX_WIDTH):
            findings.add("KPU005", layer.name, f"{width}x{height}")
            break
        if small and min(height, width) < MIN_SIDE:
            padded = findings.profile.nncase.startswith("1.") or shape is result
            findings.add("KPU015" if padded else "KPU005", layer.name, f"{width}x{height}")
            break
    if window.stride not in ((1, 1), (2, 2)):
        findings.add("KPU007", layer.name, f"{window.stride[1]}x{window.stride[0]}")


_RULES: Final[dict[str, Callable[[Network, Layer, Findings], None]]] = {
    "conv": _convolution, "deconv": _transposed, "dense": _matrix, "pool": _pool,
}  # fmt: skip
