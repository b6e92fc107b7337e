"""Environments of their own for packages that only slow tests need: made once, kept in the tests' cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest


def environment(*packages: str) -> Path:
    """Directory of a virtual environment with these packages. Skips the test where they cannot be installed."""
    work = Path(os.environ.get("EDGEAI_TEST_WORK") or Path.home() / ".cache" / "edgeai-tests")
    name = hashlib.sha256("\n".join((sys.version, *packages)).encode()).hexdigest()[:16]
    place = work / "environments" / name
    if (place / "complete").is_file():
        return place
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    install = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed: {done.stderr.strip()[-300:]}")
    (place / "complete").touch()
    return place
