"""Answers of Open Inference Protocol v2: tensors to JSON and binary parts. Pure, no I/O, no numpy."""

from __future__ import annotations

import json
from typing import Any, Final

from ..tensors import TensorSpec
from .oip import Body, InferRequest, most_elements
from .tensor_json import classify, dumps, serialize_bytes, to_list

#: Elements of an output, above which a thread writes or sorts it, or packs the answer.
HEAVY: Final = 8192
HEAVY_PACKED: Final = 1 << 17
#: Bytes of an output that is not worth writing apart from the rest of the answer.
SHORT: Final = 256


def is_heavy(request: InferRequest, outputs: tuple[TensorSpec, ...], accept: str) -> bool:
    """Whether writing the answer is not for the event loop: many numbers as JSON, many to sort, much to pack."""
    if any(not w.binary and w.region is None and most_elements(outputs[w.index]) > HEAVY for w in request.outputs):
        return True
    return bool(accept) and sum(most_elements(outputs[w.index]) for w in request.outputs) > HEAVY_PACKED


def answer(
    request: InferRequest,
    model: str,
    version: str,
    specs: tuple[TensorSpec, ...],
    outputs: tuple[memoryview, ...],
    labels: tuple[str, ...],
    device: str = "",
) -> tuple[bytes, list[Body]]:
    """(JSON head, binary parts in its order) of an answer. Parts may be views of `outputs`. Shared-memory outputs were
    written by the caller. `device` = the one that answered: of a model with several artifacts, another may have taken
    over.
    """
    parts: list[Body] = []
    #: Long arrays, by the mark that stands for them until the rest is written.
    long: dict[bytes, bytes] = {}
    described: list[dict[str, Any]] = []
    for want in request.outputs:
        spec, data = specs[want.index], outputs[want.index]
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
        if want.region is not None:
            entry["parameters"] = {
                "shared_memory_region": want.region.name,
                "shared_memory_byte_size": len(data),
                "shared_memory_offset": want.region.offset,
            }
        elif want.classes:
            shape, items = classify(data, spec, want.classes, labels)
            entry |= {"datatype": "BYTES", "shape": shape}
            if want.binary:
                parts.append(serialize_bytes(items))
                entry["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                entry["data"] = [i.decode() for i in items]
        elif want.binary:
            parts.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        elif len(data) > SHORT:
            entry["data"] = f"\0{want.index}"
            long[b'"\\u0000%d"' % want.index] = dumps(data, spec.datatype)
        else:
            entry["data"] = to_list(data, spec.datatype)
        described.append(entry)
    parameters = {"device": device}
    head: dict[str, Any] = {
        "model_name": model,
        "model_version": version,
        "parameters": parameters,
        "outputs": described,
    }
    if request.id:
        head["id"] = request.id
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    for mark, array in long.items():
        before, _, after = text.partition(b'"data":' + mark)
        text = b"".join((before, b'"data":', array, after))
    return text, parts
