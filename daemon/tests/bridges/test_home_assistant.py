"""A real Home Assistant beside a real broker: it finds the daemon's entities by itself, and its switch stops a stream.

EDGEAI_HOMEASSISTANT_PYTHON names an interpreter (3.13) that has `homeassistant`, `paho-mqtt` and
`home-assistant-frontend`; a script that enters a container with them will do, if it shares /tmp and the loopback.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Running
from tests.support.mqtt import BROKER, Broker
from tests.support.streams import TRACKED, gone, put, reaches
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

START_SECONDS = 600.0
OWNER, TOKEN, SIGNING = "0" * 32, "1" * 32, secrets.token_hex(64)


def storage(directory: Path, key: str, minor: int, data: dict[str, Any]) -> None:
    """A file of Home Assistant's own storage."""
    (directory / ".storage").mkdir(parents=True, exist_ok=True)
    value = {"version": 1, "minor_version": minor, "key": key, "data": data}
    (directory / ".storage" / key).write_text(json.dumps(value))


def configure(directory: Path, port: int, broker: int) -> None:
    """A configuration with the HTTP interface, one owner with a token, and the MQTT integration; nothing of ours."""
    directory.mkdir()
    (directory / "configuration.yaml").write_text(f"api:\nhttp:\n  server_host: 127.0.0.1\n  server_port: {port}\n")
    since = "2026-01-01T00:00:00+00:00"
    owner = {"id": OWNER, "group_ids": ["system-admin"], "is_owner": True, "is_active": True, "name": "owner"}
    token = {
        "id": TOKEN, "user_id": OWNER, "client_id": None, "client_name": "test", "client_icon": None,
        "token_type": "long_lived_access_token", "created_at": since, "access_token_expiration": 3e8,
        "token": secrets.token_hex(64), "jwt_key": SIGNING, "last_used_at": None, "last_used_ip": None,
        "expire_at": None, "credential_id": None, "version": "1",
    }  # fmt: skip
    users = [owner | {"system_generated": False, "local_only": False}]
    groups = [{"id": "system-admin", "name": "Administrators"}]
    storage(directory, "auth", 1, {"users": users, "groups": groups, "credentials": [], "refresh_tokens": [token]})
    entry: dict[str, Any] = {
        "entry_id": "2" * 32, "domain": "mqtt", "title": "broker", "source": "user", "unique_id": None,
        "version": 2, "minor_version": 1, "created_at": since, "modified_at": since,
        "data": {"broker": "127.0.0.1", "port": broker}, "options": {"discovery": True}, "subentries": [],
        "discovery_keys": {}, "disabled_by": None, "pref_disable_new_entities": False,
        "pref_disable_polling": False,
    }  # fmt: skip
    storage(directory, "core.config_entries", 5, {"entries": [entry]})


def bearer() -> str:
    """The owner's token, signed as Home Assistant signs them (JWT, HS256)."""

    def part(value: Any) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    now = int(time.time())
    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'iss': TOKEN, 'iat': now - 60, 'exp': now + 10**8})}"
    return f"{text}.{part(hmac.new(SIGNING.encode(), text.encode(), hashlib.sha256).digest())}"


class HomeAssistant:
    """One that runs, asked through its own HTTP interface."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {bearer()}", "Content-Type": "application/json"}

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST with a body; None while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            data = json.dumps(body) if body is not None else None
            connection.request("POST" if data else "GET", f"/api{path}", data, self._headers)
            response = connection.getresponse()
            return json.load(response) if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def states(self) -> dict[str, dict[str, Any]]:
        """All entities by their id."""
        return {s["entity_id"]: s for s in self.ask("/states") or ()}

    def entity(self, kind: str, *words: str) -> dict[str, Any] | None:
        """The one entity of a kind whose id has all these words; None while there is none."""
        fits = [s for i, s in self.states().items() if i.startswith(f"{kind}.") and all(w in i for w in words)]
        return fits[0] if fits else None


@contextmanager
def running(python: str, directory: Path, broker: int) -> Iterator[HomeAssistant]:
    """Home Assistant, until its first answer and beyond."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    configure(directory, port, broker)
    with open(directory / "printed", "wb") as printed:
        process = subprocess.Popen([python, "-m", "homeassistant", "-c", directory], stdout=printed, stderr=printed)
    try:
        home = HomeAssistant(port)
        eventually(
            lambda: home.ask("/") or (process.poll() is not None and pytest.fail(printed_by(directory))), START_SECONDS
        )
        yield home
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def printed_by(directory: Path) -> str:
    """The end of what Home Assistant has printed."""
    return (directory / "printed").read_text(errors="replace")[-4000:]


def test_home_assistant_finds_the_entities_by_itself_and_its_switch_stops_the_stream(
    daemon: Running, tmp_path: Path
) -> None:
    python = os.environ.get("EDGEAI_HOMEASSISTANT_PYTHON")
    if not python:
        pytest.skip("no interpreter with Home Assistant (EDGEAI_HOMEASSISTANT_PYTHON, see this file's first lines)")
    if BROKER is None:
        pytest.skip("mosquitto is not installed")
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    broker = Broker(tmp_path)
    put(daemon, "hall", source="test:digits?width=384&height=384", fps=5, stage=TRACKED)
    reaches(daemon, "hall", "running")
    words = ["--socket", str(daemon.socket), "--node", "pi", "--broker", f"127.0.0.1:{broker.port}"]
    bridge = subprocess.Popen([sys.executable, "-m", "edgeaid.bridges.mqtt", *words])
    try:
        with running(python, tmp_path / "home", broker.port) as home:
            switch = eventually(lambda: (s := home.entity("switch", "hall")) and s["state"] == "on" and s, 120)
            count = eventually(lambda: home.entity("sensor", "hall", "7"), 120)
            eventually(lambda: home.states()[count["entity_id"]]["state"] == "1")
            kinds = {i.partition(".")[0] for i in home.states()}
            assert kinds >= {"switch", "sensor", "binary_sensor", "image", "update"}
            model = eventually(lambda: home.entity("update", "digits"))
            assert model["attributes"]["installed_version"] == "1"
            picture = eventually(lambda: home.entity("image", "hall"))
            assert picture["attributes"]["entity_picture"]
            home.ask("/services/switch/turn_off", {"entity_id": switch["entity_id"]})
            reaches(daemon, "hall", "stopped")
            eventually(lambda: home.states()[switch["entity_id"]]["state"] == "off")
            home.ask("/services/switch/turn_on", {"entity_id": switch["entity_id"]})
            reaches(daemon, "hall", "running")
            bridge.kill()
            eventually(lambda: home.states()[switch["entity_id"]]["state"] == "unavailable")
    finally:
        bridge.kill()
        bridge.wait()
        broker.stop()
        gone(daemon, "hall")
