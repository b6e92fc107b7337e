"""What people attach to TFLite models: TFLITE_METADATA and label files in a zip at the end of the file.

No runtime follows any of this, so damage here does not make a model unusable; the functions raise InvalidModel and
callers decide. Slots: tensorflow/tflite-support:tensorflow_lite_support/metadata/metadata_schema.fbs.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidModel, TooLarge
from ..label_tables import MAX_PYTHON
from ..labels import Labels, parse
from ..wire import zipdir
from ..wire.binary import Data, as_view, text
from ..wire.flatbuffer import Flatbuffer, Table
from .reader import TfliteModel, read

#: Bytes of one label file.
MAX_LABEL_BYTES: Final = 1 << 20
#: Label files read from one model.
MAX_LABEL_FILES: Final = 16

MAX_EXPORTER_LABELS: Final = 65536
_EXPORTER_FILES: Final = ("metadata.json", "temp_meta.txt")

_FILE_TYPES: Final = (
    "unknown",
    "descriptions",
    "axis labels",
    "value labels",
    "score calibration",
    "vocabulary",
    "index",
)
_TEXTS: Final = (".txt", ".labels", ".json", ".pbtxt", ".csv")
_COLORS: Final = ("", "RGB", "GRAY")


@dataclass(frozen=True, slots=True)
class AssociatedFile:
    """A file in the appended zip that belongs to a tensor."""

    name: str
    kind: str
    locale: str


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """What the author says about one input or output."""

    name: str
    description: str
    #: real = (pixel - mean) / std; one entry or one per channel; () when not given.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: Range of real values; () when not given.
    min: tuple[float, ...]
    max: tuple[float, ...]
    #: "RGB", "GRAY" or "".
    color: str
    files: tuple[AssociatedFile, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The TFLITE_METADATA buffer."""

    name: str
    description: str
    version: str
    author: str
    license: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    files: tuple[AssociatedFile, ...]


def metadata(data: Data, model: TfliteModel) -> Metadata | None:
    """The author's metadata, None when the file has none. Raises InvalidModel when it is damaged."""
    index = next((buffer for name, buffer in model.metadata if name == "TFLITE_METADATA"), None)
    if index is None or not model.buffers[index].size:
        return None
    where = model.buffers[index]
    root = Flatbuffer(as_view(data)[where.offset : where.offset + where.size], "TFLITE_METADATA").root(b"M001")
    graphs = root.tables(3, "subgraph_metadata")
    graph = graphs[0] if graphs else None
    return Metadata(
        name=root.string(0),
        description=root.string(1),
        version=root.string(2),
        author=root.string(4),
        license=root.string(5),
        inputs=tuple(_tensor(t) for t in graph.tables(2, "inputs")) if graph else (),
        outputs=tuple(_tensor(t) for t in graph.tables(3, "outputs")) if graph else (),
        files=_files(root, 6) + (_files(graph, 4) if graph else ()),
    )


def label_files(data: Data, classes: int | None = None) -> dict[str, Labels]:
    """Text files in the appended zip, name -> labels; {} when there is no zip. `classes` as `labels.parse` has it.

    Raises InvalidModel for a damaged archive, TooLarge above MAX_LABEL_BYTES.
    """
    files: dict[str, Labels] = {}
    for entry in zipdir.entries(data):
        told = entry.name.lower().endswith(_TEXTS) and entry.name not in _EXPORTER_FILES
        if told and len(files) < MAX_LABEL_FILES:
            files[entry.name] = parse(zipdir.read(data, entry, MAX_LABEL_BYTES), classes)
    return files


def labels(data: Data, model: TfliteModel | None = None, classes: int | None = None) -> Labels:
    """Labels of the first output that has some; none when the file holds none. `model` saves reading it again.

    The file the metadata names as labels wins; without metadata, the only text file in the zip.
    Raises InvalidModel, TooLarge.
    """
    files = label_files(data, classes)
    if not files:
        return Labels()
    try:
        about = metadata(data, model or read(data))
    except InvalidModel:
        about = None  # the labels are readable without it
    for output in about.outputs if about else ():
        for file in output.files:
            if file.kind.endswith("labels") and file.name in files:
                return files[file.name]
    return next(iter(files.values())) if len(files) == 1 else Labels()


def exporter_facts(data: Data) -> dict[str, Any]:
    """What Ultralytics' exporter writes beside the model (task, names, kpt_shape, imgsz ...); {} of other files."""
    try:
        entry = next((e for e in zipdir.entries(data) if e.name in _EXPORTER_FILES), None)
        if entry is None:
            return {}
        # Older releases write a Python literal, which takes long to read, newer ones JSON.
        in_json = entry.name.endswith(".json")
        written = text(zipdir.read(data, entry, MAX_LABEL_BYTES if in_json else MAX_PYTHON))
        value = json.loads(written) if in_json else ast.literal_eval(written)
    except (InvalidModel, TooLarge, ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {}  # no runtime follows it
    return value if isinstance(value, dict) else {}


def exporter_labels(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names by number, as the exporter has them."""
    names = facts.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or len(names) > MAX_EXPORTER_LABELS:
        return ()
    by_number = {str(k): str(v).strip() for k, v in names.items()}
    labels = tuple(by_number.get(str(i), "") for i in range(len(by_number)))
    return labels if all(label and "\n" not in label for label in labels) else ()


def attached_text(data: Data) -> str:
    """The beginnings of the text files in the appended zip: exporters leave notes about themselves there."""
    try:
        listed = [entry for entry in zipdir.entries(data) if entry.name.lower().endswith(_TEXTS)][:MAX_LABEL_FILES]
        texts = [zipdir.read(data, entry, MAX_LABEL_BYTES)[:2048] for entry in listed]
    except (InvalidModel, TooLarge):
        return ""
    return " ".join(map(text, texts))


def _files(table: Table, slot: int) -> tuple[AssociatedFile, ...]:
    names = []
    for entry in table.tables(slot, "files"):
        kind = entry.integer(2, "b")
        named = _FILE_TYPES[kind] if 0 <= kind < len(_FILE_TYPES) else str(kind)
        names.append(AssociatedFile(entry.string(0), named, entry.string(3)))
    return tuple(names)


def _tensor(table: Table) -> TensorMetadata:
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    for unit in table.tables(4, "process_units"):
        options = unit.table(1, "options")
        if unit.integer(0, "B") == 1 and options is not None:  # NormalizationOptions
            mean, std = options.vector(0, "f"), options.vector(1, "f")
    stats = table.table(5, "stats")
    color = 0
    content = table.table(3, "content")
    if content is not None and content.integer(0, "B") == 2:  # ImageProperties
        image = content.table(1, "image")
        color = image.integer(0, "b") if image is not None else 0
    return TensorMetadata(
        name=table.string(0),
        description=table.string(1),
        mean=mean,
        std=std,
        min=stats.vector(1, "f") if stats else (),
        max=stats.vector(0, "f") if stats else (),
        color=_COLORS[color] if 0 <= color < len(_COLORS) else "",
        files=_files(table, 6),
    )
