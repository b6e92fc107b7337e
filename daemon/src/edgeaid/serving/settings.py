"""Trace and log settings of the protocol's extensions. Clients choose levels and rates, never files."""

from __future__ import annotations

import itertools
import logging
from typing import Any, Final

from ..errors import InvalidRequest

log = logging.getLogger("edgeaid.trace")

LEVELS: Final = ("OFF", "TIMESTAMPS", "TENSORS")
TRACE_DEFAULTS: Final[dict[str, Any]] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
}
LOG_DEFAULTS: Final[dict[str, Any]] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


class Settings:
    """Global trace settings, overrides per model, log settings."""

    def __init__(self) -> None:
        self.trace: dict[str, Any] = dict(TRACE_DEFAULTS)
        self.models: dict[str, dict[str, Any]] = {}
        self.logging: dict[str, Any] = dict(LOG_DEFAULTS)
        self._seen = itertools.count()
        self._level = logging.getLogger().level

    def trace_of(self, model: str = "") -> dict[str, Any]:
        """Settings that hold for a model, or the global ones."""
        return self.trace | self.models.get(model, {})

    def set_trace(self, changes: dict[str, Any], model: str = "") -> dict[str, Any]:
        """Change settings; None takes a model's override (or a global change) back. Returns all that hold now.

        InvalidRequest for the first wrong one; then none is changed.
        """
        target = dict(self.models.get(model, {}) if model else self.trace)
        for key, value in changes.items():
            if key not in TRACE_DEFAULTS:
                raise InvalidRequest(f"unknown trace setting {key!r}; known: {', '.join(TRACE_DEFAULTS)}")
            if key == "trace_file" and value not in ("", None):
                raise InvalidRequest("trace_file cannot be set by a client; traces go to the journal")
            if value is None or key == "trace_file":
                if model:
                    target.pop(key, None)
                else:
                    target[key] = TRACE_DEFAULTS[key]
                continue
            target[key] = _levels(value) if key == "trace_level" else _whole(key, value)
        if not model:
            self.trace = target
        elif target:
            self.models[model] = target
        else:
            self.models.pop(model, None)
        return self.trace_of(model)

    def set_logging(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change log settings and the daemon's log level with them; returns all.

        InvalidRequest for the first wrong one; then none is changed.
        """
        target = dict(self.logging)
        for key, value in changes.items():
            if key not in LOG_DEFAULTS:
                raise InvalidRequest(f"unknown log setting {key!r}; known: {', '.join(LOG_DEFAULTS)}")
            if key == "log_file" and value:
                raise InvalidRequest(
                    "log file location can not be updated through network protocol; logs go to the journal"
                )
            given = integral(value)
            if type(given) is not type(LOG_DEFAULTS[key]):
                raise InvalidRequest(f"log setting {key!r} must be of type {type(LOG_DEFAULTS[key]).__name__}")
            target[key] = given
        self.logging = target
        if self.logging["log_verbose_level"] > 0:
            level = logging.DEBUG
        elif self.logging["log_info"]:
            level = self._level
        elif self.logging["log_warning"]:
            level = logging.WARNING
        else:
            level = logging.ERROR if self.logging["log_error"] else logging.CRITICAL
        logging.getLogger().setLevel(level)
        return self.logging

    @property
    def tracing(self) -> bool:
        """False when no request is traced, whatever its model."""
        return bool(self.models) or self.trace["trace_level"] != ["OFF"]

    def traced(self, model: str, fields: dict[str, Any]) -> None:
        """Write the device and the nanoseconds of one request to the journal when it is this request's turn."""
        settings = self.trace_of(model)
        if settings["trace_level"] == ["OFF"] or next(self._seen) % max(1, int(settings["trace_rate"])):
            return
        count = int(settings["trace_count"])
        if count == 0:
            return
        if count > 0:
            (self.models[model] if "trace_count" in self.models.get(model, {}) else self.trace)["trace_count"] = str(
                count - 1
            )
        log.warning(
            "trace of a request to %s: %s",
            model,
            fields,
            extra={"journal": {f"EDGEAI_{k.upper()}": str(v) for k, v in fields.items()}},
        )


def integral(value: Any) -> Any:
    """An integer for what JSON writes as 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _levels(value: Any) -> list[str]:
    levels = value if isinstance(value, list) else [value]
    if not levels or any(v not in LEVELS for v in levels):
        raise InvalidRequest(f"trace_level takes {', '.join(LEVELS)}")
    return [str(v) for v in levels]


def _whole(key: str, value: Any) -> str:
    text = str(integral(value[0] if isinstance(value, list) and len(value) == 1 else value))
    if len(text) > 10 or not text.removeprefix("-").isdecimal() or not -1 <= int(text) < 1 << 31:
        raise InvalidRequest(f"{key} must be a whole number from -1")
    return text
