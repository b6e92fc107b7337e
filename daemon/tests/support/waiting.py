"""Waiting for what another process or thread does: a condition is asked again and again, never a fixed time slept."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any


def eventually(condition: Callable[..., Any], seconds: float = 60.0, what: str = "") -> Any:
    """The first true value of `condition`; AssertionError when there is none within `seconds`."""
    end, pause = time.monotonic() + seconds, 0.01
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what or 'what was to happen'}"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.2)  # what takes long is not asked all the time
    return value


def has_read_all(sock: socket.socket) -> bool:
    """Whether the other end of a Unix socket has taken all that was sent."""
    (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return bool(left == 0)
