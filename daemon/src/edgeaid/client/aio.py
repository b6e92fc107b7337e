"""The asyncio client: the blocking one in threads, a pool of them, so that requests of one program overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from .codec import Inference, Inputs
from .sync import DEFAULT_SOCKET, Client


class AsyncClient:
    """Like Client, with awaitable methods. Up to `connections` requests are under way at once; more wait their turn."""

    def __init__(
        self, path: str | Path = DEFAULT_SOCKET, *, connections: int = 4, fast: bool = True, timeout: float = 60.0
    ) -> None:
        self._idle = [Client(path, fast=fast, timeout=timeout) for _ in range(connections)]
        self._all = tuple(self._idle)
        self._free = asyncio.Semaphore(connections)
        self._threads = ThreadPoolExecutor(connections, "edgeai-client")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for client in self._all:
            client.close()

    async def _call(self, function: Callable[[Client], Any]) -> Any:
        await self._free.acquire()
        client = self._idle.pop()
        work = asyncio.get_running_loop().run_in_executor(self._threads, function, client)

        def give_back(_: object) -> None:
            self._idle.append(client)
            self._free.release()

        work.add_done_callback(give_back)  # not earlier: a cancelled caller leaves its thread running
        return await asyncio.shield(work)

    async def infer(
        self, model: str, inputs: Inputs, *, version: str = "", timeout: float = 0.0, priority: int = 0
    ) -> Inference:
        """See Client.infer."""
        found: Inference = await self._call(
            lambda c: c.infer(model, inputs, version=version, timeout=timeout, priority=priority)
        )
        return found

    async def classify(self, model: str, picture: bytes, *, max_results: int | None = None) -> dict[str, Any]:
        """See Client.classify."""
        found: dict[str, Any] = await self._call(lambda c: c.classify(model, picture, max_results=max_results))
        return found

    async def detect(self, model: str, picture: bytes, *, threshold: float | None = None) -> dict[str, Any]:
        """See Client.detect."""
        found: dict[str, Any] = await self._call(lambda c: c.detect(model, picture, threshold=threshold))
        return found

    async def segment(self, model: str, picture: bytes) -> dict[str, Any]:
        """See Client.segment."""
        found: dict[str, Any] = await self._call(lambda c: c.segment(model, picture))
        return found

    async def models(self) -> list[dict[str, Any]]:
        """See Client.models."""
        found: list[dict[str, Any]] = await self._call(lambda c: c.models())
        return found

    async def devices(self) -> list[dict[str, Any]]:
        """See Client.devices."""
        found: list[dict[str, Any]] = await self._call(lambda c: c.devices())
        return found

    async def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """See Client.metadata."""
        found: dict[str, Any] = await self._call(lambda c: c.metadata(model, version))
        return found
