"""Stand-in runtimes built from C, and backends in processes that may die."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.backends import Backend, ModelIO, Phases
from edgeaid.tensors import NUMPY

from ..standins import build

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def build_standin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile a stand-in by name, once per session; where there is no compiler, EDGEAI_TEST_STANDINS has them ready."""
    ready = os.environ.get("EDGEAI_TEST_STANDINS")
    if ready:
        return lambda name: Path(ready) / f"lib{name}.so"
    if shutil.which("gcc") is None:
        pytest.skip("the stand-ins are built with gcc, which is not installed")
    out = tmp_path_factory.mktemp("standins")
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = build.build(name, out)
        return made[name]

    return get


@dataclass
class Standin:
    """A stand-in with its own control file and log."""

    library: Path
    directory: Path

    def control(self, *lines: str) -> None:
        """Replace the commands; the file appears whole."""
        fresh = self.directory / "control.new"
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.rename(self.directory / "control")

    @property
    def log(self) -> list[str]:
        """Events so far, oldest first."""
        path = self.directory / "log"
        return path.read_text().splitlines() if path.exists() else []

    def events(self, kind: str) -> list[str]:
        """Events of one kind."""
        return [line for line in self.log if line.split()[0] == kind]


def _prepare(prefix: str, library: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Standin:
    monkeypatch.setenv(f"{prefix}_CONTROL", str(directory / "control"))
    monkeypatch.setenv(f"{prefix}_LOG", str(directory / "log"))
    monkeypatch.setenv(f"{prefix}_TIME", "0")
    standin = Standin(library, directory)
    standin.control()
    return standin


@pytest.fixture
def edgetpu(
    build_standin: Callable[[str], Path], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Standin:
    """One simulated Coral stick whose answers come from the uncompiled models."""
    monkeypatch.setenv("EDGETPU_STANDIN_TWINS", str(shared_data / "coral"))
    monkeypatch.setenv("EDGEAI_CACHE", str(tmp_path / "cache"))
    return _prepare("EDGETPU_STANDIN", build_standin("edgetpu_standin"), tmp_path, monkeypatch)


@pytest.fixture(params=[1, 2], ids=["ncsdk1", "ncsdk2"])
def ncs(
    request: pytest.FixtureRequest,
    build_standin: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Standin:
    """One simulated Neural Compute Stick behind either API, its firmware installed beside the library."""
    return make_ncs(request.param, build_standin, tmp_path, monkeypatch)


def make_ncs(
    api: int, build_standin: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Standin:
    """A copy of the library for this test alone: firmware is looked for in the library's directory."""
    library = tmp_path / "libmvnc.so.0"
    shutil.copy(build_standin(f"mvnc_v{api}_standin"), library)
    firmware = tmp_path / "mvnc"
    firmware.mkdir()
    for name in ("MvNCAPI.mvcmd", "MvNCAPI-ma2450.mvcmd"):
        (firmware / name).write_bytes(b"firmware")
    return _prepare("MVNC_STANDIN", library, tmp_path, monkeypatch)


def arrays(io: ModelIO, seed: int = 0) -> tuple[list[Any], list[Any]]:
    """Seeded noise for every input, zeros for every output."""
    noise = np.random.default_rng(seed)
    inputs = [noise.integers(0, 200, s.shape).astype(NUMPY[s.datatype]) for s in io.inputs]
    return inputs, [np.zeros(s.shape, NUMPY[s.datatype]) for s in io.outputs]


def infer(backend: Backend, key: str, io: ModelIO, seed: int = 0) -> tuple[list[Any], list[Any], Phases]:
    """One inference on seeded noise: inputs, outputs, phases."""
    inputs, outputs = arrays(io, seed)
    phases = backend.infer(key, inputs, outputs)
    return inputs, outputs, phases


class Child:
    """A backend in its own process."""

    def __init__(self, target: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
        )

    def send(self, **order: Any) -> None:
        """Give an order without waiting."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next answer; None when there is none in time or the process is gone."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        return json.loads(line) if line else None

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.send(**order)
        answer = self.answer(60)
        assert answer is not None, f"no answer to {order}; exit status {self.process.poll()}"
        return answer

    def open(self, library: Path, device: str = "") -> dict[str, Any]:
        """Open the device."""
        return self.ask(do="open", device=device, options={"library": str(library)})

    def load(self, key: str, artifact: Path) -> dict[str, Any]:
        """Load a model."""
        return self.ask(do="load", key=key, artifact=str(artifact), options={})

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def child() -> Iterator[Callable[[str], Child]]:
    """Start backends in processes of their own; all are gone after the test."""
    started: list[Child] = []

    def start(target: str) -> Child:
        started.append(Child(target))
        return started[-1]

    yield start
    for one in started:
        one.kill()
