"""Turns in the event loop: clients that send fast do their work in small steps, so that nobody waits long for others.

In one turn of the loop, clients' messages are looked at for `BUDGET` seconds; what is left waits for the next turn.
Users take turns with each other, and so do the clients of one user: who has had the fewest steps comes first, which
is somebody who asks now and then, not the one with a thousand requests in a row.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from time import monotonic as clock
from typing import Final

from .poller import Poller

log = logging.getLogger(__name__)

#: Seconds of one turn of the loop that clients' messages get.
BUDGET: Final = 0.001
#: What a step is taken to cost that is a task's, and so runs later in the turn.
TASK: Final = 0.0005


class Share:
    """What one client has had while there were others who waited."""

    __slots__ = ("crowd", "steps")

    def __init__(self) -> None:
        #: Number of the crowd that `steps` counts in.
        self.crowd = 0
        self.steps = 0


class _User:
    """The clients of one user that wait."""

    __slots__ = ("least", "served", "waiting")

    def __init__(self, served: int) -> None:
        #: Steps of all its clients.
        self.served = served
        #: Steps of the client that was served last: newcomers begin with one less.
        self.least = 0
        #: (steps that the client had, number, what it has to do)
        self.waiting: list[tuple[int, int, Callable[[], None]]] = []


class Turns:
    """Who may go on. A crowd begins when somebody has to wait and ends when nobody does any more.

    With the loop's own `poller` the turns of the loop need no callback to be told apart: a client alone costs none.
    """

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = poller
        #: The loop's turn, as the poller counts, that `_until` is of.
        self._number = -1
        self._until = 0.0
        self._scheduled = False
        self._crowd = 0
        self._numbers = 0
        self._waiting = 0
        self._users: dict[int, _User] = {}

    def free(self) -> bool:
        """Whether a client may do its step at once; else it is to `wait`."""
        if self._waiting:
            return False
        now = clock()
        if self._poller is not None:
            if self._poller.turn != self._number:
                self._number = self._poller.turn
                self._until = now + BUDGET
        elif not self._scheduled:
            self._schedule()
            self._until = now + BUDGET
        return now < self._until

    def wait(self, uid: int, share: Share, step: Callable[[], None]) -> None:
        """Have `step` called when its turn comes. It must be short; one client has one waiting at a time."""
        user = self._users.get(uid)
        if user is None:
            served = min((u.served for u in self._users.values() if u.waiting), default=0)
            user = self._users[uid] = _User(served)
        if share.crowd != self._crowd:
            share.crowd, share.steps = self._crowd, 0
        place = max(share.steps, user.least - 1)
        share.steps = place + 1
        self._numbers += 1
        self._waiting += 1
        heapq.heappush(user.waiting, (place, self._numbers, step))
        if not self._scheduled:
            self._schedule()

    async def turn(self, uid: int, share: Share) -> None:
        """Wait for the client's turn."""
        if self.free():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            self._until -= TASK
            if not future.done():
                future.set_result(None)

        self.wait(uid, share, begin)
        await future

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._until = clock() + BUDGET
        if self._poller is not None:
            self._number = self._poller.turn
        while self._waiting and clock() < self._until:
            try:
                self._next()
            except Exception:
                log.exception("a client's step")
        self._scheduled = False
        if self._waiting:
            self._schedule()
        elif self._users:
            self._users.clear()
            self._crowd += 1

    def _next(self) -> None:
        user = min((u for u in self._users.values() if u.waiting), key=lambda u: u.served)
        place, _, step = heapq.heappop(user.waiting)
        user.least = max(user.least, place)
        user.served += 1
        self._waiting -= 1
        step()
