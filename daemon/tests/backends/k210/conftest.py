"""The stand-in for a K210 board (tests/standins/k210), and models for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.backends.k210.backend import K210Backend

from ...standins.k210 import board as board_module
from ...standins.k210 import facts

DAEMON = Path(__file__).resolve().parents[3]
AGENT = DAEMON / "boards" / "maixpy" / "agent.py"


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start a board: start("--unpaced", runtime="cpython", state=directory); it stops with the test."""
    running: list[Any] = []

    def make(*arguments: str, runtime: str = "cpython", state: Path | None = None) -> Any:
        if runtime == "node" and isinstance(board_module.micropython(), str):
            pytest.skip(f"no MicroPython: {board_module.micropython()}")
        running.append(board_module.Board(runtime, *arguments, state=state))
        return running[-1]

    yield make
    for board in running:
        board.stop()


@pytest.fixture
def board(start: Callable[..., Any]) -> Any:
    """A quick board: the real agent on CPython, bytes at the speed of the line."""
    return start()


@pytest.fixture
def backend(board: Any) -> Iterator[K210Backend]:
    """A backend opened on `board`."""
    opened = K210Backend()
    opened.open(board.port, {})
    yield opened
    opened.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A kmodel v4: u8 [1, 3, 32, 32] in, float32 of 3072 elements out."""
    path = tmp_path / "small.kmodel"
    path.write_bytes(facts.small_kmodel(32, 32, 3))
    return path


class Client:
    """Runs random pictures through a loaded 32x32x3 model and checks every answer."""

    def __init__(self, backend: K210Backend, key: str = "m") -> None:
        self.backend = backend
        self.key = key
        self.random = np.random.default_rng(7)

    def load(self, path: Path, **options: Any) -> Any:
        return self.backend.load(self.key, path, {"outputs": [[32, 32, 3]], **options})

    def ask(self) -> Any:
        """One inference, its answer compared with what the stand-in computes."""
        picture = self.random.integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
        out = np.full((1, 3, 32, 32), -1, np.float32)
        phases = self.backend.infer(self.key, [picture], [out])
        assert out.tobytes() == facts.answer(picture.tobytes(), (12288,))[0]
        return phases


@pytest.fixture
def client(backend: K210Backend, model: Path) -> Client:
    """A client of the loaded small model."""
    made = Client(backend)
    made.load(model)
    return made
