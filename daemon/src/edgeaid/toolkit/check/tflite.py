"""Rules TFL and SAN that need no run: what any TFLite file must keep to."""

from __future__ import annotations

import math
import re

from ...errors import InvalidModel
from ...formats.tflite import metadata as tflite_metadata
from ...formats.tflite import reader as tflite
from ...formats.tflite.entry import state_of
from ...formats.tflite.reader import Subgraph, Tensor, TfliteModel
from ...models import pictures
from .rules import Findings, op_versions

#: Custom operators that runtimes register by themselves.
KNOWN_CUSTOM = frozenset({"TFLite_Detection_PostProcess"})
_MIN_SCALE, _MAX_SCALE = 1e-12, 1e6
_COUNTS_AS_CONV = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})


def check(model: TfliteModel, findings: Findings) -> None:
    """Structure, operators and versions against the CPU runtime."""
    graph = model.subgraphs[0]
    versions = op_versions(findings.profile.runtime)
    if len(model.subgraphs) > 1:
        findings.add("TFL007", graph.name, f"{len(model.subgraphs)} subgraphs")
    wanted = version_tuple(model.min_runtime_version)
    if wanted and wanted > version_tuple(findings.profile.runtime_version):
        findings.add("TFL004", "", f"needs {model.min_runtime_version}")
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            layer = layer_name(subgraph, operator)
            if operator.name == "CUSTOM":
                if operator.custom_code == tflite.EDGETPU_OP:
                    findings.add("TFL008", layer, operator.custom_code)
                elif operator.custom_code.startswith("Flex"):
                    findings.add("TFL002", layer, operator.custom_code)
                elif operator.custom_code not in KNOWN_CUSTOM:
                    findings.add("TFL003", layer, operator.custom_code)
            elif versions and operator.version > versions.get(operator.name, 0):
                has = versions.get(operator.name, 0)
                limit = (
                    f"version {has} in {findings.profile.runtime}" if has else f"unknown to {findings.profile.runtime}"
                )
                findings.add("TFL005", layer, f"{operator.name} version {operator.version}", limit)
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if -1 in (tensor.shape_signature or tensor.shape):
            findings.add("TFL006", tensor.name, list(tensor.shape_signature or tensor.shape))
    if state := state_of(model):
        findings.facts["state"] = str(state)
    findings.facts["operators"] = len(graph.operators)
    findings.facts["inputs"] = [f"{i.name} {i.datatype} {list(i.shape)}" for i in model.inputs]
    findings.facts["outputs"] = [f"{o.name} {o.datatype} {list(o.shape)}" for o in model.outputs]


def sanity(
    data: bytes, model: TfliteModel, findings: Findings, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Values and layout. `mean` and `std` are the manifest's, () = not given: what a push would assume."""
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        _weights(data, model, tensor, findings)
        for scale in tensor.quantization.scale if tensor.quantization else ():
            if not 0 < scale < math.inf:  # NaN fails every comparison
                findings.add("SAN003", tensor.name, f"scale {scale!r}")
            # A channel of weights that are all zero gets the smallest scale there is; that harms nothing.
            elif scale >= _MAX_SCALE or (scale <= _MIN_SCALE and not tensor.constant):
                findings.add("SAN010", tensor.name, f"scale {scale!r}")
                break
    _layout(graph, findings)
    _normalisation(data, model, findings, mean, std)


def _weights(data: bytes, model: TfliteModel, tensor: Tensor, findings: Findings) -> None:
    if tensor.datatype not in ("FP32", "FP16", "FP64") or not tensor.constant or tensor.sparse:
        return
    import numpy as np

    kind = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8"}[tensor.datatype]
    values = np.frombuffer(tflite.constant(data, model, tensor), kind)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        findings.add("SAN002", tensor.name, f"{bad} of {values.size} values are NaN or infinite")


def _layout(graph: Subgraph, findings: Findings) -> None:
    for index in graph.inputs:
        shape = graph.tensors[index].shape
        if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] not in (1, 3, 4) and shape[2] > 4:
            findings.add("SAN005", graph.tensors[index].name, list(shape))
    producer = {i: o for o in graph.operators for i in o.outputs}
    transposes = [o for o in graph.operators if o.name == "TRANSPOSE"]
    chains = [
        o
        for o in transposes
        if o.inputs and (p := producer.get(o.inputs[0])) is not None and p.name in ("TRANSPOSE", "RESHAPE")
        and (p.name == "TRANSPOSE" or any(producer.get(i, o).name == "TRANSPOSE" for i in p.inputs[:1]))
    ]  # fmt: skip
    convolutions = sum(o.name in _COUNTS_AS_CONV for o in graph.operators)
    for operator in chains:
        findings.add("SAN006", layer_name(graph, operator), "TRANSPOSE behind TRANSPOSE")
    if not chains and len(transposes) > 1 and convolutions:
        findings.add(
            "SAN006", layer_name(graph, transposes[0]), f"{len(transposes)} TRANSPOSE, {convolutions} convolutions"
        )
    findings.facts["transposes"] = len(transposes)


def _normalisation(
    data: bytes, model: TfliteModel, findings: Findings, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    if not model.inputs:
        return
    origin = "the manifest"
    if not mean or not std:
        try:
            rule = pictures.normalisation(data, model, tflite_metadata.metadata(data, model))
        except InvalidModel:  # nothing that a runtime follows
            return
        if not rule.known or not rule.mean or not rule.std:
            return
        mean, std, origin = rule.mean, rule.std, rule.why
    tensor = model.inputs[0]
    low, high = min((0 - m) / s for m, s in pairs(mean, std)), max((255 - m) / s for m, s in pairs(mean, std))
    given = f"mean {list(mean)} std {list(std)} in {origin} give {low:.3g} .. {high:.3g}"
    if tensor.quantization is None or tensor.datatype not in ("UINT8", "INT8"):
        if tensor.datatype == "FP32" and high - low < 1e-6:
            findings.add("SAN004", tensor.name, given)
        return
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zero_point[0]
    first = 0 if tensor.datatype == "UINT8" else -128
    covered = (scale * (first - zero), scale * (first + 255 - zero))
    width = high - low
    # A quantised range may be a little off (calibration); a tenth of it means another convention.
    if not math.isfinite(width) or abs(covered[0] - low) > 0.1 * width or abs(covered[1] - high) > 0.1 * width:
        findings.add("SAN004", tensor.name, f"{given}; the input holds {covered[0]:.3g} .. {covered[1]:.3g}")


def pairs(mean: tuple[float, ...], std: tuple[float, ...]) -> list[tuple[float, float]]:
    """(mean, std) per channel, where one of the two may be given once for all; std 0 counts as the smallest number."""
    count = max(len(mean), len(std))
    wide = [(values * count)[:count] for values in (mean, std)]
    return [(m, s or 5e-324) for m, s in zip(*wide, strict=True)]


def layer_name(graph: Subgraph, operator: tflite.Operator) -> str:
    """How people name an operator: its number and kind, and the tensor it makes."""
    made = graph.tensors[operator.outputs[0]].name if operator.outputs and operator.outputs[0] >= 0 else ""
    # Fused operators carry the names of all their parts; the first one is enough to find the layer.
    made = made.split(";", 1)[0][:80]
    return f"#{operator.index} {operator.label}" + (f" ({made})" if made else "")


def version_tuple(text: str) -> tuple[int, ...]:
    """(2, 14, 0) of "2.14.0"; () for text that is not a version."""
    match = re.match(r"(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", text)
    return tuple(int(g or 0) for g in match.groups()) if match else ()
