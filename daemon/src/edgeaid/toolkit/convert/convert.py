"""`edgeai model convert`: one front for the maintained converters, each in its environment, each result compared.

A conversion is not done when a file appears but when both models give the same numbers on the same inputs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, InvalidRequest, Unsupported
from ...formats.detect import detect
from ...formats.exchange import tensorflow
from ...formats.tflite import reader as tflite
from ..files import load
from ..run import child
from . import compare, environments
from .compare import Difference
from .quantize import Say, run_child
from .representative import Array

TARGETS: Final = ("tflite", "openvino", "onnx", "tfjs", "coreml")
_RUNS: Final = 4


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion gave."""

    #: For example "onnx -> tflite".
    route: str
    #: Tool and version as far as it says.
    tool: str
    #: Files written, the model first.
    files: tuple[Path, ...]
    difference: Difference
    #: Transpose operators in the result: what is left of a change of the data layout.
    transposes: int
    #: Inputs that were NCHW and became NHWC.
    layout_changed: bool
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "files": [p.name for p in self.files]}


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert."""

    #: Fixed shape of the first input, () = as the file says.
    shape: tuple[int, ...] = ()
    #: OpenVINO weights in FP16 (what the NCS2 computes in).
    fp16: bool = True
    seed: int = 0


def source_kind(path: Path) -> str:
    """onnx, tflite, pytorch, saved-model, graphdef or another kind of `detect`."""
    if path.is_dir():
        return "saved-model" if (path / "saved_model.pb").is_file() else "folder"
    if path.suffix in (".pt", ".pth", ".pt2"):
        return "pytorch"
    kind = detect(load(path))
    return {"tf-graphdef": "graphdef"}.get(kind, kind)


#: (source or "" for any, target) -> why there is no such conversion here, with what to do instead.
NO_ROUTE: Final[dict[tuple[str, str], str]] = {
    ("", "tfjs"): "tensorflowjs 4.22 (which pins TensorFlow 2.19) takes Keras files and SavedModels only; its result "
    "runs in JavaScript, where it cannot be compared here: pip install tensorflowjs, then tensorflowjs_converter "
    "--input_format=tf_saved_model FOLDER OUT; a .tflite runs in the browser as it is, with LiteRT.js",
    ("", "coreml"): "coremltools 9 takes PyTorch, Keras and SavedModels only, and its result runs on Apple's systems, "
    "where it has to be compared: pip install coremltools there, then coremltools.convert(...)",
    ("edgetpu", "tflite"): "a file compiled for the Edge TPU cannot be turned back: keep the plain .tflite",
}  # fmt: skip


def convert(
    source: Path, target: str, output: Path, options: Options | None = None, say: Say = lambda _: None
) -> Conversion:
    """Convert and compare. `output` is the file to write (for OpenVINO the .xml; the .bin lies beside it).

    Raises Unsupported for a route no maintained tool offers, InvalidModel when the tool refuses the model.
    """
    options = options or Options()
    kind = source_kind(source)
    if target not in TARGETS:
        raise InvalidRequest(f"cannot convert to {target!r}; choose {', '.join(TARGETS)}")
    routes: dict[tuple[str, str], Callable[[Path, Path, Path, Options, Say], Conversion]] = {
        ("onnx", "tflite"): _onnx_to_tflite,
        ("onnx", "openvino"): _to_openvino,
        ("tflite", "openvino"): _to_openvino,
        ("saved-model", "openvino"): _to_openvino,
        ("graphdef", "openvino"): _to_openvino,
        ("tflite", "onnx"): _tflite_to_onnx,
        ("pytorch", "tflite"): _torch_to_tflite,
    }
    route = routes.get((kind, target))
    if route is None:
        offered = f"there are {', '.join(f'{a} -> {b}' for a, b in routes)}"
        why = NO_ROUTE.get((kind, target)) or NO_ROUTE.get(("", target), offered)
        raise Unsupported(f"no conversion {kind} -> {target}: {why}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        result = route(source.resolve(), output, Path(name), options, say)
    output.with_suffix(".report.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n", "utf-8")
    return result


def _onnx_reference(
    environment: str, model: Path, folder: Path, options: Options, say: Say
) -> tuple[Array, Array, Any]:
    """Random inputs for an ONNX model and its first output for them."""
    request = {
        "model": str(model), "inputs": "", "made": str(folder / "in.npz"), "count": _RUNS, "seed": options.seed,
        "shape": list(options.shape) or None, "outputs": str(folder / "ref.npz"),
    }  # fmt: skip
    answer = run_child(environment, "onnx_run", request, folder, say)
    return np.load(folder / "in.npz")["data"], np.load(folder / "ref.npz")["data"], answer


def _onnx_to_tflite(source: Path, output: Path, folder: Path, options: Options, say: Say) -> Conversion:
    python = environments.python("onnx2tf", say)
    inputs, reference, answer = _onnx_reference("onnx2tf", source, folder, options, say)
    command: list[str | Path] = [python, "-m", "onnx2tf", "-i", source, "-o", folder / "out", "-n"]
    if options.shape:
        command += ["-ois", f"{answer['input']}:{','.join(map(str, options.shape))}"]
    say("onnx2tf is converting")
    done = child(command, timeout=3600, cwd=folder, env={"PYTHONPATH": ""})
    made = sorted((folder / "out").glob("*_float32.tflite"))
    if done.status != 0 or not made:
        raise InvalidModel(f"onnx2tf failed: {done.reason or 'it wrote no float32 file'}")
    shutil.copyfile(made[0], output)
    return _compared_tflite("onnx -> tflite", f"onnx2tf {_version(python, 'onnx2tf')}", output, inputs, reference)


def _compared_tflite(route: str, tool: str, output: Path, inputs: Array, reference: Array) -> Conversion:
    """Compare a TFLite result with reference outputs, moving axes where the layout changed."""
    spec = tflite.read(output.read_bytes()).inputs[0]
    changed = spec.shape != inputs.shape[1:]
    values = inputs
    if changed and inputs.ndim == 5 and tuple(np.moveaxis(inputs, 2, -1).shape[1:]) == spec.shape:
        values = np.moveaxis(inputs, 2, -1)
    elif changed:
        raise InvalidModel(f"the result's input {list(spec.shape)} has nothing to do with {list(inputs.shape[1:])}")
    outputs, _, _ = compare.run(output, values.astype(np.float32))
    if outputs.shape != reference.shape and reference.ndim == 5:
        moved = np.moveaxis(reference, 2, -1)
        reference = moved if moved.shape == outputs.shape else reference
    notes = ("pictures go in as NHWC now",) if changed else ()
    return Conversion(
        route, tool, (output,), compare.difference(reference, outputs), compare.transposes(output), changed, notes
    )


def _tensorflow_reference(kind: str, model: Path, folder: Path, options: Options, say: Say) -> tuple[Array, Any]:
    """First output of a SavedModel or a frozen graph for random inputs (in.npz); and what `tf_run` answered."""
    request: dict[str, Any] = {
        "model": str(model), "kind": kind, "shape": list(options.shape), "count": _RUNS, "seed": options.seed,
        "made": str(folder / "in.npz"), "outputs": str(folder / "ref.npz"),
    }  # fmt: skip
    if kind == "graphdef":
        graph = tensorflow.read_graphdef(load(model))
        if len(graph.inputs) != 1 or not graph.outputs:
            raise InvalidModel(f"{model} has {len(graph.inputs)} placeholders, not one; freeze it for inference")
        request |= {"input": graph.inputs[0].name, "output": graph.outputs[0].name}
    say("TensorFlow computes what the result is compared with")
    answer = run_child("tensorflow", "tf_run", request, folder, say)
    return np.load(folder / "ref.npz")["data"], answer


def _to_openvino(source: Path, output: Path, folder: Path, options: Options, say: Say) -> Conversion:
    output = output.with_suffix(".xml")
    kind = source_kind(source)
    request: dict[str, Any] = {
        "model": str(source), "shape": list(options.shape), "fp16": options.fp16, "xml": str(output.resolve()),
        "inputs": str(folder / "in.npz"), "outputs": str(folder / "out.npz"), "output": "",
    }  # fmt: skip
    if kind == "onnx":
        _, reference, _ = _onnx_reference("openvino", source, folder, options, say)
    elif kind == "tflite":
        spec = tflite.read(source.read_bytes()).inputs[0]
        inputs = _random(spec.datatype, (_RUNS, *spec.shape), options.seed)
        np.savez(folder / "in.npz", data=inputs)
        reference = _run_tflite_raw(source, inputs)
    else:
        reference, made = _tensorflow_reference(kind, source, folder, options, say)
        # A fixed shape also where the model leaves the batch open: no stick takes variable ones.
        request |= {"shape": made["shape"], "output": made["output"]}
    say("OpenVINO is converting")
    answer = run_child("openvino", "openvino_convert", request, folder, say)
    found = compare.difference(reference, np.load(folder / "out.npz")["data"])
    notes = ["the weights are FP16"] if options.fp16 else []
    version = str(answer.get("openvino", ""))
    if not version.startswith("2022."):
        made_by = version.split("-", maxsplit=1)[0]
        notes.append(f"IR of OpenVINO {made_by}: for an NCS2 convert with openvino-dev 2022.3.2 instead")
    return Conversion(
        f"{kind} -> openvino", f"openvino {version}", (output, output.with_suffix(".bin")), found,
        int(answer.get("transposes", 0)), False, tuple(notes),
    )  # fmt: skip


def _random(datatype: str, shape: tuple[int, ...], seed: int) -> Array:
    generator = np.random.default_rng(seed)
    if datatype == "UINT8":
        return generator.integers(0, 256, shape, np.uint8)
    if datatype == "INT8":
        return generator.integers(-128, 128, shape, np.int8)
    return generator.uniform(0, 1, shape).astype(np.float32)


def _run_tflite_raw(path: Path, inputs: Array) -> Array:
    """First output as stored, for a comparison with a runtime that keeps the types."""
    from ..run import litert

    answer = litert(path, {"runs": len(inputs), **{f"input_{i}_0": v for i, v in enumerate(inputs)}})
    return np.stack([answer[f"output_{i}_0"] for i in range(len(inputs))])


def _tflite_to_onnx(source: Path, output: Path, folder: Path, options: Options, say: Say) -> Conversion:
    python = environments.python("tf2onnx", say)
    spec = tflite.read(source.read_bytes()).inputs[0]
    inputs = _random(spec.datatype, (_RUNS, *spec.shape), options.seed)
    np.savez(folder / "in.npz", data=inputs)
    reference = _run_tflite_raw(source, inputs)
    say("tf2onnx is converting")
    done = child([python, "-m", "tf2onnx.convert", "--tflite", source, "--output", output.resolve(), "--opset", "16"],
                 timeout=3600, cwd=folder, env={"PYTHONPATH": ""})  # fmt: skip
    if done.status != 0 or not output.is_file():
        raise InvalidModel(f"tf2onnx failed: {done.reason or 'it wrote no file'}")
    request = {"model": str(output.resolve()), "inputs": str(folder / "in.npz"), "outputs": str(folder / "out.npz")}
    run_child("tf2onnx", "onnx_run", request, folder, say)
    from ...formats.exchange import onnx

    made = onnx.read(output.read_bytes())
    return Conversion(
        "tflite -> onnx", f"tf2onnx {_version(python, 'tf2onnx')}", (output,),
        compare.difference(reference, np.load(folder / "out.npz")["data"]),
        sum(n.op_type == "Transpose" for n in made.nodes), False,
    )  # fmt: skip


def _torch_to_tflite(source: Path, output: Path, folder: Path, options: Options, say: Say) -> Conversion:
    if not options.shape:
        raise InvalidRequest("PyTorch files do not store the input's shape; give it: --shape 1,3,224,224")
    request = {
        "model": str(source), "shape": list(options.shape), "tflite": str(output.resolve()), "count": _RUNS,
        "seed": options.seed, "made": str(folder / "in.npz"), "outputs": str(folder / "ref.npz"),
    }  # fmt: skip
    say("litert-torch is converting")
    answer = run_child("torch", "torch_convert", request, folder, say)
    inputs, reference = np.load(folder / "in.npz")["data"], np.load(folder / "ref.npz")["data"]
    return _compared_tflite("pytorch -> tflite", f"litert-torch {answer.get('version', '')}", output, inputs, reference)


def _version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return child([python, "-c", code], timeout=60).output.strip()
