"""HTTP over the Unix socket: connections, bodies, errors and routing. What the routes do is in `routes_*`.

aiohttp's low-level server is used without its application layer: routes here are a table of path shapes with the role
that each needs, and errors are always JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web

from ... import errors
from ...serving.access import Peer, Role, Roles
from ...serving.holdings import Kind
from ...serving.plane import Plane
from . import bodies
from .connection import Connection
from .replies import MethodNotAllowed, error_response

log = logging.getLogger(__name__)

#: Bytes of JSON that a route takes which needs little of it.
SMALL_JSON: Final = 16 << 10
#: A request that held so many bytes leaves a heap behind that the C library keeps for the next one.
MUCH: Final = 8 << 20
#: It is given back to the kernel at most once in so many seconds.
TRIM_SECONDS: Final = 1.0
#: Requests that are not HTTP are written once in so many seconds for a user.
MALFORMED_SECONDS: Final = 10.0

#: At the end: for a request under way to be answered, and again for it to be given up.
CLOSE_SECONDS: Final = 0.5

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]


class Call:
    """One HTTP request: what a route needs of it."""

    __slots__ = ("_held", "_server", "_uid", "args", "connection", "peer", "plane", "request", "token")

    def __init__(
        self, request: web.BaseRequest, server: HttpServer, connection: Connection, peer: Peer, args: dict[str, str]
    ) -> None:
        self.request = request
        self.connection = connection
        self.plane = server.plane
        self._server = server
        #: On TCP: the secret and the role of who knows it.
        self.token = server.token
        self.peer = peer
        #: Path parameters, percent-decoded.
        self.args = args
        self._uid = connection.uid
        self._held = 0

    def require(self, role: Role, secret: str = "") -> None:
        """For a route that anybody reaches because its secret is in the body: PermissionDenied without the role."""
        if self.token is not None and _same(secret, self.token[0]):
            self.peer = Peer(-1, 0, self.token[1])
        if self.peer.role < role:
            self.plane.denials.deny(self.peer, role, f"{self.request.method} {self.request.rel_url.raw_path[:200]}")

    def hold(self, size: int) -> None:
        """Count bytes that this request keeps until it is answered. Unavailable over a limit."""
        self.plane.holdings.take(self._uid, Kind.BYTES, size)
        self._held += size

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count the client among those that are told of things as they happen. Unavailable over a limit."""
        holdings, uid = self.plane.holdings, self._uid
        holdings.take(uid, Kind.LISTENERS)
        try:
            yield
        finally:
            holdings.give(uid, Kind.LISTENERS)

    def release(self) -> None:
        """The request is answered."""
        self.plane.holdings.give(self._uid, Kind.BYTES, self._held)
        if self._held >= MUCH:
            self._server.trim_later()
        self._held = 0

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, not inflated. InvalidRequest for damage, too many chunks or a stall."""
        return bodies.chunks(self.request, self.plane.config.limits, self.connection.heard)

    async def body(self, limit: int | None = None) -> bytes | bytearray:
        """The whole body, inflated. TooLarge over the limit, InvalidRequest for damage, too many chunks or a stall."""
        limit = limit or self.plane.config.limits.body_bytes
        encoding = bodies.encoding_of(self.request)
        length = self.request.content_length
        if length is not None and length > limit:
            raise errors.TooLarge(f"the body has {length} bytes, the limit is {limit}")
        data = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                if len(data) + len(chunk) > limit:
                    raise errors.TooLarge(f"the body is larger than {limit} bytes")
                self.hold(len(chunk))
                data += chunk
        if not encoding:
            return data
        inflated = await asyncio.get_running_loop().run_in_executor(None, bodies.inflate, data, encoding, limit)
        self.hold(len(inflated))
        return inflated

    async def json(self, limit: int = SMALL_JSON) -> dict[str, Any]:
        """A JSON object of at most `limit` bytes; an empty body is an empty object."""
        from ..json_text import loads

        data = await self.body(limit)
        if not data:
            return {}
        value = loads(data, self.plane.config.limits.json_depth)
        if not isinstance(value, dict):
            raise errors.InvalidRequest("the body must be a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Route:
    """What the description of the API says of a route; its summary is the handler's docstring."""

    method: str
    #: With {name} for one segment.
    path: str
    role: Role
    handler: Handler
    #: Media types of the body.
    takes: tuple[str, ...]
    #: What it answers: names of schemas (see openapi.SCHEMAS) and media types of other answers.
    gives: tuple[str, ...]


class Routes:
    """Table of routes: a shape such as ("v2", "models", "{m}", "infer") and the role that it needs."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, ...], dict[str, tuple[Role, Handler]]] = {}
        self._open: list[tuple[tuple[str, ...], dict[str, tuple[Role, Handler]]]] = []
        self._routes: dict[tuple[str, str], Route] = {}

    def add(
        self, method: str, path: str, role: Role, *, takes: tuple[str, ...] = (), gives: tuple[str, ...] = ("Free",)
    ) -> Callable[[Handler], Handler]:
        """Decorator: serve `path` to peers with `role`; `takes` and `gives` are described in `Route`."""
        shape = tuple(path.strip("/").split("/"))

        def register(handler: Handler) -> Handler:
            self._routes[method, path] = Route(method, path, role, handler, takes, gives)
            if any(s.startswith("{") for s in shape):
                for known, methods in self._open:
                    if known == shape:
                        methods[method] = (role, handler)
                        break
                else:
                    self._open.append((shape, {method: (role, handler)}))
            else:
                self._exact.setdefault(shape, {})[method] = (role, handler)
            return handler

        return register

    def find(self, method: str, path: str) -> tuple[Role, Handler, dict[str, str]]:
        """The route for a request; NotFound or a 405."""
        segments = tuple(path.strip("/").split("/"))
        methods = self._exact.get(segments)
        args: dict[str, str] = {}
        if methods is None:
            for shape, candidate in self._open:
                if len(shape) == len(segments) and all(
                    s[0] == "{" or s == got for s, got in zip(shape, segments, strict=True)
                ):
                    methods = candidate
                    args = {s[1:-1]: unquote(got) for s, got in zip(shape, segments, strict=True) if s[0] == "{"}
                    break
        if methods is None:
            raise errors.NotFound(f"no such path: {path[:200]}")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allow = ", ".join(sorted({*methods, *({"HEAD"} if "GET" in methods else ())}))
            raise MethodNotAllowed(f"{method[:20]} is not allowed on {path[:200]}, only {allow}", allow)
        return route[0], route[1], args

    def table(self) -> list[Route]:
        """Every route, by path."""
        return [self._routes[key] for key in sorted(self._routes, key=lambda key: (key[1], key[0]))]


class HttpServer:
    """Accepts connections and calls routes. One for the Unix socket; another, with a token, for TCP when configured."""

    def __init__(self, plane: Plane, roles: Roles, routes: Routes, *, token: tuple[str, Role] | None = None) -> None:
        self.plane = plane
        self.roles = roles
        self.routes = routes
        self.token = token
        #: Requests that were not HTTP, by user id: (when it was last written, how many since).
        self._malformed: dict[int, tuple[float, int]] = {}
        self.connections: set[Connection] = set()
        self._manager = web.Server(self.handle, handler_cancellation=True)
        self._sweeper: asyncio.TimerHandle | None = None
        #: Bytes that all clients held at most since the heap was last given back.
        self._most = 0
        #: The heap is looked at in a moment.
        self._trimming = False

    def protocol(self) -> asyncio.Protocol:
        """Factory for loop.create_unix_server and create_server."""
        loop = asyncio.get_running_loop()
        if self._sweeper is None:
            self._sweeper = loop.call_later(1.0, self._sweep)
        return Connection(self, self._manager, loop)

    def admit(self, connection: Connection) -> None:
        """Count a new connection, at the cost of an idle one where there are too many. Unavailable."""
        holdings, uid = self.plane.holdings, connection.uid
        own, _ = holdings.limits(Kind.HTTP)
        if not holdings.privileged(uid) and holdings.of(uid, Kind.HTTP) >= own:
            self._shed(uid)
        elif holdings.total(Kind.HTTP) >= self.plane.config.limits.connections:
            self._shed()
        holdings.take(uid, Kind.HTTP)
        self.connections.add(connection)

    async def close(self) -> None:
        """Close all connections; requests under way get a moment."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        transports = [c.transport for c in self.connections if c.transport is not None]
        await self._manager.shutdown(CLOSE_SECONDS)
        for transport in transports:
            transport.abort()  # aiohttp has closed it, which waits until the client has read its answers

    def forget_peers(self) -> None:
        """Roles have changed: look every peer up again."""
        for connection in self.connections:
            connection.peer = None

    def _shed(self, uid: int | None = None) -> bool:
        """Close the connection that has been idle longest, of a user or of the one with most; False when all are busy.

        A body or an answer under way counts as idle since the client last did its part.
        """
        idle = [c for c in self.connections if c.transport is not None and c.since != inf and uid in (None, c.uid)]
        if not idle:
            return False
        if uid is None:
            of = self.plane.holdings.of
            most = max(of(c.uid, Kind.HTTP) for c in idle)
            idle = [c for c in idle if of(c.uid, Kind.HTTP) == most]
        oldest = min(idle, key=lambda c: c.since)
        oldest.leave()
        oldest.transport.abort()  # type: ignore[union-attr]  # chosen for having one
        return True

    def malformed(self, connection: Connection, text: str) -> None:
        """What came was not HTTP: counted, and written at most once in MALFORMED_SECONDS for a user."""
        now = time.monotonic()
        written, since = self._malformed.get(connection.uid, (-inf, 0))
        if now - written < MALFORMED_SECONDS:
            self._malformed[connection.uid] = (written, since + 1)
            return
        self._malformed[connection.uid] = (now, 0)
        more = f", and {since} more before it" if since else ""
        log.warning("user id %d sent what is not HTTP: %s%s", connection.uid, text, more)

    def trim_later(self) -> None:
        """A large request is through: give its memory back when nothing refers to it any more."""

        def trim() -> None:
            self._trimming = False
            loop.run_in_executor(None, _trim)

        if not self._trimming:
            self._trimming = True
            loop = asyncio.get_running_loop()
            loop.call_later(TRIM_SECONDS, trim)

    def _sweep(self) -> None:
        """Close connections that have sent no complete request for too long (slow-loris)."""
        held = self.plane.holdings.total(Kind.BYTES)
        self._most = max(self._most, held)
        if self._most >= MUCH > 2 * held:
            self._most = held
            self.trim_later()
        seconds = self.plane.config.limits.idle_seconds
        limit = time.monotonic() - seconds
        for connection in self.connections:
            connection.look()
        for connection in [c for c in self.connections if c.since < limit and not c.receiving]:
            connection.stalled(seconds)
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101  this server makes no others
        connection.since = inf
        call: Call | None = None
        try:
            if not connection.fresh:
                await connection.turn()
            connection.fresh = False
            role, handler, args = self.routes.find(request.method, request.rel_url.raw_path)
            peer = connection.peer or (
                self.identify(connection, _secret(request.headers))
                if role > Role.NOBODY or self.token is None
                else Peer(-1, 0, Role.NOBODY)  # its secret is in the body, where the route looks for it
            )
            if peer.role < role:
                self.plane.denials.deny(peer, role, f"{request.method} {request.rel_url.raw_path[:200]}")
            call = Call(request, self, connection, peer, args)
            return await handler(call)
        except errors.EdgeaiError as error:
            return self._failed(request, error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s", request.method, request.rel_url.raw_path[:200])
            return self._failed(request, errors.EdgeaiError("internal error; see the journal of edgeaid"))
        finally:
            if call is not None:
                call.release()
            connection.handled()

    def _failed(self, request: web.BaseRequest, error: errors.EdgeaiError) -> web.Response:
        response = error_response(error)
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # the rest of the body is not worth reading
        return response

    def identify(self, connection: Connection, authorization: str = "") -> Peer:
        """Who is at the other end, by credentials of the Unix socket or, over TCP, by the request's token."""
        if self.token is not None:
            secret, role = self.token
            if not _same(authorization, f"Bearer {secret}"):
                self.plane.denials.refuse_token("no token" if not authorization else "a wrong token")
            return Peer(-1, 0, role)
        transport = connection.transport
        if transport is None:
            raise ConnectionResetError
        connection.peer = self.roles.peer(transport.get_extra_info("socket"))
        return connection.peer


def _trim() -> None:
    """Give free memory back to the kernel, where the C library can; takes milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _secret(headers: Mapping[str, str]) -> str:
    """What a request shows on TCP; DOODS' clients have a header of their own for it."""
    doods = headers.get("doods-auth-key", "")
    return headers.get("Authorization", f"Bearer {doods}" if doods else "")


def _same(given: str, secret: str) -> bool:
    """Whether a client knows a secret. Headers may hold any bytes."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), secret.encode(errors="surrogateescape"))
