"""What the kernel can do to shut a process in."""

from __future__ import annotations

import ctypes


def landlock_version() -> int:
    """Of the kernel; 0 or less = none."""
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))
