"""Waiting jobs: one lane per group, inside it priority, then users in turn, then clients of a user, then first come."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any


@dataclass(slots=True, eq=False)
class Job:
    """One inference waiting for a device. Times are seconds of the caller's one monotonic clock."""

    #: Model and version, `name/version`: what costs are learned for.
    model: str
    #: Jobs of equal group follow each other without a switch. Edge TPU: the file's caching token; else the model key.
    group: Hashable
    #: Whom to be fair to: a connection, a user, a stream.
    client: Hashable
    #: Open Inference Protocol: 0 = the queue's default level, 1 = highest, larger = lower.
    priority: int
    #: Absolute time after which an answer is useless; None = it never is.
    deadline: float | None
    #: When it was pushed.
    enqueued: float
    #: Whatever the caller needs to carry the job out.
    payload: Any = None
    #: Whose share it counts in: clients of one user have one together. None = the client's own.
    user: Hashable = None
    #: Goes in although a share, or what all may have, is used up.
    privileged: bool = False
    #: Expected to pay for a switch: set by `DeviceQueue.take`.
    switches: bool = field(default=False, init=False)
    #: The lane it waits in; None = not waiting. Set by the queue.
    lane: Lane | None = field(default=None, init=False, repr=False)

    @property
    def sharer(self) -> Hashable:
        """Whom the job is counted for."""
        return self.client if self.user is None else self.user


class Lane:
    """The waiting jobs of one group."""

    __slots__ = ("feasible", "group", "late", "latest", "length", "levels", "order", "stale")

    def __init__(self, group: Hashable) -> None:
        self.group = group
        #: priority -> user -> client -> its jobs. A dict is a ring: its first key is served, then put at the end.
        self.levels: dict[int, dict[Hashable, dict[Hashable, deque[Job]]]] = {}
        #: Priorities that have jobs, best (smallest) first.
        self.order: list[int] = []
        #: Jobs that cannot be answered in time any more; served only when nothing better waits.
        self.late: deque[Job] = deque()
        self.length = 0
        #: Latest start of the first run that still meets the deadlines of all jobs that can be met (chooser.py).
        self.latest = inf
        #: How many can be met.
        self.feasible = 0
        #: `latest` and `feasible` must be computed anew.
        self.stale = False

    def push(self, job: Job, priority: int) -> None:
        """Put a job at the end of its client's line."""
        level = self.levels.get(priority)
        if level is None:
            level = self.levels[priority] = {}
            insort(self.order, priority)
        clients = level.setdefault(job.sharer, {})
        line = clients.get(job.client)
        if line is None:
            clients[job.client] = deque((job,))
        else:
            line.append(job)
        self.length += 1
        job.lane = self

    def pop(self) -> Job:
        """Remove and return the next job: best priority, the user and the client whose turn it is, its oldest job."""
        self.length -= 1
        if not self.order:
            job = self.late.popleft()
            job.lane = None
            return job
        level = self.levels[self.order[0]]
        user = next(iter(level))
        clients = level.pop(user)
        client = next(iter(clients))
        line = clients.pop(client)
        job = line.popleft()
        if line:
            clients[client] = line
        if clients:
            level[user] = clients
        elif not level:
            del self.levels[self.order.pop(0)]
        job.lane = None
        return job

    def set_late(self, job: Job) -> None:
        """Keep a job just popped, behind all others."""
        self.late.append(job)
        self.length += 1
        job.lane = self

    def remove(self, job: Job) -> None:
        """Take out a job that waits here."""
        self.length -= 1
        job.lane = None
        for priority, level in self.levels.items():
            clients = level.get(job.sharer, {})
            line = clients.get(job.client)
            if line is not None and job in line:
                line.remove(job)
                if not line:
                    del clients[job.client]
                if not clients:
                    del level[job.sharer]
                if not level:
                    del self.levels[priority]
                    self.order.remove(priority)
                return
        self.late.remove(job)

    def __iter__(self) -> Iterator[Job]:
        """All jobs, in any order."""
        for level in self.levels.values():
            for clients in level.values():
                for line in clients.values():
                    yield from line
        yield from self.late

    def pop_model(self, model: str) -> Job:
        """Remove and return the oldest job of one model, whatever its priority."""
        job = min((job for job in self if job.model == model), key=lambda job: job.enqueued)
        self.remove(job)
        return job
