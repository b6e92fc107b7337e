"""ONNX to TFLite: fix shapes and fold constants, convert with onnx2tf, compare every output with onnxruntime."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

from ...errors import InvalidModel
from ...formats.exchange import onnx
from ...formats.tflite import reader as tflite
from ..run import child
from . import environments
from .agreement import Reference, compared, is_picture, read_runs
from .conversion import RUNS, Conversion, Options
from .quantize import LogLine, run_child

#: Largest error by the range where the source rounds activations to 8 bits and the result does not (measured: up to
#: 2.1 % on three such models, correlation 0.9999).
_QUANTISED: Final = 0.05
#: What an operator that onnx2tf cannot express usually comes from, and what to do.
_ADVICE: Final[dict[str, str]] = {
    "DynamicQuantizeLSTM": "it comes from onnxruntime's dynamic quantisation: convert the float model instead",
    "DynamicQuantizeMatMul": "it comes from onnxruntime's dynamic quantisation: convert the float model instead",
    "If": "a branch hangs on an input: give it a value with --constant NAME=VALUE",
    "Loop": "export the model with its loop unrolled for a fixed length",
    "NonMaxSuppression": "export the model without it; the daemon's decoders do it",
    "TreeEnsembleClassifier": "trees have no TFLite operators: run them beside the network",
    "LinearClassifier": "operators of ai.onnx.ml have no TFLite counterpart: rebuild the model from dense layers",
}


def reference(environment: str, model: Path, directory: Path, options: Options, say: LogLine) -> Reference:
    """Run an ONNX model on inputs made for it (in.npz) in an environment that has onnxruntime.

    Raises InvalidModel when onnxruntime refuses the model.
    """
    request = {
        "model": str(model), "inputs": "", "made": str(directory / "in.npz"), "count": RUNS, "seed": options.seed,
        "shapes": {"": list(options.shape)} if options.shape else {}, "constants": dict(options.constants),
        "outputs": str(directory / "ref.npz"),
    }  # fmt: skip
    answer = run_child(environment, "onnx_run", request, directory, say)
    inputs, outputs = ([(n, tuple(s), d) for n, s, d in answer[side]] for side in ("inputs", "outputs"))
    notes = [f"{name} is fixed at {value}" for name, value in answer["constants"].items()]
    notes += [
        f"the file leaves the shape of {name} open; {list(shape)} was taken, --shape gives another"
        for name, shape, _ in inputs
        if name in answer["free"] and not options.shape
    ]
    return Reference(
        read_runs(directory / "in.npz", len(inputs)), read_runs(directory / "ref.npz", len(outputs)), inputs, outputs,
        tuple(answer["itself"]), tuple(notes), answer["constants"],
    )  # fmt: skip


def to_tflite(
    source: Path, output: Path, directory: Path, options: Options, say: LogLine, wanted: Reference | None = None
) -> Conversion:
    """Convert with onnx2tf. `wanted` = what to compare with, its inputs in in.npz; None = what onnxruntime computes.

    Raises InvalidModel, naming the operator, when onnx2tf cannot.
    """
    python = environments.python("onnx2tf", say)
    simplified = directory / "simplified.onnx"
    if wanted is None:
        say("onnxruntime computes what the result is compared with")
        wanted = reference("onnx2tf", source, directory, options, say)
    wanted = _simplify(source, simplified, wanted, directory, say)
    command: list[str | Path] = [python, "-m", "onnx2tf", "-i", simplified, "-o", directory / "out", "-n"]
    if kept := [plain(name) for name, shape, _ in wanted.input_specs if not is_picture(shape)]:
        command += ["-kat", *kept]
    say("onnx2tf is converting")
    done = child(command, timeout=3600, cwd=directory, env={"PYTHONPATH": ""})
    made = sorted((directory / "out").glob("*_float32.tflite"))
    if done.status != 0 or not made:
        raise InvalidModel(f"onnx2tf failed: {_reason(simplified, done.output + done.error, done.reason)}")
    custom = {o.custom_code.removeprefix("ONNX_") for o in tflite.read(made[0].read_bytes()).operators if o.custom_code}
    if custom:
        raise InvalidModel(f"onnx2tf failed: {_unsupported(simplified, custom)}")
    shutil.copyfile(made[0], output)
    tool = f"onnx2tf {version(python, 'onnx2tf')}"
    return compared("onnx -> tflite", tool, output, wanted)


def _simplify(source: Path, simplified: Path, wanted: Reference, directory: Path, say: LogLine) -> Reference:
    """Write the model with fixed shapes and without branches; the reference with a remark about those."""
    request = {
        "model": str(source), "shapes": {name: list(shape) for name, shape, _ in wanted.input_specs},
        "outputs": {name: list(shape) for name, shape, _ in wanted.output_specs}, "constants": dict(wanted.constants),
        "inputs": str(directory / "in.npz"), "simplified": str(simplified),
    }  # fmt: skip
    answer = run_child("onnx2tf", "onnx_simplify", request, directory, say)
    texts = {
        "branches": "branches are fixed, as their conditions were the same for all inputs",
        "unquantised": "computed in float now, where onnxruntime quantises at run time",
    }
    remarks = [f"{text}: {', '.join(answer[key])}" for key, text in texts.items() if answer[key]]
    tolerance = _QUANTISED if answer["unquantised"] else wanted.tolerance
    return replace(wanted, notes=(*wanted.notes, *remarks), tolerance=tolerance)


def plain(name: str) -> str:
    """A value's name as onnx_simplify.py writes it."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name)


def _reason(model: Path, log: str, last: str) -> str:
    """Why onnx2tf failed: the operator it names, else the end of its output."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log)
    named = re.findall(r"(?:onnx_op_type|op_type|ONNX op|Unsupported op|op)\W+([A-Z][A-Za-z0-9]+)", text)
    present = {n.op_type for n in onnx.read(model.read_bytes()).nodes}
    operators = [name for name in named if name in present]
    if operators:
        return _unsupported(model, {operators[-1]})
    errors = [line.strip() for line in text.splitlines() if "ERROR" in line or "Error" in line]
    return errors[-1][:400] if errors else last or "it wrote no float32 file"


def _unsupported(model: Path, names: set[str]) -> str:
    """The operators that have no counterpart, with the node and what to do."""
    nodes = onnx.read(model.read_bytes()).nodes
    parts = []
    for name in sorted(names):
        node = next((n for n in nodes if n.op_type.upper() == name.upper()), None)
        label = node.op_type if node else name
        where = f" (node {node.name or node.outputs[0]!r})" if node else ""
        advice = _ADVICE.get(label, "replace it in the source model, or cut the model before it")
        parts.append(f"operator {label}{where} has no TFLite counterpart: {advice}")
    return "; ".join(parts)


def version(python: Path, package: str) -> str:
    """Version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return child([python, "-c", code], timeout=60).output.strip()
