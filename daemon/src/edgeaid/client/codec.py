"""Requests and answers of the Open Inference Protocol as numpy arrays; shared by both clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import errors
from ..tensors import FROM_NUMPY, NUMPY

Array = npt.NDArray[Any]
Inputs = Array | Mapping[str, Array]

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
    return found


def encode(inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> tuple[bytes, int]:
    """(body, length of its JSON part) of a request with binary tensors."""
    tensors = []
    parts = []
    for name, array in inputs.items():
        parts.append(array.tobytes())
        tensors.append(
            {
                "name": name,
                "datatype": FROM_NUMPY[array.dtype.name],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": array.nbytes},
            }
        )
    head = json.dumps(
        {"inputs": tensors, "parameters": {"binary_data_output": True, **parameters}}, separators=(",", ":")
    ).encode()
    return b"".join((head, *parts)), len(head)


def decode(body: bytes, head_length: int) -> Inference:
    """An answer with binary tensors."""
    head = json.loads(body[:head_length])
    outputs = {}
    offset = head_length
    for tensor in head["outputs"]:
        size = tensor["parameters"]["binary_data_size"]
        outputs[tensor["name"]] = np.frombuffer(
            body,
            NUMPY[tensor["datatype"]],
            offset=offset,
            count=-1 if size == 0 else size // np.dtype(NUMPY[tensor["datatype"]]).itemsize,
        ).reshape(tensor["shape"])
        offset += size
    return Inference(outputs, head["model_name"], head.get("model_version", ""))
