"""Nobody waits for ever for what others do to a model or a device: after a while it is 503, and asking again helps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeaid import errors
from edgeaid.serving.locks import held

from ..support.daemon import Running
from ..support.waiting import eventually


def test_a_lock_that_is_not_given_back_is_waited_for_so_long_and_no_longer() -> None:
    async def two() -> None:
        lock = asyncio.Lock()
        async with held(lock, None, "busy"):
            with pytest.raises(errors.Unavailable, match=r"busy.*ask again"):
                async with held(lock, 0.01, "busy"):
                    raise AssertionError("it is not free")
            assert lock.locked()
        assert not lock.locked()
        async with held(lock, 0.01, "busy"):
            assert lock.locked()

    asyncio.run(two())


def test_a_place_is_given_back_also_when_its_owner_fails() -> None:
    async def all_of_them() -> None:
        places = asyncio.Semaphore(2)
        for _ in range(5):
            with pytest.raises(errors.InvalidModel):
                async with held(places, 0.01, "busy"):
                    raise errors.InvalidModel("damaged")
        assert not places.locked()

    asyncio.run(all_of_them())


def test_who_changes_a_model_that_another_change_does_not_leave_gets_503_and_the_model_serves_on(
    start: Callable[..., Running],
) -> None:
    daemon = start("[limits]\nrequest_seconds = 0.3\n")
    server = _fork_server(daemon)
    with ThreadPoolExecutor(3) as pool:
        os.kill(server, signal.SIGSTOP)  # a change that needs a new process stands still
        try:
            loads = [pool.submit(_load, daemon) for _ in range(3)]
            eventually(lambda: sum(load.done() for load in loads) == 2)
            for method, path in (
                ("POST", "/v2/repository/models/digits/unload"),
                ("POST", "/edgeai/v1/models/digits/rollback"),
                ("DELETE", "/edgeai/v1/models/digits/versions/9"),
            ):
                status, headers, body = daemon.http(method, path)
                assert (status, b"others have been changing model 'digits' for 0.3 s" in body) == (503, True), body
                assert headers["retry-after"] == "1"
            assert daemon.json("GET", "/v2/models/digits/ready")[0] == 200
        finally:
            os.kill(server, signal.SIGCONT)
        assert sorted(load.result() for load in loads) == [200, 503, 503]
    assert _load(daemon) == 200


def _load(daemon: Running) -> int:
    return daemon.http("POST", "/v2/repository/models/digits/load")[0]


def _fork_server(daemon: Running) -> int:
    """Workers call themselves edgeai-NAME."""
    tasks = Path(f"/proc/{daemon.process.pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return next(c for c in children if not Path(f"/proc/{c}/comm").read_text().startswith("edgeai-"))
