"""nncase 1.x in a Python of its own: kmodel v5, compared in its simulator with the float model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, InvalidRequest
from ...formats.tflite import reader as tflite
from ..convert import compare, convert, representative
from ..convert.agreement import read_runs, write_runs
from ..convert.quantize import LogLine, run_child
from .request import Compiled, Request, digest, explain, kmodel_of

#: Inputs on which a compiled model is compared with the float one.
_COMPARED: Final = 50


def compile_k210(request: Request, say: LogLine) -> Compiled:
    """nncase 1.x in its own Python: kmodel v5, compared in its simulator with the float model."""
    if len(request.models) != 1:
        raise InvalidRequest("nncase compiles one model at a time")
    model = request.models[0]
    kind = convert.source_kind(model)
    if kind not in ("tflite", "onnx"):
        raise InvalidModel(f"{model} is {kind}; nncase 1.x takes float TFLite and ONNX")
    shape = _nncase_input(model, kind)
    path = kmodel_of(request)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as name:
        directory = Path(name)
        data = None
        if request.calibration:
            data = _samples(request, kind, shape)
            np.savez(directory / "data.npz", data=data)
        samples = _compared(data, shape)
        np.savez(directory / "in.npz", data=samples.astype(np.float32))
        if kind == "tflite":
            reference, _, _ = compare.run(model, samples.astype(np.float32))
            source = model
        else:
            reference, source = _onnx_outputs(model, samples.astype(np.float32), directory, say)
        say(f"nncase is compiling for k210{' with ' + str(len(data)) + ' samples' if data is not None else ''}")
        answer = run_child(
            "nncase", "nncase_compile",
            {"model": str(source.resolve()), "kind": kind, "target": "k210", "options": dict(request.extra),
             "calibration": str(directory / "data.npz") if data is not None else "",
             "inputs": str(directory / "in.npz"), "kmodel": str(directory / "out.kmodel"),
             "outputs": str(directory / "out.npz")}, directory, say,
            Path(__file__).parent / "children",
        )  # fmt: skip
        simulated = np.load(directory / "out.npz")["data"]
        remarks = []
        facts: dict[str, Any] = {"compiler": f"nncase {answer.get('nncase', '')}"}
        difference = compare.difference(reference, simulated)
        facts |= {
            "max_error": difference.max_error,
            "correlation": difference.correlation,
            "compared": difference.samples,
        }
        if not simulated.any():
            raise InvalidModel("the compiled model gives zeros only: calibration data of the wrong type or range")
        if difference.correlation < 0.95:
            remarks.append(f"correlation with the float model is only {difference.correlation:.3f}: use more samples")
        shutil.copyfile(directory / "out.kmodel", path)
    from ...formats.k210 import kmodel

    read = kmodel.read(path.read_bytes())
    facts = {"sha256": digest(path), "kmodel": read.version, "kpu_peak_bytes": read.kpu_peak,
             "ram_bytes": read.ram_need, **facts}  # fmt: skip
    remarks.append("kmodel v5 runs with the vendor's SDK and its simulator; MaixPy loads v3 and v4 (--target k210-v4)")
    return Compiled("k210", (), (path,), {path.name: facts}, tuple(remarks))


def _samples(request: Request, kind: str, shape: Sequence[int]) -> representative.Array:
    """Calibration data [samples, *shape[1:]]; pictures become channels first where an ONNX model takes them so."""
    pictures = Path(request.calibration).is_dir()
    if kind == "onnx" and pictures and len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        _, channels, height, width = shape
        last = representative.load(request.calibration, (height, width, channels), request.rules, request.samples)
        return np.ascontiguousarray(np.moveaxis(last, -1, 1))
    return representative.load(request.calibration, shape[1:], request.rules, request.samples)


def _compared(data: representative.Array | None, shape: Sequence[int]) -> representative.Array:
    """Inputs for the comparison, at least 50: real ones, then real ones with noise, without any random ones."""
    generator = np.random.default_rng(0)
    if data is None:
        return generator.uniform(0, 1, (_COMPARED, *shape[1:]))
    chosen = data[:: max(1, len(data) // _COMPARED)][: max(_COMPARED, len(data) // 4)]
    if len(chosen) < _COMPARED:
        again = data[generator.integers(0, len(data), _COMPARED - len(chosen))]
        noise = generator.normal(0, 0.02 * float(np.ptp(data)), again.shape)
        chosen = np.concatenate([chosen, np.clip(again + noise, data.min(), data.max())])
    return chosen


def _onnx_outputs(
    model: Path, samples: representative.Array, directory: Path, say: LogLine
) -> tuple[representative.Array, Path]:
    """First output of an ONNX model for each sample, and the model with the shapes in it that nncase insists on."""
    write_runs(directory / "ref_in.npz", [[sample[None]] for sample in samples])
    shaped = directory / "shaped.onnx"
    request = {
        "model": str(model.resolve()), "inputs": str(directory / "ref_in.npz"), "outputs": str(directory / "ref.npz"),
        "shaped": str(shaped),
    }  # fmt: skip
    run_child("openvino", "onnx_run", request, directory, say)
    return np.stack([run[0] for run in read_runs(directory / "ref.npz", 1)]), shaped


def _nncase_input(model: Path, kind: str) -> Sequence[int]:
    if kind == "onnx":
        from ...formats.exchange import onnx

        shape: Sequence[int] = onnx.read(model.read_bytes()).inputs[0].shape
    else:
        read = tflite.read(model.read_bytes())
        if any(
            s.quantization is not None and s.datatype in ("INT8", "UINT8") for s in (*read.inputs, *read.outputs)
        ) or any(t.datatype in ("INT8", "UINT8") and t.quantization for t in read.subgraphs[0].tensors):
            # The compiler's process would die of SIGSEGV.
            raise InvalidModel(f"{model} is quantised; {explain('KPU002')}")
        shape = read.inputs[0].shape
    if not shape or any(d < 1 for d in shape):
        raise InvalidModel(f"{model} has a variable input shape {list(shape)}; {explain('KPU020')}")
    return shape
