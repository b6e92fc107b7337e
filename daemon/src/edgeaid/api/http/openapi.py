"""The OpenAPI description of every HTTP route, made from the route table so that it cannot fall behind."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

from ... import __version__
from ..inference import JSON
from .openapi_bodies import body
from .server import Route, Routes

#: Media type of a form with a file.
FORM: Final = "multipart/form-data"


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

#: What path parameters may be: anything else is 400 or 404.
_PATTERNS: Final = {
    "m": {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    "v": {"pattern": "^[1-9][0-9]{0,8}$"},
}
_NAMES: Final = {"m": "name of a model", "v": "version of a model", "r": "name of a region", "repo": "ignored",
    "s": "name of a stream", "f": "name of a snapshot",
}  # fmt: skip


def _operation(route: Route) -> dict[str, Any]:
    method, path = route.method, route.path
    summary = (inspect.getdoc(route.handler) or path).partition("\n")[0].removesuffix(".")
    content: dict[str, Any] = {g if "/" in g else JSON: {} if "/" in g else {"schema": _ref(g)} for g in route.gives}
    failed = {"description": "An error", "content": {JSON: {"schema": _ref("Error")}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "x-role": route.role.name.lower(),
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
    if route.takes:
        schema = _ref("InferRequest") if path.endswith("/infer") else body(path)
        schemas = {JSON: {"schema": schema or _FREE}, FORM: {"schema": schema} if schema else {}}
        operation["requestBody"] = {
            "required": "$ref" in schema or "required" in schema if schema else JSON not in route.takes,
            "content": {kind: schemas.get(kind, {}) for kind in route.takes},
        }
    return operation


def describe(routes: Routes) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for route in routes.table():
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
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
