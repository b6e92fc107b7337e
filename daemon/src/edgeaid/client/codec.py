"""Requests and answers of the Open Inference Protocol as numpy arrays; shared by both clients."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import errors
from ..tensors import FROM_NUMPY, NUMPY

Array = npt.NDArray[Any]
Inputs = Array | Mapping[str, Array]
Buffer = bytes | memoryview

#: HTTP status -> exception, most specific last; from the classes themselves.
_BY_STATUS = {
    kind.http: kind
    for kind in (
        errors.EdgeaiError, errors.InvalidRequest, errors.NotFound, errors.PermissionDenied, errors.TooLarge,
        errors.Unsupported, errors.Unavailable, errors.DeadlineExceeded,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inference:
    """An answer."""

    #: Output name -> array of the model's dtype and shape.
    outputs: dict[str, Array]
    model: str = ""
    version: str = ""
    #: Nanoseconds by phase; only the fast socket says.
    timing: dict[str, int] = field(default_factory=dict)
    #: Id of the device that answered.
    device: str = ""

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]


def error_of(status: int, text: str, retry_after: str | None = None) -> errors.EdgeaiError:
    """The exception for an HTTP status and its error text."""
    error = _BY_STATUS.get(status, errors.EdgeaiError)(text)
    if retry_after and retry_after.isdecimal():
        error.retry_after = float(retry_after)
    return error


def named(inputs: Inputs, metadata: Mapping[str, Any]) -> dict[str, Array]:
    """Inputs by name; a bare array is the only input of a model with one. Missing batch dimensions are added."""
    specs = {t["name"]: t for t in metadata["inputs"]}
    given = {next(iter(specs)): inputs} if isinstance(inputs, np.ndarray) and len(specs) == 1 else inputs
    if isinstance(given, np.ndarray):
        raise errors.InvalidRequest(f"the model has {len(specs)} inputs; give a dict with {', '.join(specs)}")
    found = {}
    for name, value in given.items():
        spec = specs.get(name)
        if spec is None:
            raise errors.InvalidRequest(f"the model has no input {name!r}; it has {', '.join(specs)}")
        array: Array = np.ascontiguousarray(value)
        shape = tuple(spec["shape"])
        if array.shape != shape and array.shape == shape[1:] and shape[:1] == (1,):
            array = array.reshape(shape)
        if array.dtype != np.dtype(NUMPY[spec["datatype"]]) or array.shape != shape:
            raise errors.InvalidRequest(
                f"input {name!r} is {array.dtype}{list(array.shape)}, "
                f"the model expects {NUMPY[spec['datatype']]}{list(shape)}"
            )
        found[name] = array
    if missing := specs.keys() - found.keys():
        raise errors.InvalidRequest(f"the model's input {sorted(missing)[0]!r} is missing")
    return found


def encode(inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> list[Buffer]:
    """A request with binary tensors: its JSON part, then the tensors where they lie."""
    # Keyed by dtype, not by its name: numpy works that out anew each time, slower than all of the rest.
    tensors = tuple((n, a.dtype, a.shape) for n, a in inputs.items())
    head = _head(tensors, tuple(parameters.items()))
    return [head, *(a.data.cast("B") if a.size else b"" for a in inputs.values())]


@lru_cache(64)
def _head(
    tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...], parameters: tuple[tuple[str, Any], ...]
) -> bytes:
    described = [
        {
            "name": name,
            "datatype": FROM_NUMPY[dtype.name],
            "shape": shape,
            "parameters": {"binary_data_size": math.prod(shape) * dtype.itemsize},
        }
        for name, dtype, shape in tensors
    ]
    message = {"inputs": described, "parameters": {"binary_data_output": True, **dict(parameters)}}
    return json.dumps(message, separators=(",", ":")).encode()


def decode(body: bytes, head_length: int) -> Inference:
    """An answer with binary tensors."""
    model, version, device, tensors = _tensors(body[:head_length])
    outputs = {}
    offset = head_length
    for name, dtype, shape in tensors:
        count = math.prod(shape)
        outputs[name] = np.frombuffer(body, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype)
        offset += count * dtype.itemsize
    return Inference(outputs, model, version, device=device)


@lru_cache(64)
def _tensors(head: bytes) -> tuple[str, str, str, tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]]:
    """Model, version, device; name, dtype and shape of each output: the same in every answer to the same question."""
    found = json.loads(head)
    tensors = tuple((t["name"], np.dtype(NUMPY[t["datatype"]]), tuple(t["shape"])) for t in found["outputs"])
    device = found.get("parameters", {}).get("device", "")
    return found["model_name"], found.get("model_version", ""), device, tensors
