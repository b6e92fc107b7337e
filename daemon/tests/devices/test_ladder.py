"""The recovery ladder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid import config
from edgeaid.devices.ladder import Ladder, LadderPolicy, Step, Tries, policy_for
from edgeaid.errors import InvalidConfig
from edgeaid.serving.recovery import policy_of


def tried(ladder: Ladder, count: int, *, start: float = 0.0) -> list[str]:
    return [ladder.failed(start + number, "hung").step.value for number in range(count)]


def test_each_failure_climbs_one_step_and_the_end_is_to_fall_back() -> None:
    assert tried(Ladder(), 6) == [
        "reopen",
        "reopen",
        "usb-reset",
        "authorized",
        "port-power",
        "fall-back",
    ]


def test_a_request_that_failed_in_a_living_worker_is_sent_once_more_before_the_worker_is_replaced() -> None:
    ladder = Ladder()
    action = ladder.retry(0.0, "no answer")
    assert action is not None
    assert (action.step, action.attempt) == (Step.RETRY, 1)
    assert ladder.retry(0.1, "no answer") is None
    assert ladder.failed(0.2, "no answer").step is Step.REOPEN
    assert ladder.retry(0.3, "no answer") is None, "further up the ladder a retry is lost time"


def test_a_worker_that_is_gone_cannot_be_asked_again() -> None:
    ladder = Ladder()
    assert ladder.failed(0.0, "abort").step is Step.REOPEN
    assert "retry" not in ladder.snapshot()["steps"]


def test_settings_changed_while_climbing_hold_from_the_next_failure_on() -> None:
    ladder = Ladder()
    tried(ladder, 5)
    ladder.change(LadderPolicy(steps=(Tries(Step.USB_RESET),)))
    assert tried(ladder, 2) == ["usb-reset", "fall-back"]


def test_after_falling_back_the_whole_ladder_is_tried_again_with_longer_waits() -> None:
    ladder = Ladder(LadderPolicy(steps=(Tries(Step.REOPEN),), first_wait_s=10.0, longest_wait_s=25.0))
    waits = []
    for number in range(8):
        action = ladder.failed(100.0 * number, "hung")
        if action.gives_up:
            waits.append(action.wait_s)
            assert action.until == 100.0 * number + action.wait_s
    assert waits == [10.0, 20.0, 25.0, 25.0]


def test_a_device_that_settled_starts_at_the_bottom_again() -> None:
    ladder = Ladder()
    tried(ladder, 3)
    ladder.succeeded(10.0)
    assert ladder.retry(100.0, "hung") is not None


def test_a_step_that_helped_only_for_a_moment_does_not_count_as_recovery() -> None:
    ladder = Ladder()
    tried(ladder, 2)
    ladder.succeeded(10.0)
    assert ladder.failed(11.0, "hung").step is Step.USB_RESET


def test_success_is_credited_to_the_step_that_brought_it_and_only_once() -> None:
    ladder = Ladder()
    ladder.retry(0.0, "hung")
    ladder.failed(1.0, "hung")
    ladder.succeeded(5.0)
    ladder.succeeded(6.0)
    state = json.loads(json.dumps(ladder.snapshot()))
    assert state["steps"] == {"retry": {"tried": 1, "helped": 0}, "reopen": {"tried": 1, "helped": 1}}
    assert state["failures"] == 2


def test_a_device_that_comes_and_goes_is_quarantined_longer_each_time() -> None:
    ladder = Ladder(LadderPolicy(flaps=3, flap_window_s=10.0, quarantine_s=60.0))
    now = 0.0
    waits = []
    for _ in range(3):
        for _ in range(3):
            assert ladder.vanished(now) is None
            now += 1.0
        action = ladder.vanished(now)
        assert action is not None
        assert action.step is Step.QUARANTINE
        waits.append(action.wait_s)
        now += action.wait_s
    assert waits == [60.0, 120.0, 240.0]


def test_pulling_a_stick_now_and_then_is_not_flapping() -> None:
    ladder = Ladder()
    assert all(ladder.vanished(minute * 60.0) is None for minute in range(500))


def test_plugging_in_anew_forgets_where_the_ladder_was() -> None:
    ladder = Ladder()
    tried(ladder, 2)
    ladder.vanished(4.0)
    ladder.plugged(5.0)
    assert ladder.failed(6.0, "hung").step is Step.REOPEN


def test_re_enumeration_by_a_reset_is_neither_plugging_in_nor_flapping() -> None:
    ladder = Ladder(LadderPolicy(flaps=0))
    seen = []
    for number in range(5):
        seen.append(ladder.failed(float(number), "hung").step)
        if number >= 2:
            assert ladder.vanished(number + 0.1) is None
        ladder.plugged(number + 0.2)
    assert seen[2:] == [Step.USB_RESET, Step.AUTHORIZED, Step.PORT_POWER]


def test_a_stick_pulled_long_after_our_reset_was_pulled_by_a_person() -> None:
    ladder = Ladder()
    assert tried(ladder, 3)[-1] == "usb-reset"
    ladder.vanished(60.0)
    ladder.plugged(62.0)
    assert ladder.failed(63.0, "hung").step is Step.REOPEN


def test_a_stick_plugged_in_again_after_the_ladder_gave_up_gets_the_whole_ladder() -> None:
    ladder = Ladder()
    assert tried(ladder, 6)[-1] == "fall-back"
    ladder.plugged(8.0)
    assert ladder.failed(9.0, "hung").step is Step.REOPEN
    assert ladder.snapshot()["rounds"] == 0


@pytest.mark.parametrize(
    ("target", "usb", "expected"),
    [
        ("edgetpu", False, ["retry", "reopen"]),
        ("ncs", True, ["reopen", "usb-reset", "authorized", "port-power"]),
        ("ncs2", True, ["reopen", "usb-reset", "authorized", "port-power"]),
        ("edgetpu", True, ["retry", "reopen", "usb-reset", "authorized", "port-power"]),
    ],
)
def test_a_ladder_has_only_the_steps_its_device_has(target: str, usb: bool, expected: list[str]) -> None:
    assert [tries.step.value for tries in policy_for(LadderPolicy(), target, usb=usb).steps] == expected


@given(
    st.lists(st.sampled_from(["failed", "retry", "succeeded", "vanished", "plugged"]), max_size=80), st.floats(0, 100)
)
def test_whatever_happens_every_failure_gets_an_answer_and_waits_stay_bounded(happened: list[str], gap: float) -> None:
    ladder = Ladder()
    now = 0.0
    for what in happened:
        now += gap
        if what == "failed":
            assert 0 <= ladder.failed(now, "x").wait_s <= ladder.policy.longest_wait_s
        elif what == "retry":
            ladder.retry(now, "x")
        elif what == "succeeded":
            ladder.succeeded(now)
        elif what == "vanished":
            ladder.vanished(now)
        else:
            ladder.plugged(now)
    json.dumps(ladder.snapshot())


def test_the_configuration_names_steps_waits_and_limits() -> None:
    table = {
        "steps": ["reopen", "usb-reset", "usb-reset"],
        "wait": {"usb-reset": 3},
        "first_wait_seconds": 7,
        "flaps": 2,
    }
    policy = policy_of(config.from_table({"recovery": table}).recovery)
    assert [(tries.step, tries.wait_s) for tries in policy.steps] == [
        (Step.REOPEN, 0.0),
        (Step.USB_RESET, 3.0),
        (Step.USB_RESET, 3.0),
    ]
    ladder = Ladder(policy)
    assert tried(ladder, 4) == ["reopen", "usb-reset", "usb-reset", "fall-back"]
    assert (policy.first_wait_s, policy.flaps) == (7.0, 2)


def test_the_name_that_the_steps_had_before_is_understood_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings = config.from_table({"recovery": {"rungs": ["reopen"], "flaps": 2}}, "edgeaid.toml").recovery
    assert (settings.steps, settings.flaps) == (("reopen",), 2)
    assert "edgeaid.toml: recovery.rungs is called recovery.steps now" in caplog.text


def test_without_settings_the_ladder_is_the_documented_one() -> None:
    policy = policy_of(config.Config().recovery)
    names = [tries.step.value for tries in policy.steps]
    assert names == ["retry", "reopen", "reopen", "usb-reset", "authorized", "port-power"]
    text = (Path(__file__).parents[2] / "docs" / "devices.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and line.count("|") == 5]
    documented = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows}
    for tries in policy.steps:
        times, wait = documented[tries.step.value]
        assert int(times) == names.count(tries.step.value)
        assert (0.0 if wait == "-" else float(wait.removesuffix(" s"))) == tries.wait_s


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"steps": ["reboot"]},
            "'reboot' is not a recovery step; known: retry, reopen, usb-reset, authorized, port-power",
        ),
        ({"steps": ["fall-back"]}, "is not a recovery step"),
        ({"wait": {"usb": 1}}, "'usb' is not a recovery step"),
        ({"wait": {"reopen": -1}}, "recovery.wait.reopen must not be below 0"),
        ({"quarantine_seconds": 0}, "recovery.quarantine_seconds must be above 0"),
        ({"backoff": 1}, "recovery.backoff: unknown key"),
        ({"steps": "retry"}, "must be an array"),
    ],
)
def test_a_ladder_that_cannot_be_is_refused(table: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        config.from_table({"recovery": table})
