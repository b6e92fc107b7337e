"""Listening Unix sockets of the protocol adapters."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from .. import errors

#: Connections that wait to be accepted. Beyond, connecting fails at once for clients that have a time limit: more than
#: one user may have, so that none can fill it with what is going to be refused.
BACKLOG: Final = 1024


def bind(path: Path, kind: int, mode: int = 0o660) -> socket.socket:
    """A listening Unix socket at `path`. A stale socket is replaced; one that is being served is InvalidConfig."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.InvalidConfig(f"the directory {path.parent} cannot be made: {error.strerror}") from error
    if len(os.fsencode(path)) > 107:
        raise errors.InvalidConfig(f"socket path {path} is longer than the 107 bytes that the kernel takes")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise errors.InvalidConfig(f"{path} exists and is not a socket; remove it or choose another path")
        with socket.socket(socket.AF_UNIX, kind) as probe:
            try:
                probe.connect(str(path))
            except OSError as error:
                if error.errno not in (errno.ECONNREFUSED, errno.ENOENT, errno.EPROTOTYPE):
                    raise errors.InvalidConfig(f"{path}: {error.strerror}") from error
                path.unlink(missing_ok=True)
            else:
                raise errors.InvalidConfig(
                    f"{path} is served already by another process; stop it or choose another path"
                )
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise errors.InvalidConfig(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock
