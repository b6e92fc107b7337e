"""Starts workers by forking: a process that has the interpreter and the CPU's runtime in memory already.

The daemon never forks while it serves. This process has one thread and no model, so a fork of it is quick and safe; a
worker is ready in milliseconds, where a new interpreter that imports numpy and a runtime takes a second on a small
board. Each worker is forked twice, so that the daemon (a child subreaper) becomes its parent: it gets the exit status,
and the kernel's parent-death signal ends the worker with the daemon.

    request   {"name": str, "module": str} and one descriptor, the worker's end of its control socket;
              the worker runs `main(descriptor)` of the module
    answer    {"pid": int}, or {"errno": int} when the kernel refused to fork
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from .. import errors, processor
from . import wire

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_NAME: Final = 15  # linux/prctl.h
#: How far before the daemon the kernel takes the fork server and the workers when memory runs out.
OOM_SERVER: Final = 700
OOM_WORKER: Final = 1000
#: Longest wait for the daemon to become a worker's parent.
ADOPTION_SECONDS: Final = 5.0

_PID: Final = struct.Struct("<q")


def _preload() -> None:
    """Import what nearly every worker needs; a runtime that is missing is reported by the worker that needs it."""
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401  for the workers
    with contextlib.suppress(ImportError):
        from . import heap, process, selftest, variable  # noqa: F401  for the workers
    with contextlib.suppress(ImportError, errors.EdgeaiError):
        from ..backends.tflite import backend, interpreter  # noqa: F401  for the workers

        interpreter.find_runtime()
    processor.name()  # kept: some kernels take milliseconds to say it


def prefer_for_oom(above: int) -> None:
    """Have the kernel take this process before its parent, by `above` of 1000 steps, when memory runs out.

    A step is a thousandth of the memory that the limit allows: 1000 steps above the daemon even a worker that holds
    nothing goes before a daemon that holds everything, and it is replaced within a second.
    """
    with contextlib.suppress(OSError, ValueError):  # no /proc, or not allowed: then the kernel chooses
        file = Path("/proc/self/oom_score_adj")
        file.write_text(str(min(int(file.read_text()) + above, 1000)))


def _adopted(daemon: int) -> bool:
    """Wait until the daemon is this process's parent, and end with it from then on; False when the daemon is gone."""
    until = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != daemon and time.monotonic() < until:  # the process between the two forks has yet to end
        time.sleep(0.0002)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == daemon  # it may have died before the signal was set


def _fork_worker(request: dict[str, str], control: int, inherited: tuple[int, ...], daemon: int) -> int:
    """Fork a worker whose parent becomes the daemon. Returns its process id; OSError when a fork is refused."""
    read, write = os.pipe()
    try:
        middle = os.fork()
        if middle == 0:
            _middle(request, control, (*inherited, read, write), write, daemon)
        os.close(write)
        write = -1
        data = os.read(read, _PID.size)
        os.waitpid(middle, 0)  # from here on the worker is the daemon's child
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    number = _PID.unpack(data)[0] if len(data) == _PID.size else -1
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    return int(number)


def _middle(request: dict[str, str], control: int, inherited: tuple[int, ...], write: int, daemon: int) -> None:
    """Between the two forks. Never returns."""
    try:
        pid = os.fork()
    except OSError as error:
        os.write(write, _PID.pack(-(error.errno or 1)))
        os._exit(1)
    if pid:
        os.write(write, _PID.pack(pid))
        os._exit(0)
    try:
        for fd in inherited:
            os.close(fd)
        if _adopted(daemon):
            ctypes.CDLL(None).prctl(PR_SET_NAME, f"edgeai-{request['name']}".encode()[:15], 0, 0, 0)
            prefer_for_oom(OOM_WORKER - OOM_SERVER)
            importlib.import_module(request["module"]).main(control)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def serve(sock: socket.socket, daemon: int) -> None:
    """Answer requests until the daemon closes its end."""
    while True:
        data, fds = wire.receive(sock)
        if not data:
            return
        try:
            pid = _fork_worker(json.loads(data), fds[0], (sock.fileno(),), daemon)
            answer = {"pid": pid}
        except OSError as error:
            answer = {"errno": error.errno or 1}
        finally:
            wire.close_all(fds)
        sock.send(json.dumps(answer).encode())
        if "pid" in answer:
            _keep(json.loads(data)["module"])


def _keep(module: str) -> None:
    """Import what a process was started for, so that the next one, or the one that replaces it, is there at once."""
    if module in sys.modules:
        return
    try:
        importlib.import_module(module)
    except Exception:  # the process itself says what is wrong with it
        return
    gc.freeze()


def main(fd: int) -> None:
    """Entry point; `fd` is a connected SOCK_SEQPACKET socket."""
    # The daemon's terminal and its signals are the daemon's business; this process ends with its socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    prefer_for_oom(OOM_SERVER)
    daemon = os.getppid()
    sock = socket.socket(fileno=fd)
    _preload()
    gc.freeze()  # what is imported lives for ever; a collection in a worker would only copy its pages
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(sock, daemon)
    sys.exit(0)
