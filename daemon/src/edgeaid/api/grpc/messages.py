"""Tensors and parameters in the messages of Open Inference Protocol, to the form that all adapters share and back."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Final

from ... import errors
from ...serving.access import Peer
from ...serving.model import LiveModel, Request
from ...serving.shm import Regions
from ...tensors import TensorSpec
from .. import oip, tensor_json
from ..inference import MEMORABLE, Memory
from .frames import varint
from .schema import MESSAGES

#: Field of InferTensorContents for each datatype.
CONTENTS: Final = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip

#: Fields that are texts or messages end with these bits of type; those of the raw tensors, number and type.
_BYTES: Final = 2
_RAW_INPUT: Final = 7 << 3 | _BYTES
_RAW_OUTPUT: Final = bytes((6 << 3 | _BYTES,))

Message = Any


def parameter(value: Message) -> Any:
    """The value of an InferParameter or ModelRepositoryParameter."""
    which = value.WhichOneof("parameter_choice")
    return getattr(value, which) if which else None


def set_parameter(parameters: Message, key: str, value: Any) -> None:
    """Add one to a map of parameters."""
    kind = "bool_param" if isinstance(value, bool) else "int64_param" if isinstance(value, int) else "string_param"
    setattr(parameters[key], kind, value)


def _typed(tensor: Message) -> bytes:
    """Bytes of a tensor given as typed contents."""
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        return tensor_json.serialize_bytes(contents.bytes_contents)
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise errors.InvalidRequest(
            f"input {tensor.name!r}: datatype {tensor.datatype!r} travels in raw_input_contents only"
        )
    try:
        return array(tensor_json.TYPECODES[tensor.datatype], getattr(contents, field)).tobytes()
    except OverflowError as error:
        raise errors.InvalidRequest(f"input {tensor.name!r}: a value does not fit {tensor.datatype}") from error


class Last(Memory):
    """What a client asked last, and of which model."""

    __slots__ = ("name", "version")

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.version = ""

    def keep(self, live: LiveModel, said: Said, wanted: oip.InferRequest, name: str, version: str) -> None:
        """Remember a request: the same about other tensors needs no second look."""
        if len(said.head) <= MEMORABLE:
            self.name, self.version = name, version
            self.head = said.head
            self.learn(live, said.head, said.tail, wanted)


@dataclass(frozen=True, slots=True)
class Said:
    """A ModelInferRequest taken apart."""

    #: All that it says but for its tensors' bytes; two that say the same have the same.
    head: bytes
    #: Bytes of all tensors.
    tail: memoryview
    #: How many there are.
    count: int


def _read_length(data: memoryview, at: int) -> tuple[int, int]:
    """(length, where it ends); IndexError."""
    size = shift = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
        shift += 7
        if shift > 28:
            raise IndexError


def split(data: bytes | bytearray | memoryview) -> Said | None:
    """A ModelInferRequest without reading what it says; None when it has no raw tensors, or has to be read.

    All fields of this message are texts and messages, and have numbers below 16: one byte and a length before each.
    """
    view = memoryview(data)
    heads: list[memoryview] = []
    tensors: list[memoryview] = []
    at = start = 0
    try:
        while at < len(view):
            tag = view[at]
            size, begin = _read_length(view, at + 1)
            if tag == _RAW_INPUT:
                heads.append(view[start:at])
                tensors.append(view[begin : begin + size])
                start = begin + size
            elif tag & 0x87 != _BYTES:
                return None
            at = begin + size
    except IndexError:
        return None
    if at != len(view) or not tensors:
        return None
    heads.append(view[start:])
    sizes = str([len(tensor) for tensor in tensors]).encode()
    tail = tensors[0] if len(tensors) == 1 else memoryview(b"".join(tensors))
    return Said(b"".join((sizes, *heads)), tail, len(tensors))


def decode(message: Message, live: LiveModel) -> oip.InferRequest:
    """A request, through the JSON form's own checks: only where the bytes come from differs. InvalidRequest."""
    raw = list(message.raw_input_contents)
    inputs: list[dict[str, Any]] = []
    tail = bytearray()
    for tensor in message.inputs:
        parameters = {k: parameter(v) for k, v in tensor.parameters.items()}
        entry = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": parameters,
        }
        if "shared_memory_region" not in parameters:
            if message.raw_input_contents:
                if tensor.HasField("contents"):
                    raise errors.InvalidRequest("contents and raw_input_contents do not go together")
                if not raw:
                    raise errors.InvalidRequest(f"input {tensor.name!r} has no entry in raw_input_contents")
                data = raw.pop(0)
            else:
                data = _typed(tensor)
            parameters["binary_data_size"] = len(data)
            tail += data
        inputs.append(entry)
    if raw:
        raise errors.InvalidRequest("raw_input_contents has more entries than inputs need")
    outputs = [
        {"name": o.name, "parameters": {**{k: parameter(v) for k, v in o.parameters.items()}, "binary_data": True}}
        for o in message.outputs
    ]
    head: dict[str, Any] = {
        "id": message.id,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {**{k: parameter(v) for k, v in message.parameters.items()}, "binary_data_output": True},
    }
    return oip.parse_message(head, memoryview(tail), live.inputs, live.outputs)


def encode(
    wanted: oip.InferRequest, request: Request, regions: Regions, peer: Peer, memory: Last
) -> list[bytes | memoryview]:
    """Parts of the ModelInferResponse; those of its tensors lie in the request's slot. Outputs for shared memory are
    written there."""
    known = memory.wanted is not None and memory.wanted.outputs is wanted.outputs and not request.live.noted
    outputs, device = request.outputs, request.answered_by
    if known and memory.answer and memory.device == device:
        head = memory.answer
        raw: list[bytes | memoryview] = [outputs[want.index] for want in wanted.outputs]
    else:
        head, raw = _encode(wanted, request, regions, peer)
        if known and not any(want.classes or want.region is not None for want in wanted.outputs):
            memory.answer, memory.device = head, device
    parts: list[bytes | memoryview] = [head]
    for data in raw:
        parts += (_RAW_OUTPUT + varint(len(data)), data)
    return parts


def _encode(
    wanted: oip.InferRequest, request: Request, regions: Regions, peer: Peer
) -> tuple[bytes, list[bytes | memoryview]]:
    """(a ModelInferResponse but for its raw tensors, these)."""
    live, specs, outputs = request.live, request.output_specs, request.outputs
    answer = MESSAGES["ModelInferResponse"](model_name=live.name, model_version=live.version, id=wanted.id)
    set_parameter(answer.parameters, "device", request.answered_by)
    raw: list[bytes | memoryview] = []
    for want in wanted.outputs:
        spec: TensorSpec = specs[want.index]
        tensor = answer.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        if want.region is not None:
            regions.write(want.region, outputs[want.index], peer)
            set_parameter(tensor.parameters, "shared_memory_region", want.region.name)
            set_parameter(tensor.parameters, "shared_memory_byte_size", len(outputs[want.index]))
            set_parameter(tensor.parameters, "shared_memory_offset", want.region.offset)
            raw.append(b"")
        elif want.classes:
            shape, items = tensor_json.classify(outputs[want.index], spec, want.classes, live.labels)
            tensor.datatype = "BYTES"
            tensor.shape[:] = shape
            raw.append(tensor_json.serialize_bytes(items))
        else:
            raw.append(outputs[want.index])
    return answer.SerializeToString(), raw
