"""Where a plan's figures come from: model files, compiled files, compiler logs, typed sizes, a running device."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidModel, InvalidRequest
from ...formats.edgetpu import reader as edgetpu
from ...formats.tflite import reader as tflite
from .. import compiler_logs as compile_logs
from ..files import edgetpu_parameters, load, macs
from .cost import MIB, Built, compute_ms
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
    a rate or time of a model that is not there, InvalidModel for files that are no Edge TPU material.
    """
    found: list[Candidate] = []
    remarks: list[str] = []
    for source in sources:
        if match := _TYPED.match(source):
            size = compile_logs.size(match[2])
            found.append(
                _candidate(match[1], f"{match[1]}.tflite", size, built=None, macs=None, rates=rates, compute=compute)
            )
        elif source.endswith(".log"):
            found.extend(_from_log(Path(source), rates, compute))
        else:
            named = _NAMED.match(source) if not Path(source).exists() else None
            name, path = (named[1], Path(named[2])) if named else ("", Path(source))
            model, remark = _from_model(path, name or model_name(path.name), rates, compute)
            found.append(model)
            remarks += [remark] if remark else []
    names = {c.name for c in found}
    for what, table in (("rate", rates), ("compute time", compute)):
        if unknown := sorted(table.keys() - names):
            raise InvalidRequest(f"{what} for {', '.join(unknown)}, but the models are {', '.join(sorted(names))}")
    return found, remarks


def model_name(path: str) -> str:
    """Name of a model by its file: without folder, `.tflite` and `_edgetpu`."""
    return path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".tflite").removesuffix("_edgetpu")


def _candidate(
    name: str, path: str, size: int, *, built: Built | None, macs: int | None,
    rates: Mapping[str, float], compute: Mapping[str, float],
) -> Candidate:  # fmt: skip
    milliseconds = compute.get(name, compute_ms(macs))
    if built is not None:
        built = Built(name, built.cached, built.streamed, built.token, milliseconds)
    return Candidate(name, path, size, rates.get(name, 1.0), milliseconds, built)


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
        result.append(
            _candidate(name, model.input, cached + streamed, built=built, macs=None, rates=rates, compute=compute)
        )
    return result


def _from_model(
    path: Path, name: str, rates: Mapping[str, float], compute: Mapping[str, float]
) -> tuple[Candidate, str]:
    data = load(path)
    model = tflite.read(data)
    if model.edgetpu:
        compiled = edgetpu.read(data, model)
        built = Built(name, compiled.cached_bytes, compiled.streamed_bytes, compiled.token, 0.0)
        size = compiled.cached_bytes + compiled.streamed_bytes
        # A new compilation starts from the plain file.
        plain = str(path.with_name(path.name.replace("_edgetpu.tflite", ".tflite")))
        return _candidate(name, plain, size, built=built, macs=None, rates=rates, compute=compute), ""
    size = edgetpu_parameters(model)
    remark = f"{name}: {size / MIB:.2f} MiB of compiled parameters are predicted from the plain file (+-3 %)"
    return _candidate(name, str(path), size, built=None, macs=macs(model), rates=rates, compute=compute), remark


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
