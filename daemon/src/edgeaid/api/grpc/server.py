"""Open Inference Protocol over gRPC on a Unix socket: another protocol adapter over the same data plane.

Python's gRPC cannot tell who is at the other end of a Unix socket; `front` can, and counts what a user holds. Whoever
may connect has the role that the configuration says, `infer` unless changed: the socket's file mode is the guard.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from ... import errors
from ...serving.access import Role
from ...serving.plane import Plane
from ..descriptors import ListeningSocket
from ..sockets import bind
from .front import MAX_METADATA, Front
from .methods import Methods
from .reflection import HEALTH, REFLECTION, SERVICE, Health, Reflection, files
from .schema import HEALTH_MESSAGES, MESSAGES, REFLECTION_MESSAGES
from .service import UNARY, Service

#: For gRPC to notice that all its connections are closed; nothing depends on it.
CLOSE_SECONDS: Final = 0.5
#: Calls under way at once on a connection.
MAX_STREAMS: Final = 64


def handlers(plane: Plane, front: Front) -> list[Any]:
    """Generic handlers of all services."""
    service, health, methods = Service(plane), Health(plane), Methods(plane, front)
    inference_methods = {name: methods.unary(getattr(service, name), MESSAGES[f"{name}Request"]) for name in UNARY}
    inference_methods["ModelStreamInfer"] = methods.both(service.ModelStreamInfer, MESSAGES["ModelInferRequest"])
    asked = HEALTH_MESSAGES["HealthCheckRequest"]
    health_methods = {
        "Check": methods.unary(health.check, asked),
        "List": methods.unary(health.list, HEALTH_MESSAGES["HealthListRequest"]),
        "Watch": methods.stream(health.watch, asked),
    }
    shapes = {
        SERVICE: {**dict.fromkeys(UNARY, (False, False)), "ModelStreamInfer": (True, True)},
        HEALTH: {"Check": (False, False), "List": (False, False), "Watch": (False, True)},
        **{name: {"ServerReflectionInfo": (True, True)} for name in REFLECTION},
    }
    described = files(shapes)
    served = {SERVICE: inference_methods, HEALTH: health_methods}
    for name in REFLECTION:
        package = name.rpartition(".")[0]
        reflection = Reflection(package, tuple(shapes), described)
        kind = REFLECTION_MESSAGES[package]["ServerReflectionRequest"]
        served[name] = {"ServerReflectionInfo": methods.both(reflection.info, kind)}
    return [grpc.method_handlers_generic_handler(name, table) for name, table in served.items()]


@dataclass(frozen=True, slots=True)
class Running:
    """The server, the socket that clients connect to, and the directory of the one behind it."""

    server: Any
    front: Front
    path: Path
    directory: tempfile.TemporaryDirectory[str]

    async def stop(self, seconds: float) -> None:
        """End calls under way after so many seconds, and leave no socket behind."""
        self.path.unlink(missing_ok=True)  # while it still listens: another daemon's socket is never removed
        stopped = asyncio.get_running_loop().create_task(self.server.stop(seconds))
        await asyncio.wait({stopped}, timeout=seconds)
        self.front.close()  # gRPC waits until clients have read what it said, which they may never do
        await asyncio.wait({stopped}, timeout=CLOSE_SECONDS)
        self.directory.cleanup()


async def start(plane: Plane, path: str) -> Running:
    """Serve on a Unix socket of mode 0660."""
    listening = ListeningSocket.of(bind(Path(path), socket.SOCK_STREAM))
    directory = tempfile.TemporaryDirectory(prefix="edgeaid-grpc-")  # mode 0700: only this user gets past the front
    limit = plane.config.limits.body_bytes
    options = [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_metadata_size", MAX_METADATA),
        ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ]
    server = grpc.aio.server(options=options)
    inner = Path(directory.name) / "s"
    front = Front(plane, listening, inner, Role[plane.config.server.grpc_role.upper()])
    server.add_generic_rpc_handlers(handlers(plane, front))
    if not server.add_insecure_port(f"unix:{inner}"):
        raise errors.InvalidConfig(f"gRPC cannot listen on {inner}")
    await server.start()
    await front.start()
    return Running(server, front, Path(path), directory)
