"""Open Inference Protocol over gRPC on a Unix socket: another protocol adapter over the same data plane.

Python's gRPC cannot tell who is at the other end of a Unix socket; `front` can, and counts what a user holds. Whoever
may connect has the role that the configuration says, `infer` unless changed: the socket's file mode is the guard.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import traceback
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from ... import __version__, errors
from ...serving.access import Peer, Role
from ...serving.holdings import Kind
from ...serving.model import LiveModel, Request
from ...serving.plane import Plane
from ...tensors import TensorSpec
from .. import inference, oip, tensor_json
from ..descriptors import ListeningSocket
from ..http import routes_oip
from ..sockets import bind
from .front import Front
from .reflection import HEALTH, REFLECTION, SERVICE, Health, Reflection, files
from .schema import HEALTH_MESSAGES, MESSAGES, REFLECTION_MESSAGES

log = logging.getLogger(__name__)

#: Field of InferTensorContents for each datatype.
CONTENTS: Final = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
#: DataType of ModelConfig.
DATA_TYPES: Final = {
    "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4, "TYPE_UINT64": 5, "TYPE_INT8": 6,
    "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12,
    "TYPE_STRING": 13, "TYPE_BF16": 14,
}  # fmt: skip
#: ModelInput.Format, in the order of its numbers.
FORMATS: Final = ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW")
#: Calls under way at once on a connection.
MAX_STREAMS: Final = 64
#: Answers from here on are counted until they are sent.
COUNTED: Final = 1 << 16
#: Values of typed contents converted at once.
PIECE: Final = 8192
_CALLER: Final[ContextVar[Peer]] = ContextVar("caller")

Message = Any
Unary = Callable[[Message], Awaitable[Message]]


def parameter(value: Message) -> Any:
    """The value of an InferParameter or ModelRepositoryParameter."""
    which = value.WhichOneof("parameter_choice")
    return getattr(value, which) if which else None


def _set(parameters: Message, key: str, value: Any) -> None:
    kind = "bool_param" if isinstance(value, bool) else "int64_param" if isinstance(value, int) else "string_param"
    setattr(parameters[key], kind, value)


class Service:
    """The RPCs."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    @property
    def peer(self) -> Peer:
        """Who made the call under way."""
        return _CALLER.get()

    # --- core -------------------------------------------------------------------------------------------------------

    async def ServerLive(self, _: Message) -> Message:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def ServerReady(self, _: Message) -> Message:
        return MESSAGES["ServerReadyResponse"](ready=routes_oip.is_ready(self.plane))

    async def ModelReady(self, request: Message) -> Message:
        try:
            live = self.plane.registry.model(request.name, request.version)
        except (errors.NotFound, errors.Unavailable):
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=routes_oip.model_is_ready(live))

    async def ServerMetadata(self, _: Message) -> Message:
        return MESSAGES["ServerMetadataResponse"](
            name=self.plane.config.server.name, version=__version__, extensions=routes_oip.extensions(self.plane)
        )

    async def ModelMetadata(self, request: Message) -> Message:
        return MESSAGES["ModelMetadataResponse"](
            **routes_oip.metadata(self.plane, self.plane.registry.model(request.name, request.version))
        )

    async def ModelConfig(self, request: Message) -> Message:
        config = routes_oip.config_of(self.plane.registry.model(request.name, request.version))
        tensors = {
            side: [
                {k: t[k] for k in ("name", "dims", *own) if k in t} | {"data_type": DATA_TYPES[t["data_type"]]}
                for t in config[side]
            ]
            for side, own in (("input", ("format",)), ("output", ("label_filename",)))
        }
        for tensor in tensors["input"]:
            tensor["format"] = FORMATS.index(tensor.get("format", FORMATS[0]))
        known = {k: config[k] for k in ("name", "platform", "backend", "max_batch_size") if k in config}
        return MESSAGES["ModelConfigResponse"](config=MESSAGES["ModelConfig"](**known, **tensors))

    async def ModelStatistics(self, request: Message) -> Message:
        if request.name:
            models = [self.plane.registry.model(request.name, request.version)]
        else:
            models = self.plane.registry.loaded()
        return MESSAGES["ModelStatisticsResponse"](model_stats=[routes_oip.stats_of(m) for m in models])

    async def RepositoryIndex(self, request: Message) -> Message:
        rows = [r for r in self.plane.registry.index() if not request.ready or r["state"] == "READY"]
        return MESSAGES["RepositoryIndexResponse"](models=rows)

    def _control(self) -> None:
        if self.peer.role < Role.CONTROL:
            raise errors.PermissionDenied("the gRPC socket has not the role control; use HTTP, or set server.grpc_role")

    async def RepositoryModelLoad(self, request: Message) -> Message:
        self._control()
        config, files = routes_oip.load_parameters(
            {k: parameter(v) for k, v in request.parameters.items()}, request.model_name
        )
        await routes_oip.load_model(self.plane, request.model_name, config, files)
        return MESSAGES["RepositoryModelLoadResponse"]()

    async def RepositoryModelUnload(self, request: Message) -> Message:
        self._control()
        await self.plane.registry.unload(request.model_name)
        return MESSAGES["RepositoryModelUnloadResponse"]()

    # --- inference --------------------------------------------------------------------------------------------------

    async def ModelInfer(self, message: Message) -> Message:
        self.plane.holdings.check(self.peer.uid, Kind.BYTES, 0)  # one that reads its answers has room
        live = self.plane.registry.model(message.model_name, message.model_version)
        wanted = self._decode(message, live)
        request = self.plane.request(live, "grpc", priority=wanted.priority, timeout=wanted.timeout)
        try:
            inference.fill(self.plane, request, wanted, self.peer)
            await inference.prepare(self.plane, request, wanted)
            await self.plane.infer(request)
            answer = self._encode(wanted, request)
            _set(answer.parameters, "device", request.answered_by)
            return answer
        finally:
            request.release()

    async def ModelStreamInfer(self, messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for message in messages:
            answer = MESSAGES["ModelStreamInferResponse"]()
            try:
                answer.infer_response.CopyFrom(await self.ModelInfer(message))
                answer.infer_response.parameters["triton_final_response"].bool_param = True
            except errors.EdgeaiError as error:
                answer.error_message = str(error)
                answer.infer_response.id = message.id
            yield answer

    def _decode(self, message: Message, live: LiveModel) -> oip.InferRequest:
        """Through the JSON form's own checks: only where the bytes come from differs."""
        raw = list(message.raw_input_contents)
        inputs: list[dict[str, Any]] = []
        tail = bytearray()
        for tensor in message.inputs:
            parameters = {k: parameter(v) for k, v in tensor.parameters.items()}
            entry = {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": parameters,
            }
            if "shared_memory_region" not in parameters:
                if message.raw_input_contents:
                    if tensor.HasField("contents"):
                        raise errors.InvalidRequest("contents and raw_input_contents do not go together")
                    if not raw:
                        raise errors.InvalidRequest(f"input {tensor.name!r} has no entry in raw_input_contents")
                    data = raw.pop(0)
                else:
                    data = _typed(tensor)
                parameters["binary_data_size"] = len(data)
                tail += data
            inputs.append(entry)
        if raw:
            raise errors.InvalidRequest("raw_input_contents has more entries than inputs need")
        outputs = [
            {"name": o.name, "parameters": {**{k: parameter(v) for k, v in o.parameters.items()}, "binary_data": True}}
            for o in message.outputs
        ]
        head: dict[str, Any] = {
            "id": message.id,
            "inputs": inputs,
            "outputs": outputs,
            "parameters": {**{k: parameter(v) for k, v in message.parameters.items()}, "binary_data_output": True},
        }
        return oip.parse_message(head, memoryview(tail), live.inputs, live.outputs)

    def _encode(self, wanted: oip.InferRequest, request: Request) -> Message:
        live, specs, outputs = request.live, request.output_specs, request.outputs
        answer = MESSAGES["ModelInferResponse"](model_name=live.name, model_version=live.version, id=wanted.id)
        for want in wanted.outputs:
            spec: TensorSpec = specs[want.index]
            tensor = answer.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
            if want.region is not None:
                self.plane.regions.write(want.region, outputs[want.index], self.peer)
                _set(tensor.parameters, "shared_memory_region", want.region.name)
                _set(tensor.parameters, "shared_memory_byte_size", len(outputs[want.index]))
                _set(tensor.parameters, "shared_memory_offset", want.region.offset)
                answer.raw_output_contents.append(b"")
            elif want.classes:
                shape, items = tensor_json.classify(outputs[want.index], spec, want.classes, live.labels)
                tensor.datatype = "BYTES"
                tensor.shape[:] = shape
                answer.raw_output_contents.append(tensor_json.serialize_bytes(items))
            else:
                answer.raw_output_contents.append(bytes(outputs[want.index]))
        return answer

    # --- settings and shared memory ---------------------------------------------------------------------------------

    async def SystemSharedMemoryStatus(self, request: Message) -> Message:
        rows = self.plane.regions.status(self.peer, request.name)
        return MESSAGES["SystemSharedMemoryStatusResponse"](regions={r["name"]: r for r in rows})

    async def SystemSharedMemoryRegister(self, request: Message) -> Message:
        body = {"key": request.key, "offset": request.offset, "byte_size": request.byte_size}
        self.plane.regions.register(request.name, body, self.peer)
        return MESSAGES["SystemSharedMemoryRegisterResponse"]()

    async def SystemSharedMemoryUnregister(self, request: Message) -> Message:
        self.plane.regions.unregister(self.peer, request.name)
        return MESSAGES["SystemSharedMemoryUnregisterResponse"]()

    async def CudaSharedMemoryStatus(self, _: Message) -> Message:
        return MESSAGES["CudaSharedMemoryStatusResponse"]()

    async def CudaSharedMemoryRegister(self, _: Message) -> Message:
        raise errors.Unsupported("there is no CUDA device here")

    async def CudaSharedMemoryUnregister(self, _: Message) -> Message:
        return MESSAGES["CudaSharedMemoryUnregisterResponse"]()

    async def TraceSetting(self, request: Message) -> Message:
        settings = self.plane.settings.trace_of(request.model_name)
        if request.settings:
            self._control()
            changes = {
                k: list(v.value) if k == "trace_level" else (v.value[0] if v.value else None)
                for k, v in request.settings.items()
            }
            settings = self.plane.settings.set_trace(changes, request.model_name)
        answer = MESSAGES["TraceSettingResponse"]()
        for key, value in settings.items():
            answer.settings[key].value.extend(value if isinstance(value, list) else [value])
        return answer

    async def LogSettings(self, request: Message) -> Message:
        if request.settings:
            self._control()
            self.plane.settings.set_logging({k: parameter(v) for k, v in request.settings.items()})
        answer = MESSAGES["LogSettingsResponse"]()
        for key, value in self.plane.settings.logging.items():
            kind = (
                "bool_param"
                if isinstance(value, bool)
                else "uint32_param"
                if isinstance(value, int)
                else "string_param"
            )
            setattr(answer.settings[key], kind, value)
        return answer


def _typed(tensor: Message) -> bytes:
    """Bytes of a tensor given as typed contents."""
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        return tensor_json.serialize_bytes(contents.bytes_contents)
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise errors.InvalidRequest(
            f"input {tensor.name!r}: datatype {tensor.datatype!r} travels in raw_input_contents only"
        )
    try:
        return array(tensor_json.TYPECODES[tensor.datatype], getattr(contents, field)).tobytes()
    except OverflowError as error:
        raise errors.InvalidRequest(f"input {tensor.name!r}: a value does not fit {tensor.datatype}") from error


UNARY: Final = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex",
    "ModelConfig", "ModelStatistics", "SystemSharedMemoryStatus", "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    "TraceSetting", "LogSettings", "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip


#: Arguments of `context.abort`.
Failure = tuple[Any, str]


def _failure(error: Exception) -> Failure:
    """Status and text for the client.

    A context of gRPC keeps the exception that `abort` raises, and with its traceback the frames that refer to the
    context: a cycle, which lasts until the collector comes. So `abort` is called where nothing large hangs on it:
    outside of the `except`, with the frames of the error cleared.
    """
    if isinstance(error, errors.EdgeaiError):
        failure = getattr(grpc.StatusCode, error.grpc), str(error)
    else:
        log.error("gRPC", exc_info=error)
        failure = grpc.StatusCode.INTERNAL, "internal error; see the journal of edgeaid"
    traceback.clear_frames(error.__traceback__)
    return failure


def _parsed(kind: Any, data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise errors.InvalidRequest(f"the message is not a valid {kind.DESCRIPTOR.name}") from error


class Methods:
    """Wraps RPCs: messages are parsed here, so that broken ones get an answer, and callers are known."""

    def __init__(self, plane: Plane, front: Front) -> None:
        self.plane = plane
        self.front = front

    def unary(self, function: Unary, kind: Any) -> Any:
        """One message in, one out."""

        async def call(data: bytes, context: Any) -> bytes:
            peer = self.front.peer(context.peer())
            _CALLER.set(peer)
            answer = b""
            failure: Failure | None = None
            try:
                message = _parsed(kind, data)
                del data
                answer = (await function(message)).SerializeToString()
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception as error:
                failure = _failure(error)
            message = None
            if failure is not None:
                await context.abort(*failure)
            if len(answer) > COUNTED:
                holdings = self.plane.holdings
                holdings.add(peer.uid, Kind.BYTES, len(answer))
                context.add_done_callback(lambda _: holdings.give(peer.uid, Kind.BYTES, len(answer)))
            return answer

        return grpc.unary_unary_rpc_method_handler(call)

    def stream(self, function: Callable[[Message], AsyncIterator[Message]], kind: Any) -> Any:
        """One message in, many out."""

        async def call(data: bytes, context: Any) -> AsyncIterator[bytes]:
            failure: Failure | None = None
            try:
                async for answer in function(_parsed(kind, data)):
                    yield answer.SerializeToString()
            except errors.EdgeaiError as error:
                failure = _failure(error)
            if failure is not None:
                await context.abort(*failure)

        return grpc.unary_stream_rpc_method_handler(call)

    def both(self, function: Callable[[AsyncIterator[Message]], AsyncIterator[Message]], kind: Any) -> Any:
        """Many messages in and out."""

        async def call(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            _CALLER.set(self.front.peer(context.peer()))

            async def parsed() -> AsyncIterator[Message]:
                async for data in messages:
                    yield _parsed(kind, data)

            failure: Failure | None = None
            try:
                async for answer in function(parsed()):
                    yield answer.SerializeToString()
            except errors.EdgeaiError as error:
                failure = _failure(error)
            if failure is not None:
                await context.abort(*failure)

        return grpc.stream_stream_rpc_method_handler(call)


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
        """End within so many seconds, and leave no socket behind."""
        self.path.unlink(missing_ok=True)  # while it still listens: another daemon's socket is never removed
        await self.server.stop(seconds)
        self.front.close()
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
