"""`edgeai model check`: one model file against the rules of one target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import InvalidModel, InvalidRequest
from ...formats.detect import KINDS, detect
from ...formats.exchange import tensorflow
from ...formats.tflite import reader as tflite
from ..files import require_operands
from . import (
    edgetpu as check_edgetpu,
)
from . import fake_quant
from . import (
    k210 as check_k210,
)
from . import (
    ncs as check_ncs,
)
from . import (
    openvino as check_openvino,
)
from . import (
    run as check_run,
)
from . import (
    tflite as check_tflite,
)
from .rules import PROFILES, TARGETS, Checked, Findings, Profile
from .sources import opened

_DEFAULT_PROFILE = PROFILES["default"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to check."""

    profile: Profile = _DEFAULT_PROFILE
    #: real = (pixel - mean) / std of the manifest; () = look into the file's metadata.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    #: Run the model on random inputs (child process).
    run: bool = True
    #: Seconds for that.
    timeout: float = 120.0


def check(path: Path, target: str, options: Options | None = None) -> Checked:
    """All rules of `target` for a file, a SavedModel, a model directory, a bundle or a flash package.

    Raises NotFound, TooLarge, InvalidRequest; damage is a finding.
    """
    options = options or Options()
    if target not in TARGETS:
        raise InvalidRequest(f"unknown target {target!r}; choose {', '.join(TARGETS)}")
    findings = Findings(options.profile)
    kind = "unknown"
    damaged = {"cpu": "TFL001", "edgetpu": "TFL001", "k210": "KPU001", "ncs": "NCS000", "ncs2": "OVN000"}[target]
    try:
        with opened(path, target) as (data, inside):
            kind = _kind(data, inside)
            _check(data, inside, kind, target, findings, options)
    except InvalidModel as error:
        findings.add(damaged, "", error)
    return findings.report(str(path), kind, target)


def _check(data: bytes, path: Path, kind: str, target: str, findings: Findings, options: Options) -> None:
    if target in ("cpu", "edgetpu"):
        _tflite(data, path, kind, findings, options, edgetpu=target == "edgetpu")
    elif target == "k210":
        _k210(data, path, kind, findings, options)
    elif target == "ncs":
        _ncs(data, path, kind, findings)
    else:
        _ncs2(data, path, kind, findings)


def _kind(data: bytes, path: Path) -> str:
    kind = detect(data)
    # Compiler output is text of no format; a name is all there is to go by.
    return "log" if kind == "unknown" and path.suffix in (".log", ".txt") else kind


#: Kinds that can be converted to OpenVINO IR.
_TO_OPENVINO: Final = frozenset(
    {"onnx", "tflite", "tf-savedmodel", "tf-graphdef", "torch-export", "torch-pickle", "caffe-prototxt"}
)
#: Kind of file -> how a TFLite file is made of that model.
_WAYS: Final = {
    **dict.fromkeys(
        ("keras", "keras-h5", "tf-savedmodel", "tf-graphdef"), "make an int8 TFLite file of it: edgeai model quantize"
    ),
    **dict.fromkeys(
        ("onnx", "torch-export", "caffe-prototxt", "openvino-ir"), "convert it: edgeai model convert --to tflite"
    ),
    "torchscript": "save the network with torch.export.save as .pt2, then edgeai model convert --to tflite",
    "torch-pickle": "convert it with its class: edgeai model convert --to tflite --via-onnx --module FILE "
    "--class NAME",
    "caffemodel": "it holds weights only: edgeai model convert --to tflite takes the prototxt beside it",
    "tf-metagraph": "freeze it (edgeai model freeze), then make a TFLite file of it (edgeai model quantize)",
    "tf-checkpoint-index": "it lists weights only: edgeai model freeze takes the .meta beside it",
    **dict.fromkeys(
        ("edgetpu", "ncs-v1", "ncs-v2", "myriad-blob", "kmodel-v3", "kmodel-v4", "kmodel-v5", "kfpkg"),
        "it is compiled for one device and cannot be turned back: start from the model that it was made of",
    ),
}  # fmt: skip


def _wrong(kind: str, *, way: bool = True) -> str:
    """What a file is, if it is not for this target, and how to get there."""
    if kind == "log":
        return "this is text that no reader here takes for a model; logs are read for the target of their compiler"
    what = f"this is {KINDS[kind]}" if kind != "unknown" else "this is a file of no known kind"
    return f"{what}; {_WAYS[kind]}" if way and kind in _WAYS else what


def _tflite(data: bytes, path: Path, kind: str, findings: Findings, options: Options, *, edgetpu: bool) -> None:
    if kind == "log" and edgetpu:
        check_edgetpu.check_log(data, findings)
        return
    if kind not in ("tflite", "edgetpu"):
        findings.add("TFL009", "", _wrong(kind))
        if kind == "tf-graphdef":
            fake_quant.check(tensorflow.read_graphdef(data), findings)
        return
    model = tflite.read(data)
    require_operands(model)
    check_tflite.check(model, findings)
    if edgetpu:
        # What a compiled file is for is not a remark about it.
        findings.violations = [v for v in findings.violations if v.rule.id != "TFL008"]
        check_edgetpu.check(data, model, findings)
    check_tflite.sanity(data, model, findings, options.mean, options.std)
    if options.run:
        check_run.check(path, model, findings, options.timeout)


def _k210(data: bytes, path: Path, kind: str, findings: Findings, options: Options) -> None:
    if kind.startswith("kmodel"):
        check_k210.check_kmodel(data, findings)
    elif kind == "tflite":
        model = tflite.read(data)
        require_operands(model)
        check_k210.check_tflite(data, model, findings)
        check_tflite.sanity(data, model, findings, options.mean, options.std)
        if options.run:
            check_run.check(path, model, findings, options.timeout)
    elif kind == "onnx":
        check_k210.check_onnx(data, findings)
    else:
        findings.add("KPU023", "", _wrong(kind))


def _ncs(data: bytes, path: Path, kind: str, findings: Findings) -> None:
    checks = {
        "caffe-prototxt": check_ncs.check_caffe, "tf-graphdef": check_ncs.check_graphdef,
        "ncs-v1": check_ncs.check_graph, "ncs-v2": check_ncs.check_graph, "log": check_ncs.check_log,
    }  # fmt: skip
    if kind in checks:
        checks[kind](data, findings)
    elif kind == "tf-metagraph":
        check_ncs.check_meta(data, path, findings)
    else:
        findings.add("NCS000", "", _wrong(kind, way=False))


def _ncs2(data: bytes, path: Path, kind: str, findings: Findings) -> None:
    if kind == "openvino-ir":
        check_openvino.check(data, path, findings)
    elif kind == "myriad-blob":
        check_openvino.check_blob(data, findings)
    else:
        way = "; convert it: edgeai model convert --to openvino" if kind in _TO_OPENVINO else ""
        findings.add("OVN000", "", _wrong(kind, way=False) + way)
