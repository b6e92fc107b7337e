"""Model directories made on this computer: a name from a file, a manifest from what its owner says about it."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import re
import shlex
import shutil
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import click.shell_completion

from .. import errors
from ..client.pictures import refuse_address
from ..models import bare, bundle, foreign
from ..models import manifest as manifests

TASKS: Final = manifests.TASKS
#: The decoder that a task has where the file's own manifest names none.
_DECODERS: Final = {"classify": "classification", "detect": "ssd", "segment": "segmentation"}
#: The largest file that is wrapped here; the daemon has its own limit.
MAX_BYTES: Final = 2 << 30
_SUFFIXES: Final = re.compile(r"(\.edgeai|\.tflite|\.kmodel|\.blob|\.graph|\.xml|\.zip)$", re.IGNORECASE)
#: What a directory that is not a model directory may hold, the likeliest meant first.
_MODEL_FILES: Final = (
    "*.tflite", "*.edgeai", "*.kmodel", "*.graph", "*.xml", "*.onnx", "*.keras", "*.h5", "*.pb", "*.pt", "*.zip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Description:
    """What the options say about a bare model file; empty = what the file itself says is used."""

    #: One number, or one per channel: real = (pixel - mean) / std.
    mean: str = ""
    std: str = ""
    #: A file with one label per line.
    labels: Path | None = None
    task: str = ""
    #: RGB, BGR or GRAY.
    color: str = ""

    def __bool__(self) -> bool:
        return bool(self.mean or self.std or self.labels or self.task or self.color)


class _Optional(click.ParamType[str]):
    """A choice that may be left out, as the empty text."""

    name = "choice"

    def __init__(self, choice: click.Choice[str]) -> None:
        self.choice = choice

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(self.choice.convert(value, param, ctx)) if value else ""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        return self.choice.shell_complete(ctx, param, incomplete)


def describing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that make a `Description`."""
    formats, tasks = click.Choice(["RGB", "BGR", "GRAY"], case_sensitive=False), click.Choice(TASKS)
    file = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--mean", default="", help="Mean of the normalisation, (pixel - mean) / std; comma for channels."),
        click.option("--std", default="", help="Its standard deviation."),
        click.option("--labels", type=file, help="File with one label per line."),
        click.option("--task", default="", type=_Optional(tasks), metavar="TASK", help=", ".join(TASKS) + "."),
        click.option(
            "--input-format", default="", type=_Optional(formats), metavar="FORMAT", help="Channels: RGB, BGR or GRAY."
        ),
    ):
        function = option(function)
    return function


def description(mean: str, std: str, labels: Path | None, task: str, input_format: str) -> Description:
    """From the options. InvalidRequest for numbers that are none and files that are not there."""
    if bool(mean) != bool(std):
        raise errors.InvalidRequest("--mean and --std belong together: real = (pixel - mean) / std")
    for text, option in ((mean, "--mean"), (std, "--std")):
        if text:
            _numbers(text, option)
    if std and min(_numbers(std, "--std")) <= 0:
        raise errors.InvalidRequest("--std must be above 0")
    if labels is not None:
        _check_labels(labels)
    return Description(mean, std, labels, task, input_format.upper())


def _check_labels(file: Path) -> None:
    """NotFound, PermissionDenied; InvalidData for a picture, a model and the like in the place of a list of labels."""
    if not file.is_file():
        raise errors.NotFound(f"--labels {file}: there is no such file")
    try:
        with file.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise errors.PermissionDenied(f"--labels {file}: {error.strerror}") from error
    what = "a .tflite model" if head[4:8] == b"TFL3" else foreign.name_of(head)
    if what and b"\0" in head:  # a list may begin with the letters that are another file's mark
        raise errors.InvalidData(f"--labels {file}: this is {what}, not a list of labels")


def _numbers(text: str, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise errors.InvalidRequest(f"{option} {text!r} is not a number, nor numbers with commas between") from error
    if len(values) not in (1, 3):
        raise errors.InvalidRequest(f"{option} {text!r} has {len(values)} numbers; give one, or one per channel")
    if not all(map(math.isfinite, values)):
        raise errors.InvalidRequest(f"{option} {text!r} must be finite")
    return values


def name_of(file: Path) -> str:
    """A model's name from its file: a bundle's or directory's own, else the stem, in letters that names may have."""
    if file.is_dir():
        return str(_manifest(file)["name"])
    if _is_bundle(file):
        with bundle.open_bundle(file) as opened:
            return manifests.parse(opened.read("model.toml")).name
    return name_in(_SUFFIXES.sub("", file.name), file)


def name_in(stem: str, file: Path) -> str:
    """A model's name from the stem of its file. InvalidRequest for one that names cannot be."""
    ascii_ = unicodedata.normalize("NFKD", stem.replace("ß", "ss")).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_).strip("._-")[:64]
    if name in manifests.RESERVED:
        raise errors.InvalidRequest(f"{name!r} cannot be a model's name; give another: edgeai push NAME {file}")
    return manifests.check_name(name or "model")


def with_published_labels(file: Path, said: Description) -> Description:
    """For a file of the catalogue: its label file too, where it lies beside the model and nothing else was said."""
    from ..models import catalogue

    if said.labels is not None or file.stat().st_size > catalogue.MAX_BYTES:
        return said
    data = file.read_bytes()
    known = catalogue.of_digest(hashlib.sha256(data).hexdigest(), data)
    if known is None or known[0].labels is None:
        return said
    beside = file.with_name(known[0].labels.name)
    return replace(said, labels=beside) if beside.is_file() else said


def _is_bundle(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def check_file(file: Path, *, any_model: bool = False) -> None:
    """Refuse what is not there or cannot be served before it is uploaded, with the next step.

    A directory must be a model directory, and its parents say where the model is. `any_model`: files for accelerators
    will do too. NotFound, PermissionDenied, InvalidRequest, InvalidModel.
    """
    refuse_address(file)
    if not file.exists():
        raise errors.NotFound(f"{file}: there is no such file or directory")
    if file.is_dir():
        _check_directory(file)
    elif not file.is_file():
        raise errors.InvalidRequest(f"{file} is not a file; name a model file")
    else:
        reason = _refusal(file, any_model)
        if reason:
            raise errors.InvalidModel(f"{file}: {reason.replace(' FILE', f' {shlex.quote(str(file))}')}")


def _refusal(file: Path, any_model: bool) -> str:
    try:
        with open(file, "rb") as stream:
            if not stream.seek(0, 2):
                return foreign.refusal(b"")
            # Not closed by hand: an exception may hold a view of it.
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except PermissionError as error:
        raise errors.PermissionDenied(f"{file}: {error.strerror}; make it readable: chmod +r {file}") from error
    except OSError as error:
        raise errors.InvalidRequest(f"{file} cannot be read: {error.strerror}") from error
    return "" if any_model and foreign.target_of(data) else foreign.refusal(data)


def _check_directory(directory: Path) -> None:
    if (directory / "model.toml").is_file():
        return
    if (directory / "saved_model.pb").is_file():
        raise errors.InvalidModel(
            f"{directory} is a TensorFlow SavedModel; make a .tflite of it first: "
            f"edgeai model quantize {shlex.quote(str(directory))} --representative PICTURES"
        )
    below = sorted(path.parent for path in (*directory.glob("*/model.toml"), *directory.glob("*/*/model.toml")))
    if below:
        raise errors.InvalidModel(f"{directory} is not a model directory; name one: {', '.join(map(str, below[:5]))}")
    files = [file for pattern in _MODEL_FILES for file in sorted(directory.glob(pattern))]
    more = f"; name a file of it: {shlex.quote(str(files[0]))}" if files else "; edgeai model init FILE makes one"
    labels = directory / "labels.txt"
    if files and labels.is_file():
        more += f" --labels {shlex.quote(str(labels))}"
    raise errors.InvalidModel(f"{directory} is not a model directory: it has no model.toml{more}")


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads((directory / "model.toml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise errors.InvalidModel(f"{directory / 'model.toml'} cannot be read: {error}") from error
    if not isinstance(table.get("name"), str):
        raise errors.InvalidModel(f"{directory / 'model.toml'} does not say the model's name")
    return table


def directory_of(file: Path, name: str, said: Description, directory: Path) -> tuple[str, ...]:
    """Make a model directory of a bare model file, described as its owner says; returns what was assumed nevertheless.

    InvalidModel for what is not a model.
    """
    directory.mkdir(parents=True)
    target = _target(file)
    if target:
        _for_accelerator(file, name, target, directory)
        notes: tuple[str, ...] = ()
    else:
        notes = _bare(file, name, directory)
    table = _manifest(directory)
    _check(table, said)
    _apply(table, said, directory)
    text = dump(table)
    manifests.parse(text.encode(), name)
    (directory / "model.toml").write_text(text, "utf-8")
    answered = (("pixel", said.mean), ("label", said.labels), ("task", said.task), ("color", said.color))
    return tuple(note for note in notes if not any(value and word in note for word, value in answered))


def _check(table: Mapping[str, Any], said: Description) -> None:
    """InvalidRequest for what somebody says that cannot be true of the file."""
    written = table.get("input", {}).get("color")
    if said.color and written and (said.color == "GRAY") != (written == "GRAY"):
        channels = 1 if written == "GRAY" else 3
        raise errors.InvalidRequest(f"--input-format {said.color}: the model's pictures have {channels} channel(s)")
    if said.task == "pose" and table.get("task") != "pose":
        raise errors.InvalidRequest(
            "--task pose: the file does not tell how its outputs become keypoints; make a model directory (edgeai "
            "model init FILE) and write the decoder into [output] of its model.toml: movenet, posenet, yolov8-pose, ..."
        )


def _target(file: Path) -> str:
    with open(file, "rb") as stream:
        return foreign.target_of(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))


def _for_accelerator(file: Path, name: str, target: str, directory: Path) -> None:
    """A directory of a file that only its device reads: an OpenVINO IR brings its weights along."""
    stored = f"model{file.suffix.lower()}" if file.suffix else "model.graph"
    shutil.copyfile(file, directory / stored)
    weights = file.with_suffix(".bin")
    if target == "ncs2":
        if not weights.is_file():
            raise errors.NotFound(f"{file} needs its weights beside it: there is no {weights}")
        shutil.copyfile(weights, directory / "model.bin")
    digest = hashlib.sha256((directory / stored).read_bytes()).hexdigest()
    artifact = {"file": stored, "sha256": digest}
    table = {"schema": 1, "name": name, "task": "other", "artifacts": {target: artifact}}
    (directory / "model.toml").write_text(dump(table), "utf-8")


def _bare(file: Path, name: str, directory: Path) -> tuple[str, ...]:
    copy = directory.parent / f".{directory.name}.upload"
    shutil.copyfile(file, copy)
    try:
        return bare.unpack(copy, directory, name, MAX_BYTES)
    finally:
        copy.unlink(missing_ok=True)


def _apply(table: dict[str, Any], said: Description, directory: Path) -> None:
    if said.task and said.task != table.get("task"):
        table["task"] = said.task
        decoder = _DECODERS.get(said.task)
        if decoder is None:
            table.pop("output", None)
        elif table.get("output", {}).get("decoder") != decoder:
            table["output"] = {"decoder": decoder}
        if decoder is not None:
            table.setdefault("input", {})
    if said.color:
        table.setdefault("input", {})["color"] = said.color
    if said.mean:
        table.setdefault("input", {}).update(mean=_numbers(said.mean, "--mean"), std=_numbers(said.std, "--std"))
    if said.labels is not None:
        shutil.copyfile(said.labels, directory / "labels.txt")
        table["labels"] = {"file": "labels.txt"}


def dump(table: Mapping[str, Any], prefix: str = "") -> str:
    """TOML of a manifest's tables. JSON spells texts, numbers and arrays of them as TOML does."""
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in table.items()
        if not isinstance(value, dict) and not _is_array_of_tables(value)
    ]
    for key, value in table.items():
        if isinstance(value, dict):
            inner = dump(value, f"{prefix}{key}.")
            only_tables = value and all(isinstance(v, dict) for v in value.values())
            lines += ["", inner.lstrip("\n")] if only_tables else ["", f"[{prefix}{key}]", inner]
        elif _is_array_of_tables(value):
            for entry in value:
                rows = [f"{k} = {_inline(v)}" for k, v in entry.items()]
                lines += ["", f"[[{prefix}{key}]]", *rows]
    return "\n".join(lines).rstrip("\n") + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
