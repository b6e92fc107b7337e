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
    place = _place(sys.version, *packages)
    if (place / "complete").is_file():
        return place
    venv.create(place, with_pip=True)
    install = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed: {done.stderr.strip()[-300:]}")
    (place / "complete").touch()
    return place


def node_packages(*packages: str) -> Path:
    """A directory `node_modules` with these npm packages and what they need; nothing of theirs is run.

    Skips the test where they cannot be installed.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("Node.js and npm are not installed")
    place = _place("npm", *packages)
    if not (place / "complete").is_file():
        place.mkdir(parents=True)
        install = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--legacy-peer-deps",
            "--prefix",
            ".",
        ]
        done = subprocess.run(
            [*install, *packages], cwd=place, capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode:
            pytest.skip(f"{', '.join(packages)} cannot be installed: {done.stderr.strip()[-300:]}")
        (place / "complete").touch()
    return place / "node_modules"


def _place(*key: str) -> Path:
    """Where an environment is kept; what an earlier attempt left there incomplete is gone."""
    work = Path(os.environ.get("EDGEAI_TEST_WORK") or Path.home() / ".cache" / "edgeai-tests")
    place = work / "environments" / hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
    if not (place / "complete").is_file():
        shutil.rmtree(place, ignore_errors=True)
    return place
