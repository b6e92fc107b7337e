"""Requests of Open Inference Protocol v2: JSON and binary tensors to bytes. Pure, no I/O, no numpy.

Bytes are little-endian, row-major, unpadded. Everything is checked against the model's own tensors before a byte is
copied: a request cannot make the daemon allocate more than its body already did.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import InvalidRequest, TooLarge, Unsupported
from ..serving.sequences import Named
from ..serving.shm import Region
from ..tensors import ITEMSIZE, MAX_ELEMENTS, TensorSpec, elements, nbytes
from . import large_json
from .json_text import loads
from .steps import Steps, finish
from .tensor_json import TYPECODES, encode, serialize_bytes

MAX_TENSORS: Final = 256
#: JSON that a request may have whatever the model, and further for each element of the model's inputs: a number with
#: many digits, indented deeply.
JSON_BYTES: Final = 1 << 16
JSON_BYTES_PER_ELEMENT: Final = 64

Body = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request."""

    #: Index among the model's inputs.
    index: int
    #: Bytes of the whole tensor, or where they are; None for `picture`.
    data: Body | Region | None
    #: An encoded picture instead of a tensor (BYTES for an input that is not BYTES).
    picture: bytes | None = None
    #: Of this request, where it varies; () = the only one there is.
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output of the answer."""

    index: int
    binary: bool
    #: k of the classification extension; 0 = the tensor itself.
    classes: int = 0
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A decoded request."""

    id: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputTensor, ...]
    #: 0 = default, 1 = highest, larger = lower.
    priority: int
    #: Seconds; None = the server's default.
    timeout: float | None
    #: None = it stands alone.
    sequence: Named | None = None


def split(body: Body, header_length: str | None) -> tuple[memoryview, memoryview]:
    """JSON part and binary tail of a body; `header_length` is the text of Inference-Header-Content-Length."""
    view = memoryview(body)
    if header_length is None:
        return view, view[:0]
    text = header_length.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > len(view):
        raise InvalidRequest(
            f"Inference-Header-Content-Length {header_length!r} is not a number from 0 to the body's {len(view)} bytes"
        )
    return view[: int(text)], view[int(text) :]


def parse(
    head: Body, tail: memoryview, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], depth: int = 100
) -> InferRequest:
    """Decode a request with short JSON for a model with these tensors; `large_json` and `reading` are for much."""
    return parse_message(loads(head, depth), tail, inputs, outputs)


def check_size(head: Body, inputs: tuple[TensorSpec, ...]) -> None:
    """TooLarge when a request for a model has more JSON than any that it could answer."""
    if len(head) > JSON_BYTES and len(head) > (limit := json_limit(inputs)):
        raise TooLarge(f"the request has {len(head)} bytes of JSON, for this model the limit is {limit}")


def json_limit(inputs: tuple[TensorSpec, ...]) -> int:
    """Bytes of JSON that a request of a model may have: parsed it takes many times that, and no request needs more."""
    return JSON_BYTES + JSON_BYTES_PER_ELEMENT * sum(most_elements(spec) for spec in inputs)


def parse_message(
    message: Any, tail: memoryview, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> InferRequest:
    """The same for a request whose JSON was parsed already."""
    return finish(reading(message, tail, inputs, outputs))


def reading(
    message: Any, tail: memoryview, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> Steps[InferRequest]:
    """The same in steps."""
    if not isinstance(message, dict):
        raise InvalidRequest("the request must be a JSON object")
    parameters = _parameters(message, "request")
    given = message.get("inputs")
    if not inputs and given is None:
        given = []  # a board's camera feeds the model
    if not isinstance(given, list) or (inputs and not given) or len(given) > MAX_TENSORS:
        raise InvalidRequest("the request has no array 'inputs'")
    items: list[InputTensor] = []
    offset = 0
    index_of = indexes(inputs)
    for entry in given:
        item, offset = yield from _input(entry, index_of, inputs, tail, offset)
        if any(item.index == other.index for other in items):
            raise InvalidRequest(f"input {inputs[item.index].name!r} is given twice")
        items.append(item)
    if offset != len(tail):
        raise InvalidRequest(f"{len(tail) - offset} bytes are left over behind the binary tensors")
    if len(items) != len(inputs):
        missing = {s.name for s in inputs} - {inputs[f.index].name for f in items}
        raise InvalidRequest(f"expected {len(inputs)} inputs, got {len(items)}: {sorted(missing)[0]!r} is missing")
    identity = message.get("id", "")
    if not isinstance(identity, str):
        raise InvalidRequest("'id' must be a text")
    return InferRequest(
        id=identity,
        inputs=tuple(items),
        outputs=_wanted(message.get("outputs"), outputs, parameters.get("binary_data_output", False) is True),
        priority=_whole(parameters.get("priority", 0), "priority"),
        timeout=seconds(parameters.get("timeout", 0)),
        sequence=_sequence(parameters),
    )


def indexes(specs: tuple[TensorSpec, ...]) -> dict[str, int]:
    """Position by name; the file's own names are understood too where clients are told others."""
    own = {s.alias: i for i, s in enumerate(specs) if s.alias}
    return own | {s.name: i for i, s in enumerate(specs)}


def most_elements(spec: TensorSpec) -> int:
    """Elements that a tensor may have at most."""
    # A text of n characters costs n bytes of JSON and four of length in the tensor.
    return spec.room // ITEMSIZE.get(spec.datatype, 16) if not spec.fixed else elements(spec.shape)


def _sequence(parameters: dict[str, Any]) -> Named | None:
    identity = parameters.get("sequence_id", 0)
    if isinstance(identity, bool) or not isinstance(identity, int | str) or len(str(identity)) > 256:
        raise InvalidRequest("parameter 'sequence_id' must be a whole number or a text of at most 256 characters")
    if isinstance(identity, int) and not 0 <= identity < 1 << 64:
        raise InvalidRequest("parameter 'sequence_id' must be from 0 to 2^64 - 1")
    flags = [parameters.get(key, False) for key in ("sequence_start", "sequence_end")]
    if not all(isinstance(flag, bool) for flag in flags):
        raise InvalidRequest("parameters 'sequence_start' and 'sequence_end' must be true or false")
    return Named(identity, *flags) if identity else None


def parse_raw(
    body: memoryview, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], model: str = ""
) -> InferRequest:
    """A raw request (header length 0): the body is the only input's data, all outputs come back binary.

    Of texts the body is one, without its length. The refusals have the words that Triton's clients know.
    """
    if len(inputs) != 1:
        raise InvalidRequest(
            f"Raw request must only have 1 input (found 1) to be deduced but got {len(inputs)} inputs in {model!r} "
            "model configuration; send an inference header that names them"
        )
    spec = inputs[0]
    shape = _raw_shape(spec, len(body))
    data: Body = serialize_bytes([bytes(body)]) if spec.datatype == "BYTES" else body
    _check_size(spec, shape, len(data))
    given = InputTensor(0, data, shape=() if spec.fixed else shape)
    return InferRequest("", (given,), tuple(OutputTensor(i, True) for i in range(len(outputs))), 0, None)


def _raw_shape(spec: TensorSpec, size: int) -> tuple[int, ...]:
    """Shape of a raw request's input: one variable dimension follows from the size, a batch is of 1."""
    if spec.datatype == "BYTES":
        if any(d != 1 for d in (spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape)) or spec.shape == (-1,):
            raise InvalidRequest(
                f"For BYTE datatype raw input {spec.name!r}, the model must have input shape [1]; "
                f"it has {list(spec.shape)}"
            )
        return spec.one.shape
    shape = spec.shape[:1] if spec.shape[:1] != (-1,) else (1,)
    shape += spec.shape[1:]
    if shape.count(-1) > 1:
        raise InvalidRequest(
            f"The shape of the raw input {spec.name!r} can not be deduced because there are more than one "
            f"variable-sized dimension: {list(spec.shape)}"
        )
    if shape.count(-1) == 1:
        rest = math.prod(d for d in shape if d >= 0) * ITEMSIZE[spec.datatype]
        shape = tuple(size // rest if d < 0 and rest else d for d in shape)
    return tuple(1 if d < 0 else d for d in shape)


def seconds(value: object) -> float | None:
    """The `timeout` parameter, microseconds; 0 = none."""
    micros = _whole(value, "timeout")
    return micros / 1e6 if micros else None


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise InvalidRequest(f"parameter {name!r} must be a whole number >= 0")
    return value


def _parameters(table: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = table.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"'parameters' of {where} must be an object")
    return parameters


def _region(parameters: dict[str, Any], where: str) -> Region | None:
    name = parameters.get("shared_memory_region")
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidRequest(f"shared_memory_region of {where} must be a text")
    return Region(
        name,
        _whole(parameters.get("shared_memory_byte_size"), "shared_memory_byte_size"),
        _whole(parameters.get("shared_memory_offset", 0), "shared_memory_offset"),
    )


def _input(
    entry: object, index_of: dict[str, int], inputs: tuple[TensorSpec, ...], tail: memoryview, offset: int
) -> Steps[tuple[InputTensor, int]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InvalidRequest("every input must be an object with a 'name'")
    name = entry["name"]
    index = index_of.get(name)
    if index is None:
        raise InvalidRequest(
            f"unexpected inference input {name!r}; the model has {', '.join(repr(n) for n in index_of)}"
        )
    spec = inputs[index]
    shape = _shape(entry.get("shape"), name)
    parameters = _parameters(entry, f"input {name!r}")
    picture = entry.get("datatype") == "BYTES" and spec.datatype != "BYTES"
    if not picture:
        if entry.get("datatype") != spec.datatype:
            raise InvalidRequest(
                f"input {name!r} has datatype {entry.get('datatype')!r}, the model expects {spec.datatype}"
            )
        if not spec.takes(shape) and not (spec.fixed and same_but_for_ones(shape, spec.shape)):
            raise InvalidRequest(f"input {name!r} has shape {list(shape)}, the model expects {list(spec.shape)}")
    elif math.prod(shape) != 1:
        raise InvalidRequest(f"input {name!r}: BYTES stands for one encoded picture, shape [1]")
    region = _region(parameters, f"input {name!r}")
    size = parameters.get("binary_data_size")
    if sum((region is not None, size is not None, "data" in entry)) != 1:
        raise InvalidRequest(f"input {name!r} must have exactly one of data, binary_data_size and shared_memory_region")
    if region is not None:
        if picture:
            raise Unsupported(f"input {name!r}: pictures cannot come through shared memory; send them as binary data")
        _check_size(spec, shape, region.size)
        return InputTensor(index, region, shape=() if spec.fixed else shape), offset
    if size is not None:
        length = _whole(size, "binary_data_size")
        if length > len(tail) - offset:
            raise InvalidRequest(
                f"input {name!r} says {length} binary bytes, {len(tail) - offset} are left in the body"
            )
        data = tail[offset : offset + length]
        if picture:
            return InputTensor(index, None, _one_element(data, name)), offset + length
        _check_size(spec, shape, length)
        return InputTensor(index, data, shape=() if spec.fixed else shape), offset + length
    if picture:
        raise InvalidRequest(f"input {name!r}: send the picture as binary data, JSON cannot hold it")
    if spec.fixed:
        return InputTensor(index, (yield from _encoded(entry["data"], spec))), offset
    encoded = yield from _encoded(entry["data"], replace(spec, shape=shape, room=0))
    _check_size(spec, shape, len(encoded))
    return InputTensor(index, encoded, shape=shape), offset


def _encoded(data: object, spec: TensorSpec) -> Steps[bytes]:
    if isinstance(data, large_json.Numbers):
        return (yield from data.encoding(spec))
    return encode(large_json.whole(data), spec)


def _one_element(data: memoryview, name: str) -> bytes:
    """The single element of serialised BYTES, or the bytes themselves when they carry no length."""
    if len(data) >= 4 and struct.unpack_from("<I", data)[0] == len(data) - 4:
        return bytes(data[4:])
    if not data:
        raise InvalidRequest(f"input {name!r} is empty")
    return bytes(data)


def _shape(value: object, name: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) > 32
        or any(isinstance(d, bool) or not isinstance(d, int) for d in value)
    ):
        raise InvalidRequest(f"input {name!r}: 'shape' must be an array of whole numbers")
    shape = tuple(value)
    if min(shape, default=0) >= 0 and MAX_ELEMENTS < math.prod(shape) < 1 << 63:
        raise InvalidRequest(
            f"byte size overflow for input {name!r}: shape {value} has more than {MAX_ELEMENTS} elements"
        )
    elements(shape)  # refuses negative dimensions and products beyond every limit
    return shape


def same_but_for_ones(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether two shapes name the same elements in the same order: they differ in dimensions of 1 only."""
    return [d for d in given if d != 1] == [d for d in shape if d != 1]


def _check_size(spec: TensorSpec, shape: tuple[int, ...], size: int) -> None:
    if size > spec.capacity:
        raise TooLarge(f"input {spec.name!r} has {size} bytes, this model takes at most {spec.capacity}")
    if spec.datatype == "BYTES":
        return  # the worker counts the elements
    wanted = spec.nbytes if spec.fixed else nbytes(spec.datatype, shape)
    if size != wanted:
        raise InvalidRequest(f"input {spec.name!r} has {size} bytes, {spec.datatype}{list(shape)} takes {wanted}")


def _wanted(value: object, outputs: tuple[TensorSpec, ...], default_binary: bool) -> tuple[OutputTensor, ...]:
    if value is None or value == []:
        return tuple(OutputTensor(i, default_binary) for i in range(len(outputs)))
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        raise InvalidRequest("'outputs' must be an array")
    index_of = indexes(outputs)
    asked: list[OutputTensor] = []
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InvalidRequest("every output must be an object with a 'name'")
        index = index_of.get(entry["name"])
        if index is None:
            raise InvalidRequest(
                f"unexpected inference output {entry['name']!r}; the model has {', '.join(repr(n) for n in index_of)}"
            )
        if any(w.index == index for w in asked):
            raise InvalidRequest(f"output {entry['name']!r} already exists in request: it is asked for twice")
        asked.append(wanted(index, outputs[index], _parameters(entry, f"output {entry['name']!r}"), default_binary))
    return tuple(asked)


def wanted(index: int, spec: TensorSpec, parameters: dict[str, Any], default_binary: bool) -> OutputTensor:
    """One requested output from its parameters."""
    classes = _whole(parameters.get("classification", 0), "classification")
    region = _region(parameters, f"output {spec.name!r}")
    if classes and region is not None:
        raise InvalidRequest(f"output {spec.name!r}: classification and shared memory do not go together")
    if classes and spec.datatype not in TYPECODES:
        raise Unsupported(
            f"class result not available for output due to unsupported type {spec.datatype!r}: {spec.name!r}"
        )
    if region is not None and spec.fixed and region.size < spec.nbytes:
        raise InvalidRequest(
            f"output {spec.name!r} has {spec.nbytes} bytes, the shared memory given for it {region.size}"
        )
    binary = parameters.get("binary_data", default_binary) is True
    if not binary and not classes and region is None and spec.datatype not in (*TYPECODES, "BYTES"):
        raise InvalidRequest(
            f"output {spec.name!r} of datatype {spec.datatype} has no JSON form; ask for it with binary_data"
        )
    return OutputTensor(index, binary, classes, region)
