"""Open Inference Protocol over gRPC on a Unix socket: another protocol adapter over the same data plane.

Whoever may connect has the role that the configuration says, `infer` unless changed: the socket's file mode is the
guard.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

from ... import errors
from ...serving.access import Role
from ...serving.plane import Plane
from ..descriptors import ListeningSocket
from ..sockets import BACKLOG
from .call import Method
from .connection import Connection
from .infer import Inference
from .methods import both, stream, unary
from .reflection import HEALTH, REFLECTION, SERVICE, Health, Reflection, files
from .schema import HEALTH_MESSAGES, MESSAGES, REFLECTION_MESSAGES
from .service import UNARY, Service

#: For clients to read what was said to them last.
CLOSE_SECONDS: Final = 0.5
#: Between looks whether all have left.
LOOK_SECONDS: Final = 0.01
#: Body bytes of a call of a client that may not load models, beside four times the largest model's inputs.
SMALL: Final = 1 << 20


def methods(plane: Plane) -> dict[str, Method]:
    """All methods of all services, by path."""
    service, health, inference = Service(plane), Health(plane), Inference(plane)
    asked = HEALTH_MESSAGES["HealthCheckRequest"]
    served: dict[str, dict[str, Method]] = {
        SERVICE: {
            **{name: unary(getattr(service, name), MESSAGES[f"{name}Request"]) for name in UNARY},
            "ModelInfer": inference.unary,
            "ModelStreamInfer": inference.stream,
        },
        HEALTH: {
            "Check": unary(health.check, asked),
            "List": unary(health.list, HEALTH_MESSAGES["HealthListRequest"]),
            "Watch": stream(health.watch, asked),
        },
    }
    shapes = {
        SERVICE: {**dict.fromkeys((*UNARY, "ModelInfer"), (False, False)), "ModelStreamInfer": (True, True)},
        HEALTH: {"Check": (False, False), "List": (False, False), "Watch": (False, True)},
        **{name: {"ServerReflectionInfo": (True, True)} for name in REFLECTION},
    }
    described = files(shapes)
    for name in REFLECTION:
        package = name.rpartition(".")[0]
        reflection = Reflection(package, tuple(shapes), described)
        kind = REFLECTION_MESSAGES[package]["ServerReflectionRequest"]
        served[name] = {"ServerReflectionInfo": both(reflection.info, kind)}
    return {f"/{name}/{method}": how for name, table in served.items() for method, how in table.items()}


class GrpcServer:
    """Accepts the clients of gRPC."""

    def __init__(self, plane: Plane, role: Role) -> None:
        self.plane = plane
        self.role = role
        self.methods: Mapping[str, Method] = methods(plane)
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening Unix socket."""
        loop = asyncio.get_running_loop()
        listening = ListeningSocket.of(sock)
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=listening, backlog=BACKLOG)

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and end those that are under way after so many seconds."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.leave()
        await self._gone(seconds)
        for connection in list(self.connections):
            connection.end_calls()
        await self._gone(CLOSE_SECONDS)
        for connection in list(self.connections):
            connection.abort()

    async def _gone(self, seconds: float) -> None:
        """Wait until all connections are closed, at most so long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.connections and loop.time() < until:
            await asyncio.sleep(LOOK_SECONDS)

    def size_limit(self) -> int:
        """Bytes that the body of one call may have."""
        most = self.plane.config.limits.body_bytes
        if self.role >= Role.CONTROL:
            return most
        models = self.plane.registry.loaded()
        return min(most, SMALL + 4 * max((sum(s.capacity for s in live.inputs) for live in models), default=0))

    def check_size(self, size: int) -> None:
        """TooLarge for more bytes than the body of one call may have."""
        if size > min(SMALL, self.plane.config.limits.body_bytes) and size > (limit := self.size_limit()):
            raise errors.TooLarge(f"a message is larger than {limit} bytes")
