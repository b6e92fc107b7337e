"""ModelConfig that a client gives to `load`: what of it is taken, and what is wrong with it.

The fields are those of Triton's ModelConfig. `max_batch_size` and `version_policy` are obeyed. Others that would change
how a model is run here (instance groups, rate limits, ...) are taken and shown again, and have no other effect.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from ..errors import InvalidRequest
from ..models.manifest import MAX_BATCH
from ..serving.model import LiveModel
from ..tensors import ITEMSIZE, TensorSpec

#: Characters of a configuration.
MAX_TEXT: Final = 64 << 10
DATA_TYPES: Final = frozenset({"TYPE_STRING", *(f"TYPE_{kind}" for kind in ITEMSIZE)})
FORMATS: Final = ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW")
_TEXTS: Final = frozenset({"name", "platform", "backend", "runtime", "default_model_filename"})
_OBJECTS: Final = frozenset(
    {
        "version_policy", "optimization", "dynamic_batching", "sequence_batching", "ensemble_scheduling",
        "cc_model_filenames", "metric_tags", "parameters", "model_operations", "model_transaction_policy",
        "model_repository_agents", "response_cache", "model_metrics",
    }
)  # fmt: skip
_ARRAYS: Final = frozenset({"input", "output", "batch_input", "batch_output", "instance_group", "model_warmup"})
#: Fields that proto3's JSON mapping may write as texts.
_NUMERIC: Final = frozenset({"max_batch_size", "num_versions", "versions", "dims", "shape", "count"})
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
#: Enumerations, which proto3's JSON mapping may write as numbers.
_ENUMS: Final[dict[str, tuple[str, ...]]] = {
    "data_type": (
        "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8",
        "TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
    ),
    "format": FORMATS,
}  # fmt: skip
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")
#: Fields whose content has names of the client's own.
_FREE: Final = frozenset({"parameters", "metric_tags", "cc_model_filenames"})
_LARGEST: Final = (1 << 31) - 1


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"failed to load: config: {what}")


def read(text: object, name: str = "") -> dict[str, Any]:
    """The configuration in a `config` parameter, for the model `name`. InvalidRequest."""
    if not isinstance(text, str):
        raise InvalidRequest("failed to load: parameter 'config' must be JSON as a text")
    if len(text) > MAX_TEXT:
        raise _wrong(f"it has more than {MAX_TEXT} characters")
    try:
        value = _plain(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"failed to load: parameter 'config' is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("failed to load: parameter 'config' must hold a JSON object")
    config = {key: field for key, field in value.items() if field is not None}  # null = not given
    for key, field in config.items():
        _check_field(key, field)
    if name and config.get("name", name) not in ("", name):
        raise _wrong(f"'name' is {config['name'][:100]!r}, the model is {name!r}")
    return config


def _plain(value: Any, key: str = "") -> Any:
    """A value as proto3's JSON mapping may also write it: lowerCamelCase, numbers as texts, enumerations as numbers."""
    if isinstance(value, dict):
        if key in _FREE:
            return value
        named = {_CAPITAL.sub(lambda m: "_" + m[0].lower(), k): v for k, v in value.items()}
        return {k: _plain(v, k) for k, v in named.items()}
    if isinstance(value, list):
        return [_plain(v, key) for v in value]
    if key in _NUMERIC and isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if key in _NUMERIC and isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    names = _ENUMS.get(key, ())
    return names[value] if type(value) is int and 0 <= value < len(names) else value


def _check_field(key: str, field: Any) -> None:
    if key in _TEXTS:
        if not isinstance(field, str):
            raise _wrong(f"{key!r} must be a text")
    elif key == "max_batch_size":
        if type(field) is not int or not 0 <= field <= MAX_BATCH:
            raise _wrong(f"'max_batch_size' must be an integer from 0 to {MAX_BATCH}")
    elif key in _OBJECTS:
        if not isinstance(field, dict):
            raise _wrong(f"{key!r} must be an object")
        if key == "version_policy":
            _check_policy(field)
    elif key in _ARRAYS:
        if not isinstance(field, list) or not all(isinstance(entry, dict) for entry in field):
            raise _wrong(f"{key!r} must be an array of objects")
        if key in ("input", "output"):
            for entry in field:
                _check_tensor(key, entry)
    else:
        raise _wrong(f"there is no field {key[:100]!r}")


def _check_policy(policy: dict[str, Any]) -> None:
    if len(policy) != 1 or next(iter(policy)) not in ("latest", "all", "specific"):
        raise _wrong("'version_policy' must hold one of latest, all and specific")
    kind, value = next(iter(policy.items()))
    numbers: Any = []
    if not isinstance(value, dict):
        raise _wrong(f"'version_policy.{kind}' must be an object")
    if kind == "latest":
        numbers = [value.get("num_versions", 1)]
    elif kind == "specific":
        numbers = value.get("versions", [])
    if not isinstance(numbers, list) or not all(type(n) is int and 0 < n <= _LARGEST for n in numbers):
        raise _wrong(f"'version_policy.{kind}' must hold integers above 0")


def _check_tensor(side: str, entry: dict[str, Any]) -> None:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(f"every {side} must have a 'name'")
    where = f"{side} {name[:100]!r}"
    kind = entry.get("data_type")
    if kind == "TYPE_INVALID":  # the value that stands for none
        del entry["data_type"]
    elif kind is not None and (not isinstance(kind, str) or kind not in DATA_TYPES):
        raise _wrong(f"{where}: there is no data_type {kind!r:.100}; known: {', '.join(sorted(DATA_TYPES))}")
    if entry.get("format", FORMATS[0]) not in FORMATS:
        raise _wrong(f"{where}: there is no format {entry['format']!r:.100}; known: {', '.join(FORMATS)}")
    reshape = entry.get("reshape", {})
    if not isinstance(reshape, dict):
        raise _wrong(f"{where}: 'reshape' must be an object")
    for what, dims in (("dims", entry.get("dims", [])), ("reshape.shape", reshape.get("shape", []))):
        if (
            not isinstance(dims, list)
            or len(dims) > 32
            or not all(type(d) is int and -1 <= d <= _LARGEST for d in dims)
        ):
            raise _wrong(f"{where}: {what!r} must be an array of at most 32 integers from -1")


def fit(config: dict[str, Any], live: LiveModel) -> None:
    """InvalidRequest when the tensors of a configuration are not those of the model."""
    for side, specs in (("input", live.inputs), ("output", live.outputs)):
        known = {s.name: s for s in specs}
        for entry in config.get(side, []):
            spec = known.get(entry["name"])
            if spec is None:
                raise _wrong(f"the model has no {side} {entry['name'][:100]!r}; it has {', '.join(map(repr, known))}")
            _fit_tensor(side, entry, spec, batched=bool(live.max_batch))


def _fit_tensor(side: str, entry: dict[str, Any], spec: TensorSpec, *, batched: bool) -> None:
    where = f"{side} {spec.name!r}"
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    if entry.get("data_type", f"TYPE_{kind}") != f"TYPE_{kind}":
        raise _wrong(f"{where} is TYPE_{kind} in the model, not {entry['data_type']}")
    dims = entry.get("reshape", {}).get("shape") or entry.get("dims", [])
    shape = spec.shape[1:] if batched else spec.shape
    if dims and -1 not in dims and -1 not in shape and math.prod(dims) != math.prod(shape):
        raise _wrong(f"{where} has shape {list(shape)} in the model, not {dims}")


def over(base: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """`base` with a configuration on top; tensors are matched by their names.

    The largest batch of `base` stays: it is the one in force, which 0 in a configuration leaves to the model.
    """
    merged = base | {k: v for k, v in config.items() if k not in ("input", "output", "max_batch_size")}
    for side in ("input", "output"):
        given = {entry["name"]: entry for entry in config.get(side, [])}
        merged[side] = [
            tensor | {k: v for k, v in given.get(tensor["name"], {}).items() if v is not None} for tensor in base[side]
        ]
    return merged
