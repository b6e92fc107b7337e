"""Answers and errors as JSON."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from ... import errors
from ...errors import KIND_HEADER as KIND
from ..inference import JSON


class MethodNotAllowed(errors.InvalidRequest):
    """A path that exists, asked with the wrong verb."""

    http = 405

    def __init__(self, text: str, allow: str) -> None:
        super().__init__(text)
        #: Verbs that the path takes.
        self.allow = allow


def error_response(error: errors.EdgeaiError) -> web.Response:
    """An error in the protocol's form."""
    headers, body = failure(error)
    return web.Response(status=error.http, body=body, headers=headers)


def failure(error: errors.EdgeaiError) -> tuple[dict[str, str], bytes]:
    """(headers, body) of an error, which has done its part with this."""
    errors.answered(error)
    headers = {"Content-Type": JSON, KIND: type(error).__name__}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allow
    return headers, json.dumps({"error": str(error)}).encode()


def shown(text: object, limit: int = 300) -> str:
    """Foreign text for an answer or the journal: printable ASCII, cut."""
    plain = str(text)[: 2 * limit].encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    return plain if len(plain) <= limit else f"{plain[:limit]}..."


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=json.dumps(value, separators=(",", ":")).encode(), content_type=JSON)
