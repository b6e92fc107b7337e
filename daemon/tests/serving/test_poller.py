"""The selector looks for an expected answer, and otherwise sleeps as its base class does."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgeaid.serving.poller import Poller


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A poller that may look for 50 ms, and the number of looks it has taken."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    looks: list[float] = []
    real = select.select

    def look(*args: Any) -> Any:
        looks.append(args[3])
        return real(*args)

    monkeypatch.setattr(select, "select", look)
    polling = Poller()
    polling.configure(0.05)
    yield polling, looks
    polling.close()


def test_an_idle_loop_never_looks(looking: Any) -> None:
    polling, looks = looking
    assert polling.select(0.05) == []
    assert looks == []


def test_it_does_not_poll_while_an_answer_is_computed_on_all_processors(looking: Any) -> None:
    polling, looks = looking
    read, write = os.pipe()
    polling.register(read, 1)
    os.write(write, b"x")
    polling.expect(time.monotonic() + 100, 2)
    assert polling.select(200)
    assert looks == []
    polling.expect(time.monotonic() + 100, 1)
    assert polling.select(200)
    assert looks
    for descriptor in (read, write):
        os.close(descriptor)


def test_it_sleeps_until_shortly_before_and_looks_for_its_window_at_most(looking: Any) -> None:
    polling, looks = looking
    started = time.monotonic()
    polling.expect(started + 0.1)
    polling.select(0.3)
    assert time.monotonic() - started >= 0.3, "the rest of the time it sleeps"
    assert looks[0] > 0.05
    assert set(looks[1:]) <= {0}  # none where the machine was busy until the window was over
    count = len(looks)
    polling.select(0.01)
    assert len(looks) == count, "what did not come is not waited for again"


def test_what_is_ready_is_found_at_once_while_it_sleeps_and_while_it_looks(looking: Any) -> None:
    polling, _ = looking
    read, write = os.pipe()
    polling.register(read, 1)
    for at in (10.0, 0.0):
        os.write(write, b"x")
        polling.expect(time.monotonic() + at)
        started = time.monotonic()
        assert [key.fd for key, _ in polling.select(None)] == [read]
        assert time.monotonic() - started < 5
        os.read(read, 1)
    os.close(read)
    os.close(write)


def test_timers_of_the_loop_come_on_time(looking: Any) -> None:
    polling, _ = looking
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(polling)) as runner:

        async def work() -> float:
            started = time.monotonic()
            polling.expect(started + 60)
            await asyncio.sleep(0.05)
            return time.monotonic() - started

        assert 0.05 <= runner.run(work()) < 20


def test_a_single_cpu_is_left_to_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    polling = Poller()
    polling.configure(0.05)
    assert polling.window == 0
    polling.close()
