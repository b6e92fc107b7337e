"""The daemon's end of one worker process: start, send and receive, notice its end, kill.

Everything runs on the event loop's thread. INFER goes out and RESULT comes in without a task or a future: `on_result`
is called straight from the socket's reader, because this is the path of every tensor. So is the `OnReply` of a frame
that is sent with `send`, which is the path of every picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from .. import errors
from . import wire
from .spawner import Spawner
from .wire import HEADER, PHASES, Kind

log = logging.getLogger(__name__)

#: request number, status, (input_ns, infer_ns, output_ns), text of the error or the answer to the question (JSON)
OnResult = Callable[[int, int, tuple[int, int, int], str], None]
#: cause in words
OnExit = Callable[[str], None]
#: the answer to a frame and the files that came with it, or the error instead
OnReply = Callable[[dict[str, Any], list[int], errors.EdgeaiError | None], None]

#: How long a worker may take to end, and then to be removed by the kernel: one that waits for hardware in the kernel
#: ends when that answers, and is not waited for.
STOP_SECONDS: Final = 1.0
KILL_SECONDS: Final = 0.5
#: Of the daemon's end of a worker's socket; the kernel makes it twice as much. Two pictures in messages of the greatest
#: length (164 kB each with what the kernel adds) leave room for calls, also while the worker reads nothing.
SEND_BUFFER: Final = 212_992
#: From an error of its socket to the end of a worker that still lives.
DOUBT_SECONDS: Final = 1.0


class WorkerHandle:
    """One worker process. Made by `spawn`; dead once `on_exit` was called."""

    #: Whose `main(descriptor)` the process runs.
    module: ClassVar[str] = "edgeaid.worker.process"

    def __init__(self, name: str, pid: int, sock: socket.socket, on_result: OnResult, on_exit: OnExit) -> None:
        """`pid` is a child of this process, `sock` this end of its control socket."""
        self.name = name
        self.pid = pid
        self._on_result = on_result
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        #: Frames that are not answered yet: who gets the answer, and whether a descriptor may come with it.
        self._calls: dict[int, tuple[OnReply, bool]] = {}
        self._next_call = 1
        self._cause = ""
        #: It ended by a signal that a fault of the program brings, as SIGSEGV or SIGABRT.
        self.crashed = False
        self._doubted = False
        self._sock = sock
        self._oom_kills = oom_kills()
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._exited)
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def spawn(cls, spawner: Spawner, name: str, on_message: Callable[..., None], on_exit: OnExit) -> Self:
        """Start a worker. DeviceError when there is no process to be had."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise errors.DeviceError(f"worker {name} cannot be started: {error.strerror}") from error
        try:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            pid = await spawner.spawn(name, cls.module, theirs)
            return cls(name, pid, ours, on_message, on_exit)
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise errors.DeviceError(f"worker {name} cannot be started: {error.strerror}") from error
            raise
        finally:
            theirs.close()

    @property
    def alive(self) -> bool:
        """False once the process has ended and `on_exit` was called."""
        return self._pidfd >= 0

    @property
    def sound(self) -> bool:
        """False once its socket failed: it has ended, or will be killed."""
        return not self._doubted

    def doubt(self, cause: str) -> None:
        """Its socket failed, most likely because it has ended: the kernel will say why, else it is killed."""
        if not self._doubted:
            self._doubted = True
            self._loop.call_later(DOUBT_SECONDS, self.kill, cause)

    def infer(self, model: int, slot: int, request: int, question: bytes = b"") -> None:
        """Ask for one inference; the answer comes through `on_result`. `question`: see `Request.question`."""
        self._sock.send(HEADER.pack(Kind.INFER, 0, slot, model, request) + question)

    def send(
        self,
        kind: IntEnum,
        body: Sequence[bytes | bytearray | memoryview],
        fds: Sequence[int],
        on_reply: OnReply,
        *,
        place: tuple[int, int] = (0, 0),
        gives_file: bool = False,
    ) -> None:
        """Send a frame of these pieces about `place` (slot, model number); `on_reply` is called once, with its answer.

        `gives_file`: a file in memory may come with the answer. BlockingIOError when there is no room for the frame
        now, DeviceError when the worker does not take messages; `on_reply` is not called then.
        """
        if not self.alive:
            raise errors.DeviceError(f"worker {self.name} is gone")
        number = self._next_call
        self._next_call += 1
        frame = [HEADER.pack(kind, 0, *place, number), *body]
        try:
            if fds:
                socket.send_fds(self._sock, frame, list(fds))
            else:
                self._sock.sendmsg(frame)
        except BlockingIOError:
            raise
        except OSError as error:
            raise errors.DeviceError(f"worker {self.name} does not take messages: {error}") from error
        self._calls[number] = on_reply, gives_file

    async def call(
        self, kind: IntEnum, body: dict[str, Any], fds: Sequence[int] = (), *, timeout: float, gives_file: bool = False
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a JSON frame, wait for its answer; `gives_file`: a file in memory may come with it.

        Raises what the worker raised, DeviceError when it died, DeadlineExceeded after `timeout` seconds: the worker
        may then hang and it is the caller's part to kill it.
        """
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()

        def answered(answer: dict[str, Any], out: list[int], error: errors.EdgeaiError | None) -> None:
            if future.done():
                wire.close_all(out)  # nobody waits any more
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result((answer, out))

        try:
            self.send(kind, (wire.json_body(kind, body),), fds, answered, gives_file=gives_file)
        except BlockingIOError as error:
            raise errors.DeviceError(f"worker {self.name} does not take messages: {error}") from error
        try:
            async with asyncio.timeout(timeout):
                return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                wire.close_all(future.result()[1])  # answered, but nobody is there to take it
            raise
        except TimeoutError:
            raise errors.DeadlineExceeded(
                f"worker {self.name} did not answer {kind.name} within {timeout:g} s"
            ) from None

    def kill(self, cause: str) -> None:
        """SIGKILL; `on_exit` follows with this cause once the kernel has taken the process away."""
        if self.alive and not self._cause:
            self._cause = cause
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def ended(self) -> None:
        """Return when the process is gone and `on_exit` was called."""
        await self._ended.wait()

    async def stop(self) -> None:
        """Let the worker end (its socket closes), kill it after a second."""
        if not self.alive:
            return
        self._on_exit = lambda _cause: None
        self._loop.remove_reader(self._sock.fileno())
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        for patience in (STOP_SECONDS, KILL_SECONDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self.ended()
                return
            self.kill("did not end")

    def _readable(self) -> None:
        try:
            data, fds = wire.receive(self._sock)
        except BlockingIOError:
            return
        except errors.InvalidRequest as error:
            self.kill(f"broke its socket: {error}")
            return
        except OSError as error:  # it ended with a message of ours unread; the pidfd says why, unless it lives
            self._loop.remove_reader(self._sock.fileno())
            self.doubt(f"broke its socket: {error}")
            return
        if not data:
            self._loop.remove_reader(self._sock.fileno())  # the pidfd says the rest
            return
        self._received(data, fds)

    def _received(self, data: bytes, fds: list[int]) -> None:
        kind, status, _, _, request = HEADER.unpack_from(data)
        if fds and not (kind == Kind.REPLY and self._may_give(request, fds)):
            self.refuse(fds)
        elif kind == Kind.RESULT:
            text = data[HEADER.size + PHASES.size :].decode(errors="replace")
            self._on_result(request, status, PHASES.unpack_from(data, HEADER.size), text)
        else:
            self._reply(request, status, data, fds)

    def _may_give(self, request: int, fds: list[int]) -> bool:
        """Whether these are what the request asks for. Closing a file in memory takes no time, unlike other things."""
        return (
            request in self._calls
            and self._calls[request][1]
            and len(fds) == 1
            and os.readlink(f"/proc/self/fd/{fds[0]}").startswith("/memfd:")
        )

    def refuse(self, fds: list[int]) -> None:
        """End a worker that sent descriptors without being asked; a thread closes them, however long that takes."""
        self._loop.run_in_executor(None, wire.close_all, fds)
        self.kill("sent descriptors that nobody asked for")

    def _reply(self, request: int, status: int, data: bytes, fds: list[int]) -> None:
        on_reply, _ = self._calls.pop(request, (None, False))
        if on_reply is None:
            wire.close_all(fds)
            return
        body = json.loads(data[HEADER.size :])
        if status:
            wire.close_all(fds)
            on_reply({}, [], wire.error_of(status, body.get("error", "")))
        else:
            on_reply(body, fds, None)

    def _exited(self) -> None:
        # Results that the worker had sent before it died still count: they are in the socket's buffer.
        self._drain()
        self._loop.remove_reader(self._pidfd)
        code = _status(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        killed_here = self._cause and code in (None, -signal.SIGKILL)
        self.crashed = code is not None and code < 0 and code != -signal.SIGKILL
        cause = self._cause if killed_here else describe_exit(code, out_of_memory=oom_kills() > self._oom_kills)
        calls, self._calls = self._calls, {}
        self._on_exit(cause)
        for on_reply, _ in calls.values():
            on_reply({}, [], errors.DeviceError(f"worker {self.name} {cause}"))
        self._ended.set()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, errors.EdgeaiError):
            while True:
                data, fds = wire.receive(self._sock)
                if not data:
                    return
                self._received(data, fds)


def _status(pidfd: int) -> int | None:
    """Reap an ended child: its exit status, negative for a signal; None when another has reaped it."""
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def oom_kills() -> int:
    """Processes that the kernel has killed for lack of memory since it started, in this cgroup or anywhere."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def describe_exit(code: int | None, *, out_of_memory: bool = False) -> str:
    """An exit status in words (negative = signal). `out_of_memory`: the kernel killed a process meanwhile."""
    if code is None:
        return "ended"
    if code == 0:
        return "ended by itself"
    if code == -signal.SIGKILL:
        return f"was killed by SIGKILL ({'out of memory' if out_of_memory else 'not by edgeaid'})"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with status {code}"
