"""What the watchdog hears of a device: whether its worker answers, or is being replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from edgeaid.config import Device, Limits, Recovery
from edgeaid.devices.states import State
from edgeaid.serving.device import DeviceRunner
from edgeaid.serving.events import EventLog
from edgeaid.serving.probation import Probation
from edgeaid.serving.recovery import policy_of
from edgeaid.worker.spawner import Spawner


def with_runner(scenario: Callable[[DeviceRunner], Awaitable[None]]) -> None:
    """Run a scenario with a CPU device that has not been started yet."""

    async def run() -> None:
        spawner = Spawner()
        device, limits, ladder = Device(id="cpu0", target="cpu"), Limits(), policy_of(Recovery())
        probation = Probation(spawner)
        runner = DeviceRunner(device, limits, EventLog(), lambda *_: None, 3, ladder, spawner, probation)
        try:
            await scenario(runner)
        finally:
            await runner.stop()
            spawner.close()

    asyncio.run(run())


def test_a_device_without_a_worker_and_without_a_start_under_way_is_a_fault() -> None:
    async def scenario(runner: DeviceRunner) -> None:
        assert not await runner.check()
        starting = asyncio.ensure_future(runner.start())
        await asyncio.sleep(0)
        assert runner.handle is None
        assert await runner.check()  # on its way
        await starting
        assert await runner.check()

    with_runner(scenario)


@pytest.mark.parametrize("state", [State.ABSENT, State.QUARANTINED])
def test_a_device_that_is_unplugged_or_left_alone_needs_no_worker(state: State) -> None:
    async def scenario(runner: DeviceRunner) -> None:
        runner.state = state
        assert await runner.check()

    with_runner(scenario)


def test_a_killed_worker_is_no_fault_while_it_is_being_replaced() -> None:
    async def scenario(runner: DeviceRunner) -> None:
        await runner.start()
        handle = runner.handle
        assert handle is not None
        os.kill(handle.pid, signal.SIGKILL)
        await handle.ended()
        assert runner.handle is not handle
        assert await runner.check()
        while runner.state is not State.READY:
            await asyncio.sleep(0.01)
        assert await runner.check()

    with_runner(scenario)


@pytest.mark.slow
def test_a_silent_worker_is_a_fault_and_is_replaced() -> None:
    async def scenario(runner: DeviceRunner) -> None:
        await runner.start()
        handle = runner.handle
        assert handle is not None
        os.kill(handle.pid, signal.SIGSTOP)
        assert not await runner.check()
        await handle.ended()
        assert "did not answer for 5 s" in runner.reason
        while runner.state is not State.READY:
            await asyncio.sleep(0.01)
        assert await runner.check()

    with_runner(scenario)
