"""Daemons with stand-ins for accelerators: libraries of ours that answer like the vendors' runtimes."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ...standins import build
from ...support.daemon import Running
from ...support.usbtree import UsbTree


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    """A made-up USB bus with the kernel's file layout."""
    return UsbTree(tmp_path / "machine")


@pytest.fixture(scope="session")
def edgetpu_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for libedgetpu, built from our C."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; the stand-ins are built from C")
    return Path(build.build("edgetpu_standin", tmp_path_factory.mktemp("standins")))


class Control:
    """The stand-in's control file."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "control"
        self.file.write_text("")

    def __call__(self, *lines: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self.file)


@pytest.fixture
def edge_daemon(
    tmp_path: Path, edgetpu_library: Path, shared_data: Path
) -> Iterator[Callable[..., tuple[Any, Control]]]:
    """Start a daemon with a CPU worker and one stand-in stick; models are (name, cpu file or "", edgetpu file)."""
    started: list[Any] = []

    def make(
        models: list[tuple[str, str, str]],
        limits: str = "",
        sticks: str = "usb:/sys/bus/usb/devices/1-1",
        time: float = 0.0,
        twins: bool = False,
        commands: tuple[str, ...] = (),
        tree: Any = None,
    ) -> tuple[Any, Control]:
        control = Control(tmp_path)
        control(*commands)
        config = (
            f'{limits}\n[[device]]\nid = "cpu0"\ntarget = "cpu"\n'
            f'[[device]]\nid = "tpu0"\ntarget = "edgetpu"\noptions = {{ library = "{edgetpu_library}" }}\n'
        )
        if tree is not None:  # found on a made-up bus instead of named in the configuration
            config = limits
        top = tmp_path / "d"
        for name, cpu, tpu in models:
            directory = top / "models" / name / "1"
            directory.mkdir(parents=True)
            text = f'schema = 1\nname = "{name}"\n'
            for target, file in (("edgetpu", tpu), ("cpu", cpu)):
                if file:
                    data = (shared_data / "coral" / file).read_bytes()
                    (directory / f"{target}.tflite").write_bytes(data)
                    digest = hashlib.sha256(data).hexdigest()
                    text += f'[artifacts.{target}]\nfile = "{target}.tflite"\nsha256 = "{digest}"\n'
            (directory / "model.toml").write_text(text)
        environment = {
            "EDGETPU_STANDIN_CONTROL": str(control.file),
            "EDGETPU_STANDIN_DEVICES": sticks,
            "EDGETPU_STANDIN_TIME": str(time),
            **({"EDGETPU_STANDIN_TWINS": str(shared_data / "coral")} if twins else {}),
            "EDGEAI_CACHE": str(tmp_path / "cache"),
            "EDGEAI_EDGETPU_LIBRARY": str(edgetpu_library),
            **({"EDGEAI_SYSFS": str(tree.sys)} if tree is not None else {}),
        }
        started.append(Running(top, config, env=environment))
        return started[-1], control

    yield make
    for running in started:
        running.stop(signal.SIGKILL)
