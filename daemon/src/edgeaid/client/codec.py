"""Requests and answers of the Open Inference Protocol as numpy arrays; shared by both clients."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import errors
from ..tensors import FROM_NUMPY, NUMPY
from . import http

Array = npt.NDArray[Any]
#: What `infer` takes: the only input of a model with one, or all inputs by name; arrays, or lists and numbers.
Inputs = Any | Mapping[str, Any]
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
    #: Version that answered.
    version: str = ""
    #: Milliseconds by phase (queue_ms, input_ms, compute_ms, output_ms); only the fast socket has them.
    timing: dict[str, float] = field(default_factory=dict)
    #: Id of the device that answered.
    device: str = ""

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"the model has no output {name!r}; it has {', '.join(self.outputs)}") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; outputs as nested lists."""
        outputs = {name: array.tolist() for name, array in self.outputs.items()}
        return {
            "model": self.model,
            "version": self.version,
            "device": self.device,
            "timing": dict(self.timing),
            "outputs": outputs,
        }


#: Name -> exception, for what a status alone does not tell apart.
_BY_NAME = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


def error_of(status: int, text: str, headers: Mapping[str, str] | None = None) -> errors.EdgeaiError:
    """The exception for an HTTP status, its error text and the answer's headers (names in lower case)."""
    said = headers or {}
    kind = _BY_STATUS.get(status, errors.EdgeaiError)
    closer = _BY_NAME.get(said.get(errors.KIND_HEADER.lower(), ""), kind)
    error = (closer if issubclass(closer, kind) else kind)(text)
    retry_after = said.get("retry-after")
    if retry_after and retry_after.isdecimal():
        error.retry_after = float(retry_after)
    return error


def named(inputs: Inputs, metadata: Mapping[str, Any]) -> dict[str, Array]:
    """Inputs by name; a bare value is the only input of a model with one. Missing batch dimensions are added.

    Lists and numbers take the model's dtype when every value fits it; arrays must have it already.
    """
    specs = {t["name"]: t for t in metadata["inputs"]}
    if isinstance(inputs, Mapping):
        given = inputs
    elif len(specs) == 1:
        given = {next(iter(specs)): inputs}
    else:
        raise errors.InvalidRequest(f"the model has {len(specs)} inputs; give a dict with {', '.join(specs)}")
    arrays = {}
    for name, value in given.items():
        spec = specs.get(name)
        if spec is None:
            raise errors.InvalidRequest(f"the model has no input {name!r}; it has {', '.join(specs)}")
        arrays[name] = _fitted(name, value, spec["datatype"], tuple(spec["shape"]))
    if missing := specs.keys() - arrays.keys():
        raise errors.InvalidRequest(f"the model's input {sorted(missing)[0]!r} is missing")
    return arrays


def _fitted(name: str, value: Any, datatype: str, shape: tuple[int, ...]) -> Array:
    """`value` as an array of the tensor's dtype and shape. InvalidRequest says what was given and what is expected."""
    if datatype == "BYTES":
        array: Array = np.asarray(value, dtype=object)
    elif datatype not in NUMPY:
        raise errors.Unsupported(f"input {name!r} is {datatype}, which numpy does not have")
    else:
        try:
            array = np.asarray(value, order="C")
        except ValueError as error:
            raise errors.InvalidRequest(f"input {name!r}: its lists do not all have the same length") from error
        dtype = np.dtype(NUMPY[datatype])
        if not hasattr(value, "dtype") and array.dtype != dtype:
            array = _converted(name, array, dtype)
        if array.dtype != dtype:
            raise errors.InvalidRequest(
                f"input {name!r} is {array.dtype}{list(array.shape)}, "
                f"the model expects {dtype}{list(shape)}; if its values are right, convert it: .astype({dtype.name!r})"
            )
    if not _fits(array.shape, shape) and shape[:1] in ((1,), (-1,)) and _fits(array.shape, shape[1:]):
        array = array.reshape(1, *array.shape)
    if not _fits(array.shape, shape):
        raise errors.InvalidRequest(
            f"input {name!r} is {array.dtype}{list(array.shape)}, the model expects {datatype}{list(shape)}"
        )
    return array


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(e in (-1, d) for d, e in zip(shape, expected, strict=True))


def _converted(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers of a list in the model's dtype; refused where a value would change, but for the rounding of floats."""
    if array.dtype.kind not in "biuf":
        raise errors.InvalidArgument(f"input {name!r} must be an array or (nested) lists of numbers, not {array.dtype}")
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(converted, array):
        raise errors.InvalidRequest(f"input {name!r} has values that {dtype} cannot hold, {array.dtype} was given")
    return converted


def encode(inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> list[Buffer]:
    """A request with binary tensors: its JSON part, then the tensors where they lie."""
    # Keyed by dtype, not by its name: numpy works that out anew each time, slower than all of the rest.
    data = [raw(array) for array in inputs.values()]
    tensors = tuple((n, a.dtype, a.shape, len(d)) for (n, a), d in zip(inputs.items(), data, strict=True))
    return [_head(tensors, tuple(parameters.items())), *data]


def raw(array: Array) -> Buffer:
    """A tensor's bytes; texts and bytes each behind their length, 4 bytes little-endian."""
    if array.dtype.hasobject:
        items = (v if isinstance(v, bytes) else str(v).encode() for v in array.ravel())
        return b"".join(struct.pack("<I", len(item)) + item for item in items)
    if not array.size:
        return b""
    return np.ascontiguousarray(array).data.cast("B")  # a scalar becomes [1] here: its bytes are the same


@lru_cache(64)
def _head(
    tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...], parameters: tuple[tuple[str, Any], ...]
) -> bytes:
    described = [
        {
            "name": name,
            "datatype": "BYTES" if dtype.hasobject else FROM_NUMPY[dtype.name],
            "shape": shape,
            "parameters": {"binary_data_size": size},
        }
        for name, dtype, shape, size in tensors
    ]
    message = {"inputs": described, "parameters": {"binary_data_output": True, **dict(parameters)}}
    return json.dumps(message, separators=(",", ":")).encode()


def decode(body: bytes, head_length: int) -> Inference:
    """An answer with binary tensors."""
    model, version, device, tensors = _tensors(body[:head_length])
    outputs = {}
    offset = head_length
    for name, dtype, shape, size in tensors:
        if dtype.hasobject:
            outputs[name] = _texts(body[offset : offset + size], shape)
        else:
            count = math.prod(shape)
            outputs[name] = (
                np.frombuffer(body, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype)
            )
        offset += size
    return Inference(outputs, model, version, device=device)


@dataclass(frozen=True, slots=True)
class Known:
    """What an answer over HTTP said before its tensors: one that begins with the same bytes says the same."""

    #: Head, empty line and JSON.
    start: bytes
    #: Bytes of the whole answer.
    length: int
    model: str = ""
    version: str = ""
    device: str = ""
    #: Name, dtype, shape and place of each output.
    outputs: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...] = ()

    def read(self, data: bytes) -> Inference:
        """An answer of this length that begins like this."""
        outputs: dict[str, Array] = {
            name: np.ndarray(shape, dtype, data, place) for name, dtype, shape, place in self.outputs
        }
        return Inference(outputs, self.model, self.version, device=self.device)


#: No answer begins like this.
UNKNOWN: Final = Known(b"\0", http.PIECE - 1)


def known(head: bytes, body: bytes, head_length: int) -> Known:
    """What a decoded answer can tell of the next one: nothing where its outputs have no fixed place or are many."""
    model, version, device, tensors = _tensors(body[:head_length])
    place = len(head) + 4 + head_length
    length = len(head) + 4 + len(body)
    if length >= http.PIECE or any(dtype.hasobject for _, dtype, _, _ in tensors):
        return UNKNOWN
    outputs = []
    for name, dtype, shape, size in tensors:
        outputs.append((name, dtype, shape, place))
        place += size
    return Known(b"%b\r\n\r\n%b" % (head, body[:head_length]), length, model, version, device, tuple(outputs))


def _texts(data: bytes, shape: tuple[int, ...]) -> Array:
    """Array of bytes objects from items that each follow their length."""
    items: Array = np.empty(math.prod(shape), object)
    offset = 0
    for number in range(items.size):
        (length,) = struct.unpack_from("<I", data, offset)
        items[number] = data[offset + 4 : offset + 4 + length]
        offset += 4 + length
    return items.reshape(shape)


@lru_cache(64)
def _tensors(head: bytes) -> tuple[str, str, str, tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]]:
    """Model, version, device; name, dtype, shape and bytes of each output.

    Remembered, because the same request is answered with the same head.
    """
    answer = json.loads(head)
    tensors = tuple(
        (
            t["name"],
            np.dtype(object if t["datatype"] == "BYTES" else NUMPY[t["datatype"]]),
            tuple(t["shape"]),
            int(t["parameters"]["binary_data_size"]),
        )
        for t in answer["outputs"]
    )
    device = answer.get("parameters", {}).get("device", "")
    return answer["model_name"], answer.get("model_version", ""), device, tensors
