"""The OpenAPI description of every HTTP route, made from the route table so that it cannot fall behind."""

from __future__ import annotations

import re
from typing import Any, Final

from ... import __version__
from ...serving.access import Role
from ..inference import BINARY, JSON
from .server import Routes

PICTURES: Final = ("image/jpeg", "image/png", "image/bmp")


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_NUMBER: Final = {"type": "number"}
_FLAG: Final = {"type": "boolean"}
_ANY: Final[dict[str, Any]] = {}
_FREE: Final = {"type": "object", "additionalProperties": True}

SCHEMAS: Final[dict[str, Any]] = {
    "Error": {**_object(error=_TEXT), "required": ["error"]},
    "Tensor": {**_object(name=_TEXT, datatype=_TEXT, shape=_array(_WHOLE)), "required": ["name", "datatype", "shape"]},
    "TensorData": {
        **_object(name=_TEXT, datatype=_TEXT, shape=_array(_WHOLE), parameters=_FREE, data=_array(_ANY)),
        "required": ["name", "datatype", "shape"],
    },
    "InferRequest": {
        **_object(
            id=_TEXT, parameters=_FREE, inputs=_array(_ref("TensorData")),
            outputs=_array(_object(name=_TEXT, parameters=_FREE)),
        ),
        "required": ["inputs"],
    },
    "InferResponse": {
        **_object(model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs=_array(_ref("TensorData"))),
        "required": ["model_name", "outputs"],
    },
    "ServerMetadata": {
        **_object(name=_TEXT, version=_TEXT, extensions=_array(_TEXT)),
        "required": ["name", "version", "extensions"],
    },
    "ModelMetadata": {
        **_object(
            name=_TEXT, versions=_array(_TEXT), platform=_TEXT, inputs=_array(_ref("Tensor")),
            outputs=_array(_ref("Tensor")), properties=_FREE,
        ),
        "required": ["name", "platform", "inputs", "outputs"],
    },
    "Statistics": {**_object(model_stats=_array(_FREE)), "required": ["model_stats"]},
    "Index": _array(
        {**_object(name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT), "required": ["name", "state", "reason"]}
    ),
    "Devices": {
        **_object(
            devices=_array(
                {**_object(id=_TEXT, target=_TEXT, state=_TEXT, restarts=_WHOLE), "required": ["id", "target", "state"]}
            )
        ),
        "required": ["devices"],
    },
    "Models": {**_object(models=_array(_ANY)), "required": ["models"]},
    "Pushed": {
        **_object(name=_TEXT, version=_TEXT, devices=_array(_TEXT), serving=_FLAG),
        "required": ["name", "version", "devices", "serving"],
    },
    "Answer": {
        **_object(
            model=_TEXT, version=_TEXT, device=_TEXT, timing={"type": "object", "additionalProperties": _NUMBER},
            width=_WHOLE, height=_WHOLE,
            classes=_array(_object(index=_WHOLE, label=_TEXT, score=_NUMBER, fraction=_NUMBER)),
            objects=_array(_object(index=_WHOLE, label=_TEXT, score=_NUMBER, box=_FREE, pixels=_FREE)),
            mask=_FREE,
        ),
        "required": ["model", "version", "device", "timing", "width", "height"],
    },
    "Streams": {**_object(streams=_array(_ref("Stream"))), "required": ["streams"]},
    "Stream": {
        **_object(
            name=_TEXT, state=_TEXT, reason=_TEXT, since=_NUMBER, source=_TEXT,
            frames={
                **_object(captured=_WHOLE, gated=_WHOLE, inferred=_WHOLE, late=_WHOLE, under_way=_WHOLE, dropped=_FREE),
                "required": ["captured", "gated", "inferred", "dropped", "under_way"],
            },
        ),
        "required": ["name", "state", "reason", "frames"],
    },
    "Snapshots": {**_object(snapshots=_array(_TEXT)), "required": ["snapshots"]},
    "Free": _FREE,
    "Rows": _array(_FREE),
}  # fmt: skip

#: (pattern of the path, verb) -> (what it does, request media types, schema of the answer, other answer types)
_WHAT: Final[tuple[tuple[str, str, str, tuple[str, ...], str, tuple[str, ...]], ...]] = (
    (r"/", "GET", "A status page for a browser", (), "", ("text/html",)),
    (r"/v2/health/.*", "GET", "Liveness or readiness", (), "Free", ()),
    (r"/v2", "GET", "Server metadata", (), "ServerMetadata", ()),
    (r"/v2/models", "GET", "Names of the models that serve", (), "Models", ()),
    (r"/v2/models.*/stats", "GET", "Statistics", (), "Statistics", ()),
    (r"/v2/models/.*/ready", "GET", "Readiness of a model", (), "Free", ()),
    (r"/v2/models/.*/config", "GET", "Model configuration", (), "Free", ()),
    (
        r"/v2/models/.*/infer",
        "POST",
        "Run a model; tensors as JSON or binary",
        (JSON, BINARY),
        "InferResponse",
        (BINARY,),
    ),
    (r"/v2/(models/.*/)?trace/setting", "*", "Trace settings", (JSON,), "Free", ()),
    (r"/v2/models/\{m\}.*", "GET", "Model metadata", (), "ModelMetadata", ()),
    (r"/v2/repository.*/index", "POST", "Repository index", (JSON,), "Index", ()),
    (r"/v2/repository.*/load", "POST", "Load or reload a model", (JSON,), "Free", ()),
    (r"/v2/repository.*/unload", "POST", "Stop serving a model", (JSON,), "Free", ()),
    (r"/v2/logging", "*", "Log settings", (JSON,), "Free", ()),
    (r"/v2/.*sharedmemory.*/status", "GET", "Named shared memory", (), "Rows", ()),
    (r"/v2/.*sharedmemory.*", "*", "Register or release named shared memory", (JSON,), "Free", ()),
    (r"/edgeai/v1", "GET", "Version of the API and the caller's role", (), "Free", ()),
    (r"/edgeai/v1/openapi.json", "GET", "This description", (), "Free", ()),
    (r"/edgeai/v1/devices", "GET", "Devices, their state and history", (), "Devices", ()),
    (r"/edgeai/v1/events", "GET", "Events as they happen", (), "", ("text/event-stream",)),
    (r"/edgeai/v1/models", "GET", "Models with what their manifests say", (), "Models", ()),
    (
        r"/edgeai/v1/models/.*/(classify|detect|segment|pose)",
        "POST",
        "Ask about a picture",
        PICTURES,
        "Answer",
        ("image/png",),
    ),
    (r"/edgeai/v1/models/.*/rollback", "POST", "Serve the next older version", (), "Free", ()),
    (r"/edgeai/v1/models/.*/bundle", "GET", "A model directory as tar", (), "", ("application/x-tar",)),
    (r"/edgeai/v1/models/.*", "PUT", "Store, self-test and serve a model", (BINARY,), "Pushed", ()),
    (r"/edgeai/v1/models/.*", "DELETE", "Delete a version that does not serve", (), "Free", ()),
    (r"/edgeai/v1/streams", "GET", "Streams: state, and where their frames went", (), "Streams", ()),
    (r"/edgeai/v1/streams/.*/(start|stop|restart)", "POST", "Switch a stream on or off", (JSON,), "Stream", ()),
    (r"/edgeai/v1/streams/.*/events", "GET", "A stream's events as they happen", (), "", ("text/event-stream",)),
    (r"/edgeai/v1/streams/.*/results", "GET", "What is seen in each frame", (), "", ("text/event-stream",)),
    (r"/edgeai/v1/streams/.*/frame", "GET", "The newest frame", (), "", ("image/jpeg",)),
    (r"/edgeai/v1/streams/.*/mjpeg", "GET", "Frames without end", (), "", ("multipart/x-mixed-replace",)),
    (r"/edgeai/v1/streams/.*/websocket", "GET", "Results and frames over a WebSocket", (), "", ("image/jpeg",)),
    (r"/edgeai/v1/streams/.*/snapshots", "GET", "Names of the snapshots, newest first", (), "Snapshots", ()),
    (r"/edgeai/v1/streams/.*/snapshots/.*", "GET", "A snapshot", (), "", ("image/jpeg",)),
    (r"/edgeai/v1/streams/.*", "GET", "A stream, with its table", (), "Stream", ()),
    (r"/edgeai/v1/streams/.*", "PUT", "Add or change a stream", (JSON, "application/toml"), "Stream", ()),
    (r"/edgeai/v1/streams/.*", "DELETE", "Stop and forget a stream", (), "Free", ()),
    (
        r"/v1/vision/(detection|custom/.*)",
        "POST",
        "Objects in a picture, or models that find some, as DeepStack answers",
        ("multipart/form-data",),
        "Free",
        (),
    ),
    (r"/detectors", "GET", "Models that detect, as DOODS answers", (), "Free", ()),
    (r"/detect", "POST", "Objects in a picture, as DOODS answers", (JSON,), "Free", ()),
    (r"/metrics", "GET", "Metrics in Prometheus' text format", (), "", ("text/plain",)),
)
#: What path parameters may be: anything else is 400 or 404.
_PATTERNS: Final = {
    "m": {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    "v": {"pattern": "^[1-9][0-9]{0,8}$"},
}
_NAMES: Final = {"m": "name of a model", "v": "version of a model", "r": "name of a region", "repo": "ignored",
    "s": "name of a stream", "f": "name of a snapshot",
}  # fmt: skip


def _operation(method: str, path: str, role: Role) -> dict[str, Any]:
    matching = [row for row in _WHAT if row[1] in ("*", method) and re.fullmatch(row[0], path)]
    if not matching:
        raise LookupError(f"{method} {path} has no description")
    _, _, text, takes, schema, others = matching[0]
    content: dict[str, Any] = {JSON: {"schema": _ref(schema)}} if schema else {}
    content |= {kind: {} for kind in others}
    failed = {"description": "An error", "content": {JSON: {"schema": _ref("Error")}}}
    operation: dict[str, Any] = {
        "summary": text,
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "x-role": role.name.lower(),
        "responses": {
            "201" if method == "PUT" else "200": {"description": "Done", "content": content},
            "default": failed,
        },
    }
    names = re.findall(r"\{(\w+)\}", path)
    if names:
        operation["parameters"] = [
            {
                "name": n,
                "in": "path",
                "required": True,
                "schema": _TEXT | _PATTERNS.get(n, {}),
                "description": _NAMES[n],
            }
            for n in names
        ]
    if takes and method in ("POST", "PUT"):
        schemas = {JSON: {"schema": _ref("InferRequest") if path.endswith("/infer") else _FREE}}
        operation["requestBody"] = {"content": {kind: schemas.get(kind, {}) for kind in takes}}
    return operation


def describe(routes: Routes) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for method, path, role in routes.table():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, role)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeaid",
            "version": __version__,
            "description": "Open Inference Protocol v2 and pictures over a Unix socket. "
            "x-role is the role a caller needs.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
