"""Digests of model files: OpenSSL's for large ones, Python's own for all others.

The daemon begins without OpenSSL (see `edgeaid.__main__`). OpenSSL's are six times as quick and let other threads run
meanwhile, so the first large model loads it: 4 MiB, of which half a MiB is the process's own.
"""

from __future__ import annotations

import hashlib
import os
from io import BufferedReader
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _hashlib import HASH

#: Bytes from which on OpenSSL is worth its memory.
LARGE: Final = 1 << 20


def sha256(size: int = 0) -> HASH:
    """A new SHA-256 for about `size` bytes; 0 = unknown."""
    return _new("sha256", size)


def sha1(size: int = 0) -> HASH:
    """A new SHA-1 for about `size` bytes: git's ids, nothing that security rests on."""
    return _new("sha1", size, secure=False)


def of_file(stream: BufferedReader) -> str:
    """SHA-256 of an open binary file from where it stands, in lower-case hexadecimal."""
    size = os.fstat(stream.fileno()).st_size
    return hashlib.file_digest(stream, lambda: sha256(size)).hexdigest()


def _new(name: str, size: int, *, secure: bool = True) -> HASH:
    if size >= LARGE:
        try:
            import _hashlib  # what hashlib itself takes where it was imported with OpenSSL
        except ImportError:
            pass
        else:
            return _hashlib.new(name, usedforsecurity=secure)
    return hashlib.new(name, usedforsecurity=secure)
