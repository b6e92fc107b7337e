"""Which Edge TPU models to compile together, in which order, on how many accelerators. Pure.

Every placement of the models on sticks, every grouping on a stick (one group = one `edgetpu_compiler` command = one
token) and every order within a group is costed with the rule of `cost.py`; the cheapest that holds the rates wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from ...errors import InvalidRequest
from .cost import (
    MIB,
    ON_CHIP_MIB,
    STREAM_OVERHEAD,
    USB2_BANDWIDTH,
    Built,
    latency_ms,
    share_memory,
)

#: Above this many models the number of plans explodes (8 models: some ten thousand with orders by rate only).
MAX_MODELS: Final = 8
#: Up to this many models every order is tried; above, only the order of falling rate.
MAX_PERMUTED: Final = 5
#: Compiling again has to bring more than a prediction can be off: files as they are count as this much less busy.
KEEP: Final = 0.95
#: A stick busier than this part of the time is counted as unable to hold its rates: queues grow without bound near 1.
MAX_LOAD: Final = 0.9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to place."""

    name: str
    #: File to name in the compiler command.
    path: str
    #: Parameter bytes as the compiler lays them out (C + S of a compiled file, or a prediction).
    parameters: int
    #: Wanted inferences per second.
    rate: float = 1.0
    #: Computing, without transfers.
    compute_ms: float = 10.33
    #: Bytes of inputs, outputs and instructions, which travel with every inference.
    transfer: int = 0
    #: C, S and token of the file as it is now, if it is a compiled one.
    built: Built | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A model in a plan. Times in milliseconds."""

    name: str
    path: str
    rate: float
    cached: int
    streamed: int
    #: Its cached part is on the chip.
    warm_ms: float
    #: Its cached part has to be sent first: first inference, or after a model of another group ran.
    cold_ms: float
    #: Expected value when requests of all models arrive at random at their rates.
    mean_ms: float
    #: What strict turns with the other models of the stick cost.
    alternating_ms: float


@dataclass(frozen=True, slots=True)
class Stick:
    """One accelerator: groups of models, each group compiled by one command, in the order given."""

    groups: tuple[tuple[Placed, ...], ...]
    #: Part of the time it is busy at the wanted rates; above 1 the rates cannot be held.
    load: float

    @property
    def models(self) -> tuple[Placed, ...]:
        return tuple(model for group in self.groups for model in group)


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to do it."""

    sticks: tuple[Stick, ...]
    #: True if cached and streamed bytes were read from the given files, False if predicted.
    as_built: bool = False

    @property
    def load(self) -> float:
        """Load of the busiest stick."""
        return max(stick.load for stick in self.sticks)

    @property
    def holds(self) -> bool:
        return self.load <= MAX_LOAD

    @property
    def mean_ms(self) -> float:
        """Mean latency over all requests."""
        models = [model for stick in self.sticks for model in stick.models]
        return sum(m.mean_ms * m.rate for m in models) / sum(m.rate for m in models)

    @property
    def title(self) -> str:
        """For example "[bird + plant] | [inception], [face]": + co-compiled, comma separately, bar another stick."""
        return " | ".join(
            ", ".join("[" + " + ".join(m.name for m in group) + "]" for group in stick.groups) for stick in self.sticks
        )

    def commands(self) -> list[str]:
        """The compiler commands of this plan, one per group."""
        from shlex import quote

        if self.as_built:
            return []
        return [
            "edgetpu_compiler -s " + " ".join(quote(m.path) for m in group)
            for stick in self.sticks
            for group in stick.groups
        ]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for all plans of one comparison."""

    #: MiB/s between host and accelerator.
    bandwidth: float = USB2_BANDWIDTH
    #: On-chip parameter memory per group, bytes.
    budget: float = ON_CHIP_MIB * MIB
    stream_overhead: float = STREAM_OVERHEAD
    #: Up to how many accelerators.
    sticks: int = 1


def resend_probability(rate: float, other_groups: float) -> float:
    """Chance that a model's cached part must be sent again, for requests at random (Poisson) at the given rates.

    Looking back from a request of the model, the part is still there if the model itself ran more recently than any
    model of another group.
    """
    return other_groups / (rate + other_groups) if other_groups else 0.0


def _stick(groups: Sequence[Sequence[tuple[Candidate, int, int]]], conditions: Conditions) -> Stick:
    rates = [sum(model.rate for model, _, _ in group) for group in groups]
    total = sum(rates)
    placed = []
    load = 0.0
    for group, rate in zip(groups, rates, strict=True):
        members = []
        for model, cached, streamed in group:
            warm = latency_ms(model.compute_ms, model.transfer + streamed, conditions.bandwidth)
            cold = latency_ms(model.compute_ms, model.transfer + streamed + cached, conditions.bandwidth)
            again = resend_probability(model.rate, total - rate if len(groups) > 1 else 0.0)
            mean = warm + (cold - warm) * again
            load += model.rate * mean / 1000
            members.append(
                Placed(
                    model.name, model.path, model.rate, cached, streamed, warm, cold, mean,
                    cold if len(groups) > 1 else warm,
                )
            )  # fmt: skip
        placed.append(tuple(members))
    return Stick(tuple(placed), load)


def _partitions(items: Sequence[Candidate], most: int) -> Iterator[list[list[Candidate]]]:
    """Ways to split `items` into at most `most` non-empty groups; groups and members keep the order of `items`."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for split in _partitions(rest, most):
        for i in range(len(split)):
            yield [*split[:i], [first, *split[i]], *split[i + 1 :]]
        if len(split) < most:
            yield [[first], *split]


def _orders(group: Sequence[Candidate], every: bool) -> Iterator[tuple[Candidate, ...]]:
    if every:
        yield from permutations(group)
    else:
        yield tuple(sorted(group, key=lambda m: (-m.rate, m.parameters)))


def _stick_choices(models: Sequence[Candidate], conditions: Conditions, every: bool) -> Iterator[Stick]:
    """All groupings and orders of these models on one stick."""

    def grow(split: list[list[Candidate]]) -> Iterator[list[list[tuple[Candidate, int, int]]]]:
        if not split:
            yield []
            return
        for order in _orders(split[0], every):
            shares = share_memory([m.parameters for m in order], conditions.budget, conditions.stream_overhead)
            head = [(m, c, s) for m, (c, s) in zip(order, shares, strict=True)]
            for tail in grow(split[1:]):
                yield [head, *tail]

    for split in _partitions(models, len(models)):
        for groups in grow(split):
            yield _stick(groups, conditions)


def plans(models: Sequence[Candidate], conditions: Conditions | None = None) -> list[Plan]:
    """Every plan, best first. Raises InvalidRequest for impossible questions.

    Best: holds the rates; then fewest sticks; then least load; then least mean latency; then the order given.
    """
    conditions = conditions or Conditions()
    if not models:
        raise InvalidRequest("no model to plan for; name at least one")
    if len(models) > MAX_MODELS:
        raise InvalidRequest(f"{len(models)} models have too many plans; plan for at most {MAX_MODELS} at once")
    if len({m.name for m in models}) != len(models):
        raise InvalidRequest("two models have the same name; rename one of the files")
    if not conditions.bandwidth > 0 or conditions.budget < 0 or conditions.sticks < 1:
        raise InvalidRequest("bandwidth must be above 0, the budget not negative, and there must be one stick or more")
    if any(not m.rate > 0 for m in models):
        raise InvalidRequest("rates must be above 0; leave a model out if it never runs")
    every = len(models) <= MAX_PERMUTED
    feasible: list[Plan] = []
    for split in _partitions(models, conditions.sticks):
        if len(split) == 1:
            # Shown in full: this is the comparison that people look for.
            feasible.extend(Plan((stick,)) for stick in _stick_choices(split[0], conditions, every))
        else:
            # With several sticks only the best arrangement of each stick can be part of the best plan.
            feasible.append(Plan(tuple(min(_stick_choices(part, conditions, every), key=_cost) for part in split)))
    built = as_built(models, conditions)
    # What the files are now is known; a prediction of the same command would only compete with it.
    known = {_commands_of(plan) for plan in built}
    feasible = [plan for plan in feasible if _commands_of(plan) not in known]
    feasible.extend(built)

    def order(plan: Plan) -> tuple[bool, int, float, float]:
        load = plan.load * (KEEP if plan.as_built else 1.0)
        return (not plan.holds, len(plan.sticks) if plan.holds else 0, *_rank(load, plan.mean_ms))

    return sorted(feasible, key=order)


def _commands_of(plan: Plan) -> frozenset[tuple[str, ...]]:
    """What is compiled together, in which order."""
    return frozenset(tuple(m.name for m in group) for stick in plan.sticks for group in stick.groups)


def _cost(stick: Stick) -> tuple[float, float, float]:
    return (*_rank(stick.load, sum(m.mean_ms for m in stick.models)), len(stick.groups))


def _rank(load: float, mean_ms: float) -> tuple[float, float]:
    # Rounded, so that equal plans stay in the order given instead of being sorted by the last bit.
    return round(load, 9), round(mean_ms, 6)


def as_built(models: Sequence[Candidate], conditions: Conditions) -> list[Plan]:
    """The plan that needs no compiling, if all models are compiled files: groups are those that share a token."""
    groups: dict[tuple[int, str], list[tuple[Candidate, int, int]]] = {}
    for model in models:
        if model.built is None:
            return []
        built = model.built
        # Token 0 never shares the memory, so each such model is a group of its own.
        key = (built.token, "" if built.token else model.name)
        groups.setdefault(key, []).append((model, built.cached, built.streamed))
    # The compiler gives memory in the order of its command line: what has all its parameters there came first.
    ordered = [sorted(g, key=lambda m: m[2] / max(1, m[1] + m[2])) for g in groups.values()]
    return [Plan((_stick(ordered, conditions),), as_built=True)]
