"""Checks on a model directory before a runtime sees any of its files, and the self-test that its manifest asks for."""

from __future__ import annotations

import json
import mmap
from typing import Any

from .. import processor
from ..errors import InvalidModel
from ..formats.tflite import reader as tflite
from .manifest import DEFAULT_TOLERANCE
from .pictures import ssd_order
from .repository import StoredModel, open_inside


def check_formats(stored: StoredModel) -> None:
    """Bounds-check every artifact whose format is known. InvalidModel says what is damaged and where. Blocking."""
    for artifact in stored.manifest.artifacts:
        if artifact.target not in ("cpu", "edgetpu") or not artifact.file.endswith(".tflite"):
            continue
        where = artifact.file
        with open(open_inside(stored.path, artifact.file), "rb") as stream:
            try:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise InvalidModel(f"{where} is empty") from error
            try:
                # Not closed by hand: a reader's exception may still hold a view of the mapping.
                model = tflite.read(memoryview(data))
            except InvalidModel as error:
                raise InvalidModel(f"{where}: {error}") from error
        _check_order(stored, model, where)
        compiled = "edgetpu-custom-op" in model.custom_codes
        if artifact.target == "cpu" and compiled:
            raise InvalidModel(
                f"{where} is compiled for the Edge TPU but stands under [artifacts.cpu]; move it to [artifacts.edgetpu]"
            )
        if artifact.target == "edgetpu" and not compiled:
            raise InvalidModel(
                f"{where} stands under [artifacts.edgetpu] but is not compiled for it; run edgetpu_compiler first"
            )


def _check_order(stored: StoredModel, model: tflite.TfliteModel, where: str) -> None:
    """A detector's outputs must be what its manifest says, as far as the file says."""
    rules = stored.manifest.output
    if rules is None or rules.decoder != "ssd":
        return
    known = ssd_order(model)
    if known is not None and known != rules.order:
        raise InvalidModel(
            f"{where}: [output] order = {list(rules.order)} is not the order of its outputs; "
            f"write: order = {json.dumps(known)}"
        )
    if len(model.outputs) != len(rules.order):
        raise InvalidModel(f"{where}: decoder ssd needs four outputs, the model has {len(model.outputs)}")
    for spec, what in zip(model.outputs, rules.order, strict=True):
        shape = tuple(d for d in spec.shape if d != 1)
        wrong = (what == "boxes" and shape and shape[-1] != 4) or (what == "count" and len(shape) > 0)
        if wrong:
            raise InvalidModel(
                f"{where}: [output] order calls output {spec.name!r} of shape {list(spec.shape)} {what!r}, which it "
                "cannot be; boxes are [1, N, 4], the count has one value"
            )


def selftest_cases(stored: StoredModel, family: str) -> tuple[list[dict[str, Any]], float]:
    """Golden cases that hold for a runtime family, with absolute paths, and the tolerance for this CPU."""
    cases = [
        {
            "inputs": {k: str(stored.path / v) for k, v in g.inputs.items()},
            "outputs": {k: str(stored.path / v) for k, v in g.outputs.items()},
        }
        for g in stored.manifest.goldens
        if g.runtime in ("", family)
    ]
    tolerance = stored.manifest.tolerance
    return cases, tolerance.get(processor.core(), tolerance.get("default", DEFAULT_TOLERANCE))
