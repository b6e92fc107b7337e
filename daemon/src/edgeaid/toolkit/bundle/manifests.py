"""Changing a `model.toml` without losing what a person wrote there: tables and keys are added as text."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidModel, NotFound, TooLarge
from ...models.bundle import MANIFEST
from ...models.manifest import MAX_BYTES

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def value(item: object) -> str:
    """A value as TOML. Raises InvalidModel for what TOML cannot hold."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int | float):
        return repr(item)
    if isinstance(item, str):
        # JSON's escapes are TOML's, except that TOML requires DEL escaped.
        return json.dumps(item).replace("\x7f", "\\u007f")
    if isinstance(item, Mapping):
        return "{ " + ", ".join(f"{key(k)} = {value(v)}" for k, v in item.items()) + " }"
    if isinstance(item, Sequence):
        return "[" + ", ".join(value(v) for v in item) + "]"
    raise InvalidModel(f"{type(item).__name__} {item!r} cannot be written to a manifest")


def key(name: str) -> str:
    """A key as TOML, quoted if it has to be."""
    return name if _BARE.fullmatch(name) else json.dumps(name)


def table(header: str, values: Mapping[str, Any]) -> str:
    """A table as text; `header` with its brackets."""
    return "\n".join([header, *(f"{key(k)} = {value(v)}" for k, v in values.items())]) + "\n"


def append(directory: Path, texts: Sequence[str]) -> None:
    """Add tables to a directory's manifest, atomically. Raises InvalidModel if the result would not be TOML."""
    path = directory / MANIFEST
    text = path.read_text("utf-8") if path.exists() else ""
    _replace(
        path, text.rstrip("\n") + "\n" * bool(text) + "".join("\n" + t for t in texts) if text else "\n".join(texts)
    )


def set_key(directory: Path, header: str, name: str, item: object) -> None:
    """Put a key into an existing table (`header` with brackets), replacing the key's line if there is one."""
    path = directory / MANIFEST
    lines = path.read_text("utf-8").splitlines()
    line = f"{key(name)} = {value(item)}"
    starts = [i for i, text in enumerate(lines) if text.split("#", 1)[0].strip() == header]
    if not starts:
        raise InvalidModel(f"{path} has no table {header}")
    end = next((i for i in range(starts[0] + 1, len(lines)) if lines[i].lstrip().startswith("[")), len(lines))
    for i in range(starts[0] + 1, end):
        if re.match(rf"\s*{re.escape(key(name))}\s*=", lines[i]):
            lines[i] = line
            break
    else:
        lines.insert(starts[0] + 1, line)
    _replace(path, "\n".join(lines) + "\n")


def _replace(path: Path, text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidModel(f"{path} would not be TOML any more ({error}); edit it by hand") from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The `model.toml` of a model directory. Raises NotFound or InvalidModel."""
    path = directory / MANIFEST
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TooLarge(f"{path} has more than {MAX_BYTES} bytes; that is not a manifest")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}; a model directory needs one") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidModel(f"{path} is not TOML: {error}") from error
