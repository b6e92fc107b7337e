"""Service manager and journal: systemd-python where it is installed, its few datagrams by hand where it is not."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import Sequence
from typing import Final

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
#: logging level -> syslog priority, which the journal uses.
PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def notify(*lines: str, fds: Sequence[int] = ()) -> bool:
    """Send READY=1 and the like, with descriptors for its store, to the service manager; False when there is none."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            socket.send_fds(sock, ["\n".join(lines).encode()], list(fds))
        except OSError:
            return False
    return True


def notify_reloading() -> bool:
    """RELOADING=1 with the time stamp that Type=notify-reload needs in the same message."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def keep(sock: socket.socket, name: str) -> None:
    """Have the service manager keep a listening socket: after a crash `listen_fds` brings it back by this name.

    Clients that connect between crash and restart wait in its backlog instead of being refused.
    """
    notify("FDSTORE=1", f"FDNAME={name}", fds=[sock.fileno()])


def forget(name: str) -> None:
    """Take a socket out of the service manager's store."""
    notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def watchdog_seconds() -> float:
    """WatchdogSec= of the unit; 0 when none is set for this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of open files towards `wanted`, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fresh = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and fresh > soft:
        with contextlib.suppress(OSError, ValueError):  # the sandbox forbids it: the unit has set it
            resource.setrlimit(resource.RLIMIT_NOFILE, (fresh, hard))


def listen_fds() -> dict[str, socket.socket]:
    """Sockets passed by the service manager, by FileDescriptorName=. Empty without activation."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    sockets: dict[str, socket.socket] = {}
    for number in range(count):
        name = names[number] if number < len(names) else "unknown"
        sock = socket.socket(fileno=FIRST_FD + number)
        sock.setblocking(False)
        os.set_inheritable(sock.fileno(), False)
        sockets[name] = sock
    for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(key, None)
    return sockets


def journal_datagram(fields: dict[str, str]) -> bytes:
    """Fields in the journal's native form: `KEY=value`, or length-prefixed where the value has a line break."""
    parts = []
    for key, value in fields.items():
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(key.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(key.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Log records with their fields to the journal."""

    def __init__(self) -> None:
        super().__init__()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.connect(JOURNAL_SOCKET)
        try:
            from systemd import journal

            self._send = journal.sendv
        except ImportError:
            self._send = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; a journal that does not take it is not the daemon's problem."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(PRIORITY.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": "edgeaid",
            "LOGGER": record.name,
            **getattr(record, "journal", {}),
        }
        try:
            if self._send is not None:
                self._send(*(f"{k}={v}" for k, v in fields.items()))
            else:
                self._sock.send(journal_datagram(fields))
        except OSError:
            self.handleError(record)


def stderr_is_the_journal() -> bool:
    """Whether JOURNAL_STREAM (device:inode, systemd.exec(5)) names this process's stderr.

    Children of a service inherit the variable also where their stderr leads to a file or a terminal.
    """
    try:
        status = os.fstat(2)
    except OSError:  # closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up_logging(level: str) -> None:
    """Journal when this process's stderr is the journal, plain lines on stderr otherwise."""
    handler: logging.Handler
    if stderr_is_the_journal() and os.path.exists(JOURNAL_SOCKET):
        handler = JournalHandler()
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
