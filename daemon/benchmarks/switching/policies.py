"""Other schedulers as settings of ours, to compare with."""

from __future__ import annotations

from math import inf

from edgeaid.scheduling.policy import ModelPolicy, Policy


def fifo() -> Policy:
    """First come, first served: blind to switches."""
    return Policy(lanes=False)


def round_robin() -> Policy:
    """One inference per group in turn."""
    return Policy(burst=1, default=ModelPolicy(starvation=inf), deadlines=False, shed=False)


def hailort(*, threshold: int = 0, timeout: float = 0.0, burst: int = 1, idle_rule: bool = True) -> Policy:
    """HailoRT 4.23's scheduler: thresholds, timeouts and bursts decide; deadlines do not count.

    `burst` is its batch size (or in-flight limit); priorities run the other way round there (bigger first).
    """
    model = ModelPolicy(threshold=max(threshold, 1), timeout=timeout, starvation=inf)
    return Policy(default=model, burst=burst, deadlines=False, preempt=False, idle_rule=idle_rule, shed=False)
