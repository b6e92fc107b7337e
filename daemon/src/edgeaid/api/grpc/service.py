"""The RPCs of Open Inference Protocol over the data plane, but for inference."""

from __future__ import annotations

from typing import Final

from ... import __version__, errors
from ...serving.access import Peer, Role
from ...serving.plane import Plane
from ..http import routes_oip
from .call import CALLER
from .infer import require_infer
from .messages import Message, parameter
from .schema import MESSAGES

#: DataType of ModelConfig.
DATA_TYPES: Final = {
    "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4, "TYPE_UINT64": 5, "TYPE_INT8": 6,
    "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12,
    "TYPE_STRING": 13, "TYPE_BF16": 14,
}  # fmt: skip
#: ModelInput.Format, in the order of its numbers.
FORMATS: Final = ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW")
UNARY: Final = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "RepositoryIndex",
    "ModelConfig", "ModelStatistics", "SystemSharedMemoryStatus", "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    "TraceSetting", "LogSettings", "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip


class Service:
    """The RPCs."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    @property
    def peer(self) -> Peer:
        """Who made the call under way."""
        return CALLER.get()

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
        return MESSAGES["ModelReadyResponse"](ready=routes_oip.model_is_ready(self.plane, live))

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
        dependents = request.parameters["unload_dependents"].bool_param
        await self.plane.registry.unload(request.model_name, dependents=dependents)
        return MESSAGES["RepositoryModelUnloadResponse"]()

    # --- settings and shared memory ---------------------------------------------------------------------------------

    async def SystemSharedMemoryStatus(self, request: Message) -> Message:
        rows = self.plane.regions.status(self.peer, request.name)
        return MESSAGES["SystemSharedMemoryStatusResponse"](regions={r["name"]: r for r in rows})

    async def SystemSharedMemoryRegister(self, request: Message) -> Message:
        require_infer(self.peer)
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
