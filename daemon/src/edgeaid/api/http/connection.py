"""One HTTP connection: aiohttp's, with a short way for plain inference.

A request that is plain (tensors or a picture for one model, a Content-Length, nothing chunked, compressed or
negotiated) is for `PlainRequests`. Whatever is not plain, or is doubtful in any way, is aiohttp's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from math import inf
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.http import RawRequestMessage

from ... import errors
from ...serving.access import Peer, Role, credentials
from ...serving.plane import Plane
from ...serving.turns import Share
from .account import Account
from .bodies import MIN_RATE
from .framing import Framing
from .plain import STARTS, Head, plain_answer
from .plain_requests import PlainRequests
from .replies import error_response, failure, shown

log = logging.getLogger(__name__)

#: aiohttp's own timer for idle connections; `HttpServer` closes those.
_NEVER: Final = 1e8
#: Bytes looked at in one step where requests begin.
PIECE: Final = 1 << 12
#: The same where it is not known where they begin (chunks), and behind a request under way before reading stops.
LONG_PIECE: Final = 1 << 14
#: The same where many lines come, which are chunks of a few bytes, or headers: each costs as much as a long one.
SHORT_PIECE: Final = 1 << 10
#: Lines in a long piece that are many; random bytes have a quarter as many.
MANY_LINES: Final = 256
#: Requests that aiohttp has taken from the bytes and not begun, before it gets no more.
MAX_MESSAGES: Final = 8
#: What still comes of a refused body is read for so long, so that its sender gets to the answer.
LINGER_SECONDS: Final = 2.0
#: How long a connection that is one too many stays to read its refusal.
REFUSED_SECONDS: Final = 0.5


class Owner(Protocol):
    """What a connection needs of the server that accepted it."""

    plane: Plane
    connections: set[Connection]

    @property
    def token(self) -> tuple[str, Role] | None: ...
    def identify(self, connection: Connection) -> Peer: ...
    def admit(self, connection: Connection) -> None: ...
    def malformed(self, connection: Connection, text: str) -> None: ...


class Connection(web.RequestHandler):
    """One client. `since` is when it last did its part; infinity while it waits for us."""

    __slots__ = (
        "_behind", "_framing", "_requests", "_waiting", "account", "admitted", "fresh", "peer", "receiving", "server",
        "share", "since", "uid",
    )  # fmt: skip

    def __init__(self, server: Owner, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        no_log: Any = None  # what web.Server takes and passes on, too
        # Bodies are inflated by the routes that read them.
        super().__init__(
            manager,
            loop=loop,
            access_log=no_log,
            keepalive_timeout=_NEVER,
            auto_decompress=False,
            lingering_time=LINGER_SECONDS,
        )
        self.server = server
        self.since = time.monotonic()
        self.peer: Peer | None = None
        #: User id; -1 on TCP.
        self.uid = -1
        #: Counted among the connections.
        self.admitted = False
        #: A route reads a body, with a time limit of its own.
        self.receiving = False
        self._framing = Framing()
        self.account = Account(server.plane.holdings, self.uid)
        #: What came behind the request under way, or before this client's turn.
        self._behind = bytearray()
        #: It waits for its turn.
        self._waiting = False
        self.share = Share()
        #: aiohttp was given bytes in this client's turn, whose first request needs no other turn.
        self.fresh = False
        self._requests = PlainRequests(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come; it may be one too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  stream servers have stream transports
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            self.uid = credentials(sock)[1]
            self.account = Account(self.server.plane.holdings, self.uid)
        try:
            self.server.admit(self)
        except errors.EdgeaiError as error:
            headers, body = failure(error)
            transport.write(plain_answer(error.http, {**headers, "Connection": "close"}, [body]))
            # Closed at once, the client would fail on sending its request and not read this.
            transport.write_eof()
            self._loop.call_later(REFUSED_SECONDS, transport.close)
            return
        self.admitted = True
        super().connection_made(transport)

    def leave(self) -> None:
        """Give back what is counted for this connection."""
        if not self.admitted:
            return
        self.admitted = False
        self.server.connections.discard(self)
        self.account.close()
        self._requests.drop()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone: so is what it waited for."""
        if self._manager is None or self.transport is None:
            return  # was one too many
        self.leave()
        self._requests.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered: what lies here is counted."""
        super().pause_writing()
        if self.admitted and self.transport is not None:
            self.account.set_unread(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self.account.unread:
            self.account.set_unread(0)
            if self.since != inf:
                self.since = time.monotonic()
        self.go_on()

    def look(self) -> None:
        """See whether the client reads what lies here for it."""
        if not self.account.unread or self.transport is None:
            return
        size = self.transport.get_write_buffer_size()
        if self.account.unread - size >= MIN_RATE:
            self.account.set_unread(size)
            if self.since != inf:
                self.since = time.monotonic()

    def heard(self, good: float) -> None:
        """A route reads a body; the client has done its part up to `good`."""
        self.receiving = True
        self.since = good

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP: answered in JSON, cut short, and counted rather than written."""
        text = shown((message or "").strip().partition("\n")[0] or "the request cannot be read", 200)
        if text.startswith("Pause on PRI"):  # the parser's words for HTTP/2 without asking
            text = "HTTP/2 is not spoken here, HTTP/1.1 is; gRPC has a socket of its own (server.grpc_socket)"
        if status >= 500:
            log.error("HTTP", exc_info=exc)
            error: errors.EdgeaiError = errors.EdgeaiError("internal error; see the journal of edgeaid")
        else:
            self.server.malformed(self, text)
            error = errors.InvalidRequest(f"bad request: {text}")
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        response = error_response(error)
        response.force_close()
        return response

    def stalled(self, seconds: float) -> None:
        """Close: nothing has come for too long."""
        if self._requests.begun:
            self._requests.fail(
                errors.InvalidRequest(f"the body stalled for {seconds:g} s, or was too slow"), close=True
            )
        elif self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; none when aiohttp goes on with what it has."""
        if not self.admitted:
            return
        if not data:
            super().data_received(data)
        elif self._behind or self._waiting or not self._able() or not self.server.plane.turns.free():
            self.keep(data)
            self.go_on()
        elif self._requests.begun:
            self._requests.more(data)
        elif (head := self._plain(data)) is not None:
            self._requests.begin(head, data)
        elif len(data) <= self._piece(data):
            self._pass_on(data)
        else:
            self.keep(data)
            self._step()

    def _piece(self, data: bytes | bytearray) -> int:
        """How many of these bytes aiohttp may have at once."""
        if self._framing.followed or self._payload_parser is not None:  # messages of a WebSocket are small too
            return max(PIECE, self._framing.missing)
        return LONG_PIECE if data.count(b"\n", 0, LONG_PIECE) < MANY_LINES else SHORT_PIECE

    def _able(self) -> bool:
        """Whether more can be made of what came: nothing is under way that it has to wait for."""
        transport = self.transport
        if self._requests.busy or self._paused:
            return False
        if transport is None or transport.is_closing():
            return False
        return not self._reading_paused and len(self._messages) < MAX_MESSAGES

    @property
    def plane(self) -> Plane:
        """What it asks."""
        return self.server.plane

    def identify(self) -> Peer:
        """Who is at the other end of the Unix socket."""
        return self.peer or self.server.identify(self)

    async def turn(self) -> None:
        """Wait for this client's turn."""
        await self.server.plane.turns.turn(self.uid, self.share)

    def keep(self, data: bytes | memoryview) -> None:
        """Put aside what has to wait, and read no more meanwhile."""
        transport = self.transport
        try:
            self.account.take(len(data))
        except errors.Unavailable:
            if transport is not None:
                transport.abort()  # an answer is under way: there is no place for another
            return
        self._behind += data
        if len(self._behind) > LONG_PIECE and transport is not None:
            transport.pause_reading()

    def go_on(self) -> None:
        """Wait for the next turn to make something of what was put aside."""
        if self._behind and not self._waiting and self._able():
            self._waiting = True
            self.server.plane.turns.wait(self.uid, self.share, self._step)

    def _step(self) -> None:
        """Go on with some of what was put aside: one plain request, or a piece for aiohttp."""
        self._waiting = False
        transport = self.transport
        if not self._behind or transport is None or not self._able():
            return
        if self._requests.begun:
            self._requests.more(self._taken(len(self._behind)))
        else:
            data = bytes(memoryview(self._behind)[:PIECE])
            head = self._plain(data)
            if head is not None:
                self._requests.begin(head, self._taken(len(head.raw) + head.length))
            else:
                self._pass_on(self._taken(self._piece(self._behind)))
        if len(self._behind) <= LONG_PIECE and not self._reading_paused:
            transport.resume_reading()
        self.go_on()

    def _taken(self, size: int) -> bytes:
        """The first bytes of what was put aside."""
        with memoryview(self._behind) as view:
            data = bytes(view[:size])
        del self._behind[: len(data)]
        self.account.give(len(data))
        return data

    def resume_reading(self, *args: Any, **options: Any) -> None:
        """Like aiohttp's, which calls this when it has room again: what was put aside comes first."""
        if not self._reading_paused:
            return  # it calls this for each chunk that is read, too
        super().resume_reading(*args, **options)
        if self._behind and self.transport is not None:
            self.transport.pause_reading()
            self.go_on()

    def handled(self) -> None:
        """aiohttp's request is answered: the next one may come."""
        self.receiving = False
        self.since = time.monotonic()
        self.go_on()

    def _pass_on(self, data: bytes) -> None:
        """Bytes for aiohttp."""
        self.fresh = True
        self._framing.feed(data)
        super().data_received(data)
        # aiohttp answers what it cannot read behind the request that is under way, which would wait for its body.
        request, damage = self._current_request, self._messages[-1][0] if self._messages else None
        if request is None or damage is None or isinstance(damage, RawRequestMessage) or request.content.is_eof():
            return
        text = str(getattr(damage, "message", "")).strip().partition("\n")[0]
        request.content.set_exception(web.RequestPayloadError(text or "it is damaged"))

    def _plain(self, data: bytes) -> Head | None:
        """The head of a plain request, when aiohttp is between requests."""
        if not data.startswith(STARTS) or self.server.token is not None or not self._framing.clean:
            return None
        waiter: asyncio.Future[None] | None = getattr(self, "_waiter", None)  # aiohttp's: waits for a request
        if waiter is None or waiter.done() or self.transport is None:
            return None
        return self._requests.head(data)
