"""Reading what compilers print: `edgetpu_compiler` (all versions from 1.0), `mvNCCompile` (NCSDK 1 and 2), `ncc`.

Compiler output is foreign text: it is cut to MAX_LOG bytes and MAX_LINES lines, unknown lines are skipped, and no input
raises anything but InvalidModel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import InvalidModel

MAX_LOG: Final = 4 << 20
MAX_LINES: Final = 100_000
MAX_MODELS: Final = 256
MAX_ROWS: Final = 10_000
_MAX_LINE: Final = 4096

_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"^([0-9]{1,12}(?:\.[0-9]{1,6})?)\s?(B|KiB|MiB|GiB)$")
_VERSION = re.compile(r"^Edge TPU Compiler version ([0-9]{1,4}(?:\.[0-9]{1,12}){1,3})$")
_SUCCESS = re.compile(r"^Models? compiled successfully in ([0-9]{1,9}) ms[.!]?$")
_ROW = re.compile(r"^([A-Za-z][A-Za-z0-9_-]{0,79})\s+([0-9]{1,9})\s+(\S.{0,200})$")
_FIELDS: Final = {
    "Input model": "input", "Output model": "output", "Operation log": "operation_log",
    # The file that the compiler writes beside the model, with operators only.
    "Input": "input", "Output": "output",
    "Input size": "input_size", "Output size": "output_size",
    "On-chip memory used for caching model parameters": "cached",
    "On-chip memory available for caching model parameters": "available",
    "On-chip memory remaining for caching model parameters": "remaining",
    "Off-chip memory used for streaming uncached model parameters": "streamed",
    "Number of Edge TPU subgraphs": "subgraphs", "Total number of operations": "operations",
    "Number of operations that will run on Edge TPU": "on_tpu", "Number of operations that will run on CPU": "on_cpu",
}  # fmt: skip
_TEXT: Final = {"input", "output", "operation_log"}
_SIZES: Final = {"input_size", "output_size", "cached", "available", "remaining", "streamed"}

#: Status texts of an operation row and what they mean for the person who has the model.
STATUS: Final[Mapping[str, str]] = {
    "Mapped to Edge TPU": "",
    "More than one subgraph is not supported": "ETP011",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation": "ETP012",
    "Operation is working on an unsupported data type": "ETP002",
    "Operation version not supported": "ETP013",
    "Operation not supported": "ETP010",
}


@dataclass(frozen=True, slots=True)
class LoggedOperator:
    """One line of the operator table: `count` operators of one kind and why they are where they are."""

    name: str
    count: int
    status: str

    @property
    def rule(self) -> str:
        """Number of the check rule that explains the status; "" for mapped operators and unknown texts."""
        return STATUS.get(self.status, "")


@dataclass(frozen=True, slots=True)
class EdgeTpuModel:
    """What the compiler says of one model; sizes in bytes, None = not printed."""

    input: str = ""
    output: str = ""
    operation_log: str = ""
    input_size: int | None = None
    output_size: int | None = None
    cached: int | None = None
    available: int | None = None
    remaining: int | None = None
    streamed: int | None = None
    subgraphs: int | None = None
    operations: int | None = None
    on_tpu: int | None = None
    on_cpu: int | None = None
    operators: tuple[LoggedOperator, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeTpuLog:
    """A whole compiler run."""

    version: str = ""
    #: False if the compiler said it failed, or never said it succeeded.
    succeeded: bool = False
    milliseconds: int | None = None
    models: tuple[EdgeTpuModel, ...] = ()
    #: Error lines, as printed.
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NcsLog:
    """A run of mvNCCompile."""

    #: Version text such as "v02.00", "" if not printed.
    version: str = ""
    succeeded: bool = False
    #: (code, text, rule number) per error; the code is None where none is printed.
    errors: tuple[tuple[int | None, str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def size(text: str) -> int:
    """Bytes of a size such as "0.00B", "182.19KiB", "3.75MiB". Raises InvalidModel."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidModel(f"{text[:40]!r} is not a size such as 3.75MiB")
    return round(float(match[1]) * _UNITS[match[2]])


def lines(text: str | bytes) -> list[str]:
    """The lines of a log, with control characters and over-long tails removed. Raises InvalidModel for a huge one."""
    if len(text) > MAX_LOG:
        raise InvalidModel(f"compiler log of {len(text)} bytes; at most {MAX_LOG} are read")
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    result = text.splitlines()
    if len(result) > MAX_LINES:
        raise InvalidModel(f"compiler log of {len(result)} lines; at most {MAX_LINES} are read")
    return ["".join(c if c.isprintable() else " " for c in line[:_MAX_LINE]).strip() for line in result]


def edgetpu(text: str | bytes) -> EdgeTpuLog:
    """Read the output or the .log file of edgetpu_compiler. A line that fits nothing is skipped."""
    version = ""
    succeeded = failed = False
    milliseconds: int | None = None
    errors: list[str] = []
    models: list[dict[str, Any]] = []
    rows: list[list[LoggedOperator]] = []
    for line in lines(text):
        if match := _VERSION.match(line):
            version = match[1]
        elif match := _SUCCESS.match(line):
            succeeded, milliseconds = True, int(match[1])
        elif line in {"Compilation succeeded!", "Compilation child process completed within timeout period."}:
            succeeded = succeeded or line.endswith("!")
        elif (
            line == "Compilation failed!"
            or line.startswith(("Invalid model:", "Internal compiler error", "terminating with uncaught", "ERROR:"))
            or line == "Model not quantized"
        ):
            failed = True
            if len(errors) < 100:
                errors.append(line)
        elif models and (match := _ROW.match(line)):
            if sum(map(len, rows)) < MAX_ROWS:
                rows[-1].append(LoggedOperator(match[1], int(match[2]), match[3].strip()))
        else:
            key, colon, value = line.partition(": ")
            name = _FIELDS.get(key)
            if not colon or name is None:
                continue
            if name == "input" or not models:
                if len(models) >= MAX_MODELS:
                    raise InvalidModel(f"compiler log names more than {MAX_MODELS} models")
                models.append({})
                rows.append([])
            _set(models[-1], name, value)
    return EdgeTpuLog(
        version=version,
        succeeded=succeeded and not failed,
        milliseconds=milliseconds,
        models=tuple(EdgeTpuModel(**m, operators=tuple(r)) for m, r in zip(models, rows, strict=True)),
        errors=tuple(errors),
    )


def _set(model: dict[str, Any], name: str, value: str) -> None:
    """Keep a value if it is what the field holds; a torn line is skipped like any other unknown one."""
    if name in _TEXT:
        model[name] = value
    elif name in _SIZES:
        if _SIZE.match(value):
            model[name] = size(value)
    elif value.isascii() and value.isdigit() and len(value) <= 9:
        model[name] = int(value)


#: Phrases of mvNCCompile and the rule that explains them.
_NCS: Final = (
    (re.compile(r"Matmul scratch memory \[\d+\] lower than required \[\d+\]"), "NCS012"),
    (re.compile(r"Intermediate layer buffer|layer buffer .{0,40}exceed|Error 35\b", re.IGNORECASE), "NCS011"),
    (
        re.compile(r"Stage Details Not Supported|Layer .{0,80} not supported|Operation .{0,80}not supported", re.I),
        "NCS006",
    ),
    (re.compile(r"Toolkit Error: Provided OutputNode/InputNode name does not exist", re.I), "NCS034"),
    (re.compile(r"input_shape|input_param|No input", re.I), "NCS001"),
    (re.compile(r"placeholder", re.I), "NCS031"),
    (re.compile(r"dropout", re.I), "NCS032"),
)
_NCS_ERROR = re.compile(r"^\[?Error\s+([0-9]{1,4})\]?:?\s*(.*)$", re.I)
_NCS_VERSION = re.compile(r"^mvNCCompile (v[0-9]{1,3}\.[0-9]{1,3})")


def mvncc(text: str | bytes) -> NcsLog:
    """Read the output of mvNCCompile: errors with the number of the rule that explains them."""
    version = ""
    errors: list[tuple[int | None, str, str]] = []
    warnings: list[str] = []
    for line in lines(text):
        if match := _NCS_VERSION.match(line):
            version = match[1]
        elif match := _NCS_ERROR.match(line):
            errors.append((int(match[1]), match[2], _ncs_rule(line)))
        elif "Traceback (most recent call last)" in line:
            errors.append((None, line, ""))
        elif re.match(r"^warning:?\s", line, re.I):
            warnings.append(line)
        if len(errors) + len(warnings) >= 1000:
            break
    return NcsLog(version, not errors, tuple(errors), tuple(warnings))


def _ncs_rule(line: str) -> str:
    return next((rule for pattern, rule in _NCS if pattern.search(line)), "")


@dataclass(frozen=True, slots=True)
class NccLog:
    """A run of `ncc compile` (nncase 0.2) or of the nncase 1.x compiler."""

    succeeded: bool = False
    #: "main_mem" and similar, bytes.
    memory: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


_NCC_MEMORY = re.compile(
    r"^(input|output|data|kpu|main|MODEL|TOTAL)\s*(?:memory)?\s*(?:usage)?\s*[:\s]\s*([0-9.]+)\s?(B|KB|MB|KiB|MiB)\b",
    re.I,
)


def ncc(text: str | bytes) -> NccLog:
    """Read the output of ncc: memory figures and errors."""
    memory: dict[str, int] = {}
    errors: list[str] = []
    for line in lines(text):
        if match := _NCC_MEMORY.match(line):
            try:
                amount = float(match[2])
            except ValueError:
                continue
            memory[match[1].lower()] = round(amount * {"B": 1, "K": 1 << 10, "M": 1 << 20}[match[3][0].upper()])
        elif re.match(r"^(fatal|error|terminate called|what\(\))[:\s]", line, re.I) and len(errors) < 100:
            errors.append(line)
    return NccLog(not errors, memory, tuple(errors))
