"""When to leave the group whose parameters are on the device for another one.

The rule, in order:

1. **starvation**: a model that would be served later than its bound after one more inference here goes first;
2. **drained**: nothing waits for the group on the device, so the best other lane is next (HailoRT's thresholds and
   timeouts may hold a lane back; its idle rule lets it pass when nothing else is ready);
3. **priority**: a lane with a better priority interrupts;
4. **burst**: after `burst` inferences any ready lane of equal or better priority takes over, in turn;
5. **deadline**: a lane whose deadlines cannot wait for one more inference here takes over, if that saves more
   requests than the extra round of switches loses (under overload it never does: splitting batches only costs);
6. otherwise **stay**.

FIFO, round robin and HailoRT's scheduler are settings of this rule (policy.py), not other code.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from .costs import CostModel
from .lanes import Job, Lane
from .policy import ModelPolicy, Policy

#: Share of a new arrival in the running mean of a model's arrival rate.
RATE_WEIGHT: Final = 1 / 16

#: Sums of seconds are compared with this much tolerance: waking a rounding error too early must not mean waking again.
EPSILON_S: Final = 1e-6


@dataclass(slots=True)
class _Model:
    """What one model waits for."""

    group: Hashable
    policy: ModelPolicy
    #: Jobs waiting.
    count: int = 0
    #: Start of the wait: last served, or first queued after an idle time.
    since: float = 0.0
    #: When its last waiting job went without being served (expired, cancelled); None = it was served.
    left: float | None = None
    #: Last arrival, mean time between arrivals, share of arrivals that have a deadline.
    seen: float = -inf
    gap: float = inf
    timed: float = 0.0

    def rate(self, now: float) -> float:
        """Arrivals per second, of late."""
        return 1.0 / max(self.gap, now - self.seen, 1e-6)


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
            model = self._models[job.model] = _Model(job.group, self.policy.of(job.model))
        if not model.count and (model.left is None or now - model.left > model.policy.starvation):
            # A model whose jobs only ever expire keeps its place: having been starved does not reset its place.
            model.since = now
        model.count += 1
        model.group = job.group
        gap = now - model.seen
        model.gap = gap if model.gap == inf else model.gap + (gap - model.gap) * RATE_WEIGHT
        model.seen = now
        model.timed += ((job.deadline is not None) - model.timed) * RATE_WEIGHT
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
        choice: tuple[Lane, str | None, str] | None
        if len(lanes) == 1 and here is not None:
            choice = here, None, "stay"
            if len(self._models) == 1:
                return choice
        elif here is None or not here.order:
            choice = self._next(now, here)
        else:
            choice = self._leave(here, now) or (here, None, "stay")
        return self._starving(choice[0] if choice else None, now) or choice

    def next_timeout(self, now: float) -> float:
        """When the next lane that is held back becomes ready or must be served; inf = none is."""
        waiting = [(name, model) for name, model in self._models.items() if model.count]
        once = sum(self.costs.switch(name) + self.costs.run(name) for name, _ in waiting)
        return min(
            (
                model.since + min(model.policy.timeout, model.policy.starvation - once)
                for _, model in waiting
                if not _ready_model(model, now)
            ),
            default=inf,
        )

    def _starving(self, favourite: Lane | None, now: float) -> tuple[Lane, str | None, str] | None:
        """The model that must go now: after one more job of the favourite lane it would be served after its bound."""
        waiting: list[tuple[float, str, _Model]] = []
        soonest = inf
        total = 0.0
        costs = self.costs
        for name, model in self._models.items():
            if model.count:
                limit = model.since + model.policy.starvation
                waiting.append((limit, name, model))
                soonest = min(soonest, limit)
                total += costs.switch(name) + costs.run(name)
        at = now + (sum(self._cost(favourite)) if favourite is not None else 0.0)
        if soonest > at + total + EPSILON_S:
            return None
        waiting.sort(key=_limit)
        _, name, first = waiting[0]
        must = self._lanes[first.group], name, "starvation"
        if favourite is None:
            return must
        home: Hashable | None = self.group if favourite.group == self.group else None
        for limit, name, model in waiting:
            if model.group != home:
                home = None
            at += 0.0 if home is not None and name in self.resident else costs.switch(name)
            if at > limit - EPSILON_S:
                return must
            at += costs.run(name)
        return None

    def _next(self, now: float, here: Lane | None) -> tuple[Lane, str | None, str] | None:
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
        """Whether going to `lane` at once saves more requests than going when the work here is done.

        Saved: its requests whose deadlines pass while this lane is drained. Lost: requests here whose deadlines pass
        meanwhile, and those that arrive, with deadlines, in the time of the extra round of switches.
        """
        switch, run = self._cost(lane)
        back, run_here = self._cost(here, everything=True)
        load = rate = timed = 0.0
        for name, model in self._models.items():
            arriving = model.rate(now)
            rate += arriving * model.timed
            if model.group == here.group:
                load += arriving * self.costs.run(name)
                timed = max(timed, model.timed)
        drained = now + here.length * run_here / max(1.0 - load, 0.05)
        saved = lane.feasible - _met(_deadlines(lane), drained + switch, run)[0]
        away = now + switch + lane.feasible * run + back
        lost = 0
        stay = now
        for deadline in _deadlines(here):
            if stay + run_here <= deadline:
                stay += run_here
                if away + run_here > deadline:
                    lost += 1
                else:
                    away += run_here
        return saved > lost + (switch + back) * rate * timed

    def _refresh(self, lane: Lane, start: float) -> None:
        """Compute which deadlines can still be met when the first run begins at `start`."""
        _, run = self._cost(lane)
        lane.stale = False
        lane.feasible, lane.latest = _met(_deadlines(lane), start, run)

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
    return model.count >= model.policy.threshold or now - model.since >= model.policy.timeout - EPSILON_S


def _met(deadlines: Iterable[float], start: float, run: float) -> tuple[int, float]:
    """How many can be met when the first run begins at `start`, and the latest start that meets as many."""
    count = 0
    latest = inf
    for deadline in deadlines:
        if start + (count + 1) * run <= deadline:
            count += 1
            latest = min(latest, deadline - count * run)
    return count, latest


def _deadlines(lane: Lane) -> Iterable[float]:
    return sorted(job.deadline for job in lane if job.deadline is not None)


def _limit(entry: tuple[float, object, object]) -> float:
    return entry[0]
