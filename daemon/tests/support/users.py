"""Connections of other users, for tests that run as root."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

#: A user id that is in no group of the daemon's, and another.
STRANGER = 65533
OTHER = 65532
_SETRESUID = {"x86_64": 117, "aarch64": 147}


def as_user(uid: int, call: Callable[[], T]) -> T:
    """What `call` returns in a thread whose effective user is `uid`. Skips the test where that cannot be."""
    number = _SETRESUID.get(platform.machine())
    if os.geteuid() != 0 or number is None:
        pytest.skip("needs root, to connect as another user")
    results: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            # The system call itself: it holds for this thread only, unlike the function of the C library.
            assert libc.syscall(number, -1, uid, -1) == 0
            results.append(call())
        except BaseException as error:  # handed to the caller
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]


def connect_as(uid: int, path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A connection of user `uid` to a socket in a directory that only root may enter."""
    path.chmod(0o666)
    path.parent.chmod(0o755)
    directory = os.open(path.parent, os.O_PATH)

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.settimeout(30)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{path.name}")
        except BaseException:
            sock.close()
            raise
        return sock

    try:
        return as_user(uid, connect)
    finally:
        os.close(directory)
