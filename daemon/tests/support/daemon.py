"""A real edgeaid in a process of its own, and the fixtures that start one."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeaid.client import Client
from edgeaid.models.repository import EMBEDDED

START_SECONDS = 240


class Running:
    """A daemon process with its files in one directory."""

    def __init__(
        self,
        directory: Path,
        config: str = "",
        *,
        models: Mapping[str, Path] | None = None,
        options: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        repository: Path | None = None,
    ) -> None:
        self.directory = directory
        self.socket = directory / "run" / "edgeaid.sock"
        self.repository = repository or directory / "models"
        self.repository.mkdir(parents=True, exist_ok=True)
        self.config = directory / "edgeaid.toml"
        self.config.write_text(config)
        self.log = directory / "log"
        self.env = {**os.environ, **(env or {}), "STATE_DIRECTORY": str(directory / "state")}
        for name, path in (models or {}).items():
            self.store(name, path, options=(options or {}).get(name, ""))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon's process, also after its end."""
        assert self._process is not None
        return self._process

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until every model is ready or has failed."""
        self.log.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            options = ["--config", self.config, "--socket", self.socket, "--model-repository", self.repository]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgeaid", *map(str, options)], stderr=log, env=self.env
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it has loaded what there is."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with Client(self.socket) as client:
                    if (
                        any(m["state"] in ("READY", "UNAVAILABLE") for m in client.models())
                        and "ready after" in self.log.read_text()
                    ):
                        return
            except Exception:  # noqa: S110  not there yet
                pass
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def store(self, name: str, file: Path, version: str = "1", extra: str = "", options: str = "") -> Path:
        """Put a .tflite into the repository as a model directory; `options` go into the artifact's table."""
        directory = self.repository / name / version
        directory.mkdir(parents=True)
        shutil.copy(file, directory / "model.tflite")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (directory / "model.toml").write_text(
            f'schema = 1\nname = "{name}"\n{extra}\n[artifacts.cpu]\nfile = "model.tflite"\nsha256 = "{digest}"\n'
            f"{options}\n"
        )
        return directory

    def client(self, **options: Any) -> Client:
        """A client of it."""
        return Client(self.socket, **options)

    def raw(self) -> socket.socket:
        """A bare connection to the HTTP socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(str(self.socket))
        return sock

    def http(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a fresh connection: status, headers in lower case, body."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.raw()
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, data

    def json(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The same with a JSON answer."""
        status, _, data = self.http(method, path, body, headers)
        return status, json.loads(data)

    def worker(self, device: str = "cpu0") -> int:
        """Process id of a device's worker."""
        with self.client() as client:
            return int(next(d["pid"] for d in client.devices() if d["id"] == device))

    def replaced(self, old: int) -> bool:
        """Whether the first device has a worker other than the process `old`, and is ready."""
        with self.client() as client:
            device = client.devices()[0]
            return device["state"] in ("ready", "busy") and device["pid"] != old


@pytest.fixture(scope="session")
def launch() -> type[Running]:
    """For fixtures of other scopes that start daemons of their own."""
    return Running


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for all tests that leave it as they found it. Serves the embedded models."""
    running = Running(tmp_path_factory.mktemp("edgeaid"), "[shared_memory]\nenabled = true\n")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start daemons of one's own."""
    started: list[Running] = []

    def make(config: str = "", **options: Any) -> Running:
        directory = tmp_path / f"d{len(started)}"
        directory.mkdir()
        started.append(Running(directory, config, **options))
        return started[-1]

    yield make
    for running in started:
        running.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def three() -> bytes:
    """A picture of a digit."""
    return sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))[0].read_bytes()
