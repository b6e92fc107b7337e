"""Learned costs."""

from __future__ import annotations

import pytest

from edgeaid.scheduling.costs import MIB, CostModel, link_rate


def test_file_facts_and_the_link_give_the_first_guess() -> None:
    costs = CostModel(link_mib_s=33.5)
    costs.seed("bird/1", compute_s=0.010, cached_bytes=int(3.75 * MIB))
    costs.seed("plant/1", compute_s=0.010, streamed_bytes=int(2.59 * MIB))
    assert costs.switch("bird/1") == pytest.approx(0.1119, rel=0.01)
    assert costs.run("bird/1") == 0.010
    assert costs.switch("plant/1") == 0.0
    assert costs.run("plant/1") == pytest.approx(0.0873, rel=0.01)


def test_the_first_measurement_replaces_the_guess_and_later_ones_average() -> None:
    costs = CostModel()
    costs.seed("m/1", compute_s=5.0)
    costs.learn("m/1", 0.010, switched=False)
    assert costs.run("m/1") == 0.010
    for _ in range(100):
        costs.learn("m/1", 0.020, switched=False)
    assert costs.run("m/1") == pytest.approx(0.020, rel=0.01)


def test_one_hang_does_not_spoil_the_estimate() -> None:
    costs = CostModel()
    for _ in range(10):
        costs.learn("m/1", 0.010, switched=False)
    costs.learn("m/1", 6.0, switched=False)
    assert costs.run("m/1") < 0.020


def test_without_a_separate_figure_what_exceeds_the_run_is_the_switch() -> None:
    costs = CostModel()
    costs.learn("m/1", 0.010, switched=False)
    assert costs.learn("m/1", 0.122, switched=True) == pytest.approx(0.112)
    assert costs.switch("m/1") == pytest.approx(0.112)
    assert costs.run("m/1") == 0.010


def test_a_separate_figure_teaches_both() -> None:
    costs = CostModel()
    assert costs.learn("m/1", 0.010, switched=True, switch_s=0.1) == 0.1
    assert costs.run("m/1") == 0.010
    assert costs.switch("m/1") == 0.1


def test_one_measured_switch_corrects_the_guesses_for_models_that_never_ran() -> None:
    costs = CostModel(link_mib_s=33.5)
    costs.seed("a/1", compute_s=0.01, cached_bytes=4 * MIB)
    costs.seed("b/1", compute_s=0.01, cached_bytes=2 * MIB)
    costs.learn("a/1", 0.01, switched=True, switch_s=0.02)
    assert costs.switch("b/1") == pytest.approx(0.01)


def test_seeding_again_keeps_what_was_measured_and_forgetting_does_not() -> None:
    costs = CostModel()
    costs.learn("m/1", 0.5, switched=False)
    costs.seed("m/1", compute_s=0.1)
    assert costs.run("m/1") == 0.5
    costs.forget("m/1")
    assert costs.get("m/1") is None


def test_link_guesses_follow_the_nominal_speed_and_stay_modest() -> None:
    assert link_rate(480) == 33.5
    assert link_rate(12) < 1
    assert 33.5 < link_rate(5000) <= 300
    assert link_rate(None) > 33.5


def test_a_first_inference_with_a_switch_is_split_by_the_first_without() -> None:
    costs = CostModel()
    costs.learn("m/1", 0.122, switched=True)
    assert costs.switch("m/1") == 0.0
    costs.learn("m/1", 0.010, switched=False)
    assert costs.run("m/1") == 0.010
    assert costs.switch("m/1") == pytest.approx(0.112)


def test_a_switch_that_did_not_take_place_does_not_count_as_a_cheap_one() -> None:
    costs = CostModel()
    costs.learn("m/1", 0.010, switched=True)
    costs.learn("m/1", 0.010, switched=False)
    costs.learn("m/1", 0.122, switched=True)
    assert costs.switch("m/1") == pytest.approx(0.112)
