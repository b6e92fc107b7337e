"""`edgeai model compile`: the exact command for each target's compiler, its log read, its failures explained by rule.

Compilers that Google, Intel and Kendryte no longer care for are not bundled: where one is missing, the error says where
it comes from and prints the command for another machine.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import InvalidModel, InvalidRequest, NotFound, Unsupported
from ...formats.ncs import reader as ncs
from ...formats.tflite import reader as tflite
from .. import compiler_logs as compile_logs
from ..check.rules import rules
from ..convert import compare, convert, representative
from ..convert.agreement import read_runs, write_runs
from ..convert.quantize import LogLine, run_child
from ..convert.representative import PIXELS, Normalisation
from ..run import child

_TIMEOUT: Final = 3600.0
#: Inputs on which a compiled model is compared with the float one.
_COMPARED: Final = 50


@dataclass(frozen=True, slots=True)
class Compiler:
    """A program that is run if it is there."""

    program: str
    #: Where it comes from and what it needs.
    origin: str


COMPILERS: Final[dict[str, Compiler]] = {
    "edgetpu": Compiler(
        "edgetpu_compiler",
        "Google's apt archive only (packages.cloud.google.com/apt coral-edgetpu-stable, package edgetpu-compiler, last "
        "version 16.0), x86-64",
    ),
    "ncs": Compiler(
        "mvNCCompile",
        "Intel's NCSDK 1.12 or 2.10 (github.com/movidius/ncsdk), Ubuntu 16.04, x86-64; an old container helps",
    ),
    "ncs2-blob": Compiler(
        "compile_tool", "OpenVINO up to 2022.3 built with the MYRIAD plug-in (source tree or 2021.4 archive)"
    ),
    "k210-v4": Compiler("ncc", "GitHub release v0.2.0-beta4 of kendryte/nncase (binary), Linux x86-64"),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile and how."""

    models: tuple[Path, ...]
    #: edgetpu, ncs, ncs2 (IR), ncs2-blob, k210 (nncase 1.x, kmodel v5) or k210-v4 (ncc 0.2).
    target: str
    #: Directory for the results.
    output: Path
    #: Program to run instead of the one on PATH.
    program: str = ""
    #: Container image that has the program; run with docker or podman, without a network.
    container: str = ""
    #: edgetpu: oldest runtime (-m). ncs: SHAVEs (-s), node names, weights.
    min_runtime: int = 0
    shaves: int = 12
    input_node: str = ""
    output_node: str = ""
    weights: Path | None = None
    #: k210: representative data and normalisation; "" = float model on the CPU part only.
    calibration: str = ""
    rules: Normalisation = PIXELS
    samples: int = 50
    #: The compiler's own options, name -> text; "" = a switch without a value.
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came out."""

    target: str
    command: tuple[str, ...]
    files: tuple[Path, ...]
    #: For the manifest: figures of the log or of the compiler, per file name.
    facts: Mapping[str, Mapping[str, Any]]
    #: Remarks, each with the number of its rule if it has one.
    remarks: tuple[str, ...] = field(default=())


def command(request: Request) -> list[str]:
    """The command line for a target's compiler, without container. Raises InvalidRequest."""
    line = _command(request)
    for name, value in request.extra.items():
        line += [f"--{name}" if len(name) > 1 else f"-{name}", *([value] if value else [])]
    return line


def _command(request: Request) -> list[str]:
    program = request.program or COMPILERS[request.target].program
    models = [str(m) for m in request.models]
    if request.target == "edgetpu":
        options = ["-m", str(request.min_runtime)] if request.min_runtime else []
        return [program, "-s", *options, "-o", str(request.output), *models]
    if len(models) != 1:
        raise InvalidRequest(f"{program} compiles one model at a time")
    if request.target == "ncs":
        if not 1 <= request.shaves <= 12:
            raise InvalidRequest(f"{request.shaves} SHAVEs: the stick has 1 to 12 ({rules()['NCS041'].id})")
        result = [program, models[0], "-s", str(request.shaves)]
        result += ["-w", str(request.weights)] if request.weights else []
        result += ["-in", request.input_node] if request.input_node else []
        result += ["-on", request.output_node] if request.output_node else []
        return [*result, "-o", str(_ncs_output(request))]
    if request.target == "ncs2-blob":
        if request.models[0].suffix != ".xml":
            raise InvalidRequest(f"{program} takes OpenVINO IR (.xml): edgeai model compile --target ncs2 makes it")
        return [program, "-m", models[0], "-d", "MYRIAD", "-ip", "U8", "-o", str(_blob(request))]
    kind = {".onnx": "onnx", ".caffemodel": "caffe"}.get(request.models[0].suffix, "tflite")
    result = [program, "compile", models[0], str(_kmodel(request)), "-i", kind, "-o", "kmodel", "-t", "k210"]
    if not request.calibration:
        return [*result, "--inference-type", "float"]
    mean, std = request.rules.mean, request.rules.std
    if len(set(mean)) > 1 or len(set(std)) > 1:
        raise InvalidRequest("ncc knows one mean and one standard deviation for all channels")
    # ncc scales pictures to [0, 1] before (x - mean) / std.
    return [
        *result, "--dataset", request.calibration, "--dataset-format", "image", "--inference-type", "uint8",
        "--input-mean", f"{mean[0] / 255:g}", "--input-std", f"{std[0] / 255:g}",
    ]  # fmt: skip


def _ncs_output(request: Request) -> Path:
    return request.output / f"{request.models[0].stem}.graph"


def _blob(request: Request) -> Path:
    return request.output / f"{request.models[0].stem}.blob"


def _kmodel(request: Request) -> Path:
    return request.output / f"{request.models[0].stem}.kmodel"


def compile_models(request: Request, say: LogLine = lambda _: None) -> Compiled:
    """Compile. Raises Unsupported without the compiler (with the command), InvalidModel when it fails (with rules)."""
    for model in request.models:
        if not model.exists():
            raise NotFound(f"{model} does not exist")
    if not request.models:
        raise InvalidRequest("name a model to compile")
    request.output.mkdir(parents=True, exist_ok=True)
    if request.target == "k210":
        return _nncase(request, say)
    if request.target == "ncs2":
        return _openvino(request, say)
    if request.target not in COMPILERS:
        raise InvalidRequest(
            f"no compiler for {request.target!r}; choose edgetpu, ncs, ncs2, ncs2-blob, k210 or k210-v4"
        )
    line = command(request)
    output = _run(request, line, say)
    if request.target == "edgetpu":
        return _edgetpu_result(request, line, output)
    if request.target == "ncs":
        return _ncs_result(request, line, output)
    if request.target == "ncs2-blob":
        return _blob_result(request, line, output)
    return _ncc_result(request, line, output)


def _run(request: Request, line: list[str], say: LogLine) -> tuple[int | None, str]:
    wrapped = _in_container(request, line)
    if shutil.which(wrapped[0]) is None:
        compiler = COMPILERS[request.target]
        raise Unsupported(
            f"{wrapped[0]} is not installed. It comes from: {compiler.origin}. Give its path with --compiler or an "
            f"image with --container, or run this on a machine that has it:\n  {shlex.join(line)}"
        )
    say("running: " + shlex.join(wrapped))
    done = child(wrapped, timeout=_TIMEOUT)
    return done.status, done.output + "\n" + done.error


def _in_container(request: Request, line: list[str]) -> list[str]:
    if not request.container:
        return line
    engine = "podman" if shutil.which("podman") else "docker"
    directories = {p.resolve().parent for p in request.models} | {request.output.resolve()}
    directories |= {request.weights.resolve().parent} if request.weights else set()
    mounts = [part for directory in sorted(directories) for part in ("-v", f"{directory}:{directory}")]
    absolute = [str(Path(p).resolve()) if "/" in p or Path(p).exists() else p for p in line[1:]]
    return [engine, "run", "--rm", "--network=none", *mounts, request.container, line[0], *absolute]


def _explain(number: str) -> str:
    rule = rules().get(number)
    return f"{rule.id} {rule.title}: {rule.remedy}" if rule else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _edgetpu_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    log = compile_logs.edgetpu(text[-compile_logs.MAX_LOG :])
    expected = [request.output / f"{m.stem}_edgetpu.tflite" for m in request.models]
    missing = [p.name for p in expected if not p.is_file()]
    if status != 0 or missing or log.errors:
        reasons = list(log.errors) or [f"status {status}, no {', '.join(missing)}"]
        if "Model not quantized" in text:
            reasons.append(_explain("ETP001"))
        raise InvalidModel(f"edgetpu_compiler {log.version} failed: {'; '.join(filter(None, reasons))}")
    facts: dict[str, Mapping[str, Any]] = {}
    remarks: list[str] = []
    for model, path in zip(request.models, expected, strict=True):
        own = request.output / f"{model.stem}_edgetpu.log"
        rows = compile_logs.edgetpu(own.read_bytes()[: compile_logs.MAX_LOG]).models if own.is_file() else ()
        said = next((m for m in log.models if Path(m.input).name == model.name), None)
        operators = (said.operators if said else ()) or (rows[0].operators if rows else ())
        facts[path.name] = {
            "sha256": _digest(path), "compiler": log.version, "cached_bytes": said.cached if said else None,
            "streamed_bytes": said.streamed if said else None, "subgraphs": said.subgraphs if said else None,
            "on_tpu": said.on_tpu if said else None, "on_cpu": said.on_cpu if said else None,
        }  # fmt: skip
        for row in operators:
            if row.rule:
                remarks.append(f"{model.name}: {row.count} x {row.name}: {row.status}. {_explain(row.rule)}")
        if said and said.streamed:
            remarks.append(f"{model.name}: {said.streamed} bytes are streamed. {_explain('ETP043')}")
    return Compiled("edgetpu", tuple(line), tuple(expected), facts, tuple(remarks))


def _ncs_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    log = compile_logs.mvncc(text[-compile_logs.MAX_LOG :])
    path = _ncs_output(request)
    if status != 0 or not log.succeeded or not path.is_file():
        reasons = [
            f"error {code}: {message}" + (f" ({_explain(rule)})" if rule else "") if code is not None else message
            for code, message, rule in log.errors
        ] or [f"status {status}, no {path.name}"]
        raise InvalidModel(f"mvNCCompile {log.version} failed: {'; '.join(reasons)}")
    facts = {path.name: {"sha256": _digest(path), "compiler": log.version, "shaves": request.shaves}}
    return Compiled("ncs", tuple(line), (path,), facts, log.warnings)


def _blob_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    path = _blob(request)
    if status != 0 or not path.is_file():
        tail = [t for t in compile_logs.lines(text[-compile_logs.MAX_LOG :]) if t][-2:]
        raise InvalidModel(f"compile_tool failed: {' / '.join(tail) or f'status {status}, no {path.name}'}")
    facts: dict[str, Any] = {"sha256": _digest(path)}
    try:
        blob = ncs.read_blob(path.read_bytes())
        facts |= {"blob": f"{blob.major}.{blob.minor}", "shaves": blob.shaves, "stages": blob.stages}
    except InvalidModel as e:
        return Compiled("ncs2", tuple(line), (path,), {path.name: facts}, (f"the header cannot be read: {e}",))
    return Compiled("ncs2", tuple(line), (path,), {path.name: facts})


def _ncc_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    log = compile_logs.ncc(text[-compile_logs.MAX_LOG :])
    path = _kmodel(request)
    if status != 0 or not path.is_file():
        hints = [_explain("KPU012")] if re.search(r"not supported|unsupported", text, re.I) else []
        raise InvalidModel(f"ncc failed: {'; '.join([*log.errors, *hints]) or f'status {status}, no {path.name}'}")
    return Compiled("k210", tuple(line), (path,), {path.name: {"sha256": _digest(path), **log.memory}})


def _nncase(request: Request, say: LogLine) -> Compiled:
    """nncase 1.x in its own Python: kmodel v5, compared in its simulator with the float model."""
    if len(request.models) != 1:
        raise InvalidRequest("nncase compiles one model at a time")
    model = request.models[0]
    kind = convert.source_kind(model)
    if kind not in ("tflite", "onnx"):
        raise InvalidModel(f"{model} is {kind}; nncase 1.x takes float TFLite and ONNX")
    shape = _nncase_input(model, kind)
    path = _kmodel(request)
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
    facts = {"sha256": _digest(path), "kmodel": read.version, "kpu_peak_bytes": read.kpu_peak,
             "ram_bytes": read.ram_need, **facts}  # fmt: skip
    remarks.append("kmodel v5 runs with the vendor's SDK and its simulator; MaixPy loads v3 and v4 (--target k210-v4)")
    return Compiled("k210", (), (path,), {path.name: facts}, tuple(remarks))


def _samples(request: Request, kind: str, shape: Sequence[int]) -> representative.Array:
    """Calibration data [samples, *shape[1:]]; pictures become channels first where an ONNX model wants them so."""
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
            raise InvalidModel(f"{model} is quantised; {_explain('KPU002')}")
        shape = read.inputs[0].shape
    if not shape or any(d < 1 for d in shape):
        raise InvalidModel(f"{model} has a variable input shape {list(shape)}; {_explain('KPU020')}")
    return shape


def _openvino(request: Request, say: LogLine) -> Compiled:
    """IR for the NCS2: the stick's blob is made by the plug-in on the device."""
    if len(request.models) != 1:
        raise InvalidRequest("one model at a time")
    made = convert.convert(request.models[0], "openvino", request.output / f"{request.models[0].stem}.xml", say=say)
    xml, weights = made.files
    facts: dict[str, Mapping[str, Any]] = {
        xml.name: {"sha256": _digest(xml), "max_error": made.difference.max_error, "compiler": made.tool},
        weights.name: {"sha256": _digest(weights)},
    }
    return Compiled("ncs2", (), made.files, facts, made.notes)
