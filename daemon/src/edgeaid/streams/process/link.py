"""The process's end of its socket: leases on slots of models, answers, and messages to the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ... import errors
from ...tensors import NUMPY, TensorSpec
from ...vision import labelling
from ...worker import note, wire
from ...worker.loaded import spec_from
from ...worker.regions import Layout, Region
from ...worker.wire import HEADER, PHASES, Kind
from ..messages import OWN, Message

Array = npt.NDArray[Any]

#: A lease that is not granted within this time is given up; the daemon answers at once, if it can.
GRANT_SECONDS: Final = 5.0
#: Longer than the daemon gives any request.
ANSWER_SECONDS: Final = 120.0


@dataclass(slots=True, eq=False)
class Model:
    """A model that the daemon has shown to this process."""

    number: int
    name: str
    version: str
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rules: labelling.Rules
    region: Region
    #: Slots say how large the tensors of their request are.
    noted: bool
    gone: bool = False

    def input(self, slot: int) -> Array:
        """The only input tensor of a slot."""
        return self._array(self.region.inputs[slot][0], self.inputs[0].one, slot, 0)

    def results(self, slot: int) -> tuple[list[TensorSpec], list[Array]]:
        """The output tensors of a slot, as they are described for this request, and their values."""
        first = len(self.inputs)
        values = [
            self._array(view, spec, slot, first + position)
            for position, (view, spec) in enumerate(zip(self.region.outputs[slot], self.outputs, strict=True))
        ]
        specs = [replace(s, shape=v.shape, room=0) for s, v in zip(self.outputs, values, strict=True)]
        return specs, values

    def _array(self, view: memoryview, spec: TensorSpec, slot: int, position: int) -> Array:
        shape = spec.shape
        if self.noted:
            form = note.read_form(self.region.notes[slot], position)
            view, shape = view[: form.nbytes], form.shape
        return np.frombuffer(view, dtype=NUMPY[spec.datatype]).reshape(shape)


@dataclass(slots=True, eq=False)
class Lease:
    """A slot of a model for one inference."""

    number: int
    model: Model
    slot: int
    done: threading.Event = field(default_factory=threading.Event)
    error: errors.EdgeaiError | None = None
    #: Nanoseconds of input, compute and output phase.
    phases: tuple[int, int, int] = (0, 0, 0)
    #: When it is given back, it may be used once more instead.
    again: bool = False


class Link:
    """Thread-safe. `run` reads the socket until the daemon closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._models: dict[int, Model] = {}
        self._ready: dict[str, deque[Lease]] = defaultdict(deque)
        #: Model name -> how many grants or refusals are awaited.
        self._awaited: dict[str, int] = defaultdict(int)
        self._refusals: dict[str, deque[errors.EdgeaiError]] = defaultdict(deque)
        self._leases: dict[int, Lease] = {}
        #: Leases of a model that are kept for the next frames when nothing is asked.
        self.kept = 1
        #: A client follows the result of each frame.
        self.listening = False
        #: Who takes the messages that a worker gets, with their descriptors; None = nobody, they are calls too.
        self.worker: Callable[[bytes, list[int]], None] | None = None
        self.calls: dict[int, Callable[[int, dict[str, Any], list[int]], None]] = {}

    # --- what stages use --------------------------------------------------------------------------------------------

    def lease(self, name: str) -> Lease:
        """A slot of a model. QueueFull, Unavailable, NotFound: not now; InvalidModel: not at all."""
        with self._changed:
            if not self._ready[name] and not self._awaited[name]:
                self._awaited[name] += 1
                self._refusals[name].clear()  # of a lease that was wanted ahead: it may be to be had by now
                self.tell(Message.WANT, {"model": name})
            self._changed.wait_for(lambda: self._ready[name] or self._refusals[name], GRANT_SECONDS)
            if self._ready[name]:
                return self._ready[name].popleft()
            if self._refusals[name]:
                raise self._refusals[name].popleft()
            self._awaited[name] = 0
        raise errors.Unavailable(f"the daemon gave no slot of model {name!r} within {GRANT_SECONDS:g} s")

    def submit(self, lease: Lease) -> None:
        """The slot is filled: run the model."""
        self._send(HEADER.pack(Message.INFER, 0, lease.slot, lease.model.number, lease.number))

    def wait(self, lease: Lease) -> None:
        """Wait for the answer; raises what went wrong."""
        if not lease.done.wait(ANSWER_SECONDS):
            raise errors.DeadlineExceeded(f"no answer of model {lease.model.name!r} within {ANSWER_SECONDS:g} s")
        if lease.error is not None:
            raise lease.error

    def give(self, lease: Lease, *, again: bool = True) -> None:
        """The slot is not looked at any more; `again`: a next one will be wanted."""
        with self._changed:
            name = lease.model.name
            again = again and not self._awaited[name] and not lease.model.gone
            if again and lease.again and len(self._ready[name]) < self.kept:  # its slot stays: nobody need be told
                lease.done.clear()
                lease.again = False
                self._ready[name].append(lease)
                self._changed.notify_all()
                return
            self._leases.pop(lease.number, None)
            again = again and not self._ready[name]
            self._awaited[name] += again
        self._send(HEADER.pack(Message.GIVE, int(again), lease.slot, lease.model.number, lease.number))

    def tell(self, kind: Message, body: dict[str, Any]) -> None:
        """A JSON message; one that is too long is left out."""
        frame = HEADER.pack(kind, 0, 0, 0, 0) + json.dumps(body, separators=(",", ":")).encode()
        if len(frame) <= wire.MAX_MESSAGE:
            self._send(frame)

    def answer(self, call: int, body: dict[str, Any], status: int = 0, fd: int = -1) -> None:
        """The answer to a call of the daemon; closes `fd`."""
        frame = wire.pack_json(Kind.REPLY, call, body, status)
        if fd < 0:
            self._send(frame)
            return
        try:
            with self._sending:
                socket.send_fds(self._sock, [frame], [fd])
        finally:
            os.close(fd)

    def _send(self, frame: bytes) -> None:
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `run` sees the end too
            self._sock.send(frame)

    # --- the reader's side ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take messages until the daemon closes its end."""
        while True:
            data, fds = wire.receive(self._sock)
            if not data:
                return
            if self.worker is not None and data[0] < OWN:
                self.worker(data, fds)
                continue
            try:
                self._take(data, fds)
            finally:
                wire.close_all(fds)

    def _take(self, data: bytes, fds: list[int]) -> None:
        kind, status, slot, number, identity = HEADER.unpack_from(data)
        if kind == Message.ANSWER:
            self._answered(identity, status, data, again=bool(slot))
        elif kind == Message.GRANT:
            self._granted(number, slot, identity)
        else:
            body = json.loads(data[HEADER.size :])
            if kind == Message.ATTACH:
                self._attach(body, fds)
            elif kind == Message.DETACH:
                self._detach(number)
            elif kind == Message.REFUSE:
                self._refuse(body["model"], wire.error_of(status, body["error"]))
            elif kind == Message.LISTEN:
                self.listening = body["on"]
            else:
                self.calls[kind](identity, body, fds)

    def _answered(self, identity: int, status: int, data: bytes, *, again: bool) -> None:
        lease = self._leases.get(identity)
        if lease is None:
            return
        lease.phases, lease.again = PHASES.unpack_from(data, HEADER.size), again
        if status:
            lease.error = wire.error_of(status, data[HEADER.size + PHASES.size :].decode(errors="replace"))
        lease.done.set()

    def _granted(self, number: int, slot: int, identity: int) -> None:
        with self._changed:
            model = self._models[number]
            lease = Lease(identity, model, slot)
            self._leases[identity] = lease
            self._ready[model.name].append(lease)
            self._awaited[model.name] = max(0, self._awaited[model.name] - 1)
            self._changed.notify_all()

    def _refuse(self, name: str, error: errors.EdgeaiError) -> None:
        with self._changed:
            self._awaited[name] = max(0, self._awaited[name] - 1)
            self._refusals[name] = deque([error], maxlen=1)
            self._changed.notify_all()

    def _attach(self, body: dict[str, Any], fds: list[int]) -> None:
        inputs = tuple(spec_from(t) for t in body["inputs"])
        outputs = tuple(spec_from(t) for t in body["outputs"])
        fd = os.dup(fds[0])
        os.set_inheritable(fd, False)
        region = Region(fd, Layout.of(inputs, outputs, body["slots"], noted=body["noted"]))
        os.close(fd)  # the map keeps the memory, and goes with the last view of it
        region.fd = -1
        rules = labelling.rules_from(body["media"], inputs)
        model = Model(
            body["model"], body["name"], body["version"], body["task"], inputs, outputs, rules, region, body["noted"]
        )
        with self._changed:
            self._models[model.number] = model

    def _detach(self, number: int) -> None:
        """The model's memory stays mapped while anything in this process refers to it: the collector closes it."""
        with self._changed:
            model = self._models.pop(number, None)
            if model is None:
                return
            model.gone = True
            for lease in self._ready[model.name].copy():
                if lease.model is model:
                    self._ready[model.name].remove(lease)
                    self._leases.pop(lease.number, None)
