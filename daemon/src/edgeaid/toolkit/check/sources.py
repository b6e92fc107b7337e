"""What is checked when a directory or an archive is named: the artifact for the target in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import InvalidModel
from ...formats.detect import detect
from ...formats.k210 import kfpkg
from ...formats.wire import zipdir
from ...tables import read_toml
from ..files import MAX_FILE, load


@contextmanager
def opened(path: Path, target: str) -> Iterator[tuple[bytes, Path]]:
    """Content of the model file, and a path where it lies (a temporary one for what is in an archive).

    A SavedModel gives its saved_model.pb, a model directory or a bundle the artifact of its manifest for `target`, a
    flash package its kmodel. Raises NotFound, TooLarge, and InvalidModel when there is no such artifact.
    """
    if path.is_dir():
        chosen = _in_directory(path, target)
        yield load(chosen), chosen
        return
    data = load(path)
    kind = detect(data)
    entries = {e.name: e for e in zipdir.entries(data)} if kind in ("zip", "kfpkg") else {}
    name = ""
    if "model.toml" in entries:
        name = _artifact(zipdir.read(data, entries["model.toml"], 1 << 20), path, target)
    elif kind == "kfpkg" and target == "k210":
        name = next((f.name for f in kfpkg.read(data).files if f.kind.startswith("kmodel")), "")
    if not name:
        yield data, path
        return
    if name not in entries:
        raise InvalidModel(f"{path} has no {name!r}, which its manifest names")
    content = zipdir.read(data, entries[name], MAX_FILE)
    with tempfile.TemporaryDirectory(prefix="edgeai-") as directory:
        inside = Path(directory) / Path(name).name
        inside.write_bytes(content)
        yield content, inside


def _in_directory(path: Path, target: str) -> Path:
    if (path / "saved_model.pb").is_file():
        return path / "saved_model.pb"
    if not (path / "model.toml").is_file():
        raise InvalidModel(f"{path} is a directory with neither saved_model.pb nor model.toml; name a model file")
    return path / _artifact(load(path / "model.toml", 1 << 20), path, target)


def _artifact(manifest: bytes, path: Path, target: str) -> str:
    try:
        table: Mapping[str, Any] = read_toml(manifest.decode("utf-8"))
    except ValueError as error:
        raise InvalidModel(f"{path}: model.toml cannot be read: {error}") from None
    artifacts = table.get("artifacts")
    artifacts = artifacts if isinstance(artifacts, dict) else {}
    chosen = artifacts.get(target)
    name = chosen.get("file") if isinstance(chosen, dict) else None
    if not isinstance(name, str) or not name or name.startswith("/") or ".." in Path(name).parts:
        raise InvalidModel(f"{path} has no artifact for {target}; it has {', '.join(artifacts) or 'none'}")
    return name
