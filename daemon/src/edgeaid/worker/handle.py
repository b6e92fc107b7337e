"""The daemon's end of one worker process: spawn, talk, notice its end, kill.

Everything runs on the event loop's thread. INFER goes out and RESULT comes in without a task or a future: `on_result`
is called straight from the socket's reader, because this is the path of every tensor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, ClassVar, Final

from .. import errors
from . import wire
from .wire import HEADER, PHASES, Kind

log = logging.getLogger(__name__)

#: request number, status, (input_ns, infer_ns, output_ns), error text
OnResult = Callable[[int, int, tuple[int, int, int], str], None]
#: cause in plain words
OnExit = Callable[[str], None]

#: Workers compute with the threads a model asks for; BLAS pools beside them only take memory.
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class WorkerHandle:
    """One worker process. Made by `spawn`; dead once `on_exit` was called."""

    #: What the process runs: `python -m MODULE FD`.
    module: ClassVar[str] = "edgeaid.worker"

    def __init__(self, name: str, on_result: OnResult, on_exit: OnExit) -> None:
        self.name = name
        self._on_result = on_result
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._next_call = 1
        self._cause = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._sock = ours
        try:
            # Not through asyncio: the parent-death signal is tied to the thread that forks, which must be this one.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**ENVIRONMENT, **os.environ, "EDGEAI_WORKER_PARENT": str(os.getpid())},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        self._loop.add_reader(ours.fileno(), self._readable)

    @property
    def alive(self) -> bool:
        """False once the process has ended and `on_exit` was called."""
        return self._pidfd >= 0

    def infer(self, model: int, slot: int, request: int) -> None:
        """Ask for one inference; the answer comes through `on_result`."""
        self._sock.send(HEADER.pack(Kind.INFER, 0, slot, model, request))

    async def call(
        self, kind: IntEnum, body: dict[str, Any], fds: Sequence[int] = (), *, timeout: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a JSON frame, wait for its answer.

        Raises what the worker raised, DeviceError when it died, DeadlineExceeded after `timeout` seconds: the worker
        may then hang and it is the caller's part to kill it.
        """
        if not self.alive:
            raise errors.DeviceError(f"worker {self.name} is gone")
        number = self._next_call
        self._next_call += 1
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        self._calls[number] = future
        try:
            frame = wire.pack_json(kind, number, body)
            try:
                if fds:
                    socket.send_fds(self._sock, [frame], list(fds))
                else:
                    self._sock.send(frame)
            except OSError as error:
                raise errors.DeviceError(f"worker {self.name} does not take messages: {error}") from error
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise errors.DeadlineExceeded(
                f"worker {self.name} did not answer {kind.name} within {timeout:g} s"
            ) from None
        finally:
            self._calls.pop(number, None)

    def kill(self, cause: str) -> None:
        """SIGKILL; `on_exit` follows with this cause once the kernel has taken the process away."""
        if self.alive and not self._cause:
            self._cause = cause
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Let the worker end by itself (its socket closes), kill it after a second."""
        if not self.alive:
            return
        self._on_exit = lambda _cause: None
        self._loop.remove_reader(self._sock.fileno())
        self._sock.shutdown(socket.SHUT_RDWR)
        for _ in range(100):
            if not self.alive:
                return
            await asyncio.sleep(0.01)
        self.kill("did not end")
        while self.alive:
            await asyncio.sleep(0.01)

    def _readable(self) -> None:
        try:
            data, fds = wire.receive(self._sock)
        except BlockingIOError:
            return
        except (OSError, errors.InvalidRequest) as error:
            self.kill(f"broke its socket: {error}")
            return
        if not data:
            self._loop.remove_reader(self._sock.fileno())  # the pidfd tells the rest
            return
        self._received(data, fds)

    def _received(self, data: bytes, fds: list[int]) -> None:
        kind, status, _, _, request = HEADER.unpack_from(data)
        if kind == Kind.RESULT:
            text = "" if status == 0 else data[HEADER.size + PHASES.size :].decode(errors="replace")
            self._on_result(request, status, PHASES.unpack_from(data, HEADER.size), text)
        else:
            self._reply(request, status, data, fds)

    def _reply(self, request: int, status: int, data: bytes, fds: list[int]) -> None:
        future = self._calls.get(request)
        if future is None or future.done():
            wire.close_all(fds)
            return
        body = json.loads(data[HEADER.size :])
        if status:
            wire.close_all(fds)
            future.set_exception(wire.error_of(status, body.get("error", "")))
        else:
            future.set_result((body, fds))

    def _exited(self) -> None:
        # Results that the worker had sent before it died still count: they are in the socket's buffer.
        self._drain()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        code = self._process.wait()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        cause = self._cause or describe_exit(code)
        for future in list(self._calls.values()):
            if not future.done():
                future.set_exception(errors.DeviceError(f"worker {self.name} {cause}"))
        self._on_exit(cause)

    def _drain(self) -> None:
        with contextlib.suppress(OSError, errors.EdgeaiError):
            while True:
                data, fds = wire.receive(self._sock)
                if not data:
                    return
                self._received(data, fds)


def describe_exit(code: int) -> str:
    """Plain words for a wait status as subprocess gives it (negative = signal)."""
    if code == 0:
        return "ended by itself"
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (out of memory?)"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with status {code}"
