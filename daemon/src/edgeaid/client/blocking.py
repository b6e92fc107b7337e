"""Connections of the blocking client."""

from __future__ import annotations

import socket
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

from . import codec, http
from .arguments import Address

#: Bytes of the longest answer on the fast socket.
MAX_REPLY: Final = 65536
T = TypeVar("T")


class BlockingTransport:
    """Blocking sockets behind the coroutines of `Transport`: none of them ever suspends."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._http = http.Connection(address.path, address.timeout)
        self._fast: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._http.is_open

    async def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        return self._http.exchange(method, target, headers, body)

    async def open_fast(self) -> None:
        self._fast = http.connect(self.address.fast_path, self.address.timeout, socket.SOCK_SEQPACKET)

    async def exchange_fast(self, message: bytes, fd: int) -> bytes:
        return self.ask_fast(message, fd)

    def again(self, pieces: list[codec.Buffer]) -> tuple[int, dict[str, str], bytes]:
        """As `repeated.Immediate` says."""
        return self._http.again(pieces)

    def ask_fast(self, message: bytes, fd: int) -> bytes:
        """As `repeated.Immediate` says."""
        if self._fast is None:
            raise http.Closed("not connected")
        try:
            if fd >= 0:
                socket.send_fds(self._fast, [message], [fd])
            else:
                self._fast.send(message)
            reply = self._fast.recv(MAX_REPLY)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise http.Closed(str(error)) from error
        except BlockingIOError as error:
            raise http.Late from error
        if not reply:
            raise http.Closed("no answer")
        return reply

    def close_fast(self) -> None:
        if self._fast is not None:
            self._fast.close()
            self._fast = None

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
