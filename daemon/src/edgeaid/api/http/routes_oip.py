"""Open Inference Protocol v2 and Triton's extensions over HTTP, as docs/protocol.md says."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from aiohttp import web

from ... import __version__, errors
from ...serving.access import Role
from ...serving.model import LiveModel
from ...serving.plane import Plane
from ...tensors import TensorSpec
from .. import inference, json_text, large_json, model_config
from ..inference import BINARY, JSON
from ..large_json import LARGE
from .replies import reply
from .server import Call, Routes

#: Only what is served.
EXTENSIONS: Final = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository",
    "model_repository(unload_dependents)",
    "parameters", "schedule_policy", "sequence", "statistics", "system_shared_memory", "trace", "logging",
)  # fmt: skip
PLATFORM: Final = {
    "cpu": "tensorflow_tflite", "edgetpu": "edgetpu_tflite", "ncs": "movidius_graph", "ncs2": "openvino_ir",
    "k210": "kendryte_kmodel", "ensemble": "ensemble",
}  # fmt: skip


def register(routes: Routes) -> None:
    """Add the routes."""
    add = routes.add

    def both(method: str, path: str, role: Role, handler: Any, **kinds: Any) -> None:
        add(method, f"/v2/models/{{m}}{path}", role, **kinds)(handler)
        add(method, f"/v2/models/{{m}}/versions/{{v}}{path}", role, **kinds)(handler)

    add("GET", "/v2/health/live", Role.OBSERVE)(live)
    add("GET", "/v2/health/ready", Role.OBSERVE)(ready)
    add("GET", "/v2", Role.OBSERVE, gives=("ServerMetadata",))(server_metadata)
    add("GET", "/v2/models", Role.OBSERVE, gives=("Models",))(models)
    add("GET", "/v2/models/stats", Role.OBSERVE, gives=("Statistics",))(statistics)
    both("GET", "", Role.OBSERVE, model_metadata, gives=("ModelMetadata",))
    both("GET", "/ready", Role.OBSERVE, model_ready)
    both("POST", "/infer", Role.INFER, infer, takes=(JSON, BINARY), gives=("InferResponse", BINARY))
    both("GET", "/stats", Role.OBSERVE, statistics, gives=("Statistics",))
    both("GET", "/config", Role.OBSERVE, show_config)
    for prefix in ("/v2/repository", "/v2/repository/{repo}"):
        add("POST", f"{prefix}/index", Role.OBSERVE, takes=(JSON,), gives=("Index",))(index)
        add("POST", f"{prefix}/models/{{m}}/load", Role.CONTROL, takes=(JSON,))(load)
        add("POST", f"{prefix}/models/{{m}}/unload", Role.CONTROL, takes=(JSON,))(unload)


async def live(_call: Call) -> web.Response:
    """Whether the daemon runs."""
    return reply({"live": True})


def is_ready(plane: Plane) -> bool:
    """True when every model that should serve does."""
    rows = plane.registry.index()
    wanted = [r for r in rows if r["reason"] not in ("not loaded", "unloaded")]
    return plane.ready and not plane.stopping and all(r["state"] == "READY" for r in wanted)


async def ready(call: Call) -> web.Response:
    """Whether every model that should serve does; 503 when not."""
    ok = is_ready(call.plane)
    return reply({"ready": ok, "live": True}, 200 if ok else 503)


def extensions(plane: Plane) -> list[str]:
    """What the server metadata advertises."""
    return [e for e in EXTENSIONS if e != "system_shared_memory" or plane.config.shared_memory.enabled]


async def server_metadata(call: Call) -> web.Response:
    """Server metadata."""
    return reply({"name": call.plane.config.server.name, "version": __version__, "extensions": extensions(call.plane)})


async def models(call: Call) -> web.Response:
    """Names of the models that serve."""
    return reply({"models": [name for name, served in sorted(call.plane.registry.served.items()) if served.versions]})


def _live(call: Call) -> LiveModel:
    return call.plane.registry.model(call.args["m"], call.args.get("v", ""))


def tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    """A tensor as metadata shows it."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def metadata(call_plane: Any, live: LiveModel) -> dict[str, Any]:
    """Metadata of a model, shared by HTTP and gRPC."""
    served = call_plane.registry.served[live.name]
    manifest = live.stored.manifest
    properties = {"task": manifest.task, "devices": ",".join(d.id for d in live.devices)}
    for spec in (*live.inputs, *live.outputs):
        if spec.quantization is not None and len(spec.quantization.scale) == 1:
            properties[f"quantization.{spec.name}"] = (
                f"scale={spec.quantization.scale[0]:.9g} zero_point={spec.quantization.zero_point[0]}"
            )
    return {
        "name": live.name,
        "versions": sorted(served.versions, key=int),
        "platform": PLATFORM[live.devices[0].target] if live.devices else "",
        "inputs": [tensor_metadata(s) for s in live.inputs],
        "outputs": [tensor_metadata(s) for s in live.outputs],
        "properties": properties,
    }


async def model_metadata(call: Call) -> web.Response:
    """Model metadata."""
    return reply(metadata(call.plane, _live(call)))


def model_is_ready(plane: Plane, live: LiveModel) -> bool:
    """True when the model serves on a device that is there, and its members do where it is an ensemble."""
    return not live.quarantined and not plane.registry.why_not_now(live)


async def model_ready(call: Call) -> web.Response:
    """Readiness of a model."""
    model = _live(call)
    ok = model_is_ready(call.plane, model)
    return reply({"name": model.name, "ready": ok}, 200 if ok else 503)


def _format(spec: TensorSpec, *, batched: bool) -> str:
    """ModelInput.Format: how a picture lies in a tensor, which has three dimensions beside the batch."""
    shape = spec.shape[1:] if batched else spec.shape
    if len(shape) != 3 or (shape[0] in (1, 3)) == (shape[2] in (1, 3)):
        return "FORMAT_NONE"
    return "FORMAT_NHWC" if shape[2] in (1, 3) else "FORMAT_NCHW"


def config_of(live: LiveModel) -> dict[str, Any]:
    """ModelConfig of a model with the overrides given to load on top."""

    def typed(spec: TensorSpec) -> dict[str, Any]:
        kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
        dims = spec.shape[1:] if live.max_batch else spec.shape
        return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(dims)}

    def given(spec: TensorSpec) -> dict[str, Any]:
        return typed(spec) | {"format": _format(spec, batched=bool(live.max_batch))}

    base = {
        "name": live.name,
        "platform": PLATFORM[live.devices[0].target] if live.devices else "",
        "backend": live.devices[0].target if live.devices else "",
        "max_batch_size": live.max_batch,
        "input": [given(s) for s in live.inputs],
        "output": [
            typed(s) | ({"label_filename": live.stored.manifest.labels_file} if live.labels else {})
            for s in live.outputs
        ],
    }
    return model_config.over(base, live.config)


async def show_config(call: Call) -> web.Response:
    """Model configuration."""
    return reply(config_of(_live(call)))


def stats_of(live: LiveModel) -> dict[str, Any]:
    """Statistics of a model, shared by HTTP and gRPC."""
    s = live.stats

    def duration(pair: tuple[int, int]) -> dict[str, int]:
        return {"count": pair[0], "ns": pair[1]}

    phases = {
        "compute_input": s.sum_ns("input"),
        "compute_infer": s.sum_ns("compute"),
        "compute_output": s.sum_ns("output"),
    }
    return {
        "name": live.name,
        "version": live.version,
        "last_inference": s.last_ms,
        "inference_count": s.inferences,
        "execution_count": s.executions,
        "inference_stats": {
            "success": duration((s.success, s.success_ns)),
            "fail": duration((s.fail, s.fail_ns)),
            "queue": duration(s.sum_ns("queue")),
            **{k: duration(v) for k, v in phases.items()},
            "cache_hit": duration((0, 0)),
            "cache_miss": duration((0, 0)),
        },
        "response_stats": {},
        "batch_stats": [{"batch_size": 1, **{k: duration(v) for k, v in phases.items()}}] if s.executions else [],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": live.region.layout.size}] if live.region else [],
    }


async def statistics(call: Call) -> web.Response:
    """Statistics."""
    if "m" in call.args:
        live = _live(call)
        models = [live] if "v" in call.args else list(call.plane.registry.served[live.name].versions.values())
    else:
        models = call.plane.registry.loaded()
    return reply({"model_stats": [stats_of(m) for m in models]})


async def index(call: Call) -> web.Response:
    """Repository index."""
    only = (await call.json()).get("ready") is True
    return reply([r for r in call.plane.registry.index() if not only or r["state"] == "READY"])


def load_parameters(parameters: dict[str, Any], name: str = "") -> tuple[dict[str, Any], dict[str, bytes | bytearray]]:
    """(config override, files) of a load request's parameters."""
    config: dict[str, Any] = {}
    files: dict[str, bytes | bytearray] = {}
    for key, value in parameters.items():
        if key == "config":
            config = model_config.read(value, name)
        elif key.startswith("file:"):
            try:
                files[key[5:]] = _file(value)
            except (binascii.Error, TypeError, ValueError) as error:
                raise errors.InvalidRequest(f"failed to load: {key!r} is not base64: {error}") from error
    if files and "config" not in parameters:
        raise errors.InvalidRequest("failed to load: 'file:' parameters need a 'config' beside them")
    return config, files


def _file(value: object) -> bytes | bytearray:
    if isinstance(value, bytes):  # gRPC
        return value
    if isinstance(value, large_json.Text):
        return value.base64()
    if not isinstance(value, str):
        raise TypeError("it must be a text")
    return base64.b64decode(value, validate=True)


async def load(call: Call) -> web.Response:
    """Load or reload a model."""
    config, files = await _load_request(call)
    await load_model(call.plane, call.args["m"], config, files)
    return reply({})


async def _load_request(call: Call) -> tuple[dict[str, Any], dict[str, bytes | bytearray]]:
    """What a load request asks for. Its body, which may have whole files in it, is gone when this returns."""
    data = await call.body()
    depth = call.plane.config.limits.json_depth
    if len(data) > LARGE:
        body = await inference.in_thread(call.plane, large_json.parse, data, depth)
    else:
        body = json_text.loads(data, depth) if data else {}
    if not isinstance(body, dict):
        raise errors.InvalidRequest("failed to load: the body must be a JSON object")
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise errors.InvalidRequest("failed to load: 'parameters' must be an object")
    return await inference.in_thread(call.plane, load_parameters, parameters, call.args["m"])


async def load_model(plane: Plane, name: str, config: dict[str, Any], files: dict[str, bytes | bytearray]) -> None:
    """Load or reload a model, given files stored first; shared by HTTP and gRPC."""
    if files:
        from ...serving.push import from_files

        await from_files(plane.registry, name, files)
    served = plane.registry.served.get(name)
    if config and not files and served is not None and served.default is not None:
        model_config.fit(config, served.default)  # before what serves is replaced
    await plane.registry.load(name, config, unpin=True)
    try:
        model_config.fit(config, plane.registry.model(name))
    except errors.InvalidRequest:
        await plane.registry.unload(name)
        raise


async def unload(call: Call) -> web.Response:
    """Stop serving a model; with the parameter `unload_dependents`, also the members that only this ensemble asks."""
    body = await call.json()
    parameters = body.get("parameters") if isinstance(body, dict) else None
    dependents = isinstance(parameters, dict) and parameters.get("unload_dependents") is True
    await call.plane.registry.unload(call.args["m"], dependents=dependents)
    return reply({})


# --- inference ------------------------------------------------------------------------------------------------------


async def infer(call: Call) -> web.Response:
    """Run a model; tensors as JSON or binary.

    This is what `Connection` leaves to aiohttp: chunked and compressed bodies, TCP.
    """
    headers = call.request.headers
    model = _live(call)
    length = headers.get(inference.HEADER_LENGTH)
    body = await call.body(inference.body_limit(model, call.plane.config.limits, length))
    accept = headers.get("Accept-Encoding", "")
    answered, answer = await inference.serve(call.plane, model, body, length, call.peer, accept, call.connection.turn)
    return web.Response(body=answer, headers=answered)
