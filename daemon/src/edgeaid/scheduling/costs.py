"""What one inference and one model switch cost on one device: guessed from file facts, then learned.

Times are seconds, sizes bytes, link rates MiB/s. One `CostModel` belongs to one device, because both costs depend on
its clock and its link. Nothing here reads a clock.

The formula behind the guesses, `t = compute + MiB moved / link rate`, reproduces the published co-compilation
benchmark of the Edge TPU (Raspberry Pi 3B+, USB 2.0) within 8 %; `benchmarks/switching` shows it line by line.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024

#: MiB/s of a high-speed USB 2.0 port of a Raspberry Pi 3B+, fitted to that benchmark.
USB2_MIB_S = 33.5

#: No rate has been published for USB 3 or PCIe. USB 2.0's efficiency at the nominal rate, capped, is only a first
#: guess: the first measured switch replaces it.
FASTEST_GUESS_MIB_S = 300.0

#: Until something was measured or a file was read.
UNKNOWN_RUN_S = 0.02

#: Share of a new measurement in the running mean.
WEIGHT = 0.125

#: A single measurement may pull the mean by no more than this multiple of it: a device that hung for six seconds
#: says nothing about what an inference costs.
OUTLIER = 4.0

#: A first switch shorter than this share of a run was none.
NOTHING = 0.1


def link_rate(speed_mbit: float | None) -> float:
    """Guess the useful rate in MiB/s of a link from its nominal speed in Mbit/s (sysfs `speed`); None = PCIe."""
    if speed_mbit is None:
        return FASTEST_GUESS_MIB_S
    return min(USB2_MIB_S * speed_mbit / 480.0, FASTEST_GUESS_MIB_S)


def predict(compute_s: float, moved_bytes: float, link_mib_s: float) -> float:
    """Seconds of one inference that moves `moved_bytes` of parameters over the link first."""
    return compute_s + moved_bytes / MIB / link_mib_s


@dataclass(slots=True)
class Cost:
    """What is known of one model on one device."""

    #: Seconds of one inference with the parameters already on the device.
    run: float
    #: Seconds to bring the model's parameters to the device.
    switch: float
    #: Parameters kept on the device after the first inference, in bytes; 0 = unknown or none.
    cached_bytes: int = 0
    #: Measurements behind `run` and `switch`; 0 = still a guess.
    runs: int = 0
    switches: int = 0
    #: Seconds of the first inference if it included a switch: split in two by the first that does not.
    first: float = 0.0


class CostModel:
    """Run and switch costs of every model on one device."""

    def __init__(self, *, link_mib_s: float = USB2_MIB_S) -> None:
        self.link_mib_s = link_mib_s
        self._rates = 0
        self._costs: dict[str, Cost] = {}

    def seed(
        self, model: str, *, compute_s: float | None = None, cached_bytes: int = 0, streamed_bytes: int = 0
    ) -> None:
        """Guess from file facts; measurements that are there already stay.

        `cached_bytes` and `streamed_bytes` are the lengths of the parameter blocks of the caching and of the execution
        executable of an Edge TPU file; streamed parameters travel with every inference.
        """
        cost = self._costs.get(model)
        if cost is None:
            cost = self._costs[model] = Cost(UNKNOWN_RUN_S, 0.0)
        cost.cached_bytes = cached_bytes
        if not cost.runs:
            cost.run = predict(UNKNOWN_RUN_S if compute_s is None else compute_s, streamed_bytes, self.link_mib_s)
        if not cost.switches:
            cost.switch = predict(0.0, cached_bytes, self.link_mib_s)

    def forget(self, model: str) -> None:
        """Drop what is known of a model that was unloaded or replaced."""
        self._costs.pop(model, None)

    def run(self, model: str) -> float:
        """Expected seconds of one inference, parameters in place."""
        cost = self._costs.get(model)
        return UNKNOWN_RUN_S if cost is None else cost.run

    def switch(self, model: str) -> float:
        """Expected seconds to bring the model's parameters to the device."""
        cost = self._costs.get(model)
        return 0.0 if cost is None else cost.switch

    def get(self, model: str) -> Cost | None:
        """All that is known of a model."""
        return self._costs.get(model)

    def learn(self, model: str, run_s: float, *, switched: bool, switch_s: float | None = None) -> float:
        """Take in one measured inference; return the seconds of it that were a switch.

        When the device reports the switch apart, `run_s` excludes `switch_s`. When it cannot (the Edge TPU's delegate
        answers with one number), pass `switch_s=None`: whatever exceeds the expected run is the switch.
        """
        cost = self._costs.get(model)
        if cost is None:
            cost = self._costs[model] = Cost(run_s, 0.0)
        if not switched:
            cost.run = _mean(cost.run, run_s, cost.runs)
            cost.runs += 1
            if cost.first and not cost.switches and not cost.cached_bytes:
                self._learn_switch(cost, cost.first - cost.run)
            return 0.0
        if switch_s is None:
            if not cost.runs:
                cost.first = run_s
            # Before the first clean run the expected run is a guess, possibly above the measured total.
            switch_s = max(0.0, run_s - cost.run)
        else:
            cost.run = _mean(cost.run, run_s, cost.runs)
            cost.runs += 1
        self._learn_switch(cost, switch_s)
        return switch_s

    def _learn_switch(self, cost: Cost, switch_s: float) -> None:
        if not cost.switches and not cost.cached_bytes and switch_s < NOTHING * cost.run:
            return  # no switch took place after all: the model was on the device already, from its warm-up
        cost.switch = _mean(cost.switch, switch_s, cost.switches)
        cost.switches += 1
        self._learn_link(cost, switch_s)

    def _learn_link(self, cost: Cost, switch_s: float) -> None:
        """Let one model's switch correct the guesses for models that never ran."""
        if cost.cached_bytes < MIB // 4 or switch_s <= 0:
            return  # too small: set-up time would pass for a slow link
        self.link_mib_s = _mean(self.link_mib_s, cost.cached_bytes / MIB / switch_s, self._rates)
        self._rates += 1
        for other in self._costs.values():
            if not other.switches:
                other.switch = predict(0.0, other.cached_bytes, self.link_mib_s)

    def snapshot(self) -> dict[str, dict[str, float | int | bool]]:
        """JSON values per model, in seconds."""
        return {
            model: {
                "run_s": round(cost.run, 6),
                "switch_s": round(cost.switch, 6),
                "measured_runs": cost.runs,
                "measured_switches": cost.switches,
            }
            for model, cost in self._costs.items()
        }


def _mean(old: float, new: float, samples: int) -> float:
    if not samples:
        return new
    if samples >= 3:
        new = min(new, old * OUTLIER)
    return old + (new - old) * max(WEIGHT, 1.0 / (samples + 1))
