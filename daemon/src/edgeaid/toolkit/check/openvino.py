"""Rules OVN: OpenVINO IR for the Neural Compute Stick 2, without OpenVINO."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ...formats.exchange import openvino
from ...formats.ncs import reader as ncs
from .rules import Findings

#: Operators that query_network of 2021.4.2 leaves to another device (measured without a stick) and the likes of them
#: that OpenVINO's MYRIAD documentation does not list.
UNSUPPORTED: Final = frozenset(
    {
        "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "HardSigmoid", "Selu",
        "RNNSequence", "GRUSequence", "GRUCell", "RNNCell", "If", "FFT", "IDFT", "DFT", "RandomUniform", "Roll",
        "BinaryConvolution", "DeformablePSROIPooling", "ExtractImagePatches", "MulticlassNms", "MatrixNms",
    }
)  # fmt: skip
_OPSET: Final = re.compile(r"opset(\d{1,4})$")


def check(data: bytes, path: Path, findings: Findings) -> None:
    """An .xml; the .bin is looked for beside it."""
    model = openvino.read(data)
    weights = path.with_suffix(".bin")
    size = weights.stat().st_size if weights.is_file() else None
    if model.weights_bytes and size is None:
        findings.add("OVN003", weights.name, "missing")
    elif size is not None and size < model.weights_bytes:
        findings.add("OVN003", weights.name, f"{size} of {model.weights_bytes} bytes")
    if model.version not in findings.profile.ir_versions:
        findings.add("OVN001", "", f"version {model.version}")
    for layer in model.layers:
        if layer.type in UNSUPPORTED:
            findings.add("OVN002", layer.name, layer.type)
        match = _OPSET.match(layer.opset)
        if match and int(match[1]) > findings.profile.opset:
            findings.add("OVN005", layer.name, f"{layer.type} of {layer.opset}")
        if any(-1 in port.shape for port in layer.outputs):
            findings.add("OVN004", layer.name, next(list(p.shape) for p in layer.outputs if -1 in p.shape))
        if layer.type == "Const" and layer.data.get("element_type") == "f32" and not findings.has("OVN006"):
            findings.add("OVN006", layer.name, "f32")
    findings.facts |= {"layers": len(model.layers), "ir_version": model.version, "weights_bytes": model.weights_bytes}


def check_blob(data: bytes, findings: Findings) -> None:
    """A Myriad .blob: only its header can be read."""
    blob = ncs.read_blob(data)
    if blob.batch > 1:
        findings.add("OVN004", "", f"batch {blob.batch}")
    findings.facts |= {"version": f"{blob.major}.{blob.minor}", "stages": blob.stages, "shaves": blob.shaves}
