"""PyTorch, Caffe and OpenVINO IR become ONNX, from where other converters go on.

Each source's own runtime (for Caffe, OpenCV's) computes what every later result is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, InvalidRequest, NotFound, Unsupported
from ...formats.exchange import caffe, openvino
from ..files import load
from .agreement import Reference, read_runs
from .conversion import RUNS, Options
from .quantize import LogLine, run_child

#: Below this version OpenVINO's own reader refuses an IR.
_OLDEST_IR: Final = 10
#: The reference, and the tools that were at work.
Made = tuple[Reference, str]


def _request(source: Path, made: Path, directory: Path, options: Options) -> dict[str, Any]:
    return {
        "model": str(source), "shape": list(options.shape), "onnx": str(made), "count": RUNS, "seed": options.seed,
        "made": str(directory / "in.npz"), "outputs": str(directory / "ref.npz"),
    }  # fmt: skip


def _reference(answer: dict[str, Any], directory: Path, notes: tuple[str, ...] = ()) -> Reference:
    inputs, outputs = ([(n, tuple(s), d) for n, s, d in answer[side]] for side in ("inputs", "outputs"))
    return Reference(
        read_runs(directory / "in.npz", len(inputs)), read_runs(directory / "ref.npz", len(outputs)), inputs, outputs,
        (0.0,) * len(outputs), notes,
    )  # fmt: skip


def from_torch(source: Path, made: Path, directory: Path, options: Options, say: LogLine) -> Made:
    """A .pt2, a pickled module, TorchScript, or weights with the class they belong to (options.torch)."""
    say("PyTorch is exporting to ONNX")
    request = {
        **_request(source, made, directory, options), **options.torch.request(),
        "names": [list(options.input_names), list(options.output_names)],
    }  # fmt: skip
    answer = run_child("torch", "torch_onnx", request, directory, say)
    return _reference(answer, directory), f"torch {answer['version']}"


def from_openvino(source: Path, made: Path, directory: Path, options: Options, say: LogLine) -> Made:
    """An IR of version 10 or 11 (.xml with its .bin beside it)."""
    if not source.with_suffix(".bin").is_file():
        raise InvalidModel(f"{source.with_suffix('.bin')} is missing: an IR is two files of the same name")
    if (version := openvino.read(load(source)).version) < _OLDEST_IR:
        raise Unsupported(
            f"{source} is an IR of version {version}, which OpenVINO has not read since 2021: convert what it was made "
            "from again (ONNX, Caffe, TensorFlow)"
        )
    say("OpenVINO is read and written as ONNX")
    answer = run_child("openvino", "openvino_onnx", _request(source, made, directory, options), directory, say)
    return _reference(answer, directory), f"openvino {str(answer['openvino']).split('-', maxsplit=1)[0]}"


def from_caffe(source: Path, made: Path, directory: Path, options: Options, say: LogLine) -> Made:
    """A prototxt and its .caffemodel (options.weights, default: of the same name)."""
    weights = options.weights or source.with_suffix(".caffemodel")
    if not weights.is_file():
        raise NotFound(f"{weights} does not exist: name the network's .caffemodel with --weights")
    net = caffe.read_prototxt(load(source))
    inputs = {i.name: [int(d) for d in i.shape] for i in net.inputs}
    if options.shape and inputs:
        inputs[next(iter(inputs))] = list(options.shape)
    if not inputs or not all(inputs.values()):
        raise InvalidRequest(
            f"{source} does not say its input's shape (a network for training?): use a deploy.prototxt"
        )
    values = caffe.read_values(load(weights))
    blobs = {f"{layer}:{i}": np.frombuffer(content, kind).reshape(shape)
             for layer, listed in values.items() for i, (shape, kind, content) in enumerate(listed)}  # fmt: skip
    arrays: dict[str, Any] = blobs
    np.savez(directory / "weights.npz", **arrays)
    request = {
        **_request(source, made, directory, options), "inputs": inputs, "weights": str(directory / "weights.npz"),
        "layers": [[layer.name, layer.type, layer.bottoms, layer.tops, layer.message] for layer in net.layers],
        "prototxt": str(source), "caffemodel": str(weights.resolve()),
    }  # fmt: skip
    say("the Caffe network is written as ONNX; OpenCV computes what it is compared with")
    answer = run_child("onnx2tf", "caffe_onnx", request, directory, say)
    notes = tuple(f"layer {name} ({kind}) is left out: what it reads is an output now" for name, kind in answer["cut"])
    return _reference(answer, directory, notes), f"opencv {answer['opencv']}"


SOURCES: Final[dict[str, Callable[[Path, Path, Path, Options, LogLine], Made]]] = {
    "pytorch": from_torch, "caffe-prototxt": from_caffe, "openvino-ir": from_openvino,
}  # fmt: skip
