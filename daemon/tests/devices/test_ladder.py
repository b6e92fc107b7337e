"""States and the recovery ladder."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid.devices.events import Added, Reenumerated, Removed, RungTried, StateChanged
from edgeaid.devices.ladder import Ladder, LadderPolicy, Rung, Step, policy_for
from edgeaid.devices.states import Life, Signal, State, after


def rungs(ladder: Ladder, count: int, *, start: float = 0.0) -> list[str]:
    return [ladder.failed(start + number, "hung").rung.value for number in range(count)]


def test_each_failure_climbs_one_step_and_the_end_is_to_fall_back() -> None:
    assert rungs(Ladder(), 7) == [
        "retry",
        "reopen",
        "reopen",
        "usb-reset",
        "authorized",
        "port-power",
        "fall-back",
    ]


def test_after_falling_back_the_whole_ladder_is_tried_again_with_longer_waits() -> None:
    ladder = Ladder(LadderPolicy(steps=(Step(Rung.REOPEN),), first_wait_s=10.0, longest_wait_s=25.0))
    waits = []
    for number in range(8):
        action = ladder.failed(100.0 * number, "hung")
        if action.gives_up:
            waits.append(action.wait_s)
            assert action.until == 100.0 * number + action.wait_s
    assert waits == [10.0, 20.0, 25.0, 25.0]


def test_a_device_that_settled_starts_at_the_bottom_again() -> None:
    ladder = Ladder()
    rungs(ladder, 3)
    ladder.succeeded(10.0)
    assert ladder.failed(100.0, "hung").rung is Rung.RETRY


def test_a_rung_that_helped_only_for_a_moment_does_not_count_as_recovery() -> None:
    ladder = Ladder()
    rungs(ladder, 3)
    ladder.succeeded(10.0)
    assert ladder.failed(11.0, "hung").rung is Rung.USB_RESET


def test_success_is_credited_to_the_rung_that_brought_it_and_only_once() -> None:
    ladder = Ladder()
    rungs(ladder, 2)
    ladder.succeeded(5.0)
    ladder.succeeded(6.0)
    state = json.loads(json.dumps(ladder.snapshot()))
    assert state["rungs"] == {"retry": {"tried": 1, "helped": 0}, "reopen": {"tried": 1, "helped": 1}}
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
        assert action.rung is Rung.QUARANTINE
        waits.append(action.wait_s)
        now += action.wait_s
    assert waits == [60.0, 120.0, 240.0]


def test_pulling_a_stick_now_and_then_is_not_flapping() -> None:
    ladder = Ladder()
    assert all(ladder.vanished(minute * 60.0) is None for minute in range(500))


def test_plugging_in_anew_forgets_where_the_ladder_was() -> None:
    ladder = Ladder()
    rungs(ladder, 3)
    ladder.vanished(4.0)
    ladder.plugged()
    assert ladder.failed(6.0, "hung").rung is Rung.RETRY


def test_re_enumeration_by_a_reset_is_neither_plugging_in_nor_flapping() -> None:
    ladder = Ladder(LadderPolicy(flaps=0))
    seen = []
    for number in range(6):
        seen.append(ladder.failed(float(number), "hung").rung)
        if number >= 3:
            assert ladder.vanished(number + 0.1) is None
        ladder.plugged()
    assert seen[3:] == [Rung.USB_RESET, Rung.AUTHORIZED, Rung.PORT_POWER]


def test_a_stick_plugged_in_again_after_the_ladder_gave_up_gets_the_whole_ladder() -> None:
    ladder = Ladder()
    assert ladder.failed(0.0, "hung").rung is Rung.RETRY
    assert rungs(ladder, 6, start=1.0)[-1] == "fall-back"
    ladder.plugged()
    assert ladder.failed(9.0, "hung").rung is Rung.RETRY
    assert ladder.snapshot()["rounds"] == 0


@pytest.mark.parametrize(
    ("target", "usb", "expected"),
    [
        ("cpu", False, ["retry", "reopen"]),
        ("edgetpu", False, ["retry", "reopen"]),
        ("ncs", True, ["reopen", "usb-reset", "authorized", "port-power"]),
        ("edgetpu", True, ["retry", "reopen", "usb-reset", "authorized", "port-power"]),
    ],
)
def test_a_ladder_has_only_the_rungs_its_device_has(target: str, usb: bool, expected: list[str]) -> None:
    assert [step.rung.value for step in policy_for(target, usb=usb).steps] == expected


@given(st.lists(st.sampled_from(["failed", "succeeded", "vanished", "plugged"]), max_size=80), st.floats(0, 100))
def test_whatever_happens_every_failure_gets_an_answer_and_waits_stay_bounded(happened: list[str], gap: float) -> None:
    ladder = Ladder()
    now = 0.0
    for what in happened:
        now += gap
        if what == "failed":
            assert 0 <= ladder.failed(now, "x").wait_s <= ladder.policy.longest_wait_s
        elif what == "succeeded":
            ladder.succeeded(now)
        elif what == "vanished":
            ladder.vanished(now)
        else:
            ladder.plugged()
    json.dumps(ladder.snapshot())


def test_a_life_from_plug_to_pull() -> None:
    life = Life("usb:1-1.4")
    seen = []
    for now, signal in enumerate(
        [Signal.SEEN, Signal.OPENED, Signal.STARTED, Signal.ERROR, Signal.SEEN, Signal.OPENED, Signal.GONE]
    ):
        life.apply(signal, float(now))
        seen.append(life.state.value)
    assert seen == ["booting", "ready", "busy", "recovering", "recovering", "ready", "absent"]


def test_a_late_answer_of_a_dead_worker_does_not_make_a_recovering_device_ready() -> None:
    assert after(State.RECOVERING, Signal.FINISHED) is State.RECOVERING


def test_a_quarantined_device_stays_so_while_it_comes_and_goes() -> None:
    life = Life("usb:1-1.4", State.READY)
    for signal in (Signal.FLAPPED, Signal.GONE, Signal.SEEN, Signal.OPENED, Signal.GONE):
        life.apply(signal, 1.0)
        assert life.state is State.QUARANTINED
    assert life.apply(Signal.RELEASED, 2.0)
    assert not life.usable


@given(st.sampled_from(State), st.lists(st.sampled_from(Signal), max_size=30))
def test_from_every_state_a_device_can_get_ready_again(state: State, signals: list[Signal]) -> None:
    life = Life("x", state)
    for signal in signals:
        life.apply(signal, 0.0)
    for signal in (Signal.RELEASED, Signal.SEEN, Signal.OPENED):
        life.apply(signal, 1.0)
    assert life.usable or life.state is State.READY


def test_events_carry_a_message_id_a_text_and_journal_fields() -> None:
    action = Ladder().failed(0.0, "no answer for 6 s")
    events = [
        Added("usb:1-1.4", "Coral USB Accelerator", "1-1.4", "1a6e:089a"),
        Removed("usb:1-1.4", "Coral USB Accelerator"),
        Reenumerated("usb:1-1.4", "1a6e:089a", "18d1:9302"),
        StateChanged("usb:1-1.4", "ready", "recovering", "hung"),
        RungTried.of("usb:1-1.4", action),
    ]
    for event in events:
        assert len(bytes.fromhex(event.message_id)) == 16
        assert "usb:1-1.4" in event.text()
        assert event.fields()["EDGEAI_DEVICE"] == "usb:1-1.4"
    assert len({event.message_id for event in events}) == len(events)
    assert events[-1].fields()["EDGEAI_RUNG"] == "retry"
