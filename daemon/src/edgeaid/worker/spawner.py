"""The daemon's end of the fork server: worker processes without a fork of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import socket
import subprocess
import sys
from typing import Final

from .. import errors

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
#: Starting an interpreter that imports numpy and a runtime, on a board that has just booted and is busy.
START_SECONDS: Final = 60.0
#: Workers compute with the threads a model asks for; BLAS pools beside them only take memory.
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Spawner:
    """Starts worker processes through a fork server, and the fork server again when it is gone."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
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
        if self._sock is not None and self._server is not None and self._server.poll() is None:
            return self._sock
        self._end()
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise errors.DeviceError(f"cannot adopt workers: {os.strerror(ctypes.get_errno())}")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._server = await asyncio.get_running_loop().run_in_executor(None, _start, theirs)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no thread to be had
            ours.close()
            raise errors.DeviceError(f"the fork server cannot be started: {error}") from error
        finally:
            theirs.close()
        self._sock = ours
        return ours

    def _end(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.kill()
                self._server.wait()
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


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeaid.worker", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**ENVIRONMENT, **os.environ},
    )
