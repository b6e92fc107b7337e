"""The fast socket: SOCK_SEQPACKET, tensors in memfds that the client passes once. Wire format: docs/fast-socket.md.

A client says hello, attaches sealed memfds, binds a model's tensors to places in them once, and then sends 32-byte
INFER messages. No JSON, no task and no future lie on that path: the message's handler copies the inputs into a slot and
submits; the worker's answer copies the outputs back and sends the RESULT.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
from math import inf
from time import monotonic
from typing import Any, Final

from ... import __version__, errors
from ...serving.access import Peer, Role, Roles
from ...serving.holdings import Kind
from ...serving.model import Request
from ...serving.plane import Plane
from ...serving.turns import Share
from ...worker import wire
from ..descriptors import ListeningSocket, Refused, closer, receive_into, set_rights
from .memory import MAX_BINDINGS, MAX_REGION_BYTES, MAX_REGIONS, ClientMemory

log = logging.getLogger(__name__)

#: Versions of the wire format that this daemon supports.
MIN_VERSION: Final = 1
MAX_VERSION: Final = 2
#: From here on an answer says which version of the model gave it.
VERSION_TOLD: Final = 2
#: kind u8 = 1, priority u8, 0 u16, binding u32, request u64, timeout in microseconds u64 (0 = default), 0 u64
INFER: Final = struct.Struct("<BBHIQQQ")
#: kind u8 = 2, 0 u8, HTTP status u16 (200 = ok), binding u32, request u64, nanoseconds of queue, input,
#: compute, output u64; the id of the device that answered follows, or the error text when the status is not 200 (UTF-8)
RESULT: Final = struct.Struct("<BBHIQQQQQ")
KIND_INFER: Final = 1
KIND_RESULT: Final = 2
MAX_JSON: Final = 16 << 10
MAX_WAITING: Final = 64
#: Room for the longest message; a message is copied out of it before the next is read.
_BUFFER: Final = memoryview(bytearray(wire.MAX_MESSAGE))


class FastServer:
    """Accepts connections on a listening SOCK_SEQPACKET socket."""

    def __init__(self, plane: Plane, roles: Roles, sock: socket.socket) -> None:
        self.plane = plane
        self.roles = roles
        self.sock = ListeningSocket.of(sock)
        self.connections: set[_Connection] = set()
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Most likely no descriptors are left: make room, or the loop would be called for this for ever.
            log.warning("fast socket: %s", error)
            self._shed()
            return
        peer = self.roles.peer(sock)
        holdings = self.plane.holdings
        own, _ = holdings.limits(Kind.FAST)
        if not holdings.privileged(peer.uid) and holdings.of(peer.uid, Kind.FAST) >= own:
            self._shed(peer.uid)
        elif holdings.total(Kind.FAST) >= self.plane.config.limits.connections:
            self._shed()
        try:
            holdings.take(peer.uid, Kind.FAST)
        except errors.Unavailable as error:
            with contextlib.suppress(OSError):
                sock.send(json.dumps({"error": str(error), "code": error.http}).encode())
            sock.close()
            return
        self.connections.add(_Connection(self, sock, peer))

    def _shed(self, uid: int | None = None) -> bool:
        """Close the connection idle longest, of a user or of the one with most; False when all are busy."""
        of = self.plane.holdings.of
        idle = [c for c in self.connections if c.since != inf and uid in (None, c.peer.uid)]
        most = max((of(c.peer.uid, Kind.FAST) for c in idle), default=0)
        oldest = min((c for c in idle if of(c.peer.uid, Kind.FAST) == most), key=lambda c: c.since, default=None)
        if oldest is None or oldest.since == inf:
            return False
        oldest.close()
        return True

    def recheck(self, roles: Roles) -> None:
        """Roles have changed: drop the connections that may not be here any more."""
        self.roles = roles
        for connection in list(self.connections):
            connection.peer = roles.peer(connection.sock)
            if connection.peer.role < Role.INFER:
                connection.close()

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
        self.version = MIN_VERSION
        self.memory = ClientMemory(server.plane, peer.uid)
        self.waiting: dict[int, Request] = {}
        #: When it last did something; infinity while requests are under way.
        self.since = monotonic()
        self._out: list[bytes] = []
        self._share = Share()
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
            self.plane.withdraw(request)
        self.waiting.clear()
        self.memory.close()
        self.server.connections.discard(self)
        self.plane.holdings.give(self.peer.uid, Kind.FAST)

    def _readable(self) -> None:
        if self.plane.turns.free():
            self._read()
            return
        self._loop.remove_reader(self.sock.fileno())
        self.plane.turns.wait(self.peer.uid, self._share, self._turn)

    def _turn(self) -> None:
        if self.sock.fileno() >= 0:
            self._loop.add_reader(self.sock.fileno(), self._readable)
            self._read()

    def _read(self) -> None:
        """One message; the loop calls again when there is more."""
        try:
            size, fds, cut = receive_into(self.sock, _BUFFER)
        except BlockingIOError:
            return
        except Refused as error:
            self._refuse_descriptors(str(error))
            return
        except OSError:
            self.close()
            return
        if not size or (fds and not self.greeted):
            closer.close(fds)
            self.close()
            return
        if cut:
            closer.close(fds)
            self._send_json({"error": "message cut short: too long, or too many descriptors", "code": 400})
            return
        data = bytes(_BUFFER[:size])
        if data[0] == KIND_INFER and size == INFER.size and not fds:
            self._infer(data)
        else:
            self._control(data, fds)

    def _refuse_descriptors(self, why: str) -> None:
        self._send_json({"error": why, "code": 400})
        self.close()

    # --- control: JSON ----------------------------------------------------------------------------------------------

    def _control(self, data: bytes, fds: list[int]) -> None:
        identity: Any = None
        if not self.waiting:
            self.since = monotonic()
        try:
            if len(data) > MAX_JSON or data[:1] != b"{":
                raise errors.InvalidRequest("a message is an INFER structure or a JSON object")
            message = _loads(data)
            identity = message.get("id")
            answer = self._operate(message, fds)
        except errors.EdgeaiError as error:
            closer.close(fds)  # whatever they are
            self._send_json({"id": identity, "error": str(error), "code": error.http})
            return
        self._send_json({"id": identity, **answer})

    def _operate(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        operation = message.get("op")
        if operation == "hello":
            version = message.get("version")
            if type(version) is not int or not MIN_VERSION <= version <= MAX_VERSION:
                raise errors.Unsupported(
                    f"this daemon speaks versions {MIN_VERSION} to {MAX_VERSION} here, not {version!r:.50}"
                )
            if self.peer.role < Role.INFER:
                self.plane.denials.deny(self.peer, Role.INFER, "the fast socket")
            self.greeted = True
            self.version = version
            set_rights(self.sock, True)
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
            return self.memory.attach(fds)
        if operation == "detach":
            return self.memory.detach(message)
        if fds:
            raise errors.InvalidRequest("only the op 'attach' takes a descriptor")
        if operation == "bind":
            return self.memory.bind(message)
        if operation == "unbind":
            return self.memory.unbind(message)
        raise errors.InvalidRequest(f"unknown op {operation!r:.200}; known: hello, attach, detach, bind, unbind")

    # --- the path of a tensor ---------------------------------------------------------------------------------------

    def _infer(self, data: bytes) -> None:
        _, priority, _, number, identity, timeout, _ = INFER.unpack(data)
        try:
            if identity in self.waiting:
                raise errors.InvalidRequest(f"request {identity} is under way already")
            if len(self.waiting) >= MAX_WAITING:
                raise errors.QueueFull(f"{MAX_WAITING} requests of this connection are under way")
            binding = self.memory.current(number)
            request = self.plane.request(
                binding.live, self.peer, priority=priority, timeout=timeout / 1e6 if timeout else None
            )
        except errors.EdgeaiError as error:
            self._refuse(number, identity, error)
            return
        for slot, source in zip(request.inputs, binding.inputs, strict=True):
            slot[:] = source
        outputs = binding.outputs
        request.payload = identity
        answered_by = binding.live.version
        request.done = lambda r: self._done(r, number, outputs, answered_by)
        self.since = inf
        self.waiting[identity] = request
        try:
            self.plane.submit(request)
        except errors.EdgeaiError as error:
            self._answered(identity)
            request.release()
            self._refuse(number, identity, error)

    def _answered(self, identity: int) -> None:
        self.waiting.pop(identity, None)
        if not self.waiting:
            self.since = monotonic()

    def _done(self, request: Request, binding: int, outputs: list[memoryview | None], version: str) -> None:
        identity = request.payload
        self._answered(identity)
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
        head = RESULT.pack(KIND_RESULT, 0, 200, binding, identity, request.queue_ns, *request.phases)
        text = request.answered_by if self.version < VERSION_TOLD else f"{request.answered_by}\n{version}"
        self._send(head + text.encode())

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
    from ..json_text import loads

    value = loads(data, 16)
    if not isinstance(value, dict):
        raise errors.InvalidRequest("the message must be a JSON object")
    return value
