"""`model.toml`: what a model directory says of itself. Schema 1, described in docs/models.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from ..errors import InvalidModel
from ..tables import Table, WrongValue, dotted, raising, read_toml
from .ensemble import OUTPUT, PICTURE, TARGET, Ensemble, ensemble
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
#: Keys that go with files of a model's own.
_FILES: Final = (
    "artifacts", "labels", "input", "output", "golden", "tolerance", "max_batch_size", "names", "conversion",
)  # fmt: skip
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
    #: Set for a model that has no file of its own: others answer together.
    ensemble: Ensemble | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """What it can run on, in fail-over order."""
        return (TARGET,) if self.ensemble is not None else tuple(a.target for a in self.artifacts)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the manifest names, and the weights beside an OpenVINO IR."""
        golden = [f for g in self.goldens for f in (*g.inputs.values(), *g.outputs.values())]
        labels = [self.labels_file] if self.labels_file else []
        weights = [f"{a.file.removesuffix('.xml')}.bin" for a in self.artifacts if a.file.endswith(".xml")]
        return tuple(dict.fromkeys([a.file for a in self.artifacts] + weights + labels + golden))


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


def parse(data: bytes, directory_name: str = "") -> Manifest:
    """Read a manifest. `directory_name` is the model's name on disk and must agree when given. Raises InvalidModel."""
    if len(data) > MAX_BYTES:
        raise InvalidModel(f"model.toml is larger than {MAX_BYTES} bytes")
    try:
        top = Table(read_toml(data.decode()))
    except ValueError as error:
        raise InvalidModel(f"model.toml: {error}") from error
    schema = top.take("schema")
    if schema != SCHEMA:
        raise InvalidModel(f"model.toml: schema is {schema!r:.80}, this edgeaid reads schema {SCHEMA}")
    with raising(InvalidModel, "model.toml"):
        return _manifest(top, directory_name)


def _manifest(top: Table, directory_name: str) -> Manifest:
    name = check_name(top.text("name", directory_name or None))
    if directory_name and name != directory_name:
        raise InvalidModel(f"model.toml: name {name!r} differs from the directory's {directory_name!r}")
    if "ensemble" in top.rest:
        return _ensemble(top, name)
    picture, output = top.take("input"), top.take("output")
    manifest = Manifest(
        name=name,
        serial=top.integer("serial", 0, 0, (1 << 63) - 1),
        task=top.choice("task", TASKS, "other"),
        description=top.text("description", "", limit=4096),
        license=top.text("license", "", limit=4096),
        source=top.text("source", "", limit=4096),
        artifacts=_artifacts(top.table("artifacts")),
        labels_file=_labels(top.take("labels")),
        picture=PictureRules.from_table(picture) if picture is not None else None,
        output=OutputRules.from_table(output) if output is not None else None,
        goldens=tuple(_golden(table) for table in top.tables("golden", 64)),
        tolerance=_tolerance(top.table("tolerance")),
        accuracy=_plain(top.table("accuracy")),
        max_batch_size=top.integer("max_batch_size", 0, 0, MAX_BATCH),
        names=_names(top.table("names")),
    )
    _plain(top.table("conversion"))  # notes of the toolkit; nothing here reads them
    top.done()
    return manifest


def _ensemble(top: Table, name: str) -> Manifest:
    """What others answer together has no files, and sees pictures and names objects as they do."""
    manifest = Manifest(
        name=name,
        serial=top.integer("serial", 0, 0, (1 << 63) - 1),
        task=top.choice("task", ("detect",), "detect"),
        description=top.text("description", "", limit=4096),
        license=top.text("license", "", limit=4096),
        source=top.text("source", "", limit=4096),
        picture=PICTURE,
        output=OUTPUT,
        accuracy=_plain(top.table("accuracy")),
        ensemble=ensemble(top.table("ensemble"), name),
    )
    if top.rest:
        key = next(iter(top.rest))
        known = key in _FILES
        top.wrong(key, "is not for a model with [ensemble]: its members have that" if known else "unknown key")
    return manifest


def _path(table: Table, key: str) -> str:
    return check_path(table.take(key), f"model.toml: {dotted((*table.path, key))}")


def _artifacts(table: Table) -> tuple[Artifact, ...]:
    if not table.rest:
        raise WrongValue(table.path, "is missing: at least one [artifacts.<target>] table is needed, or [ensemble]")
    artifacts = []
    for target in list(table.rest):
        if target not in TARGETS:
            raise WrongValue(table.path, f"unknown target {target!r:.80}; known: {', '.join(TARGETS)}")
        entry = table.table(target)
        file = _path(entry, "file")
        digest = entry.text("sha256", "")
        if not SHA256.fullmatch(digest):
            entry.wrong("sha256", "must be 64 lower-case hexadecimal digits")
        artifacts.append(Artifact(target, file, digest, _plain(entry)))
    return tuple(artifacts)


def _names(table: Table) -> dict[str, str]:
    if len(table.rest) > 256:
        raise WrongValue(table.path, "must be a table of at most 256 names")
    for old, new in table.rest.items():
        if not isinstance(new, str) or not 0 < len(new) <= 255 or not new.isprintable():
            raise WrongValue(table.path, f"{old!r:.80} must be given a name of 1 to 255 printable characters")
    return table.rest


def _labels(value: object) -> str:
    if value is None:
        return ""
    table = Table(value, ("labels",))
    file = _path(table, "file")
    table.done()
    return file


def _golden(table: Table) -> Golden:
    sides = []
    for side in ("inputs", "outputs"):
        files = table.table(side)
        if not files.rest:
            table.wrong(side, "must map tensor names to files")
        sides.append({name: _path(files, name) for name in list(files.rest)})
    golden = Golden(sides[0], sides[1], table.text("runtime", ""))
    table.done()
    return golden


def _tolerance(table: Table) -> dict[str, float]:
    return {key: table.number(key, 0.0, 0.0, 1e9) for key in list(table.rest)}


def _plain(table: Table) -> dict[str, Any]:
    """What is left of a table, whose values must be JSON values (TOML dates are not)."""

    def ok(item: object) -> bool:
        if isinstance(item, list):
            return all(ok(i) for i in item)
        if isinstance(item, dict):
            return all(ok(i) for i in item.values())
        return isinstance(item, str | int | float | bool)

    if not ok(table.rest):
        raise WrongValue(table.path, "may have only texts, numbers, true/false, arrays and tables")
    return table.rest
