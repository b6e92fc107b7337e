"""The planner against the published co-compilation benchmark and against the driver's caching rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid.errors import InvalidRequest
from edgeaid.toolkit.plan.cost import (
    MIB,
    Built,
    CacheState,
    latency_ms,
    share_memory,
    step,
)
from edgeaid.toolkit.plan.plan import Candidate, Conditions, Plan, plans

#: Parameter sizes in MiB and compute times in ms of the three models of the benchmark.
BIRD, PLANT, INCEPTION = 3.75, 5.08, 6.71
COMPUTE = {"bird": 10.33, "plant": 10.33, "inception": 13.6}
SIZES = {"bird": BIRD, "plant": PLANT, "inception": INCEPTION}


def candidate(name: str, rate: float = 1.0) -> Candidate:
    return Candidate(name, f"{name}.tflite", round(SIZES[name] * MIB), rate, COMPUTE[name])


def find(title: str, *names: str) -> Plan:
    return next(p for p in plans([candidate(n) for n in names]) if p.title == title)


def time_of(plan: Plan, name: str) -> float:
    return next(m.alternating_ms for s in plan.sticks for m in s.models if m.name == name)


@pytest.mark.parametrize(
    ("title", "measured"),
    [
        ("[bird], [plant]", {"bird": 123.00, "plant": 163.27}),
        ("[bird + plant]", {"bird": 10.61, "plant": 86.31}),
        ("[inception], [plant]", {"inception": 212.19, "plant": 162.95}),
        ("[inception + plant]", {"inception": 18.91, "plant": 183.40}),
        ("[plant + inception]", {"plant": 11.18, "inception": 169.28}),
    ],
)
def test_later_inferences_of_the_published_table_are_predicted_within_8_percent(
    title: str, measured: dict[str, float]
) -> None:
    plan = find(title, *measured)
    for name, milliseconds in measured.items():
        assert time_of(plan, name) == pytest.approx(milliseconds, rel=0.08), (title, name)


@pytest.mark.parametrize(
    ("title", "measured"),
    [
        ("[bird], [plant]", {"bird": 119.99, "plant": 159.26}),
        ("[bird + plant]", {"bird": 120.14, "plant": 158.23}),
    ],
)
def test_first_inferences_of_the_published_table_are_predicted_within_8_percent(
    title: str, measured: dict[str, float]
) -> None:
    """Plant behind a co-compiled bird sends what it caches and what it streams."""
    for stick in find(title, "bird", "plant").sticks:
        for model in stick.models:
            assert model.cold_ms == pytest.approx(measured[model.name], rel=0.08), model.name


def test_the_same_model_in_two_slots_is_predicted_within_8_percent() -> None:
    """Published: 120.04 and 119.96 ms first, 10.33 and 10.34 ms later; and alone 120.78, then 10.33."""
    slots = [Built(n, round(BIRD * MIB), 0, 7, COMPUTE["bird"]) for n in ("left", "right")]
    state, times = CacheState(), []
    for model in slots * 2:
        state, sent = step(state, model)
        times.append(latency_ms(model.compute_ms, sent))
    assert times == pytest.approx([120.04, 119.96, 10.33, 10.34], rel=0.08)


def test_one_model_alone_sends_its_parameters_once() -> None:
    (plan,) = plans([candidate("bird")])
    (model,) = plan.sticks[0].models
    assert model.cold_ms == pytest.approx(120.78, rel=0.08)
    assert model.mean_ms == model.warm_ms == pytest.approx(10.33, rel=0.01)


@pytest.mark.parametrize(("rates", "first"), [({"bird": 10, "plant": 2}, "bird"), ({"bird": 2, "plant": 10}, "plant")])
def test_the_model_used_more_often_comes_first(rates: dict[str, float], first: str) -> None:
    best = plans([candidate(name, rate) for name, rate in rates.items()])[0]
    assert best.sticks[0].groups[0][0].name == first
    assert len(best.sticks[0].groups) == 1
    assert best.commands()[0].startswith(f"edgetpu_compiler -s {first}.tflite ")


def test_rates_that_one_stick_cannot_hold_get_a_second_one() -> None:
    models = [candidate("bird", 40), candidate("plant", 30)]
    one = plans(models, Conditions(sticks=1))[0]
    two = plans(models, Conditions(sticks=2))[0]
    assert not one.holds
    assert two.holds
    assert two.title == "[bird] | [plant]"


def test_rates_that_one_stick_holds_do_not_ask_for_a_second_one() -> None:
    best = plans([candidate("bird", 10), candidate("plant", 2)], Conditions(sticks=2))[0]
    assert len(best.sticks) == 1


def test_the_same_file_loaded_twice_is_sent_twice_and_then_stays() -> None:
    """Published: bird in both slots costs 120 ms twice, then 10 ms each."""
    left, right = (Built(n, round(BIRD * MIB), 0, 7, 10.33) for n in ("left", "right"))
    state, moved = CacheState(), []
    for model in (left, right, left, right):
        state, sent = step(state, model)
        moved.append(sent)
    assert moved == [left.cached, right.cached, 0, 0]


def test_another_token_empties_the_cached_set() -> None:
    a, b = Built("a", 100, 10, 1, 1.0), Built("b", 200, 0, 2, 1.0)
    state, moved = CacheState(), []
    for model in (a, a, b, a):
        state, sent = step(state, model)
        moved.append(sent)
    assert moved == [110, 10, 200, 110]


def test_token_zero_never_keeps_anything() -> None:
    model = Built("old", 0, 50, 0, 1.0)
    state, _ = step(CacheState(9, frozenset({"x"})), model)
    assert state == CacheState()


def test_compiled_files_offer_the_plan_without_compiling() -> None:
    models = [
        Candidate("a", "a_edgetpu.tflite", 1000, built=Built("a", 900, 100, 5, 10)),
        Candidate("b", "b_edgetpu.tflite", 1000, built=Built("b", 1000, 0, 6, 10)),
    ]
    (built,) = [p for p in plans(models) if p.as_built]
    assert [[m.name for m in group] for group in built.sticks[0].groups] == [["a"], ["b"]]
    assert built.sticks[0].models[0].streamed == 100
    assert built.commands() == []


def test_every_order_and_grouping_of_three_models_is_there() -> None:
    every = plans([candidate(n) for n in SIZES])
    # Sets of ordered lists of three things: 13.
    assert len({frozenset(p.title.split(", ")) for p in every}) == 13


@pytest.mark.parametrize(
    ("models", "conditions"),
    [
        ([], Conditions()),
        ([candidate("bird"), candidate("bird")], Conditions()),
        ([candidate("bird", 0)], Conditions()),
        ([candidate("bird")], Conditions(bandwidth=0)),
        ([candidate("bird")], Conditions(sticks=0)),
        ([Candidate(str(i), "f", 1) for i in range(9)], Conditions()),
    ],
)
def test_impossible_questions_are_refused(models: list[Candidate], conditions: Conditions) -> None:
    with pytest.raises(InvalidRequest):
        plans(models, conditions)


@given(st.lists(st.integers(0, 1 << 24), max_size=8), st.integers(0, 1 << 23))
def test_shared_memory_is_never_overbooked_and_nothing_is_lost(totals: list[int], budget: int) -> None:
    shares = share_memory(totals, budget, overhead=1.0)
    assert sum(cached for cached, _ in shares) <= budget
    assert [cached + streamed for cached, streamed in shares] == totals


@given(
    st.lists(st.tuples(st.integers(1, 1 << 23), st.floats(0.01, 50), st.floats(1, 100)), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_a_plan_names_every_model_once_and_its_figures_are_consistent(
    rows: list[tuple[int, float, float]], sticks: int
) -> None:
    models = [Candidate(f"m{i}", f"m{i}", size, rate, ms) for i, (size, rate, ms) in enumerate(rows)]
    for plan in plans(models, Conditions(sticks=sticks)):
        placed = [m for s in plan.sticks for m in s.models]
        assert sorted(m.name for m in placed) == sorted(m.name for m in models)
        assert len(plan.sticks) <= sticks
        for model in placed:
            assert model.warm_ms <= model.mean_ms + 1e-9
            assert model.mean_ms <= model.cold_ms + 1e-9
            assert model.cold_ms == pytest.approx(
                latency_ms(next(m.compute_ms for m in models if m.name == model.name), model.cached + model.streamed)
            )
