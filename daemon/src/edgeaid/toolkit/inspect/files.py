"""`inspect` on a file, a directory or bytes: the report that its kind's reader makes.

No runtime is loaded: everything comes from the readers in `formats`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from ...errors import EdgeaiError, InvalidModel, NotFound
from ...formats.detect import KINDS, detect
from ..files import load
from . import archives, kmodel, readers, tflite
from .archives import MAX_PARTS, MODEL_FILES, manifest_facts, with_parts
from .report import Report

Builder = Callable[[bytes, Path, int], Report]


def inspect_path(path: Path) -> Report:
    """Inspect a file, or a directory that holds a SavedModel or a model.toml. Raises EdgeaiError."""
    if path.is_dir():
        return _directory(path)
    return inspect_bytes(load(path), path)


def inspect_bytes(data: bytes, path: Path, depth: int = 0) -> Report:
    """Inspect a file's content; `path` finds companions (.bin, .caffemodel) and names it. Raises EdgeaiError."""
    kind = detect(data)
    builder = BUILDERS.get(kind)
    if builder is None:
        if kind == "unknown":
            raise InvalidModel(f"{path} is not a model file of a known kind (docs/formats.md lists them)")
        raise InvalidModel(f"{path}: {KINDS[kind]} files are not inspected")
    try:
        return builder(data, path, depth)
    except EdgeaiError as error:
        raise type(error)(f"{path}: {error}") from error


def _directory(path: Path) -> Report:
    """A SavedModel, or a model directory with its model.toml. Raises NotFound for other directories."""
    saved = path / "saved_model.pb"
    if saved.is_file():
        report = readers.saved_model_report(load(saved), saved, 0)
        index = path / "variables" / "variables.index"
        return with_parts(report, (readers.checkpoint_report(load(index), index, 0),)) if index.is_file() else report
    manifest = path / "model.toml"
    if not manifest.is_file():
        raise NotFound(f"{path} is a directory with neither saved_model.pb nor model.toml; name a model file")
    parts = []
    for file in sorted(p for p in path.iterdir() if p.suffix in MODEL_FILES and p.is_file())[:MAX_PARTS]:
        parts.append(inspect_path(file))
    facts = manifest_facts(load(manifest, 1 << 20))
    return Report(str(path), "directory", sum(p.size for p in parts), facts=facts, parts=tuple(parts))


#: Kind (formats.detect) -> function that makes the report.
BUILDERS: Final[dict[str, Builder]] = {
    "tflite": tflite.tflite_report,
    "edgetpu": tflite.tflite_report,
    "ncs-v1": readers.ncs_report,
    "ncs-v2": readers.ncs_report,
    "myriad-blob": readers.blob_report,
    "openvino-ir": readers.openvino_report,
    "kmodel-v3": kmodel.kmodel_report,
    "kmodel-v4": kmodel.kmodel_report,
    "kmodel-v5": kmodel.kmodel_report,
    "kfpkg": partial(archives.kfpkg_report, inspect_bytes),
    "onnx": readers.onnx_report,
    "keras": readers.keras_report,
    "keras-h5": readers.keras_report,
    "torch-export": readers.torch_report,
    "torchscript": readers.torch_report,
    "torch-pickle": readers.torch_report,
    "tf-savedmodel": readers.saved_model_report,
    "tf-graphdef": readers.graphdef_report,
    "tf-metagraph": readers.metagraph_report,
    "tf-checkpoint-index": readers.checkpoint_report,
    "caffe-prototxt": readers.prototxt_report,
    "caffemodel": readers.caffemodel_report,
    "zip": partial(archives.zip_report, inspect_bytes),
    "tar": partial(archives.tar_report, inspect_bytes),
}
