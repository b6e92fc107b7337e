"""Connections of the asyncio client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping

from . import http
from .arguments import Address

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_http(path: str) -> Streams:
    """Connect to the HTTP socket. Unavailable, PermissionDenied."""
    try:
        return await asyncio.open_unix_connection(path, limit=http.MAX_HEAD)
    except OSError as error:
        raise http.unreachable(path, error) from error


class AsyncioTransport:
    """One HTTP connection and one to the fast socket, as `Transport` says."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._http: Streams | None = None
        self._fast = http.FastEnd()

    @property
    def is_open(self) -> bool:
        return self._http is not None

    async def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            async with asyncio.timeout(self.address.timeout):
                if self._http is None:
                    self._http = await open_http(self.address.path)
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
            await asyncio.get_running_loop().sock_connect(sock, self.address.fast_path)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise http.unreachable(self.address.fast_path, error) from error
            raise
        self._fast.open(sock)

    async def exchange_fast(self, message: bytes, fd: int) -> bytes:
        sock = self._fast.sock
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.address.timeout):
                if fd >= 0:
                    socket.send_fds(sock, [message], [fd])  # one request at a time: there is room
                else:
                    await loop.sock_sendall(sock, message)
                reply = await loop.sock_recv(sock, http.MAX_REPLY)
        except OSError as error:
            raise http.meaning(error) from error
        if not reply:
            raise http.Closed("no answer")
        return reply

    def close_fast(self) -> None:
        self._fast.close()

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
