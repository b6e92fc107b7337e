"""A made-up machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from usbtree import UsbTree


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    """A Pi with nothing plugged in."""
    return UsbTree(tmp_path)
