"""HTTP over the Unix socket: connections, bodies, errors and routing. What the routes do is in `routes_*`.

aiohttp's low-level server is used without its application layer: routes here are a table of path shapes with the role
that each needs, and errors are always JSON.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Any
from urllib.parse import unquote

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from ... import errors
from ...serving.access import Peer, Role, Roles
from ...serving.plane import Plane
from .buffers import Buffers
from .connection import Connection
from .replies import MethodNotAllowed, error_response

log = logging.getLogger(__name__)

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]


class Call:
    """One HTTP request: what a route needs of it."""

    __slots__ = ("args", "buffers", "peer", "plane", "request", "token")

    def __init__(self, request: web.BaseRequest, server: HttpServer, peer: Peer, args: dict[str, str]) -> None:
        self.request = request
        self.plane = server.plane
        self.buffers = server.buffers
        #: On TCP: the secret and the role of who knows it.
        self.token = server.token
        self.peer = peer
        #: Path parameters, percent-decoded.
        self.args = args

    def require(self, role: Role, secret: str = "") -> None:
        """For a route that anybody reaches because its secret is in the body: PermissionDenied without the role."""
        if self.token is not None and hmac.compare_digest(secret.encode(), self.token[0].encode()):
            self.peer = Peer(-1, 0, self.token[1])
        if self.peer.role < role:
            self.plane.denials.deny(self.peer, role, f"{self.request.method} {self.request.rel_url.raw_path[:200]}")

    async def body(self, limit: int | None = None) -> bytes | bytearray:
        """The whole body, inflated. TooLarge over the limit, InvalidRequest for damage, too many chunks or a stall."""
        request = self.request
        if not request.body_exists:
            return b""
        limits = self.plane.config.limits
        limit = limit or limits.body_bytes
        length = request.content_length
        if length is not None and length > limit:
            raise errors.TooLarge(f"the body has {length} bytes, the limit is {limit}")
        content = request.content
        parts: list[bytes] = []
        total = 0
        try:
            async with asyncio.timeout(limits.idle_seconds) as stall:
                while chunk := await content.readany():
                    self.buffers.take(len(chunk))
                    total += len(chunk)
                    if total > limit:
                        raise errors.TooLarge(f"the body is larger than {limit} bytes (after decompression)")
                    parts.append(chunk)
                    if len(parts) > limits.chunks:
                        raise errors.InvalidRequest(f"the body comes in more than {limits.chunks} chunks")
                    if length is None or total < length:
                        stall.reschedule(asyncio.get_running_loop().time() + limits.idle_seconds)
        except TimeoutError:
            raise errors.InvalidRequest(f"the body stalled for {limits.idle_seconds:g} s") from None
        except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError) as error:
            raise errors.InvalidRequest(f"the body cannot be read: {error}") from error
        finally:
            self.buffers.give(total)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """A JSON object; an empty body is an empty object."""
        from ..oip import loads

        data = await self.body()
        if not data:
            return {}
        value = loads(data, self.plane.config.limits.json_depth)
        if not isinstance(value, dict):
            raise errors.InvalidRequest("the body must be a JSON object")
        return value


class Routes:
    """Table of routes: a shape such as ("v2", "models", "{m}", "infer") and the role that it needs."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, ...], dict[str, tuple[Role, Handler]]] = {}
        self._open: list[tuple[tuple[str, ...], dict[str, tuple[Role, Handler]]]] = []

    def add(self, method: str, path: str, role: Role) -> Callable[[Handler], Handler]:
        """Decorator: serve `path`, in which {name} stands for one segment, to peers with `role`."""
        shape = tuple(path.strip("/").split("/"))

        def register(handler: Handler) -> Handler:
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
        found = methods.get(method)
        if found is None:
            raise MethodNotAllowed(f"{method} is not allowed on {path[:200]}, only {', '.join(sorted(methods))}")
        return found[0], found[1], args

    def table(self) -> list[tuple[str, str, Role]]:
        """(method, path, role) of every route."""
        rows = [
            (m, "/" + "/".join(s), r)
            for s, methods in [*self._exact.items(), *self._open]
            for m, (r, _) in methods.items()
        ]
        return sorted(rows)


class HttpServer:
    """Accepts connections and calls routes. One for the Unix socket; another, with a token, for TCP when configured."""

    def __init__(self, plane: Plane, roles: Roles, routes: Routes, *, token: tuple[str, Role] | None = None) -> None:
        self.plane = plane
        self.roles = roles
        self.routes = routes
        self.token = token
        self.buffers = Buffers(plane)
        self.connections: set[Connection] = set()
        self._manager = web.Server(self.handle, handler_cancellation=True)
        self._sweeper: asyncio.TimerHandle | None = None

    def protocol(self) -> asyncio.Protocol:
        """Factory for loop.create_unix_server and create_server."""
        loop = asyncio.get_running_loop()
        if self._sweeper is None:
            self._sweeper = loop.call_later(1.0, self._sweep)
        if len(self.connections) >= self.plane.config.limits.connections and not self._shed():
            return _Refuse()
        connection = Connection(self, self._manager, loop)
        self.connections.add(connection)
        return connection

    async def close(self) -> None:
        """Close all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._manager.shutdown(1.0)

    def forget_peers(self) -> None:
        """Roles have changed: look every peer up again."""
        for connection in self.connections:
            connection.peer = None

    def _shed(self) -> bool:
        """Close the connection that has been idle longest; False when all are busy."""
        oldest = min((c for c in self.connections if c.transport is not None), key=lambda c: c.since, default=None)
        if oldest is None or oldest.since == inf:
            return False
        self.connections.discard(oldest)
        oldest.transport.abort()  # type: ignore[union-attr]  # chosen for having one
        return True

    def _sweep(self) -> None:
        """Close connections that have sent no complete request for too long (slow-loris)."""
        seconds = self.plane.config.limits.idle_seconds
        limit = time.monotonic() - seconds
        for connection in [c for c in self.connections if c.since < limit]:
            connection.stalled(seconds)
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101  this server makes no others
        connection.since = inf
        try:
            role, handler, args = self.routes.find(request.method, request.rel_url.raw_path)
            peer = connection.peer or (
                self.identify(connection, _secret(request.headers))
                if role > Role.NOBODY or self.token is None
                else Peer(-1, 0, Role.NOBODY)  # its secret is in the body, where the route looks for it
            )
            if peer.role < role:
                self.plane.denials.deny(peer, role, f"{request.method} {request.rel_url.raw_path[:200]}")
            return await handler(Call(request, self, peer, args))
        except errors.EdgeaiError as error:
            return self._failed(request, error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s", request.method, request.rel_url.raw_path[:200])
            return self._failed(request, errors.EdgeaiError("internal error; see the journal of edgeaid"))
        finally:
            connection.since = time.monotonic()

    def _failed(self, request: web.BaseRequest, error: errors.EdgeaiError) -> web.Response:
        response = error_response(error)
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # the rest of the body is not worth reading
        return response

    def identify(self, connection: Connection, authorization: str = "") -> Peer:
        """Who is at the other end, by credentials of the Unix socket or, over TCP, by the request's token."""
        if self.token is not None:
            secret, role = self.token
            if not hmac.compare_digest(authorization.encode(), f"Bearer {secret}".encode()):
                raise errors.PermissionDenied("TCP needs the header 'Authorization: Bearer TOKEN'")
            return Peer(-1, 0, role)
        transport = connection.transport
        if transport is None:
            raise ConnectionResetError
        connection.peer = self.roles.peer(transport.get_extra_info("socket"))
        return connection.peer


def _secret(headers: Mapping[str, str]) -> str:
    """What a request shows on TCP; DOODS' clients have a header of their own for it."""
    doods = headers.get("doods-auth-key", "")
    return headers.get("Authorization", f"Bearer {doods}" if doods else "")


class _Refuse(asyncio.Protocol):
    """Closes a connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  stream servers have stream transports
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        transport.close()
