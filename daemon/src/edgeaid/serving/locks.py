"""Locks that are waited for only for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .. import errors


@asynccontextmanager
async def held(lock: asyncio.Lock | asyncio.Semaphore, seconds: float | None, busy: str) -> AsyncIterator[None]:
    """Hold `lock`; Unavailable, whose text is `busy`, when it cannot be had within `seconds`; None waits on."""
    try:
        async with asyncio.timeout(seconds):
            await lock.acquire()
    except TimeoutError:
        raise errors.Unavailable(f"{busy}; nothing was changed, ask again") from None
    try:
        yield
    finally:
        lock.release()
