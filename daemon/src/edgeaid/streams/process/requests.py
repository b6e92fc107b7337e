"""GET requests to cameras: who is asked for, where a camera points to, and how long it may take."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from .faults import SourceError

HTTP_SECONDS: Final = 5.0
#: A picture that is not whole within this time never will be, whatever trickles in.
PICTURE_SECONDS: Final = 15.0
MAX_REDIRECTS: Final = 5


class Request:
    """One GET, again and again. The user and the password of the URL are told when they are asked for (Basic, Digest),
    and to no other host than the URL's."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._login = _host(parts) if parts.username else None
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        known.add_password(None, urljoin(self._url, "/"), self._user, self._password)
        self._digest = urllib.request.AbstractDigestAuthHandler(known)
        #: What the camera has asked for last.
        self._challenge = ""
        self._connect()
        self._late = False

    def _connect(self) -> None:
        parts = urlsplit(self._url)
        self._parts = parts
        host = parts.hostname or ""
        self.connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(host, parts.port, timeout=HTTP_SECONDS, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=HTTP_SECONDS)
        )

    def get(self) -> http.client.HTTPResponse:
        """The answer; SourceError for anything but 200."""
        asked = False
        for _ in range(MAX_REDIRECTS + 2):
            response = self._once()
            place = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and place:
                self._follow(place)
                continue
            if response.status in (401, 403) and not asked and self._login == _host(self._parts):
                asked = True
                offers = response.headers.get_all("WWW-Authenticate", [])
                self._challenge = next((o for o in offers if o.lower().startswith("digest")), "Basic")
                self.connection.close()  # whatever else it says is not read
                continue
            return _checked(response)
        raise SourceError("the camera points from one address to the next without end")

    def _once(self) -> http.client.HTTPResponse:
        path = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        headers = {"User-Agent": "edgeaid"}
        if self._challenge and self._login == _host(self._parts):
            headers["Authorization"] = self._authorization()
        self.connection.request("GET", path, headers=headers)
        late = threading.Timer(PICTURE_SECONDS, self._give_up)
        late.start()
        try:
            return self.connection.getresponse()
        finally:
            late.cancel()
            if self._late:
                raise SourceError(f"the camera was reached but does not answer within {PICTURE_SECONDS:g} s")

    def _authorization(self) -> str:
        kind, _, rest = self._challenge.partition(" ")
        if kind.lower() == "digest":
            try:
                asked = urllib.request.parse_keqv_list(list(filter(None, urllib.request.parse_http_list(rest))))
                answer = self._digest.get_authorization(_Asked(self._url), asked)
            except (ValueError, IndexError) as error:  # a method that it invented
                raise SourceError("the camera asks for the password in a way that is not known") from error
            return f"Digest {answer}"
        pair = f"{self._user}:{self._password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def _follow(self, place: str) -> None:
        self.connection.close()
        try:
            parts = urlsplit(urljoin(self._url, place))
            known = parts.scheme in ("http", "https") and bool(_host(parts)[1])
        except ValueError:
            known = False
        if not known:
            raise SourceError("the camera points to an address that is not http or https")
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._connect()

    def _give_up(self) -> None:
        """The head of an answer trickles in without end."""
        self._late = True
        with contextlib.suppress(OSError, AttributeError):  # closed meanwhile
            self.connection.sock.shutdown(socket.SHUT_RDWR)


class _Asked(urllib.request.Request):
    """What the answer to a challenge is made for; it is not opened."""


def _host(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, name and port."""
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _checked(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if response.status in (401, 403):
        raise SourceError("the camera refuses the user or password", pause=10.0)
    if response.status == 404:
        raise SourceError("the camera does not know this path", pause=5.0)
    if response.status != 200:
        raise SourceError(f"the camera answers with status {response.status}")
    return response
