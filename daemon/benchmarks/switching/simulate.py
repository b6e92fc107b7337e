"""A simulated device in virtual time: real queue, real policy, published costs, the real cache rule."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeaid.scheduling.costs import USB2_MIB_S, CostModel
from edgeaid.scheduling.policy import Policy
from edgeaid.scheduling.queue import DeviceQueue, Job


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come."""

    at: float
    model: str
    #: Absolute; None = waits for ever.
    deadline: float | None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Truth:
    """What the device really needs, in seconds; the queue has to learn it."""

    run: Mapping[str, float]
    switch: Mapping[str, float]
    cached_bytes: Mapping[str, int]
    #: model -> caching token; models that share one do not evict each other.
    group: Mapping[str, str]


@dataclass(slots=True)
class Result:
    """What came out."""

    offered: int
    seconds: float
    #: Latency of each completed request, seconds, in order of completion, and whether it met its deadline.
    latencies: list[float] = field(default_factory=list)
    in_time: int = 0
    late: int = 0
    expired: int = 0
    switches: int = 0
    switch_s: float = 0.0
    #: Longest time each model went waiting without being served.
    longest_wait: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests per second completed within their deadline."""
        return self.in_time / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in seconds that `share` of the completed requests do not exceed."""
        if not self.latencies:
            return float("nan")
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def poisson(rates: Mapping[str, float], *, seconds: float, deadline_s: float | None, seed: int) -> list[Arrival]:
    """Independent Poisson streams, `rates` in requests per second, merged in time order."""
    dice = random.Random(seed)
    arrivals = []
    for model, rate in rates.items():
        at = dice.expovariate(rate)
        while at < seconds:
            arrivals.append(Arrival(at, model, None if deadline_s is None else at + deadline_s))
            at += dice.expovariate(rate)
    return sorted(arrivals, key=lambda arrival: arrival.at)


def simulate(
    arrivals: Sequence[Arrival], truth: Truth, policy: Policy, *, capacity: int = 64, known: bool = False
) -> Result:
    """Serve the arrivals, then drain. Requests refused by a full queue count as expired.

    The queue is told the bytes of each model and learns its costs; `known` tells it the run times beforehand too.
    """
    costs = CostModel(link_mib_s=USB2_MIB_S)
    for model, size in truth.cached_bytes.items():
        costs.seed(model, compute_s=truth.run[model] if known else None, cached_bytes=size)
    queue = DeviceQueue(capacity=capacity, costs=costs, policy=policy)
    result = Result(len(arrivals), arrivals[-1].at if arrivals else 0.0)
    since: dict[str, float] = {}
    waiting: dict[str, int] = {}
    token: str | None = None
    resident: set[str] = set()
    now = 0.0
    index = 0

    def gone(jobs: list[Job]) -> None:
        result.expired += len(jobs)
        for job in jobs:
            waiting[job.model] -= 1

    def admit(until: float) -> None:
        nonlocal index
        while index < len(arrivals) and arrivals[index].at <= until:
            arrival = arrivals[index]
            index += 1
            gone(queue.expire(arrival.at))
            if len(queue) >= capacity:
                result.expired += 1
                continue
            group = truth.group[arrival.model]
            job = Job(arrival.model, group, arrival.model, arrival.priority, arrival.deadline, arrival.at)
            queue.push(job, arrival.at)
            if not waiting.get(arrival.model):
                since[arrival.model] = arrival.at
            waiting[arrival.model] = waiting.get(arrival.model, 0) + 1

    while True:
        admit(now)
        gone(queue.expire(now))
        job = queue.take(now)
        if job is None:
            event = queue.next_event(now)
            upcoming = [arrivals[index].at] if index < len(arrivals) else []
            if event is not None:
                upcoming.append(max(event, now))
            if not upcoming:
                break
            now = min(upcoming)
            continue
        waited = now - since[job.model]
        result.longest_wait[job.model] = max(result.longest_wait.get(job.model, 0.0), waited)
        since[job.model] = now
        waiting[job.model] -= 1
        if truth.group[job.model] != token:
            token = truth.group[job.model]
            resident = set()
            result.switches += 1
        run = truth.run[job.model]
        switch = 0.0 if job.model in resident else truth.switch[job.model]
        resident.add(job.model)
        result.switch_s += switch
        end = now + run + switch
        admit(end)
        now = end
        queue.finished(job, now, run + switch)
        result.latencies.append(now - job.enqueued)
        if job.deadline is None or now <= job.deadline:
            result.in_time += 1
        else:
            result.late += 1
    return result
