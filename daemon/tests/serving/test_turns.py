"""Clients that send fast take turns: the one that seldom asks comes first, and users are served alike."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from edgeaid.serving.poller import Poller
from edgeaid.serving.turns import BUDGET, Share, Turns


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def busy(seconds: float) -> None:
    """What a step does: it takes processor time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class Greedy:
    """A client that always has something more to do."""

    def __init__(self, turns: Turns, uid: int, name: str, served: list[str]) -> None:
        self.turns, self.uid, self.name, self.served = turns, uid, name, served
        self.share = Share()
        self.ended = False

    def ask(self) -> None:
        self.turns.wait(self.uid, self.share, self.step)

    def step(self) -> None:
        self.served.append(self.name)
        busy(BUDGET / 4)
        if not self.ended:
            self.ask()


async def until_served(served: list[str], count: int) -> None:
    while len(served) < count:
        await asyncio.sleep(0)


def test_a_client_alone_need_not_wait_and_one_that_takes_long_leaves_the_rest_for_the_next_turn() -> None:
    async def scenario() -> None:
        turns = Turns()
        assert turns.free()
        assert turns.free()
        busy(2 * BUDGET)
        assert not turns.free()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns.free()

    run(scenario)


def test_with_the_loops_own_poller_a_client_alone_adds_nothing_to_the_turns_of_the_loop() -> None:
    poller = Poller()

    async def scenario() -> None:
        turns = Turns(poller)
        loop = asyncio.get_running_loop()
        for _ in range(3):
            before = poller.turn
            assert turns.free()
            assert turns.free()
            busy(2 * BUDGET)
            assert not turns.free(), "what one turn of the loop may take is used up"
            # The loop sleeps until the timer: nothing that a client left behind makes it turn before.
            slept = loop.create_future()
            loop.call_later(0.05, slept.set_result, None)
            await slept
            assert poller.turn - before <= 3
            assert turns.free(), "another turn of the loop"

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(poller)) as runner:
        runner.run(asyncio.wait_for(scenario(), 30))


def test_with_the_loops_own_poller_a_client_that_waited_gets_its_turn_and_others_stay_within_the_budget() -> None:
    poller = Poller()

    async def scenario() -> None:
        turns = Turns(poller)
        served: list[str] = []
        clients = [Greedy(turns, 1, str(number), served) for number in range(20)]
        assert turns.free()
        for client in clients:
            client.ask()
        assert not turns.free(), "others wait"
        seen = []
        for _ in range(20):
            await asyncio.sleep(0)
            seen.append(len(served))
        assert all(after - before < 20 for before, after in itertools.pairwise(seen))
        for client in clients:
            client.ended = True
        while not turns.free():
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(poller)) as runner:
        runner.run(asyncio.wait_for(scenario(), 30))


def test_the_loop_goes_on_between_the_steps_of_many_clients() -> None:
    async def scenario() -> None:
        served: list[str] = []
        turns = Turns()
        clients = [Greedy(turns, 1, str(number), served) for number in range(100)]
        for client in clients:
            client.ask()
        seen = []
        for _ in range(20):
            await asyncio.sleep(0)
            seen.append(len(served))
        # Each turn of the loop makes some steps, and never all that wait.
        assert all(after - before < 50 for before, after in itertools.pairwise(seen))
        await until_served(served, 300)
        assert {served[:300].count(client.name) for client in clients} <= {2, 3, 4}
        for client in clients:
            client.ended = True

    run(scenario)


def test_who_comes_later_and_asks_once_is_served_before_those_who_never_stop() -> None:
    async def scenario() -> None:
        served: list[str] = []
        turns = Turns()
        clients = [Greedy(turns, 1, "greedy", served) for _ in range(100)]
        for client in clients:
            client.ask()
        await until_served(served, 1000)
        late = Greedy(turns, 1, "late", served)
        late.ended = True
        before = len(served)
        late.ask()
        while "late" not in served:
            await asyncio.sleep(0)
        assert served.index("late") - before <= 1
        for client in clients:
            client.ended = True

    run(scenario)


def test_a_user_with_many_clients_has_no_more_than_one_with_few() -> None:
    async def scenario() -> None:
        served: list[str] = []
        turns = Turns()
        clients = [Greedy(turns, 1, "many", served) for _ in range(50)] + [Greedy(turns, 2, "one", served)]
        for client in clients:
            client.ask()
        await until_served(served, 400)
        assert abs(served.count("many") - served.count("one")) <= 2
        for client in clients:
            client.ended = True

    run(scenario)


def test_a_task_waits_for_its_turn_and_one_that_is_cancelled_holds_up_nobody() -> None:
    async def scenario() -> None:
        served: list[str] = []
        turns = Turns()
        greedy = Greedy(turns, 1, "greedy", served)
        greedy.ask()
        gone = asyncio.create_task(turns.turn(2, Share()))
        await asyncio.sleep(0)
        gone.cancel()
        for _ in range(20):
            await turns.turn(2, Share())
        greedy.ended = True
        assert "greedy" in served

    run(scenario)


def test_a_step_that_fails_does_not_keep_the_others_from_theirs() -> None:
    async def scenario() -> None:
        served: list[str] = []
        turns = Turns()

        def fail() -> None:
            raise ValueError("a fault of ours")

        turns.wait(1, Share(), fail)
        turns.wait(1, Share(), lambda: served.append("next"))
        await until_served(served, 1)

    run(scenario)
