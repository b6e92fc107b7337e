"""Errors of the disk, in words: a card that is full or read-only is not a fault of the program."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..errors import Unavailable

#: Errors after which another attempt may succeed, once there is room or the card can be written again.
_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM}
)


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Unavailable, with what to do, when the disk does not take `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _PASSING:
            raise
        raise Unavailable(f"{what} cannot be stored: {error.strerror}; free some space and try again") from error
