"""What a process holds: its own memory, its open files."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from .daemon import Running


def anonymous(pid: int) -> int:
    """Bytes of a process' own memory; the slots that it shares with workers are not among them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def open_files(pid: int) -> list[str]:
    """What a process' open descriptors point to. It may close some while it is looked at: those are left out."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(entry))
    return links


class Peak(threading.Thread):
    """The most that a daemon held beyond what it held before."""

    def __init__(self, server: Running) -> None:
        super().__init__()
        self.pid = server.process.pid
        self.before = self.most = anonymous(self.pid)
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.01):
            self.most = max(self.most, anonymous(self.pid))

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()

    @property
    def grown(self) -> int:
        return self.most - self.before


def settled(server: Running, limit: int, seconds: float = 20.0) -> int:
    """Bytes that a daemon holds, as soon as they are at most `limit`, or after so many seconds."""
    until = time.monotonic() + seconds
    while (held := anonymous(server.process.pid)) > limit and time.monotonic() < until:
        time.sleep(0.05)
    return held
