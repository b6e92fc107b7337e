"""The fast socket: SOCK_SEQPACKET, tensors in memfds that the client passes once. Wire format: docs/fast-socket.md.

A client says hello, attaches sealed memfds, binds a model's tensors to places in them once, and then sends 32-byte
INFER messages. No JSON, no task and no future lie on that path: the message's handler copies the inputs into a slot and
submits; the worker's answer copies the outputs back and sends the RESULT.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import mmap
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from .. import __version__, errors
from ..worker import wire
from .access import Peer, Role, Roles
from .model import LiveModel, Request
from .plane import Plane

log = logging.getLogger(__name__)

#: Versions of the wire format that this daemon speaks.
MIN_VERSION: Final = 1
MAX_VERSION: Final = 1
#: kind u8 = 1, priority u8, 0 u16, binding u32, request u64, timeout in microseconds u64 (0 = default), 0 u64
INFER: Final = struct.Struct("<BBHIQQQ")
#: kind u8 = 2, 0 u8, HTTP status u16 (200 = ok), binding u32, request u64, nanoseconds of queue, input,
#: compute, output u64; error text (UTF-8) follows when the status is not 200
RESULT: Final = struct.Struct("<BBHIQQQQQ")
KIND_INFER: Final = 1
KIND_RESULT: Final = 2
MAX_REGIONS: Final = 8
MAX_BINDINGS: Final = 64
MAX_REGION_BYTES: Final = 256 << 20
MAX_JSON: Final = 64 << 10
MAX_WAITING: Final = 64


@dataclass(slots=True)
class _Binding:
    """A model's tensors and where they lie in the client's regions."""

    live: LiveModel
    name: str
    version: str
    #: Views of the client's memory, in the model's order; None = output not wanted.
    inputs: list[memoryview]
    outputs: list[memoryview | None]
    places: dict[str, Any] = field(default_factory=dict)


class FastServer:
    """Accepts connections on a listening SOCK_SEQPACKET socket."""

    def __init__(self, plane: Plane, roles: Roles, sock: socket.socket) -> None:
        self.plane = plane
        self.roles = roles
        self.sock = sock
        self.connections: set[_Connection] = set()
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self.sock.accept()
        except OSError:
            return
        if len(self.connections) >= self.plane.config.limits.connections:
            connection.close()
            return
        connection.setblocking(False)
        self.connections.add(_Connection(self, connection, self.roles.peer(connection)))

    def close(self) -> None:
        """Stop accepting and drop all connections."""
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        for connection in list(self.connections):
            connection.close()


class _Connection:
    """One client."""

    def __init__(self, server: FastServer, sock: socket.socket, peer: Peer) -> None:
        self.server = server
        self.plane = server.plane
        self.sock = sock
        self.peer = peer
        self.greeted = False
        self.regions: dict[int, tuple[mmap.mmap, memoryview]] = {}
        self.bindings: dict[int, _Binding] = {}
        self.waiting: dict[int, Request] = {}
        self._numbers = 0
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Withdraw what is under way, unmap, close."""
        if self.sock.fileno() < 0:
            return
        self._loop.remove_reader(self.sock.fileno())
        self._loop.remove_writer(self.sock.fileno())
        self.sock.close()
        for request in list(self.waiting.values()):
            request.live.stats.cancelled += 1
            if request.device is not None:
                request.device.cancel(request)
        self.waiting.clear()
        for binding in self.bindings.values():
            _release(binding)
        self.bindings.clear()
        for region, view in self.regions.values():
            view.release()
            region.close()
        self.regions.clear()
        self.server.connections.discard(self)

    def _readable(self) -> None:
        # A bounded number of messages per turn: one client cannot keep the loop from the others.
        for _ in range(8):
            try:
                data, fds = wire.receive(self.sock)
            except BlockingIOError:
                return
            except errors.InvalidRequest as error:
                self._send_json({"error": str(error), "code": 400})
                continue
            except OSError:
                self.close()
                return
            if not data:
                wire.close_all(fds)
                self.close()
                return
            if data[0] == KIND_INFER and len(data) == INFER.size and not fds:
                self._infer(data)
                continue
            try:
                self._control(data, fds)
            finally:
                wire.close_all(fds)
            if self.sock.fileno() < 0:
                return

    # --- control: JSON ----------------------------------------------------------------------------------------------

    def _control(self, data: bytes, fds: list[int]) -> None:
        identity: Any = None
        try:
            if len(data) > MAX_JSON or data[:1] != b"{":
                raise errors.InvalidRequest("a message is an INFER structure or a JSON object")
            message = _loads(data)
            identity = message.get("id")
            answer = self._operate(message, fds)
        except errors.EdgeaiError as error:
            self._send_json({"id": identity, "error": str(error), "code": error.http})
            return
        self._send_json({"id": identity, **answer})

    def _operate(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        operation = message.get("op")
        if operation == "hello":
            version = message.get("version")
            if not isinstance(version, int) or not MIN_VERSION <= version <= MAX_VERSION:
                raise errors.Unsupported(
                    f"this daemon speaks versions {MIN_VERSION} to {MAX_VERSION} of the fast socket, not {version!r}"
                )
            self.peer.require(Role.INFER, "the fast socket")
            self.greeted = True
            limits = {
                "regions": MAX_REGIONS,
                "bindings": MAX_BINDINGS,
                "region_bytes": MAX_REGION_BYTES,
                "waiting": MAX_WAITING,
            }
            return {
                "version": version,
                "min": MIN_VERSION,
                "max": MAX_VERSION,
                "server": f"edgeaid {__version__}",
                "limits": limits,
            }
        if not self.greeted:
            raise errors.InvalidRequest("say hello first")
        if operation == "attach":
            return self._attach(fds)
        if operation == "bind":
            return self._bind(message)
        if operation == "unbind":
            binding = self.bindings.pop(message.get("binding", -1), None)
            if binding is None:
                raise errors.NotFound(f"no binding {message.get('binding')!r}")
            _release(binding)
            return {}
        raise errors.InvalidRequest(f"unknown op {operation!r}; known: hello, attach, bind, unbind")

    def _attach(self, fds: list[int]) -> dict[str, Any]:
        if len(fds) != 1:
            raise errors.InvalidRequest(f"attach needs exactly one descriptor, {len(fds)} came")
        if len(self.regions) >= MAX_REGIONS:
            raise errors.TooLarge(f"{MAX_REGIONS} regions are attached, the limit")
        try:
            seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
        except OSError as error:
            raise errors.InvalidRequest("the descriptor is not a memfd") from error
        if not seals & fcntl.F_SEAL_SHRINK:
            raise errors.InvalidRequest(
                "the memfd is not sealed: add F_SEAL_SHRINK (and F_SEAL_GROW, F_SEAL_SEAL) before passing it"
            )
        size = os.fstat(fds[0]).st_size
        if not 0 < size <= MAX_REGION_BYTES:
            raise errors.TooLarge(f"the memfd has {size} bytes, allowed are 1 to {MAX_REGION_BYTES}")
        try:
            region = mmap.mmap(fds[0], size)
        except (OSError, ValueError) as error:
            raise errors.InvalidRequest(f"the memfd cannot be mapped for reading and writing: {error}") from error
        number = self._next()
        self.regions[number] = (region, memoryview(region))
        return {"region": number, "size": size}

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _bind(self, message: dict[str, Any]) -> dict[str, Any]:
        if len(self.bindings) >= MAX_BINDINGS:
            raise errors.TooLarge(f"{MAX_BINDINGS} bindings exist, the limit; unbind one")
        name, version = message.get("model"), message.get("version", "")
        if not isinstance(name, str) or not isinstance(version, str):
            raise errors.InvalidRequest("'model' and 'version' must be texts")
        binding = self._bound(name, version, message)
        number = self._next()
        self.bindings[number] = binding
        live = binding.live

        def described(specs: Any) -> list[dict[str, Any]]:
            return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape), "size": s.nbytes} for s in specs]

        return {
            "binding": number,
            "version": live.version,
            "inputs": described(live.inputs),
            "outputs": described(live.outputs),
        }

    def _bound(self, name: str, version: str, places: dict[str, Any]) -> _Binding:
        live = self.plane.model(name, version)
        inputs = self._views(places.get("inputs"), live.inputs, "input")
        if any(v is None for v in inputs):
            raise errors.InvalidRequest(f"model {name!r} has {len(inputs)} inputs, give a place for each")
        outputs = self._views(places.get("outputs"), live.outputs, "output")
        wanted = {"inputs": places.get("inputs"), "outputs": places.get("outputs")}
        return _Binding(live, name, version, inputs, outputs, wanted)  # type: ignore[arg-type]  # no None, checked above

    def _views(self, places: object, specs: Any, what: str) -> list[memoryview | None]:
        if not isinstance(places, list) or len(places) > len(specs):
            raise errors.InvalidRequest(f"'{what}s' must be an array of at most {len(specs)} places")
        index = {s.name: i for i, s in enumerate(specs)}
        found: list[memoryview | None] = [None] * len(specs)
        for place in places:
            if not isinstance(place, dict) or place.get("name") not in index:
                raise errors.InvalidRequest(
                    f"unexpected inference {what} {place!r:.200}; the model has {', '.join(map(repr, index))}"
                )
            region = self.regions.get(place.get("region", -1))
            offset = place.get("offset", 0)
            spec = specs[index[place["name"]]]
            if region is None or not isinstance(offset, int) or not 0 <= offset <= len(region[1]) - spec.nbytes:
                raise errors.InvalidRequest(
                    f"{what} {spec.name!r} ({spec.nbytes} bytes) does not lie within an attached region"
                )
            found[index[spec.name]] = region[1][offset : offset + spec.nbytes]
        return found

    # --- the path of a tensor ---------------------------------------------------------------------------------------

    def _infer(self, data: bytes) -> None:
        _, priority, _, number, identity, timeout, _ = INFER.unpack(data)
        binding = self.bindings.get(number)
        try:
            if binding is None:
                raise errors.NotFound(f"no binding {number}")
            if identity in self.waiting:
                raise errors.InvalidRequest(f"request {identity} is under way already")
            if len(self.waiting) >= MAX_WAITING:
                raise errors.QueueFull(f"{MAX_WAITING} requests of this connection are under way")
            live = binding.live
            if live.retiring or live.quarantined:
                live = self._rebind(number, binding)
                binding = self.bindings[number]
            request = self.plane.request(
                live, self.peer.pid, priority=priority, timeout=timeout / 1e6 if timeout else None
            )
        except errors.EdgeaiError as error:
            self._refuse(number, identity, error)
            return
        for slot, source in zip(request.inputs, binding.inputs, strict=True):
            slot[:] = source
        outputs = binding.outputs
        request.payload = identity
        request.done = lambda r: self._done(r, number, outputs)
        self.waiting[identity] = request
        try:
            self.plane.submit(request)
        except errors.EdgeaiError as error:
            del self.waiting[identity]
            request.release()
            self._refuse(number, identity, error)

    def _rebind(self, number: int, binding: _Binding) -> LiveModel:
        """The model was reloaded: take its new version if its tensors still fit."""
        fresh = self._bound(binding.name, binding.version, binding.places)
        _release(binding)
        self.bindings[number] = fresh
        return fresh.live

    def _done(self, request: Request, binding: int, outputs: list[memoryview | None]) -> None:
        identity = request.payload
        self.waiting.pop(identity, None)
        error = request.error
        if error is not None:
            request.release()
            self._refuse(binding, identity, error)
            return
        try:
            for source, target in zip(request.outputs, outputs, strict=True):
                if target is not None:
                    target[:] = source
        except ValueError:
            self._refuse(binding, identity, errors.Cancelled("the binding was taken away while the request ran"))
            return
        finally:
            request.release()
        self._send(RESULT.pack(KIND_RESULT, 0, 200, binding, identity, request.queue_ns, *request.phases))

    def _refuse(self, binding: int, identity: int, error: errors.EdgeaiError) -> None:
        self._send(RESULT.pack(KIND_RESULT, 0, error.http, binding, identity, 0, 0, 0, 0) + str(error).encode()[:4000])

    def _send_json(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message, separators=(",", ":")).encode())

    def _send(self, data: bytes) -> None:
        if self._out:
            self._queue(data)
            return
        try:
            self.sock.send(data)
        except BlockingIOError:
            self._queue(data)
            self._loop.add_writer(self.sock.fileno(), self._flush)
        except OSError:
            self._loop.call_soon(self.close)

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        if len(self._out) > 4 * MAX_WAITING:
            self._loop.call_soon(self.close)  # does not read its answers

    def _flush(self) -> None:
        try:
            while self._out:
                self.sock.send(self._out[0])
                self._out.pop(0)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._loop.remove_writer(self.sock.fileno())


def _loads(data: bytes) -> dict[str, Any]:
    from .oip import loads

    value = loads(data, 16)
    if not isinstance(value, dict):
        raise errors.InvalidRequest("the message must be a JSON object")
    return value


def _release(binding: _Binding) -> None:
    for view in (*binding.inputs, *binding.outputs):
        if view is not None:
            view.release()
