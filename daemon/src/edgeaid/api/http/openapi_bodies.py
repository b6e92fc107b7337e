"""What the OpenAPI description says of the bodies of requests, where it is more than an object or a file."""

from __future__ import annotations

from typing import Any, Final

from ...serving.settings import LEVELS

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_FILE: Final[Schema] = {"type": "string", "format": "binary"}
_LEVEL: Final[Schema] = {"enum": list(LEVELS)}
#: A number of the trace settings: Triton's clients send texts, or lists of one text. null takes a setting back.
_NUMBER: Final[list[Schema]] = [
    {"type": "integer", "minimum": -1, "maximum": (1 << 31) - 1},
    {"type": "string", "pattern": "^(-1|[0-9]{1,9})$"},
]
_COUNT: Final[Schema] = {
    "anyOf": [
        {"type": "null"},
        *_NUMBER,
        {"type": "array", "items": {"anyOf": _NUMBER}, "minItems": 1, "maxItems": 1},
    ]
}


def _only(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_FORM: Final[Schema] = {
    "type": "object",
    "properties": {"image": _FILE, "api_key": _TEXT, "min_confidence": _TEXT},
    "required": ["image"],
}

#: End of a path -> schema of its bodies of JSON or of a form.
BODIES: Final[dict[str, Schema]] = {
    "/v2/logging": _only(
        log_file={"const": ""},
        log_info=_FLAG,
        log_warning=_FLAG,
        log_error=_FLAG,
        log_verbose_level={"type": "integer"},
        log_format=_TEXT,
    ),
    "/trace/setting": _only(
        trace_file={"enum": ["", None]},
        trace_level={"anyOf": [{"type": "null"}, _LEVEL, {"type": "array", "items": _LEVEL, "minItems": 1}]},
        trace_rate=_COUNT,
        trace_count=_COUNT,
        log_frequency=_COUNT,
    ),
    "/v2/systemsharedmemory/region/{r}/register": {
        "type": "object",
        "properties": {
            "key": {"type": "string", "pattern": "^/?[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"},
            "offset": {"type": "integer", "minimum": 0},
            "byte_size": {"type": "integer", "minimum": 1},
        },
        "required": ["key", "byte_size"],
    },
    "/detect": {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "detector_name": _TEXT,
            "data": {"type": "string", "contentEncoding": "base64", "description": "a picture"},
            "detect": {"type": "object", "additionalProperties": {"type": "number"}},
            "regions": {"type": ["array", "null"], "items": {"type": "object"}},
        },
        "required": ["data"],
    },
    "/v1/vision/detection": _FORM,
    "/v1/vision/custom/{m}": _FORM,
    "/v1/vision/custom/list": {"type": "object", "properties": {"api_key": _TEXT}},
    "/edgeai/v1/streams/{s}": {
        "type": "object",
        "properties": {"source": _TEXT, "model": _TEXT},
        "required": ["source"],
    },
}


def body(path: str) -> Schema | None:
    """The schema of what a path takes, if it is known."""
    return next((schema for end, schema in BODIES.items() if path.endswith(end)), None)
