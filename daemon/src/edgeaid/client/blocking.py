"""Connections of the blocking client."""

from __future__ import annotations

import socket
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from . import http
from .arguments import Address

T = TypeVar("T")


class BlockingTransport:
    """Blocking sockets behind the coroutines of `Transport`: none of them ever suspends."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._http = http.Connection(address.path, address.timeout)
        self._fast = http.FastEnd()

    @property
    def is_open(self) -> bool:
        return self._http.is_open

    async def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        return self._http.exchange(method, target, headers, body)

    async def open_fast(self) -> None:
        self._fast.open(http.connect(self.address.fast_path, self.address.timeout, socket.SOCK_SEQPACKET))

    async def exchange_fast(self, message: bytes, fd: int) -> bytes:
        return self.ask_fast(message, fd)

    def again(self, pieces: list[Any], size: int, start: bytes, length: int) -> bytes | http.Answer:
        """As `repeated.Immediate` says."""
        return self._http.again(pieces, size, start, length)

    @property
    def head(self) -> bytes:
        """As `repeated.Immediate` says."""
        return self._http.head

    def ask_fast(self, message: bytes, fd: int) -> bytes:
        """As `repeated.Immediate` says."""
        sock = self._fast.sock
        try:
            if fd >= 0:
                socket.send_fds(sock, [message], [fd])
            else:
                sock.send(message)
            reply = sock.recv(http.MAX_REPLY)
        except OSError as error:
            raise http.meaning(error) from error
        if not reply:
            raise http.Closed("no answer")
        return reply

    def close_fast(self) -> None:
        self._fast.close()

    def close(self) -> None:
        self.close_fast()
        self._http.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a BlockingTransport, which never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("a blocking transport suspended")
