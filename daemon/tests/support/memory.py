"""What a process holds in its own memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from .daemon import Running


def anonymous(pid: int) -> int:
    """Bytes of a process' own memory; the slots that it shares with workers are not among them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


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
