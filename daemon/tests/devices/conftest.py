"""A made-up machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.usbtree import UsbTree


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    """A Pi with nothing plugged in."""
    return UsbTree(tmp_path)
