"""`GET /`: a status page for a browser that reaches the socket (edgeai ui). It uses the public API."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from aiohttp import web

from ...serving.access import Role
from .server import Call, Routes

FILE: Final = Path(__file__).with_name("page.html")
_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def register(routes: Routes) -> None:
    """Add the route."""
    routes.add("GET", "/", Role.OBSERVE, gives=("text/html",))(page)


async def page(_call: Call) -> web.Response:
    """A status page for a browser.

    Nothing from elsewhere is loaded, and only its own script runs.
    """
    text, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return web.Response(body=text, content_type="text/html", charset="utf-8", headers=headers)


@lru_cache(1)
def _page() -> tuple[bytes, str]:
    text = FILE.read_text("utf-8")
    script = _SCRIPT.search(text)
    digest = hashlib.sha256(script[1].encode() if script else b"").digest()
    allowed = f"'sha256-{base64.b64encode(digest).decode()}'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy
