"""Kendryte's `ncc`: the command lines of its two generations, and what a client has to know about the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InvalidModel, InvalidRequest
from ...formats.tflite import reader as tflite
from .request import Request, kmodel_of

#: Mean and standard deviation -> what ncc 0.1 calls it.
_POSTPROCESS = {(0.0, 255.0): "0to1", (127.5, 127.5): "n1to1"}


def command(request: Request, program: str) -> list[str]:
    """Target k210-v4 (ncc 0.2) or k210-v3 (ncc 0.1). Raises InvalidRequest for what that generation cannot do."""
    mean, std = request.rules.mean, request.rules.std
    if len(set(mean)) > 1 or len(set(std)) > 1:
        raise InvalidRequest("ncc knows one mean and one standard deviation for all channels")
    source, made = str(request.models[0]), str(kmodel_of(request))
    if request.target == "k210-v3":
        return _first(request, program, source, made)
    kind = {".onnx": "onnx", ".caffemodel": "caffe"}.get(request.models[0].suffix, "tflite")
    result = [program, "compile", source, made, "-i", kind, "-o", "kmodel", "-t", "k210"]
    if not request.calibration:
        return [*result, "--inference-type", "float"]
    # ncc scales pictures to [0, 1] before (x - mean) / std.
    return [
        *result, "--dataset", request.calibration, "--dataset-format", "image", "--inference-type", "uint8",
        "--input-mean", f"{mean[0] / 255:g}", "--input-std", f"{std[0] / 255:g}",
    ]  # fmt: skip


def _first(request: Request, program: str, source: str, made: str) -> list[str]:
    kind = {".caffemodel": "caffe", ".tflite": "tflite"}.get(request.models[0].suffix)
    if kind is None:
        raise InvalidRequest(f"ncc 0.1 takes .tflite and .caffemodel, not {request.models[0].name}; convert it first")
    if not request.calibration:
        raise InvalidRequest("ncc 0.1 always quantises: give a directory of pictures with --calibration")
    scaled = _POSTPROCESS.get((request.rules.mean[0], request.rules.std[0]))
    if scaled is None:
        raise InvalidRequest(
            "ncc 0.1 scales pictures to 0..1 (--mean 0 --std 255) or -1..1 (--mean 127.5 --std 127.5) only"
        )
    options = ["--dataset", request.calibration, "--postprocess", scaled]
    return [program, "-i", kind, "-o", "k210model", *options, source, made]


def artifact_options(model: Path) -> dict[str, Any]:
    """Options of the artifact in a manifest, so that the daemon turns the chip's channels-first maps back.

    A TFLite model has pictures channels last; a v4 file does not store its outputs' shapes. {} for other kinds.
    """
    if model.suffix != ".tflite":
        return {}
    try:
        read = tflite.read(model.read_bytes())
    except InvalidModel:
        return {}
    options: dict[str, Any] = {}
    if any(len(spec.shape) == 4 for spec in (*read.inputs, *read.outputs)):
        options["layout"] = "nhwc"
    if read.outputs and all(len(spec.shape) == 4 and min(spec.shape) > 0 for spec in read.outputs):
        options["outputs"] = [[spec.shape[2], spec.shape[1], spec.shape[3]] for spec in read.outputs]
    return options
