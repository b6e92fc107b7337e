"""Slots of models that a stream's process holds, and its inferences: between its socket and the plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from time import monotonic as clock
from typing import Any, NamedTuple

from .. import errors
from ..serving.device_models import rules_of
from ..serving.model import LiveModel, Request
from ..serving.plane import Plane
from ..worker import wire
from ..worker.wire import HEADER, PHASES
from .handle import StreamHandle
from .messages import Message


class Terms(NamedTuple):
    """What is asked for with a request."""

    priority: int
    #: Seconds.
    timeout: float


class Leases:
    """The requests of one process. Everything runs on the event loop; no tensor and no frame passes through here."""

    def __init__(
        self,
        plane: Plane,
        handle: StreamHandle,
        terms: Callable[[], Terms],
        on_device: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        #: On which terms the next request is made.
        self._terms = terms
        self._plane = plane
        self._handle = handle
        #: Called with the device that answered for a model.
        self._on_device = on_device
        self._held: dict[int, Request] = {}
        self._submitted: set[int] = set()
        #: Leases whose last request was answered: the next one takes over its slot.
        self._answered: set[int] = set()
        self._attached: dict[int, LiveModel] = {}
        self._numbers = 0
        self._closed = False

    def take(self, kind: int, status: int, number: int, body: dict[str, Any]) -> None:
        """A message of the process about a lease."""
        if kind == Message.INFER:
            self._infer(number)
        elif kind == Message.GIVE:
            self._give(number, again=bool(status))
        else:
            self._grant(str(body["model"]))

    def _grant(self, name: str) -> None:
        try:
            live = self._plane.registry.model(name)
            priority, timeout = self._terms()
            request = self._plane.request(live, self, priority=priority, timeout=timeout)
        except errors.EdgeaiError as error:
            body = {"model": name, "error": str(error)}
            self._handle.tell(Message.REFUSE, body, status=wire.status_of(error))
            return
        if live.number not in self._attached:
            self._attach(live)
        self._numbers += 1
        request.payload = self._numbers
        self._held[self._numbers] = request
        self._handle.post(HEADER.pack(Message.GRANT, 0, request.slot, live.number, self._numbers))

    def _attach(self, live: LiveModel) -> None:
        """Show the process a model's memory, rules and labels."""
        manifest, region = live.stored.manifest, live.region
        if region is None:
            return
        body = {
            "model": live.number,
            "name": live.name,
            "version": live.version,
            "task": manifest.task,
            "inputs": [asdict(s) for s in live.inputs],
            "outputs": [asdict(s) for s in live.outputs],
            "slots": region.layout.slots,
            "noted": live.noted,
            "media": rules_of(live),
        }
        self._attached[live.number] = live
        self._handle.post(wire.pack_json(Message.ATTACH, 0, body), (region.fd,))

    def _infer(self, number: int) -> None:
        request = self._held.get(number)
        if request is None:
            self._answer(number, errors.Unavailable("the model is being replaced"))
            return
        priority, timeout = self._terms()
        try:
            if number in self._answered:
                self._answered.discard(number)
                request = self._held[number] = self._plane.again(request, priority=priority, timeout=timeout)
                request.payload = number
            request.priority = priority
            request.deadline = clock() + timeout
            request.done = self._done
            self._submitted.add(number)
            self._plane.submit(request)
        except errors.EdgeaiError as error:
            self._submitted.discard(number)
            self._answer(number, error)

    def _done(self, request: Request) -> None:
        number = request.payload
        self._submitted.discard(number)
        if self._closed:
            request.release()
            return
        if request.error is None:
            self._on_device(request.live.name, request.answered_by)
        again = request.error is None and not request.live.retiring and request.slot >= 0
        if again:
            self._answered.add(number)
        self._answer(number, request.error, request.phases, again=again)

    def _answer(
        self,
        number: int,
        error: errors.EdgeaiError | None,
        phases: tuple[int, int, int] = (0, 0, 0),
        *,
        again: bool = False,
    ) -> None:
        status = wire.status_of(error) if error is not None else 0
        text = str(error).encode()[:4000] if error is not None else b""
        self._handle.post(HEADER.pack(Message.ANSWER, status, int(again), 0, number) + PHASES.pack(*phases) + text)

    def _give(self, number: int, *, again: bool) -> None:
        self._answered.discard(number)
        request = self._held.pop(number, None)
        if request is not None:
            name = request.live.name
            request.release()
            if again:
                self._grant(name)

    def sweep(self) -> None:
        """Let go of models that are being replaced or unloaded: an idle stream must not keep them."""
        for number, request in list(self._held.items()):
            if request.live.retiring and number not in self._submitted:
                del self._held[number]
                self._answered.discard(number)
                self._detach(request.live)
                request.release()
        for live in [m for m in self._attached.values() if m.retiring]:
            self._detach(live)

    def _detach(self, live: LiveModel) -> None:
        if self._attached.pop(live.number, None) is not None:
            self._handle.tell(Message.DETACH, {}, model=live.number)

    def close(self) -> None:
        """The process is gone: withdraw what runs, give back what is held."""
        self._closed = True
        for number, request in self._held.items():
            if number in self._submitted:
                self._plane.withdraw(request)
            else:
                request.release()
        self._held.clear()
        self._answered.clear()
        self._attached.clear()
