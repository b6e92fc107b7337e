"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real models, graphs and pictures that lies beside a development checkout."""
    folder = Path(os.environ.get("EDGEAI_TEST_DATA", TOP.parent / "shared" / "data"))
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip(f"real models and pictures are not here: {folder} (set EDGEAI_TEST_DATA)")
    return folder
