"""Keras models: layers, shapes and settings from the description that .keras and .h5 files carry, without Keras.

A .keras file (Keras 3) is a zip of config.json, metadata.json and model.weights.h5. A whole-model .h5 file has the same
description as the attribute `model_config`, one JSON text in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidModel
from ...tensors import TensorSpec
from ..archives import HDF5_MAGIC, is_keras
from ..wire import zipdir
from ..wire.binary import Data, as_view

_MAX_JSON: Final = 64 * 1024 * 1024
_TYPES: Final[dict[str, str]] = {
    "float32": "FP32", "float16": "FP16", "float64": "FP64", "bfloat16": "BF16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "int8": "INT8", "bool": "BOOL", "string": "BYTES",
}  # fmt: skip
#: Settings worth showing, in this order.
_SHOWN: Final = (
    "filters", "units", "kernel_size", "pool_size", "strides", "padding", "dilation_rate", "groups", "activation",
    "rate", "axis", "target_shape", "interpolation", "size", "max_value", "negative_slope", "return_sequences",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer."""

    name: str
    #: "Conv2D" and the like.
    kind: str
    #: Names of the layers it reads.
    inputs: tuple[str, ...]
    #: Shape of its (first) input where the file says it, -1 = free; ().
    shape: tuple[int, ...]
    #: Settings, as text.
    details: str


@dataclass(frozen=True, slots=True)
class KerasModel:
    """A model's description."""

    name: str
    #: "Sequential", "Functional" or a class of the author's.
    kind: str
    #: Of Keras, "" when not given.
    version: str
    layers: tuple[Layer, ...]
    #: With batch, -1 = free.
    inputs: tuple[TensorSpec, ...]
    #: Names of the layers whose output is the model's.
    outputs: tuple[str, ...]
    #: Bytes of model.weights.h5, or of the .h5 file.
    weights_bytes: int


def read(data: Data) -> KerasModel:
    """Read a .keras or .h5 file. Raises InvalidModel for damage, and for an .h5 file that holds weights only."""
    view = as_view(data)
    if bytes(view[:8]) == HDF5_MAGIC:
        return _model(_from_hdf5(bytes(view)), "", len(view))
    entries = {e.name: e for e in zipdir.entries(view)}
    if not is_keras(set(entries)):
        raise InvalidModel("Keras model: no config.json and metadata.json in the archive; the file is of another kind")
    config = _json(zipdir.read(view, entries["config.json"], _MAX_JSON), "config.json")
    metadata = {}
    if about := entries.get("metadata.json"):  # its weights alone make the kind clear
        metadata = _json(zipdir.read(view, about, _MAX_JSON), "metadata.json")
    weights = entries.get("model.weights.h5")
    return _model(config, str(metadata.get("keras_version", "")), weights.size if weights else 0)


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"Keras model: {name} is not JSON ({error}); the file is damaged") from None
    if not isinstance(value, dict):
        raise InvalidModel(f"Keras model: {name} holds no object; the file is damaged")
    return value


def _from_hdf5(content: bytes) -> dict[str, Any]:
    """The description among the bytes of an HDF5 file: attributes are stored in one piece."""
    decoder = json.JSONDecoder()
    for start in (b'{"module": "keras', b'{"class_name": "', b'{"config": {'):
        at = content.find(start)
        while at >= 0:
            try:
                piece = content[at : at + _MAX_JSON].split(b"\0", 1)[0]
                value, _ = decoder.raw_decode(piece.decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                value = None
            body = value.get("config") if isinstance(value, dict) else None
            if isinstance(value, dict) and (isinstance(body, list) or (isinstance(body, dict) and "layers" in body)):
                return value
            at = content.find(start, at + 1)
    raise InvalidModel("HDF5 file without a Keras model: it holds weights only; save the whole model")


def _model(config: dict[str, Any], version: str, weights: int) -> KerasModel:
    body = config.get("config")
    listed = body.get("layers", []) if isinstance(body, dict) else body
    listed = [x for x in listed if isinstance(x, dict)] if isinstance(listed, list) else []
    layers: list[Layer] = []
    inputs: list[TensorSpec] = []
    before = ""
    for item in listed:
        settings: dict[str, Any] = item["config"] if isinstance(item.get("config"), dict) else {}
        name = str(item.get("name") or settings.get("name", ""))
        sources = tuple(dict.fromkeys(_sources(item.get("inbound_nodes"))))
        if not sources and before and config.get("class_name") == "Sequential":
            sources = (before,)
        shape = _shape(_build_shape(item))
        if (batch := settings.get("batch_shape") or settings.get("batch_input_shape")) is not None:
            shape = _shape(batch)
            inputs.append(TensorSpec(name, _datatype(settings.get("dtype")), shape))
        layers.append(Layer(name, str(item.get("class_name", "?")), sources, shape, _details(settings)))
        before = name
    read = {source for layer in layers for source in layer.inputs}
    outputs = tuple(layer.name for layer in layers if layer.name not in read)
    title = str(body.get("name", "")) if isinstance(body, dict) else ""
    if not layers and not title:
        raise InvalidModel("Keras model: the description has neither layers nor a name; the file is damaged")
    return KerasModel(
        title, str(config.get("class_name", "?")), version or str(config.get("keras_version", "")), tuple(layers),
        tuple(inputs), outputs, weights,
    )  # fmt: skip


def _build_shape(item: Mapping[str, Any]) -> Any:
    build = item.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    return shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], list) else shape


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 16:
        return ()
    return tuple(d if isinstance(d, int) and d > 0 else -1 for d in value)


def _datatype(value: Any) -> str:
    if isinstance(value, dict):
        inner = value.get("config")
        value = inner.get("name") if isinstance(inner, dict) else None
    return _TYPES.get(str(value), str(value or "FP32"))


def _sources(value: Any, depth: int = 0) -> Iterator[str]:
    """Names of layers in `inbound_nodes`: ["name", 0, 0, {}] in Keras 2, keras_history in Keras 3."""
    if depth > 12:
        return
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
        for key in ("args", "kwargs", "config"):
            yield from _sources(value.get(key), depth + 1)
        if depth and "args" not in value and "config" not in value:
            for inner in value.values():
                yield from _sources(inner, depth + 1)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0]
        else:
            for inner in value:
                yield from _sources(inner, depth + 1)


def _details(settings: Mapping[str, Any]) -> str:
    parts = []
    for key in _SHOWN:
        value = settings.get(key)
        if isinstance(value, dict):
            value = value.get("class_name")
        if value is not None and value not in ("linear", [1, 1]) and not (key == "groups" and value == 1):
            parts.append(f"{key} {'x'.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(parts)[:200]
