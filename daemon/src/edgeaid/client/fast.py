"""The client's side of the fast socket (docs/fast-socket.md): one sealed memfd, bound once, no copies on the wire."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ..tensors import NUMPY
from .codec import Array, Inference, error_of
from .http import Closed, connect

INFER: Final = struct.Struct("<BBHIQQQ")
RESULT: Final = struct.Struct("<BBHIQQQQQ")
VERSION: Final = 1
_ALIGN: Final = 64


class Binding:
    """A model bound to this connection: write `inputs`, call `Fast.run`, read `outputs`.

    The arrays are views of shared memory.
    """

    def __init__(self, number: int, version: str, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        self.number = number
        self.version = version
        self.inputs = inputs
        self.outputs = outputs


class Fast:
    """A connection to the fast socket; one request at a time."""

    def __init__(self, path: str, timeout: float = 60.0) -> None:
        self.sock = connect(path, timeout, socket.SOCK_SEQPACKET)
        self._number = 0
        try:
            self.limits = self._control({"op": "hello", "version": VERSION})["limits"]
        except BaseException:
            self.sock.close()
            raise

    def close(self) -> None:
        """Close the connection; views of bindings stay valid until they are dropped."""
        self.sock.close()

    def _control(self, message: dict[str, Any], fd: int = -1) -> dict[str, Any]:
        data = json.dumps(message).encode()
        reply = self._exchange(data, fd)
        answer: dict[str, Any] = json.loads(reply)
        if "error" in answer:
            raise error_of(answer["code"], answer["error"])
        return answer

    def _exchange(self, message: bytes, fd: int = -1) -> bytes:
        """Send a message, return the next one. Closed, BlockingIOError after the timeout."""
        try:
            if fd >= 0:
                socket.send_fds(self.sock, [message], [fd])
            else:
                self.sock.send(message)
            reply = self.sock.recv(65536)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error
        if not reply:
            raise Closed("no answer")
        return reply

    def bind(self, model: str, version: str, metadata: Mapping[str, Any]) -> Binding:
        """Make shared memory for a model's tensors and bind it."""
        places: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        offset = 0
        for side in ("inputs", "outputs"):
            for tensor in metadata[side]:
                places[side].append({"name": tensor["name"], "offset": offset})
                size = int(np.prod(tensor["shape"], dtype=np.int64)) * np.dtype(NUMPY[tensor["datatype"]]).itemsize
                offset += -(-size // _ALIGN) * _ALIGN
        fd = os.memfd_create("edgeai-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, max(offset, 1))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            memory = mmap.mmap(fd, max(offset, 1))
            region = self._control({"op": "attach"}, fd)["region"]
        finally:
            os.close(fd)
        for place in (*places["inputs"], *places["outputs"]):
            place["region"] = region
        answer = self._control({"op": "bind", "model": model, "version": version, **places})
        views: dict[str, dict[str, Array]] = {"inputs": {}, "outputs": {}}
        for name, found in views.items():
            for tensor, place in zip(metadata[name], places[name], strict=True):
                dtype = np.dtype(NUMPY[tensor["datatype"]])
                count = int(np.prod(tensor["shape"], dtype=np.int64))
                found[tensor["name"]] = np.frombuffer(memory, dtype, count, place["offset"]).reshape(tensor["shape"])
        return Binding(answer["binding"], answer["version"], views["inputs"], views["outputs"])

    def run(self, binding: Binding, *, priority: int = 0, timeout: float = 0.0) -> tuple[str, tuple[int, ...]]:
        """Infer on what lies in `binding.inputs`; returns device, ns of (queue, input, compute, output)."""
        self._number += 1
        reply = self._exchange(INFER.pack(1, priority, 0, binding.number, self._number, int(timeout * 1e6), 0))
        _, _, status, _, _, *times = RESULT.unpack_from(reply)
        text = reply[RESULT.size :].decode(errors="replace")
        if status != 200:
            raise error_of(status, text)
        return text, tuple(times)

    def infer(
        self, binding: Binding, inputs: Mapping[str, Array], *, priority: int = 0, timeout: float = 0.0
    ) -> Inference:
        """Copy inputs in, run, copy outputs out."""
        for name, array in inputs.items():
            np.copyto(binding.inputs[name], array, casting="no")
        device, times = self.run(binding, priority=priority, timeout=timeout)
        timing = dict(zip(("queue", "input", "compute", "output"), times, strict=True))
        outputs = {n: a.copy() for n, a in binding.outputs.items()}
        return Inference(outputs, version=binding.version, timing=timing, device=device)
