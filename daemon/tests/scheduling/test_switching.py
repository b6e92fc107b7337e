"""The switch-aware policy on a simulated device: published costs, the real cache rule, virtual time."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from benchmarks.switching.oracle import oracle
from benchmarks.switching.policies import fifo, hailort
from benchmarks.switching.published import CACHED_BYTES, LATER, RUN_S, SWITCH_S
from benchmarks.switching.simulate import Arrival, Truth, poisson, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.scheduling.costs import MIB, CostModel
from edgeaid.scheduling.policy import ModelPolicy, Policy
from edgeaid.scheduling.queue import DeviceQueue, Job

from ..support.examples import examples

APART = Truth(RUN_S, SWITCH_S, CACHED_BYTES, {"bird": "token-1", "plant": "token-2"})
TOGETHER = replace(APART, group={"bird": "token-3", "plant": "token-3"})


def both(rate: float, *, deadline_s: float = 1.0, seconds: float = 120.0) -> list[Arrival]:
    return poisson({"bird": rate, "plant": rate}, seconds=seconds, deadline_s=deadline_s, seed=7)


@pytest.mark.parametrize("row", LATER, ids=lambda row: row.what)
def test_the_cost_formula_reproduces_the_published_figure_within_eight_percent(row: object) -> None:
    assert abs(row.error) <= 0.08  # type: ignore[attr-defined]  # parametrize hands over Row


@pytest.mark.parametrize("rate", [3.0, 6.0, 12.0])
def test_two_models_compiled_apart_are_served_as_well_as_by_someone_who_knows_the_future(rate: float) -> None:
    arrivals = both(rate)
    ours, best = simulate(arrivals, APART, Policy()), oracle(arrivals, APART)
    blind = simulate(arrivals, APART, fifo())
    assert ours.in_time >= 0.9 * best.in_time
    assert ours.in_time >= blind.in_time


@pytest.mark.parametrize(("rate", "deadline_s"), [(24.0, 0.4), (40.0, 1.0)])
def test_overload_is_not_answered_with_more_switches(rate: float, deadline_s: float) -> None:
    arrivals = both(rate, deadline_s=deadline_s, seconds=8.0)
    ours, best = simulate(arrivals, APART, Policy()), oracle(arrivals, APART)
    assert ours.in_time >= 0.9 * best.in_time


def test_models_that_share_a_token_pay_once_each() -> None:
    result = simulate(both(12.0), TOGETHER, Policy())
    assert result.switches == 1
    assert result.switch_s == pytest.approx(SWITCH_S["bird"] + SWITCH_S["plant"])


def test_a_request_with_a_deadline_interrupts_a_batch_without_one() -> None:
    batch = [Arrival(0.0, "bird", None) for _ in range(60)]
    asked = [Arrival(0.1, "plant", 0.1 + 0.3)]
    ours = simulate(batch + asked, APART, Policy())
    blind = simulate(batch + asked, APART, Policy(deadlines=False))
    assert ours.expired + ours.late == 0
    assert blind.expired + blind.late == 1


def test_a_better_priority_interrupts_and_the_same_does_not() -> None:
    batch = [Arrival(0.0, "bird", None) for _ in range(60)]
    urgent = simulate([*batch, Arrival(0.1, "plant", None, priority=1)], APART, Policy())
    equal = simulate([*batch, Arrival(0.1, "plant", None)], APART, Policy())
    assert urgent.longest_wait["plant"] < 0.1
    assert equal.longest_wait["plant"] > 0.5


# -- HailoRT's settings ----------------------------------------------------------------------------------------------


def queue_of(policy: Policy) -> DeviceQueue:
    costs = CostModel()
    for model in ("a", "b"):
        costs.seed(model, compute_s=0.01, cached_bytes=MIB)
    return DeviceQueue(costs=costs, policy=policy)


def push(queue: DeviceQueue, model: str, count: int = 1, now: float = 0.0) -> None:
    for _ in range(count):
        queue.push(Job(model, model, "c", 0, None, now), now)


def take(queue: DeviceQueue, count: int, now: float = 0.0) -> str:
    jobs = [queue.take(now) for _ in range(count)]
    return "".join("-" if job is None else job.model for job in jobs)


def test_hailort_a_burst_is_finished_before_another_model_is_let_in() -> None:
    queue = queue_of(hailort(burst=3))
    push(queue, "a", 7)
    push(queue, "b", 2)
    assert take(queue, 9) == "aaabbaaaa"


def test_hailort_a_threshold_holds_a_model_back_until_its_timeout() -> None:
    queue = queue_of(hailort(threshold=3, timeout=0.5, burst=1))
    push(queue, "a", 9)
    assert take(queue, 1) == "a"
    push(queue, "b", 2)
    assert take(queue, 2, 0.1) == "aa"
    assert take(queue, 1, 0.6) == "b"


def test_hailort_a_threshold_without_a_timeout_does_nothing() -> None:
    queue = queue_of(hailort(threshold=3, timeout=0.0, burst=1))
    push(queue, "a", 3)
    push(queue, "b", 1)
    assert take(queue, 3) == "aba"


def test_hailort_an_idle_device_ignores_thresholds_unless_told_not_to() -> None:
    lenient = queue_of(hailort(threshold=3, timeout=0.5))
    push(lenient, "a")
    assert take(lenient, 1) == "a"
    strict = queue_of(hailort(threshold=3, timeout=0.5, idle_rule=False))
    push(strict, "a", 1, now=1.0)
    assert take(strict, 1, 1.0) == "-"
    assert strict.next_event(1.0) == 1.5
    assert take(strict, 1, 1.5) == "a"


@given(st.floats(0.0, 1e8), st.floats(0.001, 10.0))
def test_waking_at_the_promised_time_is_never_too_early(start: float, timeout: float) -> None:
    queue = queue_of(hailort(threshold=3, timeout=timeout, idle_rule=False))
    push(queue, "a", now=start)
    wake = queue.next_event(start)
    assert wake is not None
    assert take(queue, 1, wake) == "a"


def test_hailort_models_take_turns() -> None:
    queue = queue_of(hailort(burst=1))
    for model in ("a", "b", "c"):
        push(queue, model, 3)
    order = [take(queue, 1, float(step)) for step in range(9)]
    assert "".join(order) == "abcabcabc"


def test_settings_of_one_model_do_not_touch_the_others() -> None:
    patient = ModelPolicy(threshold=5, timeout=10.0, starvation=inf)
    queue = queue_of(Policy(burst=1, models={"b": patient}))
    push(queue, "a", 4)
    push(queue, "b", 1)
    assert take(queue, 5) == "aaaab"


# -- what the user sees ----------------------------------------------------------------------------------------------


def test_the_snapshot_explains_the_group_the_switches_and_the_time_lost() -> None:
    queue = queue_of(Policy())
    push(queue, "a", 2)
    push(queue, "b", 1)
    for now in (0.1, 0.2, 0.3):
        job = queue.take(now)
        assert job is not None
        queue.finished(job, now + 0.1, 0.010, None, 0.030 if job.switches else None)
    state = queue.snapshot()
    assert state["group"] == "b"
    assert state["switches"] == 2
    assert state["switch_seconds"] == pytest.approx(0.060)
    assert state["last_switch"] == {"at": 0.3, "from": "a", "to": "b", "why": "drained"}
    assert sum(state["decisions"].values()) == 3


def test_after_a_reset_everything_has_to_be_sent_again() -> None:
    queue = queue_of(Policy())
    push(queue, "a", 3)
    assert [job.switches for _ in range(2) if (job := queue.take(0.0))] == [True, False]
    queue.reset()
    last = queue.take(0.0)
    assert last is not None
    assert last.switches


def test_an_unloaded_model_leaves_nothing_behind() -> None:
    queue = queue_of(Policy())
    push(queue, "a")
    take(queue, 1)
    queue.forget("a")
    assert "a" not in queue.snapshot()["models"]
    chooser = queue._chooser
    assert chooser is not None
    assert not chooser._models
    assert not chooser._active


# -- guarantees ------------------------------------------------------------------------------------------------------

MODELS = ("a", "b", "c", "d")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Truth, float, list[Arrival]]:
    """Up to four models in any grouping, any costs, and arrivals by someone who wants one of them to starve."""
    models = MODELS[: draw(st.integers(2, 4))]
    run = {model: draw(st.floats(0.002, 0.05)) for model in models}
    size = {model: draw(st.integers(0, 8)) * MIB for model in models}
    switch = {model: bytes_ / MIB / 33.5 for model, bytes_ in size.items()}
    group = {model: draw(st.sampled_from("xyz")) for model in models}
    once = sum(run.values()) + sum(switch.values())
    bound = once * draw(st.floats(2.0, 6.0))
    arrivals = []
    at = 0.0
    for _ in range(draw(st.integers(1, 60))):
        at += draw(st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.1, bound / 2]))
        model = draw(st.sampled_from(models))
        deadline = draw(st.sampled_from([None, None, at + 0.05, at + 0.5, at + bound]))
        priority = draw(st.sampled_from([0, 1, 2, 20]))
        arrivals += [Arrival(at, model, deadline, priority)] * draw(st.integers(1, 6))
    return Truth(run, switch, size, group), bound, arrivals


@given(worlds())
@settings(max_examples=examples(400), deadline=None)
def test_no_model_waits_longer_than_its_starvation_bound(world: tuple[Truth, float, list[Arrival]]) -> None:
    truth, bound, arrivals = world
    policy = Policy(default=ModelPolicy(starvation=bound))
    result = simulate(arrivals, truth, policy, capacity=256, known=True)
    assert max(result.longest_wait.values(), default=0.0) <= bound + 1e-9
    assert result.in_time + result.late + result.expired == len(arrivals)


@given(worlds(), st.booleans(), st.integers(1, 4), st.sampled_from([0.0, 0.1, 1.0]), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_under_any_settings_every_request_is_answered_once_and_the_queue_ends_empty(
    world: tuple[Truth, float, list[Arrival]], lanes: bool, threshold: int, timeout: float, idle_rule: bool
) -> None:
    truth, bound, arrivals = world
    policy = Policy(default=ModelPolicy(threshold, timeout, bound), lanes=lanes, burst=threshold, idle_rule=idle_rule)
    result = simulate(arrivals, truth, policy, capacity=256)
    assert result.in_time + result.late + result.expired == len(arrivals)
