"""Settings of a device's queue: when the group on the device may be left for another (the rule is in chooser.py).

They are the configuration's [scheduling]. First come, first served, round robin and HailoRT's scheduler are settings of
that rule, not other code (benchmarks/switching/policies.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

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
    #: An idle device ignores thresholds when no lane is ready.
    idle_rule: bool = True
    #: Requests that cannot be answered in time any more let all others pass.
    shed: bool = True

    def of(self, model: str) -> ModelPolicy:
        """Settings of one model, `name` or `name/version`."""
        return self.models.get(model) or self.models.get(model.partition("/")[0], self.default)
