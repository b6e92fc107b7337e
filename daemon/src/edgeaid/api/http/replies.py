"""Answers and errors as JSON."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from ... import errors
from ..inference import JSON


class MethodNotAllowed(errors.InvalidRequest):
    """A path that exists, asked with the wrong verb."""

    http = 405


def error_response(error: errors.EdgeaiError) -> web.Response:
    """An error as the protocol wants it."""
    headers, body = failure(error)
    return web.Response(status=error.http, body=body, headers=headers)


def failure(error: errors.EdgeaiError) -> tuple[dict[str, str], bytes]:
    """(headers, body) of an error."""
    headers = {"Content-Type": JSON}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return headers, json.dumps({"error": str(error)}).encode()


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=json.dumps(value, separators=(",", ":")).encode(), content_type=JSON)
