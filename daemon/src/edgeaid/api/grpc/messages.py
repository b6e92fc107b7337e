"""Tensors and parameters in the messages of Open Inference Protocol, to the form that all adapters share and back."""

from __future__ import annotations

from array import array
from typing import Any, Final

from ... import errors
from ...serving.access import Peer
from ...serving.model import LiveModel, Request
from ...serving.shm import Regions
from ...tensors import TensorSpec
from .. import oip, tensor_json
from ..inference import MEMORABLE, Memory
from .schema import MESSAGES

#: Field of InferTensorContents for each datatype.
CONTENTS: Final = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip

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


def decode(message: Message, live: LiveModel, memory: Memory) -> oip.InferRequest:
    """A request, through the JSON form's own checks: only where the bytes come from differs. InvalidRequest.

    `memory` has what its client asked last: the same about other tensors needs no second look.
    """
    tensors = message.raw_input_contents
    if not tensors or live.noted or len(tensors) != len(message.inputs):
        return _decode(message, live)
    said = _said(message)
    if len(said) > MEMORABLE:
        return _decode(message, live)
    tail = memoryview(tensors[0] if len(tensors) == 1 else b"".join(tensors))
    wanted = memory.again(live, said, tail)
    if wanted is None:
        wanted = _decode(message, live)
        memory.learn(live, said, tail, wanted)
    return wanted


def _said(message: Message) -> bytes:
    """All that a request says but for its tensors' bytes; two that say the same have the same."""
    sizes = [len(message.inputs), *map(len, message.raw_input_contents)]
    parts = [
        str(sizes).encode(),
        message.id.encode(),
        *(part.SerializeToString() for part in (*message.inputs, *message.outputs)),
    ]
    parts += [key.encode() + value.SerializeToString() for key, value in sorted(message.parameters.items())]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _decode(message: Message, live: LiveModel) -> oip.InferRequest:
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


def encode(wanted: oip.InferRequest, request: Request, regions: Regions, peer: Peer) -> Message:
    """The answer; outputs for shared memory are written there."""
    live, specs, outputs = request.live, request.output_specs, request.outputs
    answer = MESSAGES["ModelInferResponse"](model_name=live.name, model_version=live.version, id=wanted.id)
    for want in wanted.outputs:
        spec: TensorSpec = specs[want.index]
        tensor = answer.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        if want.region is not None:
            regions.write(want.region, outputs[want.index], peer)
            set_parameter(tensor.parameters, "shared_memory_region", want.region.name)
            set_parameter(tensor.parameters, "shared_memory_byte_size", len(outputs[want.index]))
            set_parameter(tensor.parameters, "shared_memory_offset", want.region.offset)
            answer.raw_output_contents.append(b"")
        elif want.classes:
            shape, items = tensor_json.classify(outputs[want.index], spec, want.classes, live.labels)
            tensor.datatype = "BYTES"
            tensor.shape[:] = shape
            answer.raw_output_contents.append(tensor_json.serialize_bytes(items))
        else:
            answer.raw_output_contents.append(bytes(outputs[want.index]))
    return answer
