"""The daemon's end of a stream's process: a worker's, with messages that come unasked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, ClassVar

from ..worker.handle import OnExit, WorkerHandle
from ..worker.wire import HEADER
from .messages import OWN

#: kind, slot or status, number of the lease, JSON body (empty for binary messages)
OnMessage = Callable[[int, int, int, dict[str, Any]], None]


class StreamHandle(WorkerHandle):
    """One stream's process."""

    module: ClassVar[str] = "edgeaid.streams.process.main"

    def __init__(self, name: str, pid: int, sock: socket.socket, on_message: OnMessage, on_exit: OnExit) -> None:
        self._on_message = on_message
        super().__init__(name, pid, sock, lambda *_: None, on_exit)

    def _received(self, data: bytes, fds: list[int]) -> None:
        kind, status, _, _, number = HEADER.unpack_from(data)
        if kind < OWN:
            super()._received(data, fds)
            return
        if fds:
            self.refuse(fds)
            return
        body = json.loads(data[HEADER.size :]) if len(data) > HEADER.size else {}
        self._on_message(kind, status, number, body)

    def post(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Send without waiting for an answer; a process that does not take its messages is ended."""
        if not self.alive:
            return
        try:
            if fds:
                socket.send_fds(self._sock, [frame], list(fds))
            else:
                self._sock.send(frame)
        except OSError as error:
            self.kill(f"does not take messages: {error}")

    def tell(self, kind: IntEnum, body: dict[str, Any], *, model: int = 0, status: int = 0) -> None:
        """A JSON message."""
        self.post(HEADER.pack(kind, status, 0, model, 0) + json.dumps(body, separators=(",", ":")).encode())

    def kill_group(self) -> None:
        """End whatever the process has started and left behind: its programs are in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
