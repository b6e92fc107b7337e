"""The worker that decodes pictures, where its start goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import signal
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from PIL import Image

from edgeaid.config import Config, Limits, Models
from edgeaid.errors import DeadlineExceeded
from edgeaid.serving import media
from edgeaid.serving.events import EventLog
from edgeaid.serving.model import LiveModel
from edgeaid.serving.pictures import Asked, Question, ask
from edgeaid.serving.plane import Plane
from edgeaid.worker.spawner import Spawner
from edgeaid.worker.wire import Kind

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


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Plane, LiveModel]]:
    """A plane without sockets, and its classifier; one process decodes."""
    plane = Plane(Config(models=Models(repositories=(directory / "models",)), limits=Limits(decoders=1)))
    await plane.start()
    try:
        yield plane, plane.registry.model("digits")
    finally:
        await plane.stop()


def test_a_process_that_hangs_on_a_picture_is_replaced_and_those_who_wait_behind_are_answered(
    tmp_path: Path, three: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (plane, live):
            first = await ask(plane, live, three, "us", Question())
            handle = plane.media.decoders[0].handle
            assert handle is not None
            monkeypatch.setattr(media, "SECONDS", 0.3)
            os.kill(handle.pid, signal.SIGSTOP)
            waiting = [asyncio.create_task(ask(plane, live, three, "us", Question())) for _ in range(media.AT_ONCE + 3)]
            for late in waiting[: media.AT_ONCE]:
                with pytest.raises(DeadlineExceeded, match="did not answer within"):
                    await late
            monkeypatch.setattr(media, "SECONDS", 30.0)
            for answer in await asyncio.gather(*waiting[media.AT_ONCE :]):
                assert answer["classes"] == first["classes"]
            assert plane.media.restarts == 1
            assert not live.busy

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_picture_that_nobody_waits_for_any_more_keeps_its_slot_only_while_a_process_has_it(
    tmp_path: Path, three: bytes
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (plane, live):
            first = await ask(plane, live, three, "us", Question())
            decoder = plane.media.decoders[0]
            assert decoder.handle is not None
            os.kill(decoder.handle.pid, signal.SIGSTOP)
            answered: list[Any] = []
            asked = [
                Asked(plane, live, three, "us", Question(), lambda *answer: answered.append(answer)) for _ in range(5)
            ]
            for one in asked:
                one.start()
            assert (live.busy, decoder.under_way, len(decoder.waiting)) == (5, media.AT_ONCE, 5 - media.AT_ONCE)
            for one in asked:
                one.cancel()
            assert (live.busy, decoder.under_way, len(decoder.waiting)) == (media.AT_ONCE, media.AT_ONCE, 0)
            os.kill(decoder.handle.pid, signal.SIGCONT)
            while live.busy:
                await asyncio.sleep(0.01)
            assert not answered
            assert (await ask(plane, live, three, "us", Question()))["classes"] == first["classes"]

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_pictures_of_any_size_reach_their_process_in_the_message_or_in_a_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (plane, live):
            for side in (4, 64, 220, 223, 224, 500):  # 150 kB, what goes in a message, is between 223 and 224
                made = io.BytesIO()
                Image.effect_noise((side, side), 60).convert("RGB").save(made, "BMP")
                answers = await asyncio.gather(
                    *(ask(plane, live, made.getvalue(), "us", Question()) for _ in range(2 * media.AT_ONCE))
                )
                assert {(a["width"], a["height"]) for a in answers} == {(side, side)}
                assert len({str(a["classes"]) for a in answers}) == 1

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_pictures_that_a_process_has_not_read_yet_leave_room_for_a_call(tmp_path: Path, three: bytes) -> None:
    made = io.BytesIO()
    Image.effect_noise((223, 223), 60).convert("RGB").save(made, "BMP")
    assert 0 <= media.INLINE_BYTES - len(made.getvalue()) < 1000

    async def scenario() -> None:
        async with serving(tmp_path) as (plane, live):
            await ask(plane, live, three, "us", Question())
            decoder = plane.media.decoders[0]
            assert decoder.handle is not None
            os.kill(decoder.handle.pid, signal.SIGSTOP)
            pictures = [
                asyncio.create_task(ask(plane, live, made.getvalue(), "us", Question())) for _ in range(media.AT_ONCE)
            ]
            await asyncio.sleep(0)  # they are sent
            calls = [asyncio.create_task(decoder.ask(Kind.PING, {})) for _ in range(8)]
            await asyncio.sleep(0)
            os.kill(decoder.handle.pid, signal.SIGCONT)
            await asyncio.gather(*calls)
            assert [answer["width"] for answer in await asyncio.gather(*pictures)] == [223] * media.AT_ONCE

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_picture_is_gone_from_memory_with_its_answer(tmp_path: Path, three: bytes) -> None:
    class Body(bytearray):
        """A picture of which it can be seen whether somebody still has it."""

    async def scenario() -> None:
        async with serving(tmp_path) as (plane, live):
            await ask(plane, live, three, "us", Question())
            for question in (Question(), Question(draw=True)):
                body = Body(three)
                seen = weakref.ref(body)
                await ask(plane, live, body, "us", question)
                del body
                assert seen() is None

    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(scenario(), 120))
    finally:
        gc.enable()
