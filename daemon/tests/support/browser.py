"""Debian's Chromium, for the tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

#: Two are enough to notice a fault at once: the narrowest and the widest, one in each scheme.
WINDOWS = [
    pytest.param(w, s, marks=() if (w, s) in ((390, "light"), (1440, "dark")) else pytest.mark.slow)
    for w in (390, 820, 1440)
    for s in ("light", "dark")
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright here (daemon/requirements/test.lock has it)"
    )
    chromium = os.environ.get("EDGEAI_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium here (Debian: chromium; or set EDGEAI_TEST_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
