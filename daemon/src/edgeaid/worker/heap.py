"""Makes damage to the heap show: what a runtime wrote past its buffers is met by the allocator's own checks.

Used where a model is tried out before it shares a process with others, and in a worker that replaces one that died:
there it is said after each run, so that the model that did the damage is known, not the one that met it.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

#: Bytes per block: every size class of glibc's thread cache, its small and large bins, and blocks mapped on their own.
SIZES: Final = (*range(24, 1040, 16), 2048, 4096, 8192, 32768, 65536, 131072, 262144, 1 << 20)
ROUNDS: Final = 8


def exercise() -> None:
    """Take and give back blocks of all sizes; the C library aborts the process where it meets damage."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.realloc.restype = ctypes.c_void_p
    libc.realloc.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.free.argtypes = (ctypes.c_void_p,)
    blocks = [libc.malloc(size) for size in SIZES for _ in range(ROUNDS)]
    grown = [libc.realloc(block, 40) for block in blocks[::3]]
    for block in (*blocks[1::3], *grown, *blocks[2::3]):
        libc.free(block)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
