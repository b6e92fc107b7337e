"""`edgeai model convert`: one front for the maintained converters, each in its environment, each result compared.

A conversion is not done when a file appears but when both models give the same numbers on the same inputs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, InvalidRequest, Unsupported
from ...formats.detect import detect
from ...formats.exchange import onnx, tensorflow
from ...formats.tflite import reader as tflite
from ..files import load
from ..run import child, litert
from . import environments, from_onnx, to_onnx
from .agreement import Reference, compared, judge, read_runs, write_runs
from .conversion import RUNS, Conversion, Options
from .from_onnx import reference as onnx_reference
from .from_onnx import version
from .quantize import LogLine, run_child

TARGETS: Final = ("tflite", "openvino", "onnx", "tfjs", "coreml")


def source_kind(path: Path) -> str:
    """onnx, tflite, pytorch, saved-model, graphdef or another kind of `detect`."""
    if path.is_dir():
        return "saved-model" if (path / "saved_model.pb").is_file() else "directory"
    kind = detect(load(path))
    names = {"tf-graphdef": "graphdef", "torch-export": "pytorch", "torchscript": "pytorch", "torch-pickle": "pytorch"}
    return names.get(kind, kind)


#: (source or "" for any, target) -> why there is no such conversion here, with what to do instead.
NO_ROUTE: Final[dict[tuple[str, str], str]] = {
    ("", "tfjs"): "tensorflowjs 4.22 (which pins TensorFlow 2.19) takes Keras files and SavedModels only; its result "
    "runs in JavaScript, where it cannot be compared here: pip install tensorflowjs, then tensorflowjs_converter "
    "--input_format=tf_saved_model DIRECTORY OUT; a .tflite runs in the browser as it is, with LiteRT.js",
    ("", "coreml"): "coremltools 9 takes PyTorch, Keras and SavedModels only, and its result runs on Apple's systems, "
    "where it has to be compared: pip install coremltools there, then coremltools.convert(...)",
    ("caffemodel", ""): "a .caffemodel holds weights only: name the prototxt, and the weights with --weights",
    ("edgetpu", "tflite"): "a file compiled for the Edge TPU cannot be turned back: keep the plain .tflite",
}  # fmt: skip


def convert(
    source: Path, target: str, output: Path, options: Options | None = None, say: LogLine = lambda _: None
) -> Conversion:
    """Convert and compare. `output` is the file to write (for OpenVINO the .xml; the .bin lies beside it).

    Raises Unsupported for a route no maintained tool offers, InvalidModel when the tool refuses the model.
    """
    options = options or Options()
    kind = source_kind(source)
    if target not in TARGETS:
        raise InvalidRequest(f"cannot convert to {target!r}; choose {', '.join(TARGETS)}")
    routes: dict[tuple[str, str], Callable[[Path, Path, Path, Options, LogLine], Conversion]] = {
        ("onnx", "tflite"): from_onnx.to_tflite,
        ("onnx", "openvino"): _to_openvino,
        ("tflite", "openvino"): _to_openvino,
        ("saved-model", "openvino"): _to_openvino,
        ("graphdef", "openvino"): _to_openvino,
        ("tflite", "onnx"): _tflite_to_onnx,
        ("pytorch", "tflite"): _through_onnx if options.via_onnx else _torch_to_tflite,
        ("pytorch", "onnx"): _through_onnx,
        ("pytorch", "openvino"): _through_onnx,
        ("caffe-prototxt", "tflite"): _through_onnx,
        ("caffe-prototxt", "onnx"): _through_onnx,
        ("caffe-prototxt", "openvino"): _through_onnx,
        ("openvino-ir", "tflite"): _through_onnx,
        ("openvino-ir", "onnx"): _through_onnx,
    }
    route = routes.get((kind, target))
    if route is None:
        offered = f"there are {', '.join(f'{a} -> {b}' for a, b in routes)}"
        why = NO_ROUTE.get((kind, target)) or NO_ROUTE.get((kind, "")) or NO_ROUTE.get(("", target), offered)
        raise Unsupported(f"no conversion {kind} -> {target}: {why}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        result = route(source.resolve(), output, Path(name), options, say)
    output.with_suffix(".report.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n", "utf-8")
    return result


def _tensorflow_reference(
    kind: str, model: Path, directory: Path, options: Options, say: LogLine
) -> tuple[Reference, dict[str, Any]]:
    """What TensorFlow computes of a SavedModel or a frozen graph; and what `tf_run` answered."""
    request: dict[str, Any] = {
        "model": str(model), "kind": kind, "shape": list(options.shape), "count": RUNS, "seed": options.seed,
        "made": str(directory / "in.npz"), "outputs": str(directory / "ref.npz"),
    }  # fmt: skip
    if kind == "graphdef":
        graph = tensorflow.read_graphdef(load(model))
        if len(graph.inputs) != 1 or not graph.outputs:
            raise InvalidModel(f"{model} has {len(graph.inputs)} placeholders, not one; freeze it for inference")
        request |= {"input": graph.inputs[0].name, "output": graph.outputs[0].name}
    say("TensorFlow computes what the result is compared with")
    answer = run_child("tensorflow", "tf_run", request, directory, say)
    given, made = (list(np.load(directory / f"{side}.npz")["data"]) for side in ("in", "ref"))
    return Reference.of([("", given)], [(answer["output"], made)]), answer


def _tflite_reference(source: Path, seed: int) -> Reference:
    """What LiteRT computes, values as stored."""
    model = tflite.read(source.read_bytes())
    answer = litert(source, {"runs": RUNS, "seed": seed})
    sides = [
        [(s.name, [answer[f"{side}_{run}_{i}"] for run in range(RUNS)]) for i, s in enumerate(specs)]
        for side, specs in (("input", model.inputs), ("output", model.outputs))
    ]
    return Reference.of(*sides)


def _through_onnx(source: Path, output: Path, directory: Path, options: Options, say: LogLine) -> Conversion:
    """PyTorch, Caffe and IR: to ONNX, and on to what the output's suffix says; compared with the source itself."""
    kind, middle = source_kind(source), directory / "source.onnx"
    wanted, tool = to_onnx.SOURCES[kind](source, middle, directory, options, say)
    if output.suffix == ".onnx":
        shutil.copyfile(middle, output)
        environment = "openvino" if kind == "openvino-ir" else "onnx2tf"
        return _onnx_compared(f"{kind} -> onnx", tool, output, environment, wanted, directory, say)
    if output.suffix == ".xml":
        made = _to_openvino(middle, output, directory, options, say, wanted)
    else:
        made = from_onnx.to_tflite(middle, output, directory, options, say, wanted)
    return replace(made, route=f"{kind} -> {made.route}", tool=f"{tool}, {made.tool}")


def _onnx_compared(
    route: str, tool: str, output: Path, environment: str, wanted: Reference, directory: Path, say: LogLine
) -> Conversion:
    """Run an ONNX result with onnxruntime on the inputs of the reference."""
    write_runs(directory / "in.npz", wanted.inputs)
    request = {
        "model": str(output.resolve()),
        "inputs": str(directory / "in.npz"),
        "outputs": str(directory / "out.npz"),
    }
    answer = run_child(environment, "onnx_run", request, directory, say)
    made = read_runs(directory / "out.npz", len(wanted.output_specs))
    worst, remarks = judge(replace(wanted, itself=tuple(answer["itself"])), made)
    transposes = sum(n.op_type == "Transpose" for n in onnx.read(output.read_bytes()).nodes)
    return Conversion(route, tool, (output,), worst, transposes, False, (*wanted.notes, *remarks))


def _to_openvino(
    source: Path, output: Path, directory: Path, options: Options, say: LogLine, wanted: Reference | None = None
) -> Conversion:
    output = output.with_suffix(".xml")
    kind = source_kind(source)
    request: dict[str, Any] = {
        "model": str(source), "shapes": {}, "fp16": options.fp16, "xml": str(output.resolve()),
        "inputs": str(directory / "in.npz"), "outputs": str(directory / "out.npz"), "output": "",
    }  # fmt: skip
    if kind == "onnx":
        if wanted is None:
            say("onnxruntime computes what the result is compared with")
            wanted = onnx_reference("openvino", source, directory, options, say)
        request["shapes"] = {name: list(shape) for name, shape, _ in wanted.input_specs}
    elif kind == "tflite":
        wanted = _tflite_reference(source, options.seed)
    else:
        wanted, made = _tensorflow_reference(kind, source, directory, options, say)
        # A fixed shape also where the model leaves the batch open: no stick takes variable ones.
        request |= {"shapes": {"": made["shape"]}, "output": made["output"]}
    write_runs(directory / "in.npz", wanted.inputs)
    say("OpenVINO is converting")
    answer = run_child("openvino", "openvino_convert", request, directory, say)
    worst, remarks = judge(wanted, read_runs(directory / "out.npz", len(wanted.output_specs)))
    notes = ["the weights are FP16"] if options.fp16 else []
    tool = str(answer.get("openvino", ""))
    if not tool.startswith("2022."):
        made_by = tool.split("-", maxsplit=1)[0]
        notes.append(f"IR of OpenVINO {made_by}: for an NCS2 convert with openvino-dev 2022.3.2 instead")
    return Conversion(
        f"{kind} -> openvino", f"openvino {tool}", (output, output.with_suffix(".bin")), worst,
        int(answer.get("transposes", 0)), False, (*wanted.notes, *notes, *remarks),
    )  # fmt: skip


def _tflite_to_onnx(source: Path, output: Path, directory: Path, options: Options, say: LogLine) -> Conversion:
    python = environments.python("tf2onnx", say)
    wanted = _tflite_reference(source, options.seed)
    say("tf2onnx is converting")
    done = child([python, "-m", "tf2onnx.convert", "--tflite", source, "--output", output.resolve(), "--opset", "16"],
                 timeout=3600, cwd=directory, env={"PYTHONPATH": ""})  # fmt: skip
    if done.status != 0 or not output.is_file():
        raise InvalidModel(f"tf2onnx failed: {done.reason or 'it wrote no file'}")
    tool = f"tf2onnx {version(python, 'tf2onnx')}"
    return _onnx_compared("tflite -> onnx", tool, output, "tf2onnx", wanted, directory, say)


def _torch_to_tflite(source: Path, output: Path, directory: Path, options: Options, say: LogLine) -> Conversion:
    request = {
        "model": str(source), "shape": list(options.shape), "tflite": str(output.resolve()), "count": RUNS,
        "seed": options.seed, "made": str(directory / "in.npz"), "outputs": str(directory / "ref.npz"),
        **options.torch.request(),
    }  # fmt: skip
    say("litert-torch is converting")
    answer = run_child("torch", "torch_convert", request, directory, say)
    names = [[str(i) for i in range(answer[side])] for side in ("inputs", "outputs")]
    runs = [read_runs(directory / f"{side}.npz", len(n)) for side, n in zip(("in", "ref"), names, strict=True)]
    wanted = Reference.of(*([(n, [r[i] for r in side]) for i, n in enumerate(part)]
                            for part, side in zip(names, runs, strict=True)))  # fmt: skip
    return compared("pytorch -> tflite", f"litert-torch {answer.get('version', '')}", output, wanted)
