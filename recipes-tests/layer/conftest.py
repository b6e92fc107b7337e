"""Fixtures for tests of the layer and of the kas files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from layer.workspace import Workspace, workspace
from rig.paths import Missing


def _workspace(release: str) -> Workspace:
    try:
        return workspace(release)
    except Missing as reason:
        pytest.skip(f"no real BitBake here: {reason}")


@pytest.fixture(scope="session")
def wrynose() -> Workspace:
    """Checked-out layers of wrynose."""
    return _workspace("wrynose")


@pytest.fixture(scope="session")
def scarthgap() -> Workspace:
    """Checked-out layers of scarthgap."""
    return _workspace("scarthgap")
