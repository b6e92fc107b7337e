"""Health of the services and their description (gRPC's `health.v1` and server reflection)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf import descriptor_pb2

from ... import errors
from ...serving.plane import Plane
from ..http import routes_oip
from .schema import HEALTH_MESSAGES, PACKAGE, REFLECTION_MESSAGES, file_of

Message = Any
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
#: Seconds between looks for `Watch`.
LOOK_SECONDS: Final = 0.5
#: gRPC's number for NOT_FOUND.
NOT_FOUND: Final = 5


class Health:
    """`grpc.health.v1.Health`."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    def _status(self) -> int:
        return SERVING if routes_oip.is_ready(self.plane) else NOT_SERVING

    async def check(self, request: Message) -> Message:
        """Whether a service answers; NotFound."""
        if request.service not in ("", SERVICE, HEALTH):
            raise errors.NotFound(f"no service {request.service[:200]!r}")
        return HEALTH_MESSAGES["HealthCheckResponse"](status=self._status())

    async def list(self, _: Message) -> Message:
        """All services with their state."""
        answer = HEALTH_MESSAGES["HealthListResponse"]()
        for name in ("", SERVICE, HEALTH):
            answer.statuses[name].status = self._status()
        return answer

    async def watch(self, request: Message) -> AsyncIterator[Message]:
        """The state of a service, and again whenever it changes."""
        known = request.service in ("", SERVICE, HEALTH)
        last = None
        while not self.plane.stopping:
            status = self._status() if known else SERVICE_UNKNOWN
            if status != last:
                yield HEALTH_MESSAGES["HealthCheckResponse"](status=status)
                last = status
            await asyncio.sleep(LOOK_SECONDS)


def files(methods: dict[str, dict[str, tuple[bool, bool]]]) -> dict[str, bytes]:
    """Serialised descriptions by file name; `methods` = service -> method -> (stream in, stream out)."""
    described: dict[str, bytes] = {}
    for service, of_service in methods.items():
        package, _, name = service.rpartition(".")
        file = descriptor_pb2.FileDescriptorProto()
        file.CopyFrom(file_of(package))
        entry = file.service.add(name=name)
        for method, (stream_in, stream_out) in of_service.items():
            given, got = _messages(package, method)
            entry.method.add(
                name=method,
                input_type=f".{package}.{given}",
                output_type=f".{package}.{got}",
                client_streaming=stream_in,
                server_streaming=stream_out,
            )
        described[file.name] = file.SerializeToString()
    return described


def _messages(package: str, method: str) -> tuple[str, str]:
    if package == PACKAGE:
        asked = "ModelInfer" if method == "ModelStreamInfer" else method
        return f"{asked}Request", f"{method}Response"
    if package == "grpc.health.v1":
        kind = "List" if method == "List" else "Check"
        return f"Health{kind}Request", f"Health{kind}Response"
    return "ServerReflectionRequest", "ServerReflectionResponse"


class Reflection:
    """`ServerReflection`: what services there are, and the files that describe them."""

    def __init__(self, package: str, services: tuple[str, ...], described: dict[str, bytes]) -> None:
        self._messages = REFLECTION_MESSAGES[package]
        self._services = services
        self._files = described

    async def info(self, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        """Answer each request."""
        async for request in requests:
            answer = self._messages["ServerReflectionResponse"](valid_host=request.host)
            answer.original_request.CopyFrom(request)
            if request.file_by_filename:
                self._put(answer, self._files.get(request.file_by_filename), request.file_by_filename)
            elif request.file_containing_symbol:
                self._put(answer, self._containing(request.file_containing_symbol), request.file_containing_symbol)
            elif request.HasField("file_containing_extension") or request.all_extension_numbers_of_type:
                self._put(answer, None, "extensions")
            else:
                for name in self._services:
                    answer.list_services_response.service.add(name=name)
            yield answer

    def _containing(self, symbol: str) -> bytes | None:
        for data in self._files.values():
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            own = [*(e.name for e in file.service), *(e.name for e in file.message_type)]
            names = {f"{file.package}.{name}" for name in own}
            if any(symbol == name or symbol.startswith(name + ".") for name in names):
                return data
        return None

    def _put(self, answer: Message, data: bytes | None, what: str) -> None:
        if data is None:
            answer.error_response.error_code = NOT_FOUND
            answer.error_response.error_message = f"{what[:200]} is not known"
        else:
            answer.file_descriptor_response.file_descriptor_proto.append(data)
