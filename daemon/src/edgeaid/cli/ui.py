"""`edgeai ui`: the daemon's page in a browser of this computer.

A server on loopback hands the browser's requests to the daemon's Unix socket. Loopback is not private: other users and
every web page that the browser shows can reach the port. So the address carries a token that works once and becomes a
cookie; Host must be the server's own address (a rebound name is refused) and so must Origin where there is one; only
what the page needs is passed on.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import webbrowser
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

import click

from .. import errors
from ..client import http
from .common import Session, pass_session
from .watch import until_interrupted

MAX_BODY: Final = 32 << 20
#: What the page asks.
ALLOWED: Final = {
    "GET": re.compile(r"/|/edgeai/v1|/edgeai/v1/(devices|models)|/v2/health/ready"),
    "POST": re.compile(r"/edgeai/v1/models/[A-Za-z0-9._%-]{1,200}/(classify|detect|segment|pose)"),
}
#: Headers of the daemon's answer that the browser gets.
_PASSED: Final = (
    "content-type", "content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy",
    "cache-control",
)  # fmt: skip


class Bridge(ThreadingHTTPServer):
    """The server: one token, one cookie, one daemon."""

    daemon_threads = True

    def __init__(self, path: str, timeout: float, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.path = path
        self.answer_seconds = timeout
        self.token: str | None = secrets.token_urlsafe(32)
        self.cookie = secrets.token_urlsafe(32)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        #: Cookies are shared by all ports of a host: the name keeps two bridges apart.
        self.cookie_name = f"edgeai-{self.server_port}"

    @property
    def address(self) -> str:
        """Where the browser begins."""
        return f"{self.origin}/?token={self.token}"

    def spend(self, token: str) -> bool:
        """True for the right token, the first time."""
        if self.token is None or not hmac.compare_digest(token.encode(), self.token.encode()):
            return False
        self.token = None
        return True


class Handler(BaseHTTPRequestHandler):
    """One connection of the browser."""

    server: Bridge
    protocol_version = "HTTP/1.1"
    timeout = 60.0

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY or "Transfer-Encoding" in self.headers:
            self._refuse(413, f"a picture has at most {MAX_BODY} bytes")
            return
        if not self._is_known():
            return
        self._serve(self.rfile.read(int(length)))

    def _is_known(self) -> bool:
        """Refuse requests with another Host, another Origin or no cookie."""
        origin = self.headers.get("Origin")
        if self.headers.get("Host") != self.server.origin.removeprefix("http://"):
            self._refuse(421, "this server answers only under its own address")
        elif origin is not None and origin != self.server.origin:
            self._refuse(403, "another page asks: refused")
        elif not self._has_cookie():
            self._refuse(403, "open the address that edgeai ui printed; its token works once")
        else:
            return True
        return False

    def _has_cookie(self) -> bool:
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie_name)
        except Exception:  # http.cookies raises its own class for damage, and others
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self.server.cookie.encode())

    def _serve(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        is_ours = (
            self.headers.get("Host") == self.server.origin.removeprefix("http://")
            and self.headers.get("Origin", self.server.origin) == self.server.origin
        )
        token = parse_qs(parts.query).get("token", [""])[0]
        if is_ours and (self.command, parts.path) == ("GET", "/") and self.server.spend(token):
            self._welcome()
            return
        if not self._is_known():
            return
        allowed = ALLOWED.get(self.command)
        if allowed is None or not allowed.fullmatch(parts.path):
            self._refuse(404, "the page does not need that; ask the daemon's socket")
            return
        self._pass_on(parts.path, body)

    def _welcome(self) -> None:
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header(
            "Set-Cookie", f"{self.server.cookie_name}={self.server.cookie}; HttpOnly; SameSite=Strict; Path=/"
        )
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _pass_on(self, path: str, body: bytes) -> None:
        connection = http.Connection(self.server.path, self.server.answer_seconds)
        try:
            status, headers, data = connection.exchange(self.command, path, {}, [body] if body else ())
        except errors.EdgeaiError as error:
            self._refuse(503, str(error))
            return
        except (http.Closed, http.Late, OSError, ValueError) as error:
            self._refuse(503, f"edgeaid did not answer: {error}")
            return
        finally:
            connection.close()
        self.send_response(status)
        for name in _PASSED:
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, text: str) -> None:
        data = json.dumps({"error": text}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal shows the address."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on loopback (default: a free one).")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@pass_session
def ui(session: Session, port: int, no_browser: bool) -> None:
    """Show the daemon's page in a browser: devices, models, drop a picture. Ends with Ctrl-C.

    Nothing listens on the network: a server on loopback reaches the daemon's socket, with --host through ssh. The
    printed address works once.
    """
    session.client.get("/edgeai/v1")
    try:
        bridge = Bridge(session.client.path, session.timeout, port)
    except OSError as error:
        raise errors.Unavailable(f"port {port} cannot be opened: {error.strerror}") from error
    with bridge, until_interrupted():
        session.show({"address": bridge.address}, bridge.address)
        if not no_browser:
            webbrowser.open(bridge.address)
        bridge.serve_forever()
