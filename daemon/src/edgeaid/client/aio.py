"""The asyncio client: the same methods as the blocking one, over asyncio's own sockets, without threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from .. import errors
from . import codec, http, results
from .codec import Inference, Inputs
from .core import Core, Progress, upload_of
from .inventory import Device, Model
from .sync import DEFAULT_SOCKET, DEFAULT_TIMEOUT

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _open(path: str) -> Streams:
    try:
        return await asyncio.open_unix_connection(path, limit=http.MAX_HEAD)
    except OSError as error:
        raise http.unreachable(path, error) from error


class AsyncioTransport:
    """One HTTP connection and one to the fast socket, as `Transport` says."""

    def __init__(self, path: str, fast_path: str, timeout: float, name: str) -> None:
        self.path = path
        self.name = name
        self.timeout = timeout
        self._fast_path = fast_path
        self._http: Streams | None = None
        self._fast: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._http is not None

    async def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            async with asyncio.timeout(self.timeout):
                if self._http is None:
                    self._http = await _open(self.path)
                status, answered, data = await self._exchange(self._http, method, target, headers, body)
        except TimeoutError as error:
            self._drop()
            raise http.Late from error
        except BaseException:  # cancelled too: half an exchange must not meet the next one
            self._drop()
            raise
        if answered.get("connection", "").lower() == "close":
            self._drop()
        return status, answered, data

    async def _exchange(
        self, streams: Streams, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        reader, writer = streams
        head = http.request_head(method, target, headers, body)
        refused: OSError | None = None
        try:
            if isinstance(body, Iterator):
                writer.write(head)
                for piece in body:
                    writer.write(piece)
                    await writer.drain()
            else:
                writer.writelines([head, *body])
                await writer.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            refused = error  # a refused upload is answered and hung up on before its end: the answer says why
        try:
            status, answered, data = await _receive(reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise http.Closed(str(refused or error)) from error
        return status, {**answered, "connection": "close"} if refused else answered, data

    async def open_fast(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._fast_path)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise http.unreachable(self._fast_path, error) from error
            raise
        self._fast = sock

    async def exchange_fast(self, message: bytes, fd: int) -> bytes:
        if self._fast is None:
            raise http.Closed("not connected")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout):
                if fd >= 0:
                    socket.send_fds(self._fast, [message], [fd])  # one request at a time: there is room
                else:
                    await loop.sock_sendall(self._fast, message)
                reply = await loop.sock_recv(self._fast, 65536)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise http.Closed(str(error)) from error
        except TimeoutError as error:
            raise http.Late from error
        if not reply:
            raise http.Closed("no answer")
        return reply

    def close_fast(self) -> None:
        if self._fast is not None:
            self._fast.close()
            self._fast = None

    def _drop(self) -> None:
        if self._http is not None:
            self._http[1].close()
            self._http = None

    def close(self) -> None:
        self.close_fast()
        self._drop()


async def _receive(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer. IncompleteReadError when it ends early, ValueError when it is not HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise ValueError(f"the answer's headers are longer than {http.MAX_HEAD} bytes") from error
    status, headers = http.parse_head(head[:-4])
    if status == 204:
        return status, headers, b""
    return status, headers, await reader.readexactly(http.content_length(headers))


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
        if not isinstance(path, str | os.PathLike):
            raise errors.InvalidArgument(f"the daemon's socket must be named by a path, not {type(path).__name__}")
        self.path = str(path)
        self.name = name or self.path
        self.timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        place = str(fast_path or Path(self.path).parent / "fast.sock")
        transports = (AsyncioTransport(self.path, place, self.timeout, self.name) for _ in range(connections))
        self._all = tuple(Core(t, fast_socket=fast) for t in transports)
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

    @contextlib.asynccontextmanager
    async def _core(self) -> AsyncIterator[Core]:
        """A connection that nobody else uses meanwhile, the one used last first."""
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
        metadata: dict[str, Any] = await self.get("/v2")
        return metadata

    async def is_ready(self) -> bool:
        """See Client.is_ready."""
        async with self._core() as core:
            return await core.is_ready()

    async def wait(self, timeout: float | None = None) -> None:
        """See Client.wait."""
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
        return [Model.from_json(row) for row in (await self.get("/edgeai/v1/models"))["models"]]

    async def devices(self) -> list[Device]:
        """See Client.devices."""
        return [Device.from_json(row) for row in (await self.get("/edgeai/v1/devices"))["devices"]]

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
        options = {"max_results": max_results, "timeout": timeout}
        async with self._core() as core:
            return await core.answer(results.Classification, "classify", model, picture, **options)

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
        options = {"threshold": threshold, "max_results": max_results, "timeout": timeout}
        async with self._core() as core:
            return await core.answer(results.Detection, "detect", model, picture, **options)

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
        options = {"threshold": threshold, "max_results": max_results, "timeout": timeout}
        async with self._core() as core:
            return await core.answer(results.Detection, "pose", model, picture, **options)

    async def segment(self, model: str, picture: Any, *, timeout: float | None = None) -> results.Segmentation:
        """See Client.segment."""
        async with self._core() as core:
            return await core.answer(results.Segmentation, "segment", model, picture, timeout=timeout)

    async def detect_tensor(self, model: str, tensor: bytes, *, threshold: float | None = None) -> results.Detection:
        """See Client.detect_tensor."""
        async with self._core() as core:
            return await core.detect_tensor(model, tensor, threshold)

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
        options = {"threshold": threshold, "max_results": max_results, "timeout": timeout}
        async with self._core() as core:
            return await core.picture(task, model, picture, options, "image/png")

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
        reader, writer = await _open(self.path)
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
