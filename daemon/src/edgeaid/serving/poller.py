"""A selector that is awake when an answer is about to come.

A process that sleeps until its worker answers is woken tens of microseconds late, on a virtual machine more:
more than all that the daemon does for the request. How long a model runs is known, so the daemon sleeps until shortly
before, and then looks again and again for at most `window` seconds. Only while one request of one client is under way:
with more the daemon is awake anyway, and the time belongs to others. An idle daemon sleeps.
"""

from __future__ import annotations

import os
import select
import selectors
import time
from math import inf

clock = time.monotonic


class Poller(selectors.EpollSelector):
    """Watches descriptors as its base does. `window` seconds of looking per expected answer at most; 0 = never."""

    def __init__(self) -> None:
        super().__init__()
        self.window = 0.0
        #: Turns of the loop so far: it selects once in each.
        self.turn = 0
        self._processors = 1
        self._expected = inf

    def expect(self, at: float, threads: int = 0) -> None:
        """An answer is expected at `at` on the monotonic clock; infinity takes it back.

        `threads` compute it, 0 = unknown. Where they use all processors this process does not poll: it would take one
        from them, and the answer would come later.
        """
        self._expected = at if threads < self._processors else inf

    def configure(self, seconds: float) -> None:
        """Set `window`; with a single CPU nothing can poll while the worker computes."""
        self._processors = len(os.sched_getaffinity(0))
        self.window = seconds if self._processors > 1 else 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready descriptors, as the base class gives them."""
        self.turn += 1
        if self._expected != inf and self.window and (timeout is None or timeout > 0):
            self._wait(timeout)
        return super().select(timeout)

    def _wait(self, timeout: float | None) -> None:
        """Return when something is ready, or the answer is late."""
        now = clock()
        begin = self._expected - self.window / 2  # the answer comes somewhat late, and so does this process
        end = begin + self.window
        if timeout is not None and now + timeout < end:
            return
        epoll = [self.fileno()]
        if now < begin and select.select(epoll, (), (), begin - now)[0]:
            return
        while clock() < end:
            if select.select(epoll, (), (), 0)[0]:
                return
        self._expected = inf
