"""What a stream publishes: events, from which a client may continue after a pause, and results."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

KEEP: Final = 512
#: A listener that lags behind by so many is cut off; it comes back with its last number.
LISTENER_QUEUE: Final = 256
ALIVE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Item:
    """One event or result."""

    #: Unique, also over restarts of the daemon: a client sends it back as Last-Event-ID.
    identity: str
    kind: str
    value: dict[str, Any]


_END: Final = Item("", "", {})


class Feed:
    """A ring of items and its listeners."""

    def __init__(self, keep: int = KEEP) -> None:
        self.ring: deque[Item] = deque(maxlen=keep)
        self._run = secrets.token_hex(4)
        self._number = 0
        self._listeners: set[asyncio.Queue[Item]] = set()

    def publish(self, kind: str, value: dict[str, Any]) -> None:
        """Send to all listeners."""
        self._number += 1
        item = Item(f"{self._run}-{self._number}", kind, value)
        self.ring.append(item)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(item)
            except asyncio.QueueFull:
                self._listeners.discard(queue)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def after(self, last: str) -> list[Item]:
        """What is kept and newer than an identity; all of it when that is from another run of the daemon."""
        run, _, number = last.partition("-")
        if run != self._run or not number.isdecimal() or len(number) > 20:
            return list(self.ring)
        return [i for i in self.ring if int(i.identity.partition("-")[2]) > int(number)]

    def close(self) -> None:
        """The stream is gone: all listeners come to their end."""
        for queue in list(self._listeners):
            self._listeners.discard(queue)
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(_END)

    def subscribe(self) -> asyncio.Queue[Item]:
        """Items from now on, for `listen`, which ends the subscription."""
        queue: asyncio.Queue[Item] = asyncio.Queue(LISTENER_QUEUE)
        self._listeners.add(queue)
        return queue

    async def listen(self, queue: asyncio.Queue[Item], past: Sequence[Item] = ()) -> AsyncIterator[Item | None]:
        """`past`, then new items; None from time to time as a sign of life. Ends when the listener lags behind."""
        try:
            for item in past:
                yield item
            while queue in self._listeners or not queue.empty():
                try:
                    item = await asyncio.wait_for(queue.get(), ALIVE_SECONDS)
                except TimeoutError:
                    yield None
                    continue
                if item is _END:
                    return
                yield item
        finally:
            self._listeners.discard(queue)
