"""Between the clients of gRPC and Python's gRPC server: identifies them, counts what they hold, removes descriptors.

Python's gRPC can neither say who is at the other end of a Unix socket nor bound what it holds for a client, and closes
descriptors that come with a message in its own threads. So clients connect here; bytes go on to a socket of the
server's own, and the frames of HTTP/2 are followed as far as it takes to count the bodies that are under way.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Final

from ... import errors
from ...serving.access import Peer, Role, credentials
from ...serving.holdings import Kind
from ...serving.plane import Plane
from ...serving.turns import Share
from ..descriptors import ListeningSocket
from ..sockets import BACKLOG

log = logging.getLogger(__name__)

#: That the server takes no connection is written once in so many seconds.
FAILED_SECONDS: Final = 10.0
_PREFACE: Final = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_FRAME: Final = 9
#: Bytes of a call's headers; gRPC counts 32 for each beside its texts.
MAX_METADATA: Final = 8 << 10
#: Bytes whose frames are followed in one step.
PIECE: Final = 1 << 13
_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = 0, 1, 3, 9
_END_STREAM: Final = 1
_ENHANCE_YOUR_CALM: Final = 11
#: Body bytes of a call of a client that may not load models, beside four times the largest model's inputs.
_SMALL: Final = 1 << 20
_PEER: Final = re.compile(r"edgeaid-grpc-[0-9a-f]+-([0-9]+)")


class Frames:
    """Finds the frames in one direction of an HTTP/2 connection."""

    __slots__ = ("_part", "_skip")

    def __init__(self, skip: int = 0) -> None:
        self._skip = skip
        self._part = b""

    @property
    def missing(self) -> int:
        """Bytes that the frame under way still lacks."""
        return self._skip

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, int]]:
        """(bytes of payload, type, flags, stream) of the frames that begin in `data`."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            take = _FRAME - len(self._part)
            self._part += data[at : at + take]
            at += take
            if len(self._part) == _FRAME:
                high, low, kind, flags, stream = struct.unpack(">BHBBI", self._part)
                self._part = b""
                self._skip = high << 16 | low
                yield self._skip, kind, flags, stream & 0x7FFFFFFF


def _go_away(text: str) -> bytes:
    """Frames that end a connection with a reason: settings, which come first, and GOAWAY."""
    settings = struct.pack(">BHBBI", 0, 0, 4, 0, 0)
    body = struct.pack(">II", 0, _ENHANCE_YOUR_CALM) + text.encode()
    return settings + struct.pack(">BHBBI", 0, len(body), 7, 0, 0) + body


class Front:
    """Accepts the clients of gRPC."""

    def __init__(self, plane: Plane, listening: ListeningSocket, inner: Path, role: Role) -> None:
        self.plane = plane
        self.inner = inner
        self.role = role
        self.listening = listening
        #: Who is behind the inner connection of this number.
        self.peers: dict[int, Client] = {}
        self.connections: set[Client] = set()
        self._names = f"\0edgeaid-grpc-{secrets.token_hex(8)}-"
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        #: When it was last written that the server takes no connection.
        self._failed = -inf

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Client(self), sock=self.listening, backlog=BACKLOG)

    def close(self) -> None:
        """Stop accepting and drop all connections."""
        if self._server is not None:
            self._server.close()
        for client in list(self.connections):
            client.close()

    def peer(self, text: str) -> tuple[Peer, Share]:
        """Who made a call, from what gRPC says of its connection."""
        match = _PEER.search(text)
        client = self.peers.get(int(match[1])) if match is not None else None
        if client is None:  # it has left
            return Peer(-1, 0, self.role), Share()
        return Peer(client.uid, client.pid, self.role), client.share

    def failed(self, error: OSError) -> None:
        """There is no connection to the server: written once in a while, however many clients ask."""
        now = time.monotonic()
        if now - self._failed >= FAILED_SECONDS:
            self._failed = now
            log.warning("gRPC: no connection from %s to the server behind it: %s", self.listening.getsockname(), error)

    def connect(self, number: int) -> socket.socket:
        """A connection to the server, known to it by its number."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.bind(f"{self._names}{number}")
            sock.connect(os.fspath(self.inner))  # into the backlog of a socket of this process
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def number(self) -> int:
        """One that no connection had before."""
        return next(self._numbers)

    def body_limit(self) -> int:
        """Bytes that the body of one call may have."""
        most = self.plane.config.limits.body_bytes
        if self.role >= Role.CONTROL:
            return most
        models = self.plane.registry.loaded()
        return min(most, _SMALL + 4 * max((sum(s.capacity for s in live.inputs) for live in models), default=0))


class Flow:
    """One direction of a connection: bytes from `source` go on in pieces, each when it is the client's turn."""

    def __init__(self, client: Client, frames: Frames, pass_on: Callable[[bytes], None]) -> None:
        self.source: asyncio.Transport | None = None
        self._client = client
        self._frames = frames
        self._pass_on = pass_on
        self._kept = bytearray()
        self._waiting = False
        #: The other end takes no more for now.
        self._full = False

    def take(self, data: bytes) -> None:
        """Bytes that came: at once, or as soon as it is this client's turn."""
        if self._kept or not self._client.front.plane.turns.free():
            self._keep(data)
            return
        piece = data[: self._piece]
        self._pass_on(piece)
        if len(data) > len(piece):
            self._keep(data[len(piece) :])

    @property
    def _piece(self) -> int:
        """Frames cost, not bytes: the rest of a large one costs nothing."""
        return max(PIECE, self._frames.missing)

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if self.source is not None:
            self.source.pause_reading()
        if not self._waiting:
            self._waiting = True
            self._client.front.plane.turns.wait(self._client.uid, self._client.share, self._step)

    def _step(self) -> None:
        self._waiting = False
        if self.source is None or self.source.is_closing():
            self._kept.clear()
            return
        data = bytes(self._kept[: self._piece])
        del self._kept[: len(data)]
        self._pass_on(data)
        if self._kept:
            self._keep(b"")
        elif not self._full:
            self.source.resume_reading()

    def end(self) -> None:
        """No more comes: pass on what is left."""
        data = bytes(self._kept)
        self._kept.clear()
        if data:
            self._pass_on(data)

    def full(self, full: bool) -> None:
        """The other end takes no more for now, or again."""
        self._full = full
        if self.source is None or self.source.is_closing():
            return
        if full:
            self.source.pause_reading()
        elif not self._kept:
            self.source.resume_reading()


class Client(asyncio.Protocol):
    """One client, and its connection to the server."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.number = front.number()
        self.uid = -1
        self.pid = 0
        self.transport: asyncio.Transport | None = None
        self.inner: asyncio.Transport | None = None
        #: Bytes of bodies by stream, until the server answers.
        self.streams: dict[int, int] = {}
        self._frames = Frames(_PREFACE)
        #: What came before there was a connection to the server: asyncio of Python 3.11.2 (Debian 12) reads on after a
        #: pause in `connection_made`.
        self._early = bytearray()
        self.share = Share()
        self.flow = Flow(self, self._frames, self._pass_on)
        #: The other direction, once there is a connection to the server.
        self.back: Flow | None = None
        #: Bytes of the headers that are coming: gRPC's own limit lets through what never ends.
        self._block = 0
        self._admitted = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  stream servers have stream transports
        self.transport = self.flow.source = transport
        self.pid, self.uid, _, _ = credentials(transport.get_extra_info("socket"))
        try:
            self.front.plane.holdings.take(self.uid, Kind.GRPC)
        except errors.Unavailable as error:
            self._refuse(str(error))
            return
        self._admitted = True
        self.front.connections.add(self)
        self.front.peers[self.number] = self
        transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock = self.front.connect(self.number)
            self.inner, _ = await loop.create_unix_connection(lambda: Inner(self), sock=sock)
        except OSError as error:
            self.front.failed(error)
            self._refuse("the daemon is busy; ask again")
            return
        if self.transport is None or self.transport.is_closing():
            self.inner.abort()
            return
        if self._early:
            self.inner.write(bytes(self._early))
            self._early.clear()
        self.flow.full(False)

    def data_received(self, data: bytes) -> None:
        """Bytes for the server."""
        self.flow.take(data)

    def _pass_on(self, data: bytes) -> None:
        limit = 0
        for size, kind, _, stream in self._frames.feed(data):
            if kind == _RST_STREAM:
                self.release(stream)
            elif kind in (_HEADERS, _CONTINUATION):
                self._block = size + (self._block if kind == _CONTINUATION else 0)
                if self._block > MAX_METADATA:
                    self._refuse(f"the headers of a call have more than {MAX_METADATA} bytes")
                    return
            elif kind == _DATA and size:
                limit = limit or self.front.body_limit()
                try:
                    self._hold(stream, size, limit)
                except errors.EdgeaiError as error:
                    self._refuse(str(error))
                    return
        if self.inner is None:
            self._early += data
        elif not self.inner.is_closing():  # asyncio writes a line to the log for what it cannot send
            self.inner.write(data)

    def _hold(self, stream: int, size: int, limit: int) -> None:
        held = self.streams.get(stream, 0)
        if held + size > limit:
            raise errors.TooLarge(f"a message is larger than {limit} bytes")
        self.front.plane.holdings.take(self.uid, Kind.BYTES, size)
        self.streams[stream] = held + size

    def release(self, stream: int) -> None:
        """The body of a call is no longer held."""
        held = self.streams.pop(stream, 0)
        if held:
            self.front.plane.holdings.give(self.uid, Kind.BYTES, held)

    def pause_writing(self) -> None:
        """The client does not read: take no more from the server."""
        if self.back is not None:
            self.back.full(True)

    def resume_writing(self) -> None:
        """The client has read."""
        if self.back is not None:
            self.back.full(False)

    def _refuse(self, text: str) -> None:
        if self.transport is not None:
            self.transport.write(_go_away(text[:500]))
            self.transport.close()
        if self.inner is not None:
            self.inner.abort()

    def close(self) -> None:
        """Drop the connection."""
        for transport in (self.transport, self.inner):
            if transport is not None:
                transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """The client is gone."""
        if self.inner is not None:
            # Not `close`, which waits until the server has read everything: it may wait for us to read.
            self.inner.abort()
        for stream in list(self.streams):
            self.release(stream)
        if self._admitted:
            self._admitted = False
            self.front.connections.discard(self)
            self.front.peers.pop(self.number, None)
            self.front.plane.holdings.give(self.uid, Kind.GRPC)


class Inner(asyncio.Protocol):
    """The other half: what the server says to one client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._frames = Frames()
        client.back = self._flow = Flow(client, self._frames, self._pass_on)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server has taken the connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  a stream
        self._flow.source = transport

    def data_received(self, data: bytes) -> None:
        """Bytes for the client."""
        self._flow.take(data)

    def _pass_on(self, data: bytes) -> None:
        for size, kind, flags, stream in self._frames.feed(data):
            if (kind == _DATA and size) or kind == _RST_STREAM or (kind == _HEADERS and flags & _END_STREAM):
                self.client.release(stream)
        if self.client.transport is not None and not self.client.transport.is_closing():
            self.client.transport.write(data)

    def pause_writing(self) -> None:
        """The server takes no more for now: neither do we."""
        self.client.flow.full(True)

    def resume_writing(self) -> None:
        """The server takes more."""
        self.client.flow.full(False)

    def connection_lost(self, _error: Exception | None) -> None:
        """The server closed this connection, once what it said before is said."""
        self._flow.end()
        if self.client.transport is not None:
            self.client.transport.close()
