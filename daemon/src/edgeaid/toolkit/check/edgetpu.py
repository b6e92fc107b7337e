"""Rules ETP: will the Edge TPU compiler map this file, and does the runtime accept a compiled one?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from ...formats.edgetpu import reader as edgetpu
from ...formats.edgetpu import rules as edgetpu_rules
from ...formats.finding import REFUSED, WARNING
from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Operator, Subgraph, Tensor, TfliteModel
from .. import compiler_logs as compile_logs
from ..files import WEIGHTED, edgetpu_parameters
from . import edgetpu_partition
from .rules import PROFILES, Findings
from .tflite import layer_name

#: Supported operators (coral.ai/docs/edgetpu/models-intro, a copy of 2019 and Axis' page for the same chip; TILE: a
#: DeepLab that Google published compiled).
SUPPORTED: Final = frozenset(
    {
        "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED",
        "L2_NORMALIZATION", "LOGISTIC", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "MAXIMUM", "MAX_POOL_2D", "MEAN",
        "MINIMUM", "MUL", "PACK", "PAD", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6",
        "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH",
        "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TILE", "TRANSPOSE_CONV",
    }
)  # fmt: skip
_POOLS: Final = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
_RESIZES: Final = frozenset({"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"})
_INT8: Final = frozenset({"INT8", "UINT8"})
_FLOAT: Final = frozenset({"FP32", "FP16", "BF16"})
#: Operators whose further inputs say how to work, not what to work on: axes, paddings, sizes.
_CONTROL: Final = frozenset({
    "RESHAPE", "MEAN", "PAD", "REDUCE_MAX", "REDUCE_MIN", "STRIDED_SLICE", "SLICE", "EXPAND_DIMS", "TRANSPOSE", "TILE",
    *_RESIZES,
})  # fmt: skip
#: Documented are 16,000; public compiled files have softmaxes of 16,384 on the Edge TPU.
_MAX_SOFTMAX: Final = 16_384
#: A resize to more elements than this was seen to stay on the CPU (5.5 million did, 0.5 million did not).
_LARGE_RESIZE: Final = 1 << 20
#: Nor is one mapped that makes a side more than this many times longer (33 times did not, twice did).
_MAX_ENLARGEMENT: Final = 16


def check(data: bytes, model: TfliteModel, findings: Findings) -> None:
    """A plain file is compared with what the compiler maps; a compiled one with what the runtime accepts."""
    if model.edgetpu:
        _compiled(data, model, findings)
    else:
        _plain(data, model, findings)


def _compiled(data: bytes, model: TfliteModel, findings: Findings) -> None:
    compiled = edgetpu.read(data, model)
    for finding in edgetpu_rules.check(compiled, findings.profile.edgetpu_runtime):
        if finding.rule == "min-runtime" and finding.severity == REFUSED:
            findings.add("ETP041", "", finding.text)
        elif finding.severity == REFUSED:
            findings.add("ETP040", finding.rule, finding.text)
        elif finding.severity == WARNING:
            findings.add("ETP042", finding.rule, finding.text)
    if compiled.streamed_bytes:
        findings.add(
            "ETP043", "", f"{compiled.streamed_bytes} of {compiled.streamed_bytes + compiled.cached_bytes} bytes"
        )
    if cpu := compiled.cpu_operators:
        findings.add("ETP044", layer_name(model.subgraphs[0], cpu[0]), f"{len(cpu)} operators")
    findings.facts |= {
        "token": f"{compiled.token:016x}", "cached_bytes": compiled.cached_bytes,
        "streamed_bytes": compiled.streamed_bytes, "min_runtime": compiled.min_runtime,
    }  # fmt: skip


def mapped(data: bytes, model: TfliteModel, findings: Findings) -> frozenset[int]:
    """Indices of the first subgraph's operators that the compiler would map to the Edge TPU."""
    _plain(data, model, findings)
    return findings.mapped


def check_log(data: bytes, findings: Findings) -> None:
    """What edgetpu_compiler printed, on the screen or into a .log file: its verdict on each operator by rule."""
    log = compile_logs.edgetpu(data)
    if not log.models and not log.errors:
        findings.add("TFL009", "", "this log names no model; is it one of edgetpu_compiler?")
    for error in log.errors:
        if error == "Model not quantized":
            findings.add("ETP001", "", error)
        elif not error.startswith(("Invalid model:", "Compilation failed!")) or len(log.errors) == 1:
            findings.add("ETP015", "", error)
    for model in log.models:
        name = model.input.replace("\\", "/").rsplit("/", 1)[-1]
        for row in model.operators:
            if row.rule:
                findings.add(row.rule, f"{name}: {row.name}", f"{row.count} operators: {row.status}")
        if model.streamed:
            findings.add("ETP043", name, f"{model.streamed} of {model.streamed + (model.cached or 0)} bytes")
        if model.on_cpu:
            findings.add("ETP044", name, f"{model.on_cpu} operators")
    findings.facts |= {"compiler": log.version, "models": len(log.models)}


def mapped_operators(data: bytes, model: TfliteModel) -> frozenset[int]:
    """Numbers of the operators of the first subgraph that the compiler takes; none of a model that it refuses."""
    return mapped(data, model, Findings(PROFILES["default"]))


def _plain(data: bytes, model: TfliteModel, findings: Findings) -> None:
    graph = model.subgraphs[0]
    floats = [o for o in graph.operators if _is_float(graph, o)]
    # The compiler refuses models whose weights are float; single float operators just stay on the CPU.
    unquantised = [o for o in floats if o.name in WEIGHTED] or (
        floats if len(floats) * 2 > len(graph.operators) else []
    )
    for operator in unquantised:
        findings.add("ETP001", layer_name(graph, operator), "float32")
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        if tensor.datatype == "FP32" and not unquantised:
            findings.add("ETP007", tensor.name, tensor.datatype)
    _sizes(graph, findings)
    if len(model.subgraphs) > 1:
        findings.add("ETP010", model.subgraphs[1].name, f"{len(model.subgraphs)} subgraphs (branches or loops)")
    able = [_operator(data, model, graph, operator, findings) for operator in graph.operators]
    mapped = frozenset() if unquantised else edgetpu_partition.first_part(graph, able)
    _cut(graph, able, mapped, findings, unquantised=bool(unquantised))
    findings.mapped = mapped
    findings.facts["edgetpu_operators"] = len(mapped)
    findings.facts["cpu_operators"] = sum(len(g.operators) for g in model.subgraphs) - len(mapped)
    if not unquantised:
        findings.facts["edgetpu_operators_measured"] = edgetpu_partition.MEASURED
    if mapped and sum(able) > len(mapped):
        # Compiled with -a every part counts, at the price of a transfer between each two.
        findings.facts["cpu_operators_with_a"] = findings.facts["cpu_operators"] + len(mapped) - sum(able)
    parameters = edgetpu_parameters(model)
    findings.facts["parameter_bytes"] = parameters
    if parameters > findings.profile.edgetpu_memory:
        findings.add("ETP006", "", f"about {parameters} bytes")


#: Inputs that decide an output's size. Where one is computed, the size is known only while the model runs.
_SIZES: Final[dict[str, tuple[int, ...]]] = {
    "BATCH_TO_SPACE_ND": (1, 2), "BROADCAST_TO": (1,), "EXPAND_DIMS": (1,), "FILL": (0,), "PAD": (1,), "PADV2": (1,),
    "RANGE": (0, 1, 2), "RESHAPE": (1,), "RESIZE_BILINEAR": (1,), "RESIZE_NEAREST_NEIGHBOR": (1,), "SLICE": (1, 2),
    "SPACE_TO_BATCH_ND": (1, 2), "STRIDED_SLICE": (1, 2, 3), "TILE": (1,), "TRANSPOSE": (1,), "TRANSPOSE_CONV": (0,),
}  # fmt: skip


def _sizes(graph: Subgraph, findings: Findings) -> None:
    """Find sizes that the compiler does not know. It sets an open batch to 1: public files with one are compiled."""
    for index in graph.inputs:
        shape = graph.tensors[index].shape_signature or graph.tensors[index].shape
        if -1 in shape[1:] or -1 in graph.tensors[index].shape:
            findings.add("ETP003", graph.tensors[index].name, list(shape))
    for operator in graph.operators:
        for number in _SIZES.get(operator.name, ()):
            index = operator.inputs[number] if number < len(operator.inputs) else -1
            if index >= 0 and not graph.tensors[index].constant:
                findings.add("ETP003", layer_name(graph, operator), f"size computed: {graph.tensors[index].name}")
                break


def _cut(
    graph: Subgraph, able: Sequence[bool], mapped: frozenset[int], findings: Findings, *, unquantised: bool
) -> None:
    """Say where the graph is cut, operator by operator: what could be mapped and is not."""
    if unquantised:
        return
    if not mapped:
        findings.add("ETP015", layer_name(graph, graph.operators[0]), f"0 of {len(graph.operators)} operators mapped")
        return
    producers = {index: o for o in graph.operators for index in o.outputs}
    for number, operator in enumerate(graph.operators):
        if able[number] and number not in mapped:
            read = (producers[i] for i in operator.inputs if i in producers)
            source = next((o for o in read if o.index not in mapped), operator)
            findings.add("ETP014", layer_name(graph, operator), f"{operator.name} reads from {source.name}")


def _is_float(graph: Subgraph, operator: Operator) -> bool:
    """Whether an operator computes in floating point; conversions do not count."""
    if operator.name in ("QUANTIZE", "DEQUANTIZE", "CAST", "CUSTOM"):
        return False
    return any(graph.tensors[i].datatype in _FLOAT for i in operator.outputs if i >= 0)


def _operator(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator, findings: Findings) -> bool:
    """Check one operator; False if it stays on the CPU."""
    layer = layer_name(graph, operator)
    if operator.name not in SUPPORTED:
        if operator.name != "DEQUANTIZE" or operator.outputs[0] not in graph.outputs:
            findings.add("ETP010", layer, operator.label)
        return False
    good = True
    for index in _data_inputs(operator) + operator.outputs:
        tensor = graph.tensors[index]
        if tensor.datatype not in _INT8:
            # Floats at the borders are the author's choice (ETP007), floats inside are ETP001 where they matter.
            if tensor.datatype not in _FLOAT:
                findings.add("ETP002", layer, f"{tensor.name} is {tensor.datatype}")
            good = False
    good &= _dimensions(graph, operator, layer, findings)
    if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        for index in operator.inputs[1:2]:
            if index >= 0 and not graph.tensors[index].constant:
                findings.add("ETP004", layer, graph.tensors[index].name)
                good = False
    form = _FORMS.get(operator.name)
    for number, value in form(data, model, graph, operator) if form else ():
        findings.add(number, layer, value)
        good = False
    if operator.name == "RESHAPE" and _size(_input(graph, operator)) > findings.profile.edgetpu_reshape:
        findings.add("ETP028", layer, f"{_size(_input(graph, operator))} elements")
    return good


def _data_inputs(operator: Operator) -> tuple[int, ...]:
    """Inputs that carry data: no axes, no biases, no left-out ones."""
    keep = operator.inputs[:1] if operator.name in _CONTROL else operator.inputs
    if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        keep = operator.inputs[:2]
    elif operator.name == "TRANSPOSE_CONV":
        keep = operator.inputs[1:3]
    elif operator.name == "SPLIT":
        keep = operator.inputs[1:2]
    elif "LSTM" in operator.name:
        keep = operator.inputs[:1]
    return tuple(i for i in keep if i >= 0)


def _dimensions(graph: Subgraph, operator: Operator, layer: str, findings: Findings) -> bool:
    # A reshape stays on the CPU on both ways: into five dimensions and back.
    for index in (*operator.outputs, *(operator.inputs[:1] if operator.name == "RESHAPE" else ())):
        shape = graph.tensors[index].shape
        if any(d > 1 for d in shape[:-3]):
            findings.add("ETP005", layer, list(shape))
            return False
    return True


Problems = list[tuple[str, str]]


def _pool(_data: bytes, _model: TfliteModel, _graph: Subgraph, operator: Operator) -> Problems:
    activation = operator.options.get("activation", "NONE")
    return [("ETP020", str(activation))] if activation != "NONE" else []


def _concatenation(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    problems: Problems = []
    if operator.options.get("activation", "NONE") != "NONE":
        problems.append(("ETP021", f"fused {operator.options['activation']}"))
    constants = [graph.tensors[i] for i in operator.inputs if i >= 0 and graph.tensors[i].constant]
    if constants and len(operator.inputs) != 2:
        problems.append(("ETP021", f"{len(operator.inputs)} inputs, one of them constant"))
    elif any(not _all_zero(data, model, t) for t in constants):
        problems.append(("ETP021", "a constant input that is not all zeros"))
    return problems


def _all_zero(data: bytes, model: TfliteModel, tensor: Tensor) -> bool:
    zero = tensor.quantization.zero_point[0] if tensor.quantization else 0
    return set(bytes(tflite.constant(data, model, tensor))) <= {zero & 0xFF}


def _dilation(_data: bytes, _model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    w, h = operator.options.get("dilation_w", 1), operator.options.get("dilation_h", 1)
    # Where the kernel is one point wide its dilation says nothing (3x1 kernels of temporal networks are mapped).
    high, wide = graph.tensors[operator.inputs[1]].shape[1:3]
    return [("ETP022", f"{w}x{h}")] if w != h and high > 1 and wide > 1 else []


def _fully_connected(_data: bytes, _model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    problems: Problems = []
    if operator.options.get("weights_format", 0):
        problems.append(("ETP023", "shuffled weights"))
    shape = graph.tensors[operator.outputs[0]].shape
    if sum(d > 1 for d in shape) > 1:
        problems.append(("ETP023", f"output {list(shape)}"))
    return problems


def _lstm(_data: bytes, _model: TfliteModel, _graph: Subgraph, operator: Operator) -> Problems:
    return [("ETP024", "basic LSTM kernel")] if operator.options.get("kernel_type", 0) else []


def _axes(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> set[int]:
    """Axes that a reduction works on, none below 0."""
    if len(operator.inputs) < 2 or operator.inputs[1] < 0:
        return set()
    tensor = graph.tensors[operator.inputs[1]]
    raw = bytes(tflite.constant(data, model, tensor))
    rank = len(_input(graph, operator).shape)
    width = 8 if tensor.datatype == "INT64" else 4
    values = (int.from_bytes(raw[i : i + width], "little", signed=True) for i in range(0, len(raw) - width + 1, width))
    return {v + rank if v < 0 else v for v in values}


def _mean(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    shape = _input(graph, operator).shape
    axes = _axes(data, model, graph, operator)
    if 0 in axes and shape and shape[0] > 1:
        return [("ETP025", "over the batch")]
    if len(shape) - 1 in axes and len(shape) == 4 and shape[-1] % 4:
        return [("ETP025", f"over a depth of {shape[-1]}")]
    return []


def _reduce(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    return [("ETP026", "over the batch")] if 0 in _axes(data, model, graph, operator) else []


def _pad(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    if len(operator.inputs) < 2:
        return []
    raw = bytes(tflite.constant(data, model, graph.tensors[operator.inputs[1]]))
    width = 8 if graph.tensors[operator.inputs[1]].datatype == "INT64" else 4
    batch = len(_input(graph, operator).shape) == 4 and any(raw[: 2 * width])
    return [("ETP026", "pads the batch")] if batch else []


def _pack(_data: bytes, _model: TfliteModel, _graph: Subgraph, operator: Operator) -> Problems:
    return [("ETP026", "packs along the batch")] if operator.options.get("axis", 0) == 0 else []


def _prelu(_data: bytes, _model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    alpha = graph.tensors[operator.inputs[1]].shape if len(operator.inputs) > 1 else ()
    return [("ETP027", f"alpha {list(alpha)}")] if sum(d > 1 for d in alpha) > 1 else []


def _resize(_data: bytes, _model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    before, after = _input(graph, operator).shape, graph.tensors[operator.outputs[0]].shape
    if math.prod(after) > _LARGE_RESIZE:
        return [("ETP029", f"output {list(after)}")]
    if any(b > a * _MAX_ENLARGEMENT for a, b in zip(before[1:3], after[1:3], strict=False)):
        return [("ETP029", f"{list(before)} to {list(after)}")]
    return []


def _softmax(_data: bytes, _model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    shape = _input(graph, operator).shape
    if sum(d > 1 for d in shape) > 1 or math.prod(shape) > _MAX_SOFTMAX:
        return [("ETP030", f"input {list(shape)}")]
    return []


def _squeeze(_data: bytes, _model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    dims = operator.options.get("squeeze_dims", ())
    rank = len(_input(graph, operator).shape)
    axes = sorted(d + rank if d < 0 else d for d in dims if isinstance(d, int)) if isinstance(dims, tuple) else []
    return [("ETP031", f"dimensions {axes}")] if axes != list(range(len(axes))) else []


def _strided_slice(data: bytes, model: TfliteModel, graph: Subgraph, operator: Operator) -> Problems:
    problems: Problems = []
    if len(operator.inputs) > 3:
        raw = bytes(tflite.constant(data, model, graph.tensors[operator.inputs[3]]))
        strides = [int.from_bytes(raw[i : i + 4], "little", signed=True) for i in range(0, len(raw), 4)]
        if any(s != 1 for s in strides):
            problems.append(("ETP032", f"strides {strides}"))
    for mask in ("ellipsis_mask", "new_axis_mask"):
        if operator.options.get(mask, 0):
            problems.append(("ETP032", f"{mask} {operator.options[mask]}"))
    return problems


_FORMS: Final[dict[str, Callable[[bytes, TfliteModel, Subgraph, Operator], Problems]]] = {
    **dict.fromkeys(_POOLS, _pool), **dict.fromkeys(_RESIZES, _resize),
    "CONCATENATION": _concatenation, "CONV_2D": _dilation, "DEPTHWISE_CONV_2D": _dilation,
    "FULLY_CONNECTED": _fully_connected, "LSTM": _lstm, "MEAN": _mean, "REDUCE_MAX": _reduce, "REDUCE_MIN": _reduce,
    "PAD": _pad, "PACK": _pack, "PRELU": _prelu, "SOFTMAX": _softmax, "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
}  # fmt: skip


def _input(graph: Subgraph, operator: Operator) -> Tensor:
    index = operator.inputs[0] if operator.inputs and operator.inputs[0] >= 0 else operator.outputs[0]
    return graph.tensors[index]


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape)
