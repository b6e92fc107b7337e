"""Clients that push, load, roll back, remove and ask at once: nothing is lost, leaked or answered by another version.

EDGEAI_MIXED_SECONDS sets the length (default 60).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeaid import errors

from ..support.daemon import Running
from ..support.memory import open_files
from ..support.waiting import eventually
from ..toolkit.tflite_builder import Graph, Op, T, build

SECONDS = float(os.environ.get("EDGEAI_MIXED_SECONDS", "60"))
CLIENTS = 16
NAMES = ("a", "b", "c", "d")


def adding(name: str, version: int) -> bytes:
    """A model whose answer says which one it is: 1000 for each name, and the version."""
    number = 1000.0 * NAMES.index(name) + version
    tensors = [T("in", (1, 4)), T("number", (1, 4), data=np.full((1, 4), number, np.float32)), T("out", (1, 4))]
    return build(Graph(tensors, [Op("ADD", ["in", "number"], ["out"])], ["in"], ["out"]))


class Mixed:
    """One daemon, many clients, what came out."""

    def __init__(self, daemon: Running, directory: Path) -> None:
        self.daemon = daemon
        self.directory = directory
        self.done: Counter[str] = Counter()
        #: Seconds that the slowest answer of a kind took.
        self.longest: dict[str, float] = {}
        self.wrong: list[str] = []
        self.until = time.monotonic() + SECONDS
        self.versions = dict.fromkeys(NAMES, 1)
        self.lock = threading.Lock()

    def client(self, number: int) -> None:
        rng = random.Random(number)
        work = [self.ask] * 12 + [self.push, self.load, self.rollback, self.remove, self.unload, self.damaged]
        with self.daemon.client(fast=number % 2 == 0) as client:
            while time.monotonic() < self.until and not self.wrong:
                act, name = rng.choice(work), rng.choice(NAMES)
                started = time.monotonic()
                try:
                    act(client, name, number)
                    self.done[act.__name__] += 1
                except (errors.NotFound, errors.Unavailable, errors.InvalidRequest) as error:
                    self.done[f"{act.__name__}: {type(error).__name__}"] += 1
                except Exception as error:
                    self.wrong.append(f"{act.__name__} {name}: {type(error).__name__}: {error}")
                seconds = time.monotonic() - started
                self.longest[act.__name__] = max(self.longest.get(act.__name__, 0.0), seconds)

    def ask(self, client: object, name: str, number: int) -> None:
        answer = client.infer(name, np.zeros((1, 4), np.float32))  # type: ignore[attr-defined]  # either client
        value = int(answer["out"][0, 0])
        if value != 1000 * NAMES.index(name) + int(answer.version):
            self.wrong.append(f"{name} version {answer.version} answered {value}")

    def push(self, client: object, name: str, number: int) -> None:
        with self.lock:
            self.versions[name] += 1
            version = self.versions[name]
        file = self.directory / f"{name}-{version}.tflite"
        file.write_bytes(adding(name, version))
        client.push(name, file, version=str(version))  # type: ignore[attr-defined]
        file.unlink()

    def damaged(self, client: object, name: str, number: int) -> None:
        file = self.directory / f"damaged-{number}"
        file.write_bytes(adding(name, 1)[:-60])
        client.push(name, file)  # type: ignore[attr-defined]

    def load(self, client: object, name: str, number: int) -> None:
        client.load(name)  # type: ignore[attr-defined]

    def unload(self, client: object, name: str, number: int) -> None:
        client.unload(name)  # type: ignore[attr-defined]
        client.load(name)  # type: ignore[attr-defined]

    def rollback(self, client: object, name: str, number: int) -> None:
        client.rollback(name)  # type: ignore[attr-defined]

    def remove(self, client: object, name: str, number: int) -> None:
        stored = sorted(int(p.name) for p in (self.daemon.repository / name).iterdir())
        if len(stored) > 6:
            client.remove(name, str(stored[0]))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_sixteen_mixed_clients_get_no_internal_error_no_wrong_version_and_leave_nothing(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    files = {}
    for name in NAMES:
        files[name] = tmp_path / f"{name}.tflite"
        files[name].write_bytes(adding(name, 1))
    daemon = start("[models]\nembedded = false\n", models=files)
    descriptors, regions = _descriptors(daemon), _memfds(daemon)
    mixed = Mixed(daemon, tmp_path)
    threads = [threading.Thread(target=mixed.client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{SECONDS:g} s, {CLIENTS} clients: {dict(mixed.done)}")
    print("slowest answers:", {act: round(seconds, 2) for act, seconds in sorted(mixed.longest.items())})
    assert mixed.wrong == []
    assert mixed.done["ask"] > 100
    assert mixed.done["push"] > 3
    with daemon.client() as client:
        for name in NAMES:
            client.load(name)
        device = client.devices()[0]
        assert device["restarts"] == 0
    eventually(lambda: len(_loaded(daemon)) == len(NAMES))
    # One region of shared memory per loaded version, no version that is served no more, nothing half-stored.
    eventually(lambda: _descriptors(daemon) <= descriptors + 4)
    assert _memfds(daemon) == regions
    assert os.listdir(daemon.repository / ".staging") == []
    assert [p.name for p in (daemon.directory / "state").iterdir() if p.name != "pins.json"] == []
    assert "Traceback" not in daemon.log.read_text()


def _loaded(daemon: Running) -> list[str]:
    with daemon.client() as client:
        return list(client.devices()[0]["models"])


def _descriptors(daemon: Running) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def _memfds(daemon: Running) -> int:
    return sum("memfd:edgeai-" in link for link in open_files(daemon.process.pid))
