"""Counters and histograms: what was measured, never an average that hides a hang."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

#: Upper bounds of latency buckets in nanoseconds: 50 us to 10 s.
BUCKETS_NS: Final[tuple[int, ...]] = tuple(
    int(s * 1e9)
    for s in (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
)
PHASES: Final = ("queue", "input", "compute", "output", "total")


class Histogram:
    """Counts per bucket, their sum and number."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_NS) + 1)
        self.total_ns = 0

    def add(self, ns: int) -> None:
        """Count one duration in nanoseconds."""
        self.counts[bisect_left(BUCKETS_NS, ns)] += 1
        self.total_ns += ns

    @property
    def count(self) -> int:
        """Durations counted."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Upper bound in seconds of the bucket that holds the q-quantile; 0 when nothing was counted."""
        wanted, seen = q * self.count, 0
        for bound, count in zip((*BUCKETS_NS, BUCKETS_NS[-1]), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound / 1e9
        return 0.0


@dataclass(slots=True)
class ModelStats:
    """Statistics of one model version; the fields are those of the protocol's statistics extension."""

    inferences: int = 0
    executions: int = 0
    last_ms: int = 0
    success: int = 0
    success_ns: int = 0
    fail: int = 0
    fail_ns: int = 0
    cancelled: int = 0
    rejected: int = 0
    expired: int = 0
    #: One histogram per phase, per device id.
    phases: dict[str, dict[str, Histogram]] = field(default_factory=dict)

    def of(self, device: str) -> dict[str, Histogram]:
        """Histograms of one device, made at first use."""
        histograms = self.phases.get(device)
        if histograms is None:
            histograms = self.phases[device] = {p: Histogram() for p in PHASES}
        return histograms

    def succeeded(self, device: str, queue_ns: int, phases: tuple[int, int, int], total_ns: int) -> None:
        """Count one answered request."""
        self.inferences += 1
        self.executions += 1
        self.success += 1
        self.success_ns += total_ns
        self.last_ms = time.time_ns() // 1_000_000
        histograms = self.phases.get(device) or self.of(device)
        for histogram, ns in zip(histograms.values(), (queue_ns, *phases, total_ns), strict=True):  # as in PHASES
            histogram.add(ns)

    def failed(self, total_ns: int) -> None:
        """Count one request that ended in an error."""
        self.fail += 1
        self.fail_ns += total_ns

    def sum_ns(self, phase: str) -> tuple[int, int]:
        """(count, nanoseconds) of a phase over all devices."""
        histograms = [h[phase] for h in self.phases.values()]
        return sum(h.count for h in histograms), sum(h.total_ns for h in histograms)
