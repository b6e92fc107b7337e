"""Long work as generators that yield between short steps: the event loop does other things between them.

A thread does them at once. It is for what is really long: handing over costs more than a millisecond of work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from time import monotonic as clock
from typing import Final, TypeVar

T = TypeVar("T")

#: Work that ends with a value.
Steps = Generator[None, None, T]

#: Seconds of steps between two turns of a client.
STRETCH: Final = 0.0005


def finish(steps: Steps[T]) -> T:
    """Do it at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


async def in_turns(steps: Steps[T], turn: Callable[[], Awaitable[None]]) -> T:
    """Do it in the event loop, in stretches, each in a `turn` of the client that asked."""
    while True:
        await turn()
        until = clock() + STRETCH
        while clock() < until:
            try:
                next(steps)
            except StopIteration as end:
                value: T = end.value
                return value
