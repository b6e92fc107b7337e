"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from .support.browser import browser
from .support.daemon import daemon, launch, start, three

__all__ = ["browser", "daemon", "launch", "shared_data", "shared_findings", "start", "three"]

# Timings live in benchmarks: a busy machine is not a failure. The gate repeats the same examples each time; elsewhere
# new ones are tried, and what they find is kept as a test.
settings.register_profile(
    "edgeai", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("edgeai")

# A shell that starts the tests in the background has interrupts ignored, which programs under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of real models, graphs and pictures that lies beside a development checkout."""
    directory = Path(os.environ.get("EDGEAI_TEST_DATA", TOP.parent / "shared" / "data"))
    if not (directory / "SHA256SUMS").is_file():
        pytest.skip(f"real models and pictures are not here: {directory} (set EDGEAI_TEST_DATA)")
    return directory


@pytest.fixture(scope="session")
def shared_findings() -> Path:
    """Directory of inputs on which the product was once seen to fail, beside a development checkout."""
    directory = Path(os.environ.get("EDGEAI_TEST_FINDINGS", TOP.parent / "shared" / "findings"))
    if not (directory / "README.md").is_file():
        pytest.skip(f"the inputs of former faults are not here: {directory} (set EDGEAI_TEST_FINDINGS)")
    return directory
