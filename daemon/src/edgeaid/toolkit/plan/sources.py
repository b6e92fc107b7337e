"""Where a plan's figures come from: model files, compiled files, compiler logs, typed sizes, a running device."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidModel, InvalidRequest
from ...formats.detect import KINDS, detect
from ...formats.edgetpu import reader as edgetpu
from ...formats.edgetpu.reader import Executable
from ...formats.tflite import reader as tflite
from ...formats.tflite.reader import Subgraph, TfliteModel
from .. import compiler_logs as compile_logs
from ..check.edgetpu import mapped_operators
from ..files import edgetpu_parameters, load, macs
from .cost import (
    INSTRUCTION_BYTES,
    INSTRUCTION_BYTES_PER_OPERATOR,
    INSTRUCTION_BYTES_PER_VALUE,
    MIB,
    MOBILENET_INSTRUCTIONS,
    MOBILENET_TRANSFER,
    SOFTMAX_BYTES_PER_ELEMENT,
    SOFTMAX_ELEMENTS,
    Built,
    compute_ms,
)
from .plan import Candidate

_TYPED: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})=([0-9.]+(?:B|KiB|MiB))$")
_NAMED: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.+\.tflite)$")


def candidates(
    sources: tuple[str, ...], rates: Mapping[str, float], compute: Mapping[str, float]
) -> tuple[list[Candidate], list[str]]:
    """Models to plan for, and remarks about how sure their figures are.

    A source is a .tflite, a compiled _edgetpu.tflite, a compiler .log, or `name=3.75MiB`. `rates` (per second) and
    `compute` (ms) are by model name: the file's name without `.tflite` and `_edgetpu`, or the one given by
    `name=file.tflite`, as files are not always called as the models on a device. Raises InvalidRequest for
    a rate or time of a model that is not there, InvalidModel for files that cannot be planned for an Edge TPU.
    """
    planned: list[Candidate] = []
    remarks: list[str] = []
    for source in sources:
        if match := _TYPED.match(source):
            size = compile_logs.size(match[2])
            planned.append(
                _candidate(match[1], f"{match[1]}.tflite", size, _Work(), built=None, rates=rates, compute=compute)
            )
            remarks.append(f"{match[1]}: computes and moves what a MobileNet v2 does, as only its size is known")
        elif source.endswith(".log"):
            planned.extend(_from_log(Path(source), rates, compute))
        else:
            named = _NAMED.match(source) if not Path(source).exists() else None
            name, path = (named[1], Path(named[2])) if named else ("", Path(source))
            if named is None and "=" in source and not path.exists():
                raise InvalidRequest(
                    f"{source!r} is neither NAME=FILE.tflite nor NAME=SIZE; sizes are written 3.75MiB, 900KiB, 1000000B"
                )
            model, remark = _from_model(path, name or model_name(path.name), rates, compute)
            planned.append(model)
            remarks += [remark] if remark else []
    names = {c.name for c in planned}
    for what, table in (("rate", rates), ("compute time", compute)):
        if unknown := sorted(table.keys() - names):
            raise InvalidRequest(f"{what} for {', '.join(unknown)}, but the models are {', '.join(sorted(names))}")
    return planned, remarks


def model_name(path: str) -> str:
    """Name of a model by its file: without directory, `.tflite` and `_edgetpu`."""
    return path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".tflite").removesuffix("_edgetpu")


@dataclass(frozen=True, slots=True)
class _Work:
    """What a model does beside moving parameters."""

    #: Multiply-accumulates on the Edge TPU, None = not known.
    macs: int | None = None
    #: Bytes of inputs, outputs and instructions.
    transfer: int = MOBILENET_TRANSFER


def _candidate(
    name: str, path: str, size: int, work: _Work, *, built: Built | None, rates: Mapping[str, float],
    compute: Mapping[str, float],
) -> Candidate:  # fmt: skip
    # A measured time includes the transfers.
    milliseconds, transfer = compute_ms(work.macs), work.transfer
    if name in compute:
        milliseconds, transfer = compute[name], 0
    if built is not None:
        built = Built(name, built.cached, built.streamed, built.token, milliseconds, transfer)
    return Candidate(name, path, size, rates.get(name, 1.0), milliseconds, transfer, built)


#: Bytes that compiled parameters have more than the plain file, at most (0.32 to 0.38 MiB in logs of version 1.0).
_LOG_SURPLUS: Final = 356_000


def _from_log(path: Path, rates: Mapping[str, float], compute: Mapping[str, float]) -> list[Candidate]:
    log = compile_logs.edgetpu(load(path, compile_logs.MAX_LOG))
    if not log.models:
        raise InvalidModel(f"{path} names no compiled model; is it a log of edgetpu_compiler?")
    result = []
    for model in log.models:
        cached, streamed = model.cached or 0, model.streamed or 0
        # The models of one log were compiled by one command and share a token; which one is not printed.
        built = Built("", cached, streamed, hash(str(path)) | 1, 0.0)
        name = model_name(model.input)
        size = cached + streamed
        if streamed and model.input_size:
            # Version 1.0 streams up to 15 % more than there is to stream.
            size = min(size, model.input_size + _LOG_SURPLUS)
        plain = path.parent / Path(model.input).name
        if model.cached is None and model.streamed is None:
            raise InvalidModel(
                f"{path} lists operators and no memory: it is the file that edgetpu_compiler writes beside a model; "
                "give what the compiler printed (edgetpu_compiler -s ... > compile.log)"
            )
        if plain.is_file() and plain.suffix == ".tflite":
            content = load(plain)
            work, size = plain_work(content, tflite.read(content))
        else:
            # What the file has beside parameters is instructions, nearly all of it.
            extra = (model.output_size or 0) - cached - streamed
            work = _Work(None, MOBILENET_TRANSFER + max(0, extra - MOBILENET_INSTRUCTIONS))
        result.append(_candidate(name, model.input, size, work, built=built, rates=rates, compute=compute))
    return result


def log_budget(sources: Sequence[str]) -> float | None:
    """On-chip memory in MiB that the compiler had for the models of the logs among the sources, None without any."""
    budgets = []
    for source in sources:
        if source.endswith(".log"):
            models = compile_logs.edgetpu(load(Path(source), compile_logs.MAX_LOG)).models
            if models and (first := models[0].available or (models[0].cached or 0) + (models[0].remaining or 0)):
                budgets.append(first / MIB)
    return min(budgets) if budgets else None


def plain_work(data: bytes, model: TfliteModel) -> tuple[_Work, int]:
    """Work and parameter bytes of a plain model once it is compiled: only what the compiler maps counts."""
    graph = model.subgraphs[0]
    mapped = mapped_operators(data, model) or frozenset(range(len(graph.operators)))
    inside = {i for n in mapped for i in graph.operators[n].outputs}
    read = {i for n in mapped for i in graph.operators[n].inputs if i >= 0 and not graph.tensors[i].constant}
    outside = {i for n, o in enumerate(graph.operators) if n not in mapped for i in o.inputs} | set(graph.outputs)
    border = [graph.tensors[i] for i in (*(read - inside), *(inside & outside))]
    instructions = _instructions(graph, mapped)
    transfer = instructions + sum(t.nbytes for t in border if not t.is_variable)
    return _Work(macs(model, mapped), transfer), edgetpu_parameters(model, mapped)


def _instructions(graph: Subgraph, mapped: frozenset[int]) -> int:
    """Predicted bytes of a compiled model's instructions."""
    operators = [graph.operators[number] for number in mapped]
    sizes = {o.index: sum(math.prod(graph.tensors[i].shape) for i in o.outputs if i >= 0) for o in operators}
    softmax = sum(min(sizes[o.index], SOFTMAX_ELEMENTS) for o in operators if o.name == "SOFTMAX")
    least = INSTRUCTION_BYTES + len(operators) * INSTRUCTION_BYTES_PER_OPERATOR + softmax * SOFTMAX_BYTES_PER_ELEMENT
    return max(least, round(sum(sizes.values()) * INSTRUCTION_BYTES_PER_VALUE))


#: How far predicted parameters were from the compiled ones, percent: kind -> (worst, median, models). 73 public models
#: with 8 kB and more; of 24 smaller ones the worst was off by 256 bytes.
ERRORS: Final[dict[str, tuple[float, float, int]]] = {
    "recurrent": (6.2, 6.2, 1), "segmentation or pose": (2.6, 0.06, 20), "classification": (8.5, 0.0, 52),
}  # fmt: skip
#: What moves beside them, milliseconds on USB 2: median, worst (a picture of 1281x721, 127 ms in all), 97 models.
TRANSFER_ERROR_MS: Final = (0.4, 17.5)


def kind_of(model: TfliteModel) -> str:
    """The kind of a model by its operators, as the errors were measured."""
    names = {o.name for o in model.subgraphs[0].operators}
    if "UNIDIRECTIONAL_SEQUENCE_LSTM" in names:
        return "recurrent"
    return "segmentation or pose" if names & {"RESIZE_BILINEAR", "CONCATENATION"} else "classification"


def _kind(kind: str) -> str:
    return "not a model file" if kind == "unknown" else f"of the kind {KINDS[kind]}"


def _from_model(
    path: Path, name: str, rates: Mapping[str, float], compute: Mapping[str, float]
) -> tuple[Candidate, str]:
    data = load(path)
    kind_of_file = detect(data)
    if kind_of_file not in ("tflite", "edgetpu"):
        raise InvalidModel(
            f"{path} is {_kind(kind_of_file)}; a plan takes quantised .tflite files, compiled ones, logs of "
            "edgetpu_compiler and NAME=SIZE"
        )
    model = tflite.read(data)
    if model.edgetpu:
        compiled = edgetpu.read(data, model)
        built = Built(name, compiled.cached_bytes, compiled.streamed_bytes, compiled.token, 0.0)
        size = compiled.cached_bytes + compiled.streamed_bytes
        # A new compilation starts from the plain file.
        plain = path.with_name(path.name.replace("_edgetpu.tflite", ".tflite"))
        known = None
        if plain.is_file() and plain != path:
            content = load(plain)
            known = plain_work(content, tflite.read(content))[0].macs
        moved = sum(_transfer(o.packages[0].main) for o in compiled.operators if o.packages)
        work = _Work(known, moved)
        return _candidate(name, str(plain), size, work, built=built, rates=rates, compute=compute), ""
    if not mapped_operators(data, model):
        raise InvalidModel(
            f"{path}: the Edge TPU compiler maps none of its operators; edgeai model check --target edgetpu {path} "
            "says why (a float model: quantise it first, edgeai model quantize)"
        )
    work, size = plain_work(data, model)
    kind = kind_of(model)
    worst, median, count = ERRORS[kind]
    remark = (
        f"{name}: {size / MIB:.2f} MiB of compiled parameters are predicted from the plain file, off by {median:g} % "
        f"in the median, {worst:g} % at worst on {count} public models ({kind}); what moves beside them by "
        f"{TRANSFER_ERROR_MS[0]:g} and {TRANSFER_ERROR_MS[1]:g} ms"
    )
    left = sum(len(g.operators) for g in model.subgraphs) - len(mapped_operators(data, model))
    if left:
        remark += f"; the time of its {left} operators on the CPU is not in these figures"
    return _candidate(name, str(path), size, work, built=None, rates=rates, compute=compute), remark


def _transfer(main: Executable | None) -> int:
    """Bytes that travel with every inference beside parameters."""
    if main is None:
        return MOBILENET_TRANSFER
    return sum(main.bitstreams) + sum(layer.size_bytes for layer in (*main.inputs, *main.outputs))


def assignments(text: str, what: str) -> dict[str, float]:
    """Parse "a=10,b=2.5". Raises InvalidRequest."""
    result: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not equals or not name or not 0 < number < 1e9:
            raise InvalidRequest(f"{what} {part!r} is not of the form name=number with a number above 0")
        result[name] = number
    return result


def counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Inferences so far per model, all versions together, out of a device's statistics (`Client.stats`)."""
    result: dict[str, int] = {}
    for row in rows:
        result[row["name"]] = result.get(row["name"], 0) + int(row.get("inference_count", 0))
    return result


def device_rates(read: Callable[[], Mapping[str, int]], seconds: float) -> dict[str, float]:
    """Inferences per second of every model that ran within the next `seconds` seconds; `read` gives `counts`."""
    before = read()
    start = time.monotonic()
    time.sleep(seconds)
    after = read()
    elapsed = time.monotonic() - start
    rates = {name: (count - before.get(name, 0)) / elapsed for name, count in after.items()}
    return {name: rate for name, rate in rates.items() if rate > 0}
