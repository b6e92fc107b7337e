"""HTTP over the Unix socket: connections, bodies, errors and routing. What the routes do is in `routes_*`.

aiohttp's low-level server is used without its application layer: routes here are a table of path shapes with the role
that each needs, and errors are always JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from .. import errors
from .access import Peer, Role, Roles
from .plane import Plane

log = logging.getLogger(__name__)

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]
JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"


class Call:
    """One HTTP request: what a route needs of it."""

    __slots__ = ("args", "peer", "plane", "request")

    def __init__(self, request: web.BaseRequest, plane: Plane, peer: Peer, args: dict[str, str]) -> None:
        self.request = request
        self.plane = plane
        self.peer = peer
        #: Path parameters, percent-decoded.
        self.args = args

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
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """A JSON object; an empty body is an empty object."""
        from .oip import loads

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


class MethodNotAllowed(errors.InvalidRequest):
    """A path that exists, asked with the wrong verb."""

    http = 405


def error_response(error: errors.EdgeaiError) -> web.Response:
    """An error as the protocol wants it."""
    headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after is not None else None
    return web.Response(status=error.http, text=json.dumps({"error": str(error)}), content_type=JSON, headers=headers)


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=json.dumps(value, separators=(",", ":")).encode(), content_type=JSON)


class HttpServer:
    """Accepts connections and calls routes. One for the Unix socket; another, with a token, for TCP when configured."""

    def __init__(self, plane: Plane, roles: Roles, routes: Routes, *, token: tuple[str, Role] | None = None) -> None:
        self.plane = plane
        self.roles = roles
        self.routes = routes
        self.token = token
        self._server = web.Server(
            self.handle, handler_cancellation=True, access_log=None, keepalive_timeout=plane.config.limits.idle_seconds
        )
        #: Connection -> when it last did something, or infinity while a request is under way.
        self._connections: dict[Any, float] = {}
        self._peers: dict[Any, Peer] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.refused = 0

    def protocol(self) -> asyncio.Protocol:
        """Factory for loop.create_unix_server and create_server."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)
        connection = self._server()
        if len(self._connections) >= self.plane.config.limits.connections:
            self._sweep_closed()
            if len(self._connections) >= self.plane.config.limits.connections:
                self.refused += 1
                return _Refuse()
        self._connections[connection] = time.monotonic()
        return connection

    async def close(self) -> None:
        """Close all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._server.shutdown(1.0)

    def forget_peers(self) -> None:
        """Roles have changed: look every peer up again."""
        self._peers.clear()

    def _sweep_closed(self) -> None:
        # A connection has no transport after its end, and for a moment before its beginning.
        young = time.monotonic() - 0.02
        for connection in [c for c, since in self._connections.items() if c.transport is None and since < young]:
            self._connections.pop(connection)
            self._peers.pop(connection, None)

    def _sweep(self) -> None:
        """Forget closed connections; close those that have sent no complete request for too long (slow-loris)."""
        self._sweep_closed()
        limit = time.monotonic() - self.plane.config.limits.idle_seconds
        for connection, since in list(self._connections.items()):
            if since < limit and connection.transport is not None:
                connection.transport.abort()
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        connection = request.protocol
        self._connections[connection] = float("inf")
        try:
            peer = self._peers.get(connection) or self._identify(request)
            role, handler, args = self.routes.find(request.method, request.rel_url.raw_path)
            if peer.role < role:
                self._deny(request, peer, role)
            return await handler(Call(request, self.plane, peer, args))
        except errors.EdgeaiError as error:
            return self._failed(request, error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s", request.method, request.rel_url.raw_path[:200])
            return self._failed(request, errors.EdgeaiError("internal error; see the journal of edgeaid"))
        finally:
            if request.transport is not None:
                self._connections[connection] = time.monotonic()
            else:
                self._connections.pop(connection, None)
                self._peers.pop(connection, None)

    def _failed(self, request: web.BaseRequest, error: errors.EdgeaiError) -> web.Response:
        response = error_response(error)
        if request.body_exists and not request.content.is_eof():
            response.force_close()  # the rest of the body is not worth reading
        return response

    def _identify(self, request: web.BaseRequest) -> Peer:
        if self.token is not None:
            import hmac

            secret, role = self.token
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
                raise errors.PermissionDenied("TCP needs the header 'Authorization: Bearer TOKEN'")
            return Peer(-1, 0, role)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        peer = self.roles.peer(transport.get_extra_info("socket"))
        self._peers[request.protocol] = peer
        return peer

    def _deny(self, request: web.BaseRequest, peer: Peer, role: Role) -> None:
        what = f"{request.method} {request.rel_url.raw_path[:200]}"
        self.plane.events.publish(
            "access-denied",
            f"{what} denied to user id {peer.uid}, process {peer.pid}",
            level=logging.WARNING,
            uid=peer.uid,
            pid=peer.pid,
        )
        peer.require(role, what)


class _Refuse(asyncio.Protocol):
    """Closes a connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  stream servers have stream transports
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        transport.close()
