"""`edgeai model compile`: the exact command for each target's compiler, its log read, its failures explained by rule.

Compilers that Google, Intel and Kendryte no longer care for are not bundled: where one is missing, the error says where
it comes from and prints the command for another machine.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidModel, InvalidRequest, NotFound, Unsupported
from ...formats.ncs import reader as ncs
from .. import compiler_logs as compile_logs
from ..check.rules import rules
from ..convert import convert
from ..convert.quantize import LogLine
from ..run import child
from . import ncc
from .nncase import compile_k210
from .request import Compiled, Request, digest, explain, kmodel_of

_TIMEOUT: Final = 3600.0


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
    "k210-v3": Compiler("ncc", "GitHub release v0.1.0-rc5 of kendryte/nncase (binary), Linux x86-64"),
}


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
    return ncc.command(request, program)


def _ncs_output(request: Request) -> Path:
    return request.output / f"{request.models[0].stem}.graph"


def _blob(request: Request) -> Path:
    return request.output / f"{request.models[0].stem}.blob"


def compile_models(request: Request, say: LogLine = lambda _: None) -> Compiled:
    """Compile. Raises Unsupported without the compiler (with the command), InvalidModel when it fails (with rules)."""
    for model in request.models:
        if not model.exists():
            raise NotFound(f"{model} does not exist")
    if not request.models:
        raise InvalidRequest("name a model to compile")
    request.output.mkdir(parents=True, exist_ok=True)
    if request.target == "k210":
        return compile_k210(request, say)
    if request.target == "ncs2":
        return _openvino(request, say)
    if request.target not in COMPILERS:
        raise InvalidRequest(
            f"no compiler for {request.target!r}; choose edgetpu, ncs, ncs2, ncs2-blob, k210, k210-v4 or k210-v3"
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


def _edgetpu_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    log = compile_logs.edgetpu(text[-compile_logs.MAX_LOG :])
    expected = [request.output / f"{m.stem}_edgetpu.tflite" for m in request.models]
    missing = [p.name for p in expected if not p.is_file()]
    if status != 0 or missing or log.errors:
        reasons = list(log.errors) or [f"status {status}, no {', '.join(missing)}"]
        if "Model not quantized" in text:
            reasons.append(explain("ETP001"))
        raise InvalidModel(f"edgetpu_compiler {log.version} failed: {'; '.join(filter(None, reasons))}")
    facts: dict[str, Mapping[str, Any]] = {}
    remarks: list[str] = []
    for model, path in zip(request.models, expected, strict=True):
        own = request.output / f"{model.stem}_edgetpu.log"
        rows = compile_logs.edgetpu(own.read_bytes()[: compile_logs.MAX_LOG]).models if own.is_file() else ()
        said = next((m for m in log.models if Path(m.input).name == model.name), None)
        operators = (said.operators if said else ()) or (rows[0].operators if rows else ())
        facts[path.name] = {
            "sha256": digest(path), "compiler": log.version, "cached_bytes": said.cached if said else None,
            "streamed_bytes": said.streamed if said else None, "subgraphs": said.subgraphs if said else None,
            "on_tpu": said.on_tpu if said else None, "on_cpu": said.on_cpu if said else None,
        }  # fmt: skip
        for row in operators:
            if row.rule:
                remarks.append(f"{model.name}: {row.count} x {row.name}: {row.status}. {explain(row.rule)}")
        if said and said.streamed:
            remarks.append(f"{model.name}: {said.streamed} bytes are streamed. {explain('ETP043')}")
    return Compiled("edgetpu", tuple(line), tuple(expected), facts, tuple(remarks))


def _ncs_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    log = compile_logs.mvncc(text[-compile_logs.MAX_LOG :])
    path = _ncs_output(request)
    if status != 0 or not log.succeeded or not path.is_file():
        reasons = [
            f"error {code}: {message}" + (f" ({explain(rule)})" if rule else "") if code is not None else message
            for code, message, rule in log.errors
        ] or [f"status {status}, no {path.name}"]
        raise InvalidModel(f"mvNCCompile {log.version} failed: {'; '.join(reasons)}")
    facts = {path.name: {"sha256": digest(path), "compiler": log.version, "shaves": request.shaves}}
    return Compiled("ncs", tuple(line), (path,), facts, log.warnings)


def _blob_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    path = _blob(request)
    if status != 0 or not path.is_file():
        tail = [t for t in compile_logs.lines(text[-compile_logs.MAX_LOG :]) if t][-2:]
        raise InvalidModel(f"compile_tool failed: {' / '.join(tail) or f'status {status}, no {path.name}'}")
    facts: dict[str, Any] = {"sha256": digest(path)}
    try:
        blob = ncs.read_blob(path.read_bytes())
        facts |= {"blob": f"{blob.major}.{blob.minor}", "shaves": blob.shaves, "stages": blob.stages}
    except InvalidModel as error:
        return Compiled("ncs2", tuple(line), (path,), {path.name: facts}, (f"the header cannot be read: {error}",))
    return Compiled("ncs2", tuple(line), (path,), {path.name: facts})


def _ncc_result(request: Request, line: list[str], output: tuple[int | None, str]) -> Compiled:
    status, text = output
    log = compile_logs.ncc(text[-compile_logs.MAX_LOG :])
    path = kmodel_of(request)
    if status != 0 or not path.is_file():
        hints = [explain("KPU012")] if re.search(r"not supported|unsupported", text, re.I) else []
        raise InvalidModel(f"ncc failed: {'; '.join([*log.errors, *hints]) or f'status {status}, no {path.name}'}")
    facts = {path.name: {"sha256": digest(path), **log.memory}}
    return Compiled("k210", tuple(line), (path,), facts, options=ncc.artifact_options(request.models[0]))


def _openvino(request: Request, say: LogLine) -> Compiled:
    """IR for the NCS2: the stick's blob is made by the plug-in on the device."""
    if len(request.models) != 1:
        raise InvalidRequest("one model at a time")
    made = convert.convert(request.models[0], "openvino", request.output / f"{request.models[0].stem}.xml", say=say)
    xml, weights = made.files
    facts: dict[str, Mapping[str, Any]] = {
        xml.name: {"sha256": digest(xml), "max_error": made.difference.max_error, "compiler": made.tool},
        weights.name: {"sha256": digest(weights)},
    }
    return Compiled("ncs2", (), made.files, facts, made.notes)
