"""The best that anyone could do who knows all arrivals beforehand: exact, for two models with equal deadlines.

Within one model all requests cost the same and have the same time to live, so serving them in order of arrival and
dropping those that can no longer be met is optimal (exchange argument). What remains to be chosen is only which model
is served next; serving a request that has not come yet means idling until it does. A state is (next request of A, next
of B, model on the device); per state the undominated pairs (time, requests met) are kept. No request need be dropped
before it is lost: dropping it early never lets another one finish sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .simulate import Arrival, Result, Truth


@dataclass(frozen=True, slots=True)
class _Label:
    time: float
    met: int
    parent: _Label | None
    #: model served to get here, its arrival
    served: tuple[int, float] | None


def oracle(arrivals: Sequence[Arrival], truth: Truth) -> Result:
    """The schedule with the most requests met; among those the one that ends first."""
    models = sorted({arrival.model for arrival in arrivals})
    lines = [[a for a in arrivals if a.model == model] for model in models]
    if len(lines) != 2 or any(a.deadline is None for a in arrivals):
        raise ValueError("the oracle knows two models, all requests with deadlines")
    run = [truth.run[model] for model in models]
    switch = [truth.switch[model] for model in models]
    starts = [[a.at for a in line] for line in lines]
    ends = [[a.deadline or 0.0 for a in line] for line in lines]
    counts = [len(line) for line in lines]

    def settle(index: int, line: int, time: float) -> int:
        while index < counts[line] and ends[line][index] < time + run[line]:
            index += 1
        return index

    best: _Label = _Label(0.0, 0, None, None)
    # Layers by the number of requests disposed of; every step disposes of at least one.
    layers: dict[int, dict[tuple[int, int, int], list[_Label]]] = {0: {(0, 0, -1): [best]}}
    layer = 0
    while layers:
        states = layers.pop(layer, None)
        layer += 1
        if states is None:
            continue
        for (a, b, here), labels in states.items():
            for label in labels:
                heads = (settle(a, 0, label.time), settle(b, 1, label.time))
                final = True
                for line in (0, 1):
                    head = heads[line]
                    if head >= counts[line]:
                        continue
                    final = False
                    cost = run[line] + (0.0 if here == line else switch[line])
                    # The parameters can travel only with a request, so an idle device cannot switch ahead of time.
                    end = max(label.time, starts[line][head]) + cost
                    met = end <= ends[line][head]
                    following = (heads[0] + (line == 0), heads[1] + (line == 1))
                    step = _Label(
                        end if met else label.time,
                        label.met + met,
                        label if met else label.parent,
                        (line, starts[line][head]) if met else label.served,
                    )
                    key = (*following, line if met else here)
                    front = layers.setdefault(sum(following), {}).setdefault(key, [])
                    _add(front, step)
                if final and (label.met, -label.time) > (best.met, -best.time):
                    best = label
    return _result(best, len(arrivals), arrivals[-1].at, run, switch)


def _add(front: list[_Label], new: _Label) -> None:
    """Keep a label unless another is as early and has met as many."""
    for old in front:
        if old.time <= new.time and old.met >= new.met:
            return
    front[:] = [old for old in front if not (new.time <= old.time and new.met >= old.met)]
    front.append(new)


def _result(label: _Label, offered: int, seconds: float, run: list[float], switch: list[float]) -> Result:
    steps = []
    step: _Label | None = label
    while step is not None and step.served is not None:
        steps.append((step.served, step.time))
        step = step.parent
    result = Result(offered, seconds)
    here = -1
    for (line, arrived), end in reversed(steps):
        if line != here:
            result.switches += 1
            result.switch_s += switch[line]
            here = line
        result.latencies.append(end - arrived)
        result.in_time += 1
    result.expired = offered - result.in_time
    return result
