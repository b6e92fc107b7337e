"""What a client asks about streams: cameras and files that the daemon analyses continuously."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlencode

from .. import errors
from . import codec, http
from .sync import Client

#: The daemon sends a sign of life every 15 s.
SILENCE_SECONDS = 60.0


class Streams:
    """The streams of one daemon, asked through a client of it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[dict[str, Any]]:
        """All streams with their state and where their frames went."""
        streams: list[dict[str, Any]] = json.loads(self._client.request("GET", "/edgeai/v1/streams")[0])["streams"]
        return streams

    def show(self, name: str) -> dict[str, Any]:
        """One stream, with its table."""
        return self._value("GET", _path(name))

    def put(self, name: str, table: Mapping[str, Any] | str) -> dict[str, Any]:
        """Add or change a stream: its table as values, or a text in TOML with [stream.NAME]."""
        if isinstance(table, str):
            return self._value("PUT", _path(name), table.encode(), {"Content-Type": "application/toml"})
        return self._value("PUT", _path(name), json.dumps(table).encode())

    def remove(self, name: str) -> None:
        """Stop and forget a stream."""
        self._client.request("DELETE", _path(name))

    def switch(self, name: str, verb: str) -> dict[str, Any]:
        """`verb`: start, stop or restart."""
        return self._value("POST", f"{_path(name)}/{verb}")

    def frame(self, name: str, *, boxes: bool = False, width: int = 0) -> bytes:
        """The newest frame as JPEG, `width` pixels wide at most, with boxes around what was seen."""
        query = urlencode({"boxes": int(boxes), **({"width": width} if width else {})})
        return self._client.request("GET", f"{_path(name)}/frame?{query}")[0]

    def events(
        self, name: str, after: str = "", types: tuple[str, ...] = (), *, past: bool = True
    ) -> Iterator[dict[str, Any]]:
        """Events as they happen; the last one's `event_id` is `after` of the next call. `past`: those that are kept."""
        query = urlencode({"past": int(past or bool(after)), **({"types": ",".join(types)} if types else {})})
        yield from self._follow(f"{_path(name)}/events?{query}", {"Last-Event-ID": after} if after else {})

    def results(self, name: str) -> Iterator[dict[str, Any]]:
        """What is seen in each frame, as it comes."""
        yield from self._follow(f"{_path(name)}/results", {})

    def _value(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._client.request(method, path, body, headers)[0])
        return value

    def _follow(self, path: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
        connection = HTTPConnection("localhost")
        connection.sock = http.connect(self._client.path, SILENCE_SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                data = response.read()
                headers = {name.lower(): value for name, value in response.headers.items()}
                raise codec.error_of(response.status, _error_text(data), headers)
            identity = ""
            for line in response:
                if line.startswith(b"id: "):
                    identity = line[4:].decode().strip()
                elif line.startswith(b"data: "):
                    yield {**json.loads(line[6:]), "event_id": identity}
        except (OSError, HTTPException) as error:
            raise errors.Unavailable(f"edgeaid at {self._client.name}: {error}") from error
        finally:
            connection.close()


def _error_text(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")


def _path(name: str) -> str:
    return f"/edgeai/v1/streams/{quote(name, safe='')}"
