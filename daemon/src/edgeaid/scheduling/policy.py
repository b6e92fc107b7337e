"""When to leave the group whose parameters are on the device for another one.

The rule, in order:

1. **starvation**: a model that would be served later than its bound after one more inference here goes first;
2. **drained**: nothing waits for the group on the device, so the best other lane is next (HailoRT's thresholds and
   timeouts may hold a lane back; its idle rule lets it pass when nothing else is ready);
3. **priority**: a lane with a better priority interrupts;
4. **burst**: after `burst` inferences any ready lane of equal or better priority takes over, in turn;
5. **deadline**: a lane whose deadlines cannot wait for one more inference here takes over, if that saves more
   requests than leaving loses;
6. otherwise **stay**.

FIFO, round robin and HailoRT's scheduler are settings of this rule, not other code.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from edgeaid.scheduling.costs import CostModel
from edgeaid.scheduling.lanes import Job, Lane

#: Default of `ModelPolicy.starvation`, seconds.
STARVATION_S: Final = 2.0

#: Level of requests that state none (Open Inference Protocol priority 0): room above and below.
DEFAULT_PRIORITY: Final = 10


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """Settings of one model; names and meaning of the first two as in HailoRT."""

    #: Waiting jobs that make a switch to this model worthwhile.
    threshold: int = 1
    #: Seconds since the model last ran (or began to wait) after which any waiting job does. With 0 a threshold has no
    #: effect, as in HailoRT.
    timeout: float = 0.0
    #: Longest time in seconds a waiting model goes without being served, provided that serving every waiting model
    #: once fits into it; `math.inf` = no bound.
    starvation: float = STARVATION_S


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings of one device's queue."""

    #: Level that priority 0 stands for.
    default_priority: int = DEFAULT_PRIORITY
    #: For models not named in `models`.
    default: ModelPolicy = ModelPolicy()
    models: Mapping[str, ModelPolicy] = field(default_factory=dict)
    #: False: one line for all groups, switches happen as they come.
    lanes: bool = True
    #: Inferences after which the device may be handed over although work waits; None = only when the rule demands it.
    burst: int | None = None
    #: Leave early for other lanes' deadlines.
    deadlines: bool = True
    #: A better priority interrupts a burst.
    preempt: bool = True
    #: An idle device ignores thresholds when nobody is ready.
    idle_rule: bool = True
    #: Requests that cannot be answered in time any more let all others pass.
    shed: bool = True

    def of(self, model: str) -> ModelPolicy:
        """Settings of one model."""
        return self.models.get(model, self.default)

    @classmethod
    def fifo(cls) -> Policy:
        """First come, first served: blind to switches."""
        return cls(lanes=False)

    @classmethod
    def round_robin(cls) -> Policy:
        """One inference per group in turn."""
        return cls(burst=1, default=ModelPolicy(starvation=inf), deadlines=False, shed=False)

    @classmethod
    def hailort(cls, *, threshold: int = 0, timeout: float = 0.0, burst: int = 1, idle_rule: bool = True) -> Policy:
        """HailoRT 4.23's scheduler: thresholds, timeouts and bursts decide; deadlines do not count.

        `burst` is its batch size (or in-flight limit); priorities run the other way round there (bigger first).
        """
        model = ModelPolicy(threshold=max(threshold, 1), timeout=timeout, starvation=inf)
        return cls(default=model, burst=burst, deadlines=False, preempt=False, idle_rule=idle_rule, shed=False)


@dataclass(slots=True)
class _Model:
    """What one model waits for."""

    group: Hashable
    #: Jobs waiting.
    count: int = 0
    #: Start of the wait: last served, or first queued after an idle time.
    since: float = 0.0
    #: When its last waiting job went without being served (expired, cancelled); None = it was served.
    left: float | None = None
    policy: ModelPolicy = ModelPolicy()


class Chooser:
    """Chooses lanes for one device and remembers what is on it."""

    def __init__(self, policy: Policy, costs: CostModel, lanes: dict[Hashable, Lane]) -> None:
        self.policy = policy
        self.costs = costs
        self._lanes = lanes
        #: Group whose parameters are on the device; None = none.
        self.group: Hashable | None = None
        #: Models of that group that are on the device already.
        self.resident: set[str] = set()
        self.switches = 0
        #: Seconds spent on switches, as measured.
        self.lost = 0.0
        #: Decisions by reason.
        self.reasons: dict[str, int] = {}
        #: (when, from, to, reason) of the last change of group.
        self.last: tuple[float, Hashable | None, Hashable, str] | None = None
        self._models: dict[str, _Model] = {}
        self._active: dict[Hashable, float] = {}
        self._served = 0

    # -- bookkeeping -------------------------------------------------------------------------------------------------

    def pushed(self, job: Job, lane: Lane, now: float) -> None:
        """A job was put into a lane."""
        model = self._models.get(job.model)
        if model is None:
            model = self._models[job.model] = _Model(job.group, policy=self.policy.of(job.model))
        if not model.count and (model.left is None or now - model.left > model.policy.starvation):
            # A model whose jobs only ever expire keeps its place: being starved is no reason to start over.
            model.since = now
        model.count += 1
        model.group = job.group
        if job.deadline is not None and not lane.stale:
            run = self.costs.run(job.model)
            latest = job.deadline - (lane.feasible + 1) * run
            if latest >= now:
                lane.feasible += 1
                lane.latest = min(lane.latest, latest)

    def removed(self, job: Job, lane: Lane, now: float | None) -> None:
        """A job left without being served."""
        model = self._models[job.model]
        model.count -= 1
        if not model.count:
            model.left = job.enqueued if now is None else now
        lane.stale = True

    def took(self, job: Job, lane: Lane, now: float, reason: str) -> None:
        """A job goes to the device: its group is there from now on, the way the caching rule says."""
        model = self._models[job.model]
        model.count -= 1
        model.since = now
        model.left = None
        lane.stale = True
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if job.group != self.group:
            self.last = (now, self.group, job.group, reason)
            self.group = job.group
            self.resident = set()
            self.switches += 1
            self._served = 0
        self._served += 1
        self._active[job.group] = now
        job.switches = job.model not in self.resident
        self.resident.add(job.model)

    def forget(self, model: str) -> None:
        """A model was unloaded."""
        entry = self._models.get(model)
        if entry is not None and not entry.count:
            del self._models[model]
            if not any(other.group == entry.group for other in self._models.values()):
                self._active.pop(entry.group, None)
        self.resident.discard(model)

    def reset(self) -> None:
        """The device was reset or opened again: nothing is on it."""
        self.group = None
        self.resident = set()
        self._served = 0

    # -- the decision ------------------------------------------------------------------------------------------------

    def choose(self, now: float) -> tuple[Lane, str | None, str] | None:
        """Lane, the model if only its oldest job will do, and the reason; None = nothing is ready."""
        lanes = self._lanes
        here = lanes.get(self.group)
        if len(lanes) == 1 and here is not None and len(self._models) == 1:
            return here, None, "stay"
        starving = self._starving(here, now)
        if starving is not None:
            return starving
        if here is None or not here.order:
            return self._next(here, now)
        if len(lanes) == 1:
            return here, None, "stay"
        return self._leave(here, now) or (here, None, "stay")

    def next_timeout(self, now: float) -> float:
        """When the next lane that is held back becomes ready; inf = none is."""
        return min(
            (m.since + m.policy.timeout for m in self._models.values() if m.count and not _ready_model(m, now)),
            default=inf,
        )

    def _starving(self, here: Lane | None, now: float) -> tuple[Lane, str | None, str] | None:
        """The model that must go now because after one more job here it would be served after its bound."""
        waiting: list[tuple[float, str, _Model]] = []
        soonest = inf
        total = 0.0
        run_here = 0.0
        costs = self.costs
        for name, model in self._models.items():
            if not model.count:
                continue
            limit = model.since + model.policy.starvation
            waiting.append((limit, name, model))
            soonest = min(soonest, limit)
            run = costs.run(name)
            total += costs.switch(name) + run
            if model.group == self.group:
                run_here = max(run_here, run)
        if soonest > now + run_here + total:
            return None
        waiting.sort(key=_limit)
        at = now + run_here
        for limit, name, model in waiting:
            at += 0.0 if model.group == self.group and name in self.resident else costs.switch(name)
            if at > limit:
                first = waiting[0]
                return self._lanes[first[2].group], first[1], "starvation"
            at += costs.run(name)
        return None

    def _next(self, here: Lane | None, now: float) -> tuple[Lane, str | None, str] | None:
        """The device has nothing to do for its group."""
        others = [lane for lane in self._lanes.values() if lane.order]
        if not others:
            # Only late jobs are left. They are tried all the same: an estimate that nothing tests never gets better.
            return (here or next(iter(self._lanes.values())), None, "late") if self._lanes else None
        ready = [lane for lane in others if self._ready(lane, now)]
        if not ready:
            if not self.policy.idle_rule:
                return None
            ready = others
        if len(ready) == 1:
            return ready[0], None, "drained"
        return min(ready, key=lambda lane: self._rank(lane, now)), None, "drained"

    def _leave(self, here: Lane, now: float) -> tuple[Lane, str | None, str] | None:
        """Reasons to go although work waits here."""
        policy = self.policy
        mine = here.order[0]
        spent = policy.burst is not None and self._served >= policy.burst
        if policy.preempt or spent:
            better = [
                lane
                for lane in self._lanes.values()
                if lane is not here and lane.order and lane.order[0] <= mine and (spent or lane.order[0] < mine)
            ]
            better = [lane for lane in better if self._ready(lane, now)]
            if better:
                lane = min(better, key=lambda lane: self._rank(lane, now))
                return lane, None, "priority" if lane.order[0] < mine else "burst"
        if policy.deadlines:
            return self._urgent(here, now)
        return None

    def _urgent(self, here: Lane, now: float) -> tuple[Lane, str | None, str] | None:
        """The lane whose deadlines cannot wait for one more job here, if going there is worth it."""
        run_here = max(self.costs.run(model) for model in self.resident) if self.resident else 0.0
        mine = here.order[0]
        pressing: list[tuple[float, float, Lane]] = []
        for lane in self._lanes.values():
            if lane is here or not lane.order or lane.order[0] > mine:
                continue
            switch, _ = self._cost(lane)
            if lane.stale or lane.latest < now + switch:
                self._refresh(lane, now + switch)
            if lane.latest < inf:
                pressing.append((lane.latest, switch, lane))
        if len(pressing) > 1:
            pressing.sort(key=_limit)
        at = now + run_here
        for latest, switch, _lane in pressing:
            at += switch
            if at > latest:
                target = pressing[0][2]
                return (target, None, "deadline") if self._worth(here, target, now) else None
            at += self._cost(_lane)[1]
        return None

    def _worth(self, here: Lane, lane: Lane, now: float) -> bool:
        """Whether going to `lane` saves more requests than it loses here."""
        switch, run = self._cost(lane)
        back, run_here = self._cost(here, everything=True)
        stay = now
        away = now + switch + lane.feasible * run + back
        lost = 0
        for deadline in _deadlines(here):
            if stay + run_here <= deadline:
                stay += run_here
                if away + run_here > deadline:
                    lost += 1
                else:
                    away += run_here
        return lane.feasible > lost

    def _refresh(self, lane: Lane, start: float) -> None:
        """Compute which deadlines can still be met when the first run begins at `start`."""
        _, run = self._cost(lane)
        lane.stale = False
        lane.latest = inf
        lane.feasible = 0
        for deadline in _deadlines(lane):
            if start + (lane.feasible + 1) * run <= deadline:
                lane.feasible += 1
                lane.latest = min(lane.latest, deadline - lane.feasible * run)

    def _cost(self, lane: Lane, *, everything: bool = False) -> tuple[float, float]:
        """Largest switch (of models not on the device, unless `everything`) and largest run that wait in a lane."""
        switch = run = 0.0
        at_home = lane.group == self.group and not everything
        for name, model in self._models.items():
            if model.count and model.group == lane.group:
                run = max(run, self.costs.run(name))
                if not (at_home and name in self.resident):
                    switch = max(switch, self.costs.switch(name))
        return switch, run

    def _ready(self, lane: Lane, now: float) -> bool:
        return any(
            model.count and model.group == lane.group and _ready_model(model, now) for model in self._models.values()
        )

    def _rank(self, lane: Lane, now: float) -> tuple[int, float, float]:
        """Best lane first: priority, then the most pressing deadlines, then the one served longest ago."""
        latest = inf
        if self.policy.deadlines:
            switch, _ = self._cost(lane)
            if lane.stale or lane.latest < now + switch:
                self._refresh(lane, now + switch)
            latest = lane.latest
        return lane.order[0], latest, self._active.get(lane.group, -inf)

    # -- explaining --------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """JSON values."""
        last = self.last
        return {
            "group": None if self.group is None else str(self.group),
            "resident": sorted(self.resident),
            "switches": self.switches,
            "switch_seconds": round(self.lost, 6),
            "decisions": dict(self.reasons),
            "last_switch": None
            if last is None
            else {"at": last[0], "from": None if last[1] is None else str(last[1]), "to": str(last[2]), "why": last[3]},
        }


def _ready_model(model: _Model, now: float) -> bool:
    return model.count >= model.policy.threshold or now - model.since >= model.policy.timeout


def _deadlines(lane: Lane) -> Iterable[float]:
    return sorted(job.deadline for job in lane if job.deadline is not None)


def _limit(entry: tuple[float, object, object]) -> float:
    return entry[0]
