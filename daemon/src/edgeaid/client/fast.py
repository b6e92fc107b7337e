"""The client's side of the fast socket (docs/fast-socket.md): one sealed memfd for all models, no copies on the wire.

A connection has one request under way at a time, so every model's tensors may lie in the same region: it is as large as
the largest model needs, and any number of models costs no more. What is said on the wire is written once, as generators
that yield messages and are sent the answers; the blocking and the asyncio client both drive them.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import struct
from collections import OrderedDict
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np

from .. import errors
from ..tensors import NUMPY
from .codec import Array, Inference, error_of

INFER: Final = struct.Struct("<BBHIQQQ")
RESULT: Final = struct.Struct("<BBHIQQQQQ")
VERSION: Final = 2
_ALIGN: Final = 64
#: The first region's bytes: most models fit, and no second one is needed.
_REGION: Final = 1 << 20

#: Yields (message, descriptor or -1), is sent the daemon's answer.
Steps = Generator[tuple[bytes, int], bytes, Any]


class Binding:
    """A model bound to a connection. The arrays are views of memory that all bindings of the connection share: write
    `inputs`, run, read `outputs`, before another binding is used.
    """

    __slots__ = ("inputs", "model", "number", "outputs", "version")

    def __init__(
        self, model: str, number: int, version: str, inputs: dict[str, Array], outputs: dict[str, Array]
    ) -> None:
        self.model = model
        self.number = number
        #: Version at the time of binding; each answer has the one that answered.
        self.version = version
        self.inputs = inputs
        self.outputs = outputs


def fits(metadata: Mapping[str, Any]) -> bool:
    """True when the model's tensors have fixed sizes, as the fast socket needs."""
    tensors = (*metadata["inputs"], *metadata["outputs"])
    return all(t["datatype"] in NUMPY and all(d >= 0 for d in t["shape"]) for t in tensors)


class Session:
    """What one connection has greeted, attached and bound."""

    def __init__(self) -> None:
        self.limits: dict[str, int] = {}
        self.version = VERSION
        self._requests = 0
        self._region = 0
        self._memory: mmap.mmap | None = None
        #: Least recently used first.
        self._bindings: OrderedDict[tuple[str, str], Binding] = OrderedDict()

    def hello(self) -> Steps:
        """Send HELLO; a daemon that has only version 1 is accepted too."""
        try:
            answer = yield from _control({"op": "hello", "version": VERSION})
        except errors.Unsupported:
            self.version = 1
            answer = yield from _control({"op": "hello", "version": 1})
        self.limits = answer["limits"]

    def bound(self, key: tuple[str, str]) -> Binding | None:
        """The binding of (model, version) when there is one already."""
        binding = self._bindings.get(key)
        if binding is not None:
            self._bindings.move_to_end(key)
        return binding

    def bind(self, model: str, version: str, metadata: Mapping[str, Any]) -> Steps:
        """The binding of a model, made at first use. TooLarge when its tensors are above the daemon's limit."""
        key = (model, version)
        if (known := self._bindings.get(key)) is not None:
            self._bindings.move_to_end(key)
            return known
        places, size = _layout(metadata)
        if self._memory is None or size > len(self._memory):
            yield from self._grow(size)
        while len(self._bindings) >= self.limits["bindings"]:
            _, oldest = self._bindings.popitem(last=False)
            yield from _control({"op": "unbind", "binding": oldest.number})
        asked = {side: [{**p, "region": self._region} for p in places[side]] for side in places}
        answer = yield from _control({"op": "bind", "model": model, "version": version, **asked})
        views = {
            side: {
                t["name"]: self._view(t["datatype"], tuple(t["shape"]), place["offset"])
                for t, place in zip(metadata[side], places[side], strict=True)
            }
            for side in places
        }
        self._bindings[key] = binding = Binding(
            model, answer["binding"], answer["version"], views["inputs"], views["outputs"]
        )
        return binding

    def _view(self, datatype: str, shape: tuple[int, ...], offset: int) -> Array:
        return np.frombuffer(self._memory or b"", NUMPY[datatype], math.prod(shape), offset).reshape(shape)

    def _grow(self, size: int) -> Steps:
        """A larger region for everything; the old one is given back. Four times as large each time: on a daemon that
        cannot take regions back, five are enough for the largest.
        """
        limit = self.limits["region_bytes"]
        if size > limit:
            raise errors.TooLarge(f"the model's tensors take {size} bytes, the fast socket allows {limit}")
        total = len(self._memory) if self._memory is not None else _REGION
        while total < size:
            total *= 4
        total = min(total, limit)
        for binding in self._bindings.values():
            yield from _control({"op": "unbind", "binding": binding.number})
        self._bindings.clear()
        if self._region and self.version >= 2:
            yield from _control({"op": "detach", "region": self._region})
        self._memory, self._region = None, 0
        fd = os.memfd_create("edgeai-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, total)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            memory = mmap.mmap(fd, total)
            self._region = (yield from _control({"op": "attach"}, fd))["region"]
        finally:
            os.close(fd)
        self._memory = memory

    def run(self, binding: Binding, *, priority: int = 0, timeout: float | None = None) -> Steps:
        """Infer on what lies in `binding.inputs`; returns (device, version that answered, ms by phase)."""
        reply = yield self.question(binding, priority, timeout), -1
        return _told(binding, reply)

    def question(self, binding: Binding, priority: int, timeout: float | None) -> bytes:
        """The message that asks for an inference on what lies in `binding.inputs`."""
        self._requests += 1
        limit = max(1, int(timeout * 1e6)) if timeout is not None else 0
        return INFER.pack(1, priority, 0, binding.number, self._requests, limit, 0)

    def repeated(self, key: tuple[str, str], inputs: Any) -> Binding | None:
        """The binding of (model, version) with `inputs` copied in, when nothing has to be done first: the model is
        bound, and its inputs are given as arrays of exactly its dtypes and shapes.
        """
        binding = self._bindings.get(key)
        if binding is None:
            return None
        places = binding.inputs
        if type(inputs) is np.ndarray:
            if len(places) != 1:
                return None
            ((place),) = places.values()
            if inputs.dtype != place.dtype or inputs.shape != place.shape:
                return None
            place[...] = inputs
        else:
            if type(inputs) is not dict or inputs.keys() != places.keys():
                return None
            for name, place in places.items():
                array = inputs[name]
                if type(array) is not np.ndarray or array.dtype != place.dtype or array.shape != place.shape:
                    return None
                place[...] = array
        self._bindings.move_to_end(key)
        return binding

    def infer(
        self, binding: Binding, inputs: Mapping[str, Array], *, priority: int = 0, timeout: float | None = None
    ) -> Steps:
        """Copy inputs in, run, copy outputs out: an Inference."""
        for name, array in inputs.items():
            np.copyto(binding.inputs[name], array, casting="no")
        reply = yield self.question(binding, priority, timeout), -1
        return answer(binding, reply)

    def forget(self, model: str) -> Steps:
        """Unbind a model that was reloaded or unloaded."""
        for key in [k for k in self._bindings if k[0] == model]:
            binding = self._bindings.pop(key)
            try:
                yield from _control({"op": "unbind", "binding": binding.number})
            except errors.NotFound:
                continue  # the daemon has taken it away already


def answer(binding: Binding, reply: bytes) -> Inference:
    """The answer to a question, with copies of the outputs. Raises what the daemon did."""
    device, version, timing = _told(binding, reply)
    outputs = {name: array.copy() for name, array in binding.outputs.items()}
    return Inference(outputs, binding.model, version, timing, device)


def _told(binding: Binding, reply: bytes) -> tuple[str, str, dict[str, float]]:
    """(device, version that answered, ms by phase) of an answer. Raises what the daemon did."""
    _, _, status, _, _, queue, given, computed, taken = RESULT.unpack_from(reply)
    text = reply[RESULT.size :]
    if status != 200:
        raise error_of(status, text.decode(errors="replace"))
    device, version = _answerer(text)
    timing = {
        "queue_ms": queue / 1e6,
        "input_ms": given / 1e6,
        "compute_ms": computed / 1e6,
        "output_ms": taken / 1e6,
    }
    return device, version or binding.version, timing


@lru_cache(64)
def _answerer(text: bytes) -> tuple[str, str]:
    """(device, version) that an answer ends with; remembered, because they seldom change."""
    device, _, version = text.decode(errors="replace").partition("\n")
    return device, version


def _layout(metadata: Mapping[str, Any]) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Places of a model's tensors, and the bytes that they take in all."""
    places: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    offset = 0
    for side, rows in places.items():
        for tensor in metadata[side]:
            rows.append({"name": tensor["name"], "offset": offset})
            size = math.prod(tensor["shape"]) * np.dtype(NUMPY[tensor["datatype"]]).itemsize
            offset += -(-size // _ALIGN) * _ALIGN
    return places, max(offset, 1)


def _control(message: dict[str, Any], fd: int = -1) -> Steps:
    answer: dict[str, Any] = json.loads((yield json.dumps(message).encode(), fd))
    if "error" in answer:
        raise error_of(answer["code"], answer["error"])
    return answer
