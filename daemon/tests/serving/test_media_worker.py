"""The worker that decodes pictures, where its start goes wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from edgeaid.config import Limits
from edgeaid.errors import DeadlineExceeded
from edgeaid.serving import media
from edgeaid.serving.events import EventLog


def children() -> set[str]:
    """Processes that this one has started."""
    found = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {pid for pids in found for pid in pids}


@pytest.mark.parametrize("hang_up", [False, True])
def test_a_start_that_nobody_waits_for_any_longer_leaves_no_process(
    hang_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "START_SECONDS", 60.0 if hang_up else 0.001)
    before = children()

    async def scenario() -> None:
        runner = media.MediaRunner(Limits(), EventLog())
        asking = asyncio.create_task(runner._worker(cast(Any, None)))
        if hang_up:
            await asyncio.sleep(0.01)
            assert children() - before
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if hang_up else DeadlineExceeded):
            await asking
        assert children() == before
        assert runner.handle is None

    asyncio.run(scenario())
