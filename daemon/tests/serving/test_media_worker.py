"""The worker that decodes pictures, where its start goes wrong."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from PIL import Image

from edgeaid.config import Limits
from edgeaid.errors import DeadlineExceeded
from edgeaid.serving import media
from edgeaid.serving.events import EventLog
from edgeaid.worker.spawner import Spawner

from ..support.daemon import Running


def children() -> set[str]:
    """Processes that this one has started."""
    entries = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {pid for pids in entries for pid in pids}


@pytest.mark.parametrize("hang_up", [False, True])
def test_a_start_that_nobody_waits_for_any_longer_leaves_no_process(
    hang_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "START_SECONDS", 60.0 if hang_up else 0.001)

    async def scenario() -> None:
        spawner = Spawner()
        await spawner.start()
        before = children()
        runner = media.MediaRunner(Limits(), EventLog(), spawner)
        asking = asyncio.create_task(runner._choose().ready(cast(Any, None)))
        if hang_up:
            while children() == before:  # the process is there, its answer is not
                await asyncio.sleep(0.001)
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if hang_up else DeadlineExceeded):
            await asking
        until = time.monotonic() + 30
        while children() != before and time.monotonic() < until:  # the kernel takes its time
            await asyncio.sleep(0.01)
        assert children() == before
        assert runner.decoders[0].handle is None
        spawner.close()

    asyncio.run(scenario())


def settled(parent: psutil.Process) -> int:
    """How many processes a daemon has once their number has not changed for a second."""
    counts = [0]
    while len(counts) < 50 or len(set(counts[-50:])) > 1:
        counts.append(len(parent.children(recursive=True)))
        time.sleep(0.02)
    return counts[-1]


def test_pictures_of_several_clients_are_decoded_side_by_side(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\ndecoders = 2\n")
    made = io.BytesIO()
    Image.effect_noise((3000, 2000), 60).convert("RGB").save(made, "PNG")  # decoded whole: takes a while
    parent = psutil.Process(daemon.process.pid)

    def ask(_: int) -> str:
        with daemon.client() as client:
            return client.classify("digits", made.getvalue(), max_results=1).model

    with daemon.client() as client:
        client.classify("digits", made.getvalue())
    before = settled(parent)
    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(ask, range(12))) == ["digits"] * 12
    assert len(parent.children(recursive=True)) == before + 1


def test_the_first_picture_finds_its_process_running(start: Callable[..., Running], three: bytes) -> None:
    daemon = start()
    parent = psutil.Process(daemon.process.pid)
    count = settled(parent)
    with daemon.client() as client:
        client.classify("digits", three)
    assert len(parent.children(recursive=True)) == count
