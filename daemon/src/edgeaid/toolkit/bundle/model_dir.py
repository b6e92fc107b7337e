"""Model directories that the toolkit makes: <name>/<version>/model.toml and what it names."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from ...errors import AlreadyExists, InvalidModel, InvalidRequest
from ...models import manifest as manifests_of_models
from ...models.bundle import MANIFEST
from ..compile.request import Compiled
from ..convert.conversion import Conversion
from ..convert.quantize import Result
from ..convert.representative import Normalisation
from . import manifests
from .manifests import read_manifest


def from_quantised(directory: Path, result: Result, rules: Normalisation, labels: Path | None) -> Path:
    """Make `directory` (<name>/<version>, must not exist) from a quantised classifier. Raises AlreadyExists."""
    name, version = directory.resolve().parent.name, directory.resolve().name
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise InvalidRequest(f"{directory}: a model directory is called <name>/<version>, the version a whole number")
    if directory.exists():
        raise AlreadyExists(f"{directory} exists; choose the next version")
    directory.mkdir(parents=True)
    shutil.copyfile(result.output, directory / "model.tflite")
    parts = [
        f'schema = 1\nname = {manifests.value(name)}\ntask = "classify"\n'
        f"source = {manifests.value('quantised by edgeai model quantize')}\n",
        manifests.table("[artifacts.cpu]", {"file": "model.tflite", "sha256": _digest(directory / "model.tflite")}),
    ]
    if labels:
        shutil.copyfile(labels, directory / "labels.txt")
        parts.append(manifests.table("[labels]", {"file": "labels.txt"}))
    from ...formats.tflite import reader as tflite

    channels = tflite.read((directory / "model.tflite").read_bytes()).inputs[0].shape[-1]
    picture: dict[str, Any] = {
        "resize": "stretch",
        "filter": "bilinear",
        "color": "GRAY" if channels == 1 else rules.color,
    }
    if rules.invert:
        picture["invert"] = True
    parts.append(manifests.table("[input]", {**picture, "mean": list(rules.mean), "std": list(rules.std)}))
    parts.append(manifests.table("[output]", {"decoder": "classification", "activation": "none"}))
    if result.accuracy:
        parts.append(
            manifests.table(
                "[accuracy]",
                {"metric": "top-1", "value": round(result.accuracy["quantised"], 4),
                 "samples": int(result.accuracy["samples"]), "float_value": round(result.accuracy["float"], 4)},
            )
        )  # fmt: skip
    parts.append(
        manifests.table(
            "[conversion]",
            {"float_bytes": result.float_bytes, "max_error": result.difference.max_error,
             "correlation": result.difference.correlation, "compared": result.difference.samples},
        )
    )  # fmt: skip
    manifests.append(directory, parts)
    check(directory)
    return directory


def add_artifact(directory: Path, compiled: Compiled) -> None:
    """Copy a compiled file into a model directory and name it in the manifest. Raises AlreadyExists, InvalidModel."""
    target = compiled.target
    existing = read_manifest(directory).get("artifacts", {})
    if target in existing:
        raise AlreadyExists(f"{directory / MANIFEST} has an artifact for {target} already; make a new version")
    if target == "edgetpu" and len(compiled.files) != 1:
        raise InvalidRequest("several models were compiled at once; add each to its own directory")
    for path in compiled.files:
        if (directory / path.name).exists() and not (directory / path.name).samefile(path):
            raise AlreadyExists(f"{directory / path.name} exists already")
        if not (directory / path.name).exists():
            shutil.copyfile(path, directory / path.name)
    main = compiled.files[0]
    facts = {k: v for k, v in compiled.facts.get(main.name, {}).items() if v is not None and k != "sha256"}
    table = manifests.table(f"[artifacts.{target}]", {"file": main.name, "sha256": _digest(main), **compiled.options})
    texts = [table]
    if facts:
        texts.append(manifests.table(f"[conversion.{target}]", facts))
    manifests.append(directory, texts)
    check(directory)


def note_conversion(directory: Path, conversion: Conversion) -> None:
    """Keep the report of a conversion in the manifest, as [conversion.<target format>]. Raises InvalidModel."""
    made = conversion.route.rsplit(" ", 1)[-1]
    d = conversion.difference
    notes: dict[str, Any] = {
        "route": conversion.route, "tool": conversion.tool, "transposes": conversion.transposes,
        "max_error": d.max_error, "correlation": d.correlation, "compared": d.samples,
    }  # fmt: skip
    read_manifest(directory)
    manifests.append(directory, [manifests.table(f"[conversion.{made}]", notes)])
    check(directory)


def check(directory: Path) -> None:
    """The daemon's own reader must accept the manifest. Raises InvalidModel."""
    try:
        manifests_of_models.parse((directory / MANIFEST).read_bytes())
    except InvalidModel as error:
        raise InvalidModel(f"{directory / MANIFEST}: {error}") from error


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
