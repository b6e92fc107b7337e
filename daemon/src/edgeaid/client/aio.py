"""The asyncio client: the same methods as the blocking one, over asyncio's own sockets, without threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

from .. import errors
from . import codec, http, questions, results
from .arguments import DEFAULT_SOCKET, Address, Progress, check_number, check_timeout, upload_of
from .codec import Inference, Inputs
from .core import Core
from .inventory import Device, Model
from .nonblocking import AsyncioTransport, open_http
from .questions import Options


class AsyncClient:
    """Like Client, with awaitable methods. Up to `connections` requests are under way at once; more wait their turn."""

    def __init__(
        self,
        path: str | Path = DEFAULT_SOCKET,
        *,
        connections: int = 4,
        fast_path: str | Path | None = None,
        fast: bool = True,
        timeout: float | None = None,
        name: str = "",
    ) -> None:
        address = Address.of(path, fast_path, timeout, name)
        self.path, self.name, self.timeout = address.path, address.name, address.timeout
        self._all = tuple(Core(AsyncioTransport(address), fast_socket=fast) for _ in range(connections))
        self._idle = list(self._all)
        self._free = asyncio.Semaphore(connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the next request opens them again."""
        for core in self._all:
            core.close()

    async def is_fast(self, model: str, version: str | int = "") -> bool:
        """Whether requests to a model that was asked go over the fast socket; the others go over HTTP."""
        return any(core.is_fast(model, str(version)) for core in self._all)

    @contextlib.asynccontextmanager
    async def _core(self) -> AsyncIterator[Core]:
        """A connection that no other task uses meanwhile, the one used last first."""
        async with self._free:
            core = self._idle.pop()
            try:
                yield core
            except (asyncio.CancelledError, GeneratorExit):
                core.close()  # an answer may still come: it must not meet the next request
                raise
            finally:
                self._idle.append(core)

    async def _forget(self, model: str) -> None:
        """Connections that are idle now ask for a model's tensors anew; the others notice when they do not fit."""
        for core in tuple(self._idle):
            if core in self._idle:
                async with self._free:
                    self._idle.remove(core)
                    try:
                        await core.forget(model)
                    finally:
                        self._idle.append(core)

    # --- plain HTTP -------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | list[codec.Buffer] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """See Client.request."""
        async with self._core() as core:
            return await core.request(method, path, body, headers)

    async def get(self, path: str) -> Any:
        """GET, JSON."""
        async with self._core() as core:
            return await core.get(path)

    async def post(self, path: str, value: Any = None) -> Any:
        """POST of a JSON value, JSON back."""
        async with self._core() as core:
            return await core.post(path, value)

    # --- what there is ----------------------------------------------------------------------------------------------

    async def server(self) -> dict[str, Any]:
        """See Client.server."""
        async with self._core() as core:
            return await core.server()

    async def is_ready(self) -> bool:
        """See Client.is_ready."""
        async with self._core() as core:
            return await core.is_ready()

    async def wait(self, timeout: float | None = None) -> None:
        """See Client.wait."""
        check_timeout(timeout or None)
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                pause = 0.02
                while not await self.is_ready():
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, 0.5)
        except TimeoutError as error:
            raise errors.DeadlineExceeded(f"edgeaid at {self.name} is not ready; see: edgeai models") from error

    async def models(self) -> list[Model]:
        """See Client.models."""
        async with self._core() as core:
            return await core.models()

    async def devices(self) -> list[Device]:
        """See Client.devices."""
        async with self._core() as core:
            return await core.devices()

    async def stats(self, model: str = "") -> list[dict[str, Any]]:
        """See Client.stats."""
        async with self._core() as core:
            return await core.stats(model)

    async def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """See Client.metadata."""
        async with self._core() as core:
            return await core.metadata(model, version)

    # --- inference --------------------------------------------------------------------------------------------------

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        timeout: float | None = None,
        priority: int = 0,
        parameters: Mapping[str, Any] | None = None,
    ) -> Inference:
        """See Client.infer."""
        async with self._core() as core:
            return await core.infer(
                model, inputs, version=version, timeout=timeout, priority=priority, parameters=parameters
            )

    async def classify(
        self, model: str, picture: Any, *, max_results: int | None = None, timeout: float | None = None
    ) -> results.Classification:
        """See Client.classify."""
        async with self._core() as core:
            return await questions.classify(core, model, picture, Options(None, max_results, timeout))

    async def detect(
        self,
        model: str,
        picture: Any,
        *,
        threshold: float | None = None,
        max_results: int | None = None,
        timeout: float | None = None,
    ) -> results.Detection:
        """See Client.detect."""
        async with self._core() as core:
            return await questions.objects(core, "detect", model, picture, Options(threshold, max_results, timeout))

    async def pose(
        self,
        model: str,
        picture: Any,
        *,
        threshold: float | None = None,
        max_results: int | None = None,
        timeout: float | None = None,
    ) -> results.Detection:
        """See Client.pose."""
        async with self._core() as core:
            return await questions.objects(core, "pose", model, picture, Options(threshold, max_results, timeout))

    async def segment(self, model: str, picture: Any, *, timeout: float | None = None) -> results.Segmentation:
        """See Client.segment."""
        async with self._core() as core:
            return await questions.segment(core, model, picture, Options(None, None, timeout))

    async def detect_tensor(self, model: str, tensor: bytes, *, threshold: float | None = None) -> results.Detection:
        """See Client.detect_tensor."""
        async with self._core() as core:
            return await questions.detect_tensor(core, model, tensor, threshold)

    async def draw(
        self,
        task: str,
        model: str,
        picture: Any,
        *,
        threshold: float | None = None,
        max_results: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """See Client.draw."""
        async with self._core() as core:
            return await questions.draw(core, task, model, picture, Options(threshold, max_results, timeout))

    # --- control ----------------------------------------------------------------------------------------------------

    async def load(self, model: str) -> None:
        """See Client.load."""
        async with self._core() as core:
            await core.load(model)
        await self._forget(model)

    async def unload(self, model: str) -> None:
        """See Client.unload."""
        async with self._core() as core:
            await core.unload(model)
        await self._forget(model)

    async def rollback(self, model: str) -> str:
        """See Client.rollback."""
        async with self._core() as core:
            version = await core.rollback(model)
        await self._forget(model)
        return version

    async def remove(self, model: str, version: str | int) -> None:
        """See Client.remove."""
        async with self._core() as core:
            await core.remove(model, version)

    async def push(
        self,
        model: str,
        file: str | Path,
        version: str | int = "",
        progress: Progress | None = None,
        *,
        unless_same: bool = False,
        allow_older: bool = False,
    ) -> dict[str, Any]:
        """See Client.push."""
        upload = await asyncio.to_thread(upload_of, file, progress)  # reads the whole file for its digest
        async with self._core() as core:
            stored = await core.push(model, upload, version, unless_same=unless_same, allow_older=allow_older)
        await self._forget(model)
        return stored

    async def events(self, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """See Client.events."""
        check_number(after, "after", whole=True)
        reader, writer = await open_http(self.path)
        try:
            # HTTP/1.0: lines until the end, without chunks around them.
            writer.write(f"GET /edgeai/v1/events HTTP/1.0\r\nLast-Event-ID: {int(after)}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            status, _ = http.parse_head(head[:-4])
            if status != 200:
                raise codec.error_of(status, (await reader.read(1 << 16)).decode(errors="replace"))
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            writer.close()
