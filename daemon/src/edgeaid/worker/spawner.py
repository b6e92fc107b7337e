"""The daemon's end of the fork server: worker processes without a fork of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
from typing import Final

from .. import errors
from . import launch
from .launch import ForkServer

log = logging.getLogger(__name__)

#: Starting an interpreter that imports numpy and a runtime, on a board that has just booted and is busy.
START_SECONDS: Final = 60.0


class Spawner:
    """Starts worker processes through a fork server, and the fork server again when it is gone."""

    def __init__(self, ahead: ForkServer | None = None) -> None:
        #: The one that was started `ahead`, where there is one.
        self._server = ahead
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Start the fork server ahead of its first use; a failure is tried again by `spawn`."""
        async with self._lock:
            try:
                await self._ensure()
            except errors.DeviceError as error:
                log.error("%s", error)

    async def spawn(self, name: str, module: str, control: socket.socket) -> int:
        """Start a process that runs `main` of a module with `control`. Returns its process id; it is a child of ours.

        DeviceError when the kernel gives no process (limit of processes, no memory) or the fork server ended.
        """
        # A request that is not waited for any more is completed: its answer must not be taken for the next one's.
        control = control.dup()
        request = asyncio.get_running_loop().create_task(self._request(name, module, control))
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            request.add_done_callback(_reap)
            raise

    async def _request(self, name: str, module: str, control: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        with control:
            async with self._lock:
                sock = await self._ensure()
                try:
                    frame = json.dumps({"name": name, "module": module}).encode()
                    socket.send_fds(sock, [frame], [control.fileno()])
                    async with asyncio.timeout(START_SECONDS):
                        data = await loop.sock_recv(sock, 4096)
                except (OSError, TimeoutError) as error:
                    self._end()
                    raise errors.DeviceError(
                        f"worker {name} cannot be started: the fork server ended ({error})"
                    ) from error
                if not data:
                    self._end()
                    raise errors.DeviceError(f"worker {name} cannot be started: the fork server ended")
        answer = json.loads(data)
        if "pid" not in answer:
            raise errors.DeviceError(f"worker {name} cannot be started: {os.strerror(answer['errno'])}")
        return int(answer["pid"])

    def close(self) -> None:
        """End the fork server; workers live on."""
        self._end()

    async def _ensure(self) -> socket.socket:
        """The socket of a running fork server."""
        if self._server is not None and self._server.process.poll() is None:
            return self._server.sock
        self._end()
        try:
            self._server = await asyncio.get_running_loop().run_in_executor(None, launch.start)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no thread to be had
            raise errors.DeviceError(f"the fork server cannot be started: {error}") from error
        return self._server.sock

    def _end(self) -> None:
        if self._server is not None:
            self._server.sock.close()
            with contextlib.suppress(OSError):
                self._server.process.kill()
                self._server.process.wait()
            self._server = None


def _reap(request: asyncio.Task[int]) -> None:
    """Wait for the end of a worker that is not needed any more; its socket is closed, so it ends."""
    if request.cancelled() or request.exception() is not None:
        return
    pidfd = os.pidfd_open(request.result())
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)

    loop.add_reader(pidfd, ended)
