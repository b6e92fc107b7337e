"""A device without the toolkit: the daemon serves, and the verbs that need it say where they are to be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeaid

from ..support.daemon import Running

#: What the recipe puts into the package edgeaid-toolkit.
TOOLKIT = ("toolkit", "cli/model.py", "cli/model_*.py", "formats/exchange")
#: Imports every module that is left; the workers' runtimes are imported by them inside functions only.
IMPORT_ALL = """
import importlib, pkgutil, edgeaid
for module in pkgutil.walk_packages(edgeaid.__path__, "edgeaid."):
    optional = ("edgeaid.api.grpc", "edgeaid.bridges.frigate", "edgeaid.streams.mqtt")
    if not module.name.endswith("__main__") and not module.name.startswith(optional):
        importlib.import_module(module.name)
print(edgeaid.__file__)
"""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Directory to put on the Python path: the package as a device has it."""
    source = Path(edgeaid.__file__).parent
    package = tmp_path / "device" / "edgeaid"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in TOOLKIT:
        for path in package.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return package.parent


def run(device: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(device)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_module_of_a_device_imports_without_the_toolkit(device: Path) -> None:
    done = run(device, "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(device / "edgeaid" / "__init__.py")


def test_the_daemon_serves_without_the_toolkit(device: Path, start: Callable[..., Running], three: bytes) -> None:
    daemon = start(env={"PYTHONPATH": str(device)})
    with daemon.client() as client:
        assert client.classify("digits", three)


def test_a_verb_of_the_toolkit_says_where_it_is_to_be_had(device: Path) -> None:
    done = run(device, "-m", "edgeaid.cli", "model", "inspect", "model.tflite")
    assert done.returncode == 69, done.stderr
    assert "edgeaid-toolkit" in done.stderr
