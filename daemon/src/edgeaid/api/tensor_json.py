"""Tensors of the Open Inference Protocol in their other forms: JSON values, length-prefixed BYTES, classes.

No numpy. Bytes are little-endian, row-major, unpadded.
"""

from __future__ import annotations

import heapq
import json
import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from ..errors import InvalidRequest
from ..tensors import ITEMSIZE, TensorSpec, elements
from . import json_text
from .json_text import dump_numbers
from .small_numbers import text_of

#: array typecodes for the datatypes that JSON numbers can carry. FP16 and BF16 have no JSON form.
TYPECODES: Final[dict[str, str]] = {
    "BOOL": "B", "UINT8": "B", "INT8": "b", "UINT16": "H", "INT16": "h", "UINT32": "I", "INT32": "i",
    "UINT64": "Q", "INT64": "q", "FP32": "f", "FP64": "d",
}  # fmt: skip
#: Triton's limit for the classification extension.
MAX_CLASSIFIED: Final = 1_000_000
#: Values written or sorted at once.
_PIECE: Final = 8192


def _flatten(data: list[Any], shape: tuple[int, ...], name: str) -> Iterable[Any]:
    """Lists nested in a way that `same_nesting` allows, as one flat list."""
    if not data or not isinstance(data[0], list):
        return data
    level: list[Any] = [data]
    given: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if not all(isinstance(item, list) and len(item) == size for item in level):
            raise InvalidRequest(
                f"input {name!r}: data is nested differently from shape {list(shape)} "
                f"(dimension {len(given)} is not the same everywhere)"
            )
        given.append(size)
        level = [inner for item in level for inner in item]
    if not same_nesting(given, shape):
        raise InvalidRequest(f"input {name!r}: data is nested differently from shape {list(shape)}, as {given}")
    return level


def same_nesting(given: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether lists nested as `given` hold the elements of a tensor of `shape` in its order: nested as the shape or
    flat, with more or fewer dimensions of 1.
    """
    left = [d for d in given if d != 1]
    if left == [d for d in shape if d != 1]:
        return True
    return len(left) <= 1 and math.prod(left) == math.prod(shape)


def encode(data: object, spec: TensorSpec) -> bytes:
    """JSON data of a tensor, flat or nested, as bytes."""
    if spec.datatype == "BYTES":
        return _texts(data, spec)
    code = TYPECODES.get(spec.datatype)
    if code is None:
        raise InvalidRequest(
            f"input {spec.name!r} of datatype {spec.datatype} has no JSON form; send it as binary data"
        )
    if not isinstance(data, list):
        raise InvalidRequest(f"input {spec.name!r}: 'data' must be an array")
    flat = _flatten(data, spec.shape, spec.name)
    values = pack(flat, spec)
    if len(values) != spec.nbytes:
        raise InvalidRequest(
            f"input {spec.name!r} has {len(values) // ITEMSIZE[spec.datatype]} values, "
            f"shape {list(spec.shape)} takes {elements(spec.shape)}"
        )
    return values


def _texts(data: object, spec: TensorSpec) -> bytes:
    if not isinstance(data, list):
        raise InvalidRequest(f"input {spec.name!r}: 'data' must be an array")
    items = list(_flatten(data, spec.shape, spec.name))
    if not all(isinstance(item, str) for item in items):
        raise InvalidRequest(f"input {spec.name!r}: BYTES in JSON are texts; send other bytes as binary data")
    if len(items) != elements(spec.shape):
        raise InvalidRequest(
            f"input {spec.name!r} has {len(items)} values, shape {list(spec.shape)} takes {elements(spec.shape)}"
        )
    return serialize_bytes(item.encode("utf-8", "surrogatepass") for item in items)


def deserialize_bytes(data: memoryview) -> list[bytes]:
    """The elements of BYTES with their lengths."""
    items, offset = [], 0
    while offset + 4 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        items.append(bytes(data[offset + 4 : offset + 4 + size]))
        offset += 4 + size
    return items


def pack(values: Iterable[Any], spec: TensorSpec) -> bytes:
    """Numbers as bytes of a tensor's datatype; integral floats are taken for integers. InvalidRequest."""
    code = TYPECODES[spec.datatype]
    if spec.datatype == "BOOL":
        values = [_flag(v, spec.name) for v in values]
    try:
        # bytes() takes a seventh of array's time for the datatype of most pictures.
        return bytes(values) if code == "B" else array(code, values).tobytes()
    except (TypeError, ValueError, OverflowError) as error:
        if code not in "fd" and any(isinstance(v, float) for v in values):
            return pack([_whole(v, spec) for v in values], spec)
        raise InvalidRequest(f"input {spec.name!r}: a value does not fit {spec.datatype}: {error}") from error


def _whole(value: object, spec: TensorSpec) -> object:
    if not isinstance(value, float):
        return value
    if not value.is_integer():
        raise InvalidRequest(f"input {spec.name!r}: a value does not fit {spec.datatype}: {value!r} is not an integer")
    return int(value)


def _flag(value: object, name: str) -> int:
    if value not in (0, 1, True, False):
        raise InvalidRequest(f"input {name!r}: BOOL takes true and false")
    return int(bool(value))


def _values(data: memoryview, datatype: str) -> list[Any]:
    values = array(TYPECODES[datatype])
    values.frombytes(data)
    return values.tolist()


def _json_values(data: memoryview, datatype: str) -> list[Any]:
    values = _values(data, datatype)
    return [bool(v) for v in values] if datatype == "BOOL" else values


def to_list(data: memoryview, datatype: str) -> list[Any]:
    """Bytes of a tensor as JSON values; NaN and infinities become None (JSON null).

    InvalidRequest for texts that are not UTF-8: JSON cannot hold them, and others would be another answer.
    """
    if datatype == "BYTES":
        try:
            return [item.decode("utf-8", "surrogatepass") for item in deserialize_bytes(data)]
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                "an output has bytes that are not UTF-8, which JSON cannot hold; ask for it with binary_data"
            ) from error
    values = _json_values(data, datatype)
    if datatype in ("FP32", "FP64") and not all(map(math.isfinite, values)):
        return [v if math.isfinite(v) else None for v in values]
    return values


def dumps(data: memoryview, datatype: str) -> bytes:
    """The JSON text of `to_list`, made in pieces, so that no call takes long."""
    if datatype == "BYTES":
        return json.dumps(to_list(data, datatype), separators=(",", ":")).encode()
    step = _PIECE * ITEMSIZE[datatype]
    texts = [_dumped(data[at : at + step], datatype)[1:-1] for at in range(0, len(data), step)]
    return b"[" + b",".join(texts) + b"]"


def _dumped(data: memoryview, datatype: str) -> bytes:
    text = text_of(data, datatype) if json_text.orjson is None else None
    return dump_numbers(_json_values(data, datatype)) if text is None else text


def serialize_bytes(items: Iterable[bytes]) -> bytes:
    """BYTES elements with their lengths."""
    return b"".join(len(i).to_bytes(4, "little") + i for i in items)


def classify(data: memoryview, spec: TensorSpec, k: int, labels: tuple[str, ...]) -> tuple[list[int], list[bytes]]:
    """(shape, elements) of the classification extension: `value:index[:label]`, highest first, per batch item."""
    count = elements(spec.shape)
    if count > MAX_CLASSIFIED:
        raise InvalidRequest(
            f"classification output tensor too large: {spec.name!r} has {count} elements, {MAX_CLASSIFIED} are allowed"
        )
    values = _values(data, spec.datatype)
    batches = spec.shape[0] if len(spec.shape) > 1 else 1
    size = count // batches if batches else 0
    k = min(k, size)
    floats = spec.datatype.startswith("FP")
    texts: list[bytes] = []
    for batch in range(batches):
        part = values[batch * size : (batch + 1) * size]
        order = _best(part, k)
        for index in order:
            value = f"{part[index]:f}" if floats else str(part[index])
            label = f":{labels[index]}" if index < len(labels) and labels[index] else ""
            texts.append(f"{value}:{index}{label}".encode())
    return ([batches, k] if len(spec.shape) > 1 else [k]), texts


def _best(values: list[Any], k: int) -> list[int]:
    """Indices of the k largest, highest first, NaN last. Sorted in pieces, so that no call takes long."""

    def key(index: int) -> tuple[float, int]:
        value = values[index]
        return (math.inf if math.isnan(value) else -value, index)

    pieces = [sorted(map(key, range(at, min(at + _PIECE, len(values)))))[:k] for at in range(0, len(values), _PIECE)]
    best = pieces[0] if len(pieces) == 1 else islice(heapq.merge(*pieces), k)
    return [index for _, index in best]


assert set(TYPECODES) <= set(ITEMSIZE)  # noqa: S101  two tables of one fact
