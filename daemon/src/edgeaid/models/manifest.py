"""`model.toml`: what a model directory says of itself. Schema 1, described in docs/models.md."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from ..errors import InvalidModel
from .rules import OutputRules, PictureRules

SCHEMA: Final = 1
#: A manifest is written by people; this is far more than any needs.
MAX_BYTES: Final = 256 * 1024
TARGETS: Final = ("cpu", "edgetpu", "ncs", "ncs2", "k210")
TASKS: Final = ("classify", "detect", "segment", "pose", "embed", "other")
#: `/` cannot be in a name (client libraries do not escape it); `stats` is a path of the protocol.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED: Final = frozenset({"stats"})
VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: Requests that one batch may have.
MAX_BATCH: Final = 1024
#: Differences allowed between golden outputs and this machine: LSB for integers (docs/models.md).
DEFAULT_TOLERANCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file for one target."""

    target: str
    #: File name within the model directory.
    file: str
    #: Lower-case hexadecimal digest of the file.
    sha256: str
    #: Handed to the backend as they are.
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Golden:
    """One recorded inference: tensor name -> .npy file within the model directory."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    #: Runtime family it was recorded on (litert, tflite-runtime); "" = holds everywhere.
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model as its author describes it."""

    name: str
    #: Rises with each release of its author; a device takes no smaller one than it has. 0 = not said.
    serial: int = 0
    task: str = "other"
    description: str = ""
    license: str = ""
    source: str = ""
    #: In fail-over order.
    artifacts: tuple[Artifact, ...] = ()
    labels_file: str = ""
    picture: PictureRules | None = None
    output: OutputRules | None = None
    goldens: tuple[Golden, ...] = ()
    #: "default" and names of CPU cores -> largest allowed difference.
    tolerance: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    #: Most requests in one batch; 0 = batches only where the file's first dimension is dynamic.
    max_batch_size: int = 0
    #: Tensor's name in the file or its signature -> the name that clients use.
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the manifest names."""
        golden = [f for g in self.goldens for f in (*g.inputs.values(), *g.outputs.values())]
        labels = [self.labels_file] if self.labels_file else []
        return tuple(dict.fromkeys([a.file for a in self.artifacts] + labels + golden))


def check_name(name: str) -> str:
    """Return `name` if a model may be called so; raises InvalidModel."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InvalidModel(
            f"model name {name!r} is not allowed: 1-64 of A-Z a-z 0-9 . _ -, "
            "starting with a letter or digit, not 'stats'"
        )
    return name


def check_version(version: str) -> str:
    """Return `version` if it is a positive whole number without leading zeros; raises InvalidModel."""
    if not VERSION.fullmatch(version):
        raise InvalidModel(f"model version {version!r} is not allowed: a positive whole number")
    return version


def check_path(text: object, where: str) -> str:
    """A relative path that stays inside the model directory; raises InvalidModel."""
    if not isinstance(text, str) or not text or len(text) > 255 or "\0" in text or "\\" in text:
        raise InvalidModel(f"{where}: {text!r} is not a file name")
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != text or path.parts[0].startswith("."):
        raise InvalidModel(f"{where}: {text!r} must be a plain path inside the model directory")
    return text


class _Table:
    """Reads typed values out of a TOML table and complains about what is left over."""

    def __init__(self, table: object, where: str) -> None:
        if not isinstance(table, dict):
            raise InvalidModel(f"{where} must be a table")
        self.table = dict(table)
        self.where = where

    def text(self, key: str, default: str | None = None, limit: int = 4096) -> str:
        value = self.table.pop(key, default)
        if not isinstance(value, str) or len(value) > limit:
            raise InvalidModel(f"{self.where}: {key} must be a text of at most {limit} characters")
        return value

    def done(self) -> None:
        if self.table:
            raise InvalidModel(f"{self.where}: unknown key {next(iter(self.table))!r}")


def parse(data: bytes, directory_name: str = "") -> Manifest:
    """Read a manifest. `directory_name` is the model's name on disk and must agree when given. Raises InvalidModel."""
    if len(data) > MAX_BYTES:
        raise InvalidModel(f"model.toml is larger than {MAX_BYTES} bytes")
    try:
        top = _Table(tomllib.loads(data.decode()), "model.toml")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidModel(f"model.toml: {error}") from error
    schema = top.table.pop("schema", None)
    if schema != SCHEMA:
        raise InvalidModel(f"model.toml: schema is {schema!r}, this edgeaid reads schema {SCHEMA}")
    name = check_name(top.text("name", directory_name or None))
    if directory_name and name != directory_name:
        raise InvalidModel(f"model.toml: name {name!r} differs from the directory's {directory_name!r}")
    task = top.text("task", "other")
    if task not in TASKS:
        raise InvalidModel(f"model.toml: task {task!r} is none of {', '.join(TASKS)}")
    artifacts = _artifacts(top.table.pop("artifacts", None))
    labels = top.table.pop("labels", None)
    picture = top.table.pop("input", None)
    output = top.table.pop("output", None)
    manifest = Manifest(
        name=name,
        serial=_serial(top.table.pop("serial", 0)),
        task=task,
        description=top.text("description", ""),
        license=top.text("license", ""),
        source=top.text("source", ""),
        artifacts=artifacts,
        labels_file=_labels(labels),
        picture=PictureRules.from_table(picture) if picture is not None else None,
        output=OutputRules.from_table(output) if output is not None else None,
        goldens=_goldens(top.table.pop("golden", [])),
        tolerance=_tolerance(top.table.pop("tolerance", {})),
        accuracy=_plain(top.table.pop("accuracy", {}), "[accuracy]"),
        max_batch_size=_batch(top.table.pop("max_batch_size", 0)),
        names=_names(top.table.pop("names", {})),
    )
    _plain(top.table.pop("conversion", {}), "[conversion]")  # notes of the toolkit; nothing here reads them
    top.done()
    return manifest


def _serial(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise InvalidModel("model.toml: serial must be a whole number from 0 up")
    return value


def _artifacts(value: object) -> tuple[Artifact, ...]:
    if not isinstance(value, dict) or not value:
        raise InvalidModel("model.toml: at least one [artifacts.<target>] table is needed")
    found = []
    for target, entry in value.items():
        if target not in TARGETS:
            raise InvalidModel(f"[artifacts.{target}]: unknown target; known: {', '.join(TARGETS)}")
        table = _Table(entry, f"[artifacts.{target}]")
        file = check_path(table.table.pop("file", None), f"[artifacts.{target}] file")
        digest = table.text("sha256", "")
        if not SHA256.fullmatch(digest):
            raise InvalidModel(f"[artifacts.{target}]: sha256 must be 64 lower-case hexadecimal digits")
        found.append(Artifact(target, file, digest, _plain(table.table, table.where)))
    return tuple(found)


def _batch(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_BATCH:
        raise InvalidModel(f"model.toml: max_batch_size = {value!r:.40} is not a whole number from 0 to {MAX_BATCH}")
    return value


def _names(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 256:
        raise InvalidModel("[names] must be a table of at most 256 names")
    for old, new in value.items():
        if not isinstance(new, str) or not 0 < len(new) <= 255 or not new.isprintable():
            raise InvalidModel(f"[names]: {old!r:.80} must be given a name of 1 to 255 printable characters")
    return {str(k): str(v) for k, v in value.items()}


def _labels(value: object) -> str:
    if value is None:
        return ""
    table = _Table(value, "[labels]")
    file = check_path(table.table.pop("file", None), "[labels] file")
    table.done()
    return file


def _goldens(value: object) -> tuple[Golden, ...]:
    if not isinstance(value, list) or len(value) > 64:
        raise InvalidModel("[[golden]] must be an array of at most 64 tables")
    found = []
    for number, entry in enumerate(value):
        table = _Table(entry, f"[[golden]] {number}")
        sides = []
        for side in ("inputs", "outputs"):
            files = table.table.pop(side, None)
            if not isinstance(files, dict) or not files:
                raise InvalidModel(f"{table.where}: {side} must map tensor names to files")
            sides.append({str(k): check_path(v, f"{table.where} {side}") for k, v in files.items()})
        found.append(Golden(sides[0], sides[1], table.text("runtime", "")))
        table.done()
    return tuple(found)


def _tolerance(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InvalidModel("[tolerance] must be a table")
    for key, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 1e9:
            raise InvalidModel(f"[tolerance]: {key} must be a number >= 0")
    return {str(k): float(v) for k, v in value.items()}


def _plain(value: object, where: str) -> dict[str, Any]:
    """A table whose values are JSON values (TOML dates are not)."""
    if not isinstance(value, dict):
        raise InvalidModel(f"{where} must be a table")

    def ok(item: object) -> bool:
        if isinstance(item, list):
            return all(ok(i) for i in item)
        if isinstance(item, dict):
            return all(ok(i) for i in item.values())
        return isinstance(item, str | int | float | bool)

    if not ok(value):
        raise InvalidModel(f"{where}: only texts, numbers, true/false, arrays and tables")
    return dict(value)
