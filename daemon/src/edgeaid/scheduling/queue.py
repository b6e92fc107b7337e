"""The queue in front of one device: bounded, fair, aware of deadlines and of what switching models costs.

Pure: no clock, no I/O, no threads. Every call gets `now`, seconds of the caller's monotonic clock, which never goes
back. Without a `CostModel` all jobs share one lane and the queue costs a few microseconds per job; with one, each group
has a lane and `chooser.Chooser` decides between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from math import inf
from typing import Any, Final

from ..errors import QueueFull
from .chooser import Chooser
from .costs import CostModel
from .lanes import Job, Lane
from .policy import Policy

__all__ = ["DeviceQueue", "Job", "Policy"]

DEFAULT_POLICY: Final = Policy()
#: One part in so many of a limit is what privileged jobs may use on top of it.
RESERVE: Final = 8


class DeviceQueue:
    """Jobs waiting for one device."""

    def __init__(
        self,
        *,
        capacity: int = 64,
        per_client: int | None = None,
        costs: CostModel | None = None,
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        """`capacity` and `per_client` are numbers of waiting jobs; `costs` = None says that switching is free.

        `per_client` is the share of a user, or of a client whose job names no user; privileged jobs have no share, and
        an eighth of the capacity on top of it.
        """
        self.capacity = capacity
        self.per_client = per_client
        self.policy = policy
        #: Learned costs; also kept when switching is free, because placement compares run costs.
        self.costs = CostModel() if costs is None else costs
        self._lanes: dict[Hashable, Lane] = {}
        self._only = None if costs is not None and policy.lanes else Lane(None)
        self._chooser = Chooser(policy, self.costs, self._lanes) if costs is not None else None
        self._length = 0
        self._clients: dict[Hashable, int] = {}
        #: No waiting job's deadline is before this. Not always exact: jobs that were served leave theirs behind.
        self._soonest = inf
        #: Found to be past their deadline by `take`; the next `expire` hands them out.
        self._dead: list[Job] = []
        self._refused = 0
        self._expired = 0

    def __len__(self) -> int:
        """Number of waiting jobs."""
        return self._length

    @property
    def is_open(self) -> bool:
        """True when nothing waits and switching is free: a job pushed now would be the next one taken."""
        return self._chooser is None and not self._length

    def push(self, job: Job, now: float) -> None:
        """Add a job. Raises `QueueFull`, with a `retry_after` from learned costs, when there is no room for it."""
        if self._length >= self.capacity + (self.capacity // RESERVE if job.privileged else 0):
            raise self._full(job, f"all {self.capacity} places are taken")
        sharer = job.sharer
        held = self._clients.get(sharer, 0)
        if self.per_client is not None and held >= self.per_client and not job.privileged:
            raise self._full(job, f"this user has {held} requests waiting, its share")
        self._clients[sharer] = held + 1
        lane = self._only
        if lane is None:
            lane = self._lanes.get(job.group)
            if lane is None:
                lane = self._lanes[job.group] = Lane(job.group)
        lane.push(job, job.priority or self.policy.default_priority)
        self._length += 1
        if job.deadline is not None and job.deadline < self._soonest:
            self._soonest = job.deadline
        if self._chooser is not None:
            self._chooser.pushed(job, lane, now)

    def take(self, now: float) -> Job | None:
        """Remove and return the job to run next; None when nothing waits or nothing is ready.

        Never returns a job past its deadline. `job.switches` says whether it is expected to pay for a switch.
        """
        chooser = self._chooser
        while self._length:
            model: str | None = None
            reason = "order"
            lane = self._only
            if lane is None:
                assert chooser is not None  # noqa: S101 - lanes exist only with a chooser
                choice = chooser.choose(now)
                if choice is None:
                    return None
                lane, model, reason = choice
            late = not lane.order
            job = lane.pop() if model is None else lane.pop_model(model)
            deadline = job.deadline
            if deadline is not None:
                if deadline <= now:
                    self._drop(job, lane, now)
                    self._dead.append(job)
                    continue
                if chooser is not None and self.policy.shed and model is None and not late:
                    cost = self.costs.run(job.model)
                    if job.model not in chooser.resident or job.group != chooser.group:
                        cost += self.costs.switch(job.model)
                    if now + cost > deadline and self._length > 1:
                        lane.set_late(job)
                        continue
            self._length -= 1
            if not self._length:
                self._soonest = inf
            self._release(job.sharer)
            if chooser is not None:
                chooser.took(job, lane, now, reason)
                if not lane.length and lane is not self._only:
                    del self._lanes[lane.group]
            return job
        return None

    def expire(self, now: float) -> list[Job]:
        """Remove and return the jobs whose deadline has passed."""
        expired: list[Job] = []
        if self._dead:
            expired, self._dead = self._dead, expired
        if now < self._soonest:
            return expired
        dead = []
        soonest = inf
        for waiting in self._all():
            for job in waiting:
                if job.deadline is None:
                    continue
                if job.deadline <= now:
                    dead.append(job)
                elif job.deadline < soonest:
                    soonest = job.deadline
        self._soonest = soonest
        for job in dead:
            if job.lane is not None:
                lane = job.lane
                lane.remove(job)
                self._drop(job, lane, now)
        return expired + dead

    def drain(self, now: float) -> list[Job]:
        """Remove and return everything that waits, for instance because the device is gone for good."""
        jobs, self._dead = self._dead, []
        for lane in self._all():
            for job in list(lane):
                lane.remove(job)
                self._drop(job, lane, now)
                self._expired -= 1
                jobs.append(job)
        return jobs

    def cancel(self, job: Job) -> bool:
        """Remove a job whose client went away; False when it does not wait here any more."""
        lane = job.lane
        if lane is None:
            if job in self._dead:
                self._dead.remove(job)
                return True
            return False
        lane.remove(job)
        self._drop(job, lane, None)
        self._expired -= 1
        return True

    def finished(
        self, job: Job, now: float, run_s: float, switched: bool | None = None, switch_s: float | None = None
    ) -> None:
        """Learn from a job that ran without error.

        `run_s` is its time on the device. Where the device tells the switch apart, `switch_s` is its part and not in
        `run_s`; otherwise leave it None. `switched` None = as `take` expected it.
        """
        if switched is None:
            switched = job.switches
        elif switched and self._chooser is not None and not job.switches:
            self._chooser.switches += 1
        if self._chooser is None:
            switched = False
            run_s += switch_s or 0.0
        lost = self.costs.learn(job.model, run_s, switched=switched, switch_s=switch_s)
        if self._chooser is not None:
            self._chooser.lost += lost

    def reset(self) -> None:
        """The device was reset or opened again: nothing is cached on it any more. Waiting jobs stay."""
        if self._chooser is not None:
            self._chooser.reset()

    def forget(self, model: str) -> None:
        """A model was unloaded or replaced: drop what was learned. Cancel its jobs first."""
        self.costs.forget(model)
        if self._chooser is not None:
            self._chooser.forget(model)

    def next_event(self, now: float) -> float | None:
        """When to call `expire` and `take` again if nothing else happens; may be early, never late. None = never."""
        if self._dead:
            return now
        at = self._soonest
        if self._chooser is not None and self._length and not self.policy.idle_rule:
            at = min(at, self._chooser.next_timeout(now))
        return None if at == inf else at

    def wait_s(self, model: str | None = None) -> float:
        """Seconds until a job pushed now would start, from learned costs; an estimate for placement and Retry-After."""
        depth = self._depth()
        wait = sum(count * self.costs.run(name) for name, count in depth.items())
        chooser = self._chooser
        if chooser is not None:
            wait += sum(self.costs.switch(name) for name in depth if name not in chooser.resident)
            if model is not None and model not in depth and model not in chooser.resident:
                wait += self.costs.switch(model)
        return wait

    def snapshot(self) -> dict[str, Any]:
        """What is going on, as JSON values: the group on the device, switches, time lost to them, depths and costs."""
        depth = self._depth()
        costs = self.costs.snapshot()
        models: dict[str, dict[str, Any]] = {}
        for model in sorted({*depth, *costs}):
            models[model] = {"waiting": depth.get(model, 0), **costs.get(model, {})}
        result: dict[str, Any] = {
            "length": self._length,
            "capacity": self.capacity,
            "refused": self._refused,
            "expired": self._expired,
            "models": models,
        }
        if self._chooser is not None:
            result.update(self._chooser.snapshot())
        else:
            result.update(group=None, resident=[], switches=0, switch_seconds=0.0, decisions={}, last_switch=None)
        return result

    def _all(self) -> list[Lane]:
        return [self._only] if self._only is not None else list(self._lanes.values())

    def _depth(self) -> Counter[str]:
        return Counter(job.model for lane in self._all() for job in lane)

    def _drop(self, job: Job, lane: Lane, now: float | None) -> None:
        """Bring the counts up to date after a job left its lane unserved."""
        self._length -= 1
        self._expired += 1
        if not self._length:
            self._soonest = inf
        self._release(job.sharer)
        if self._chooser is not None:
            self._chooser.removed(job, lane, now)
            if not lane.length and lane is not self._only:
                del self._lanes[lane.group]

    def _release(self, sharer: Hashable) -> None:
        held = self._clients[sharer] - 1
        if held:
            self._clients[sharer] = held
        else:
            del self._clients[sharer]

    def _full(self, job: Job, why: str) -> QueueFull:
        self._refused += 1
        error = QueueFull(f"no room for another request for model {job.model!r}: {why}; ask again later")
        error.retry_after = round(max(self.wait_s(), 0.05), 3)
        return error
