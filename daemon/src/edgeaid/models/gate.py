"""Checks on a model directory before a runtime sees any of its files, and the self-test that its manifest asks for."""

from __future__ import annotations

import mmap
from typing import Any

from .. import processor
from ..errors import InvalidModel
from ..formats.tflite import reader as tflite
from .manifest import DEFAULT_TOLERANCE
from .repository import Found, open_inside


def check_formats(found: Found) -> None:
    """Bounds-check every artifact whose format is known. InvalidModel says what is damaged and where. Blocking."""
    for artifact in found.manifest.artifacts:
        if artifact.target not in ("cpu", "edgetpu") or not artifact.file.endswith(".tflite"):
            continue
        where = f"{found.path / artifact.file}"
        with open(open_inside(found.path, artifact.file), "rb") as stream:
            try:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise InvalidModel(f"{where} is empty") from error
            try:
                # Not closed by hand: a reader's exception may still hold a view of the mapping.
                model = tflite.read(memoryview(data))
            except InvalidModel as error:
                raise InvalidModel(f"{where}: {error}") from error
        compiled = "edgetpu-custom-op" in model.custom_codes
        if artifact.target == "cpu" and compiled:
            raise InvalidModel(
                f"{where} is compiled for the Edge TPU but stands under [artifacts.cpu]; move it to [artifacts.edgetpu]"
            )
        if artifact.target == "edgetpu" and not compiled:
            raise InvalidModel(
                f"{where} stands under [artifacts.edgetpu] but is not compiled for it; run edgetpu_compiler first"
            )


def selftest_cases(found: Found, family: str) -> tuple[list[dict[str, Any]], float]:
    """Golden cases that hold for a runtime family, with absolute paths, and the tolerance for this CPU."""
    cases = [
        {
            "inputs": {k: str(found.path / v) for k, v in g.inputs.items()},
            "outputs": {k: str(found.path / v) for k, v in g.outputs.items()},
        }
        for g in found.manifest.goldens
        if g.runtime in ("", family)
    ]
    tolerance = found.manifest.tolerance
    return cases, tolerance.get(processor.core(), tolerance.get("default", DEFAULT_TOLERANCE))
