"""Starts the process that forks workers; imports little, so that the daemon can do it before it imports itself."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from typing import Final, NamedTuple

PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
#: Workers compute with the threads a model asks for; BLAS pools beside them only take memory.
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
#: What the service manager tells the daemon alone.
_OWN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ForkServer(NamedTuple):
    """A fork server and the daemon's end of its socket."""

    process: subprocess.Popen[bytes]
    sock: socket.socket


def start() -> ForkServer:
    """Start a fork server, whose workers become this process's children. Blocking; OSError, SubprocessError."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"cannot adopt workers: {os.strerror(ctypes.get_errno())}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            ours.setblocking(False)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgeaid.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**ENVIRONMENT, **{k: v for k, v in os.environ.items() if k not in _OWN}},
            )
        except BaseException:
            ours.close()
            raise
    return ForkServer(process, ours)


def ahead() -> ForkServer | None:
    """A fork server that gets ready while this process does; None where it cannot be started now."""
    try:
        return start()
    except (OSError, subprocess.SubprocessError):
        return None  # tried again when it is needed, and reported then
