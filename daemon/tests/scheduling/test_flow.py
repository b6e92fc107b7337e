"""The flow limiter against the examples of MediaPipe's description."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid.scheduling.flow import FlowLimiter, FlowOptions


def test_with_no_queue_frames_that_come_while_one_is_in_flight_are_dropped() -> None:
    limiter: FlowLimiter[str] = FlowLimiter()
    assert limiter.frame(1, "a").released == ("a",)
    assert limiter.frame(2, "b").dropped == ("b",)
    assert limiter.finish(1).released == ()
    assert limiter.frame(3, "c").released == ("c",)


def test_with_a_queue_of_one_the_newest_frame_waits_and_the_oldest_is_dropped() -> None:
    limiter: FlowLimiter[str] = FlowLimiter(FlowOptions(max_in_queue=1))
    limiter.frame(1, "a")
    assert limiter.frame(2, "b").dropped == ()
    step = limiter.frame(3, "c")
    assert step.dropped == ("b",)
    assert step.allow == ((2, False),)
    step = limiter.finish(1)
    assert step.released == ("c",)
    assert step.allow == ((3, True),)


def test_finishing_a_frame_finishes_all_before_it() -> None:
    limiter: FlowLimiter[int] = FlowLimiter(FlowOptions(max_in_flight=3))
    for at in (1, 2, 3):
        limiter.frame(at, at)
    limiter.finish(2)
    assert limiter.in_flight == (3,)


def test_a_frame_in_flight_is_given_up_by_frame_time_alone() -> None:
    limiter: FlowLimiter[int] = FlowLimiter(FlowOptions(in_flight_timeout=100))
    limiter.frame(1000, 1)
    assert limiter.frame(1100, 2).abandoned == ()
    step = limiter.frame(1101, 3)
    assert step.abandoned == (1000,)
    assert step.released == (3,)


def test_a_frame_and_an_end_in_one_event_release_the_new_frame() -> None:
    limiter: FlowLimiter[int] = FlowLimiter()
    limiter.frame(1, 1)
    step = limiter.step(finished=1, timestamp=2, frame=2)
    assert step.released == (2,)
    assert step.dropped == ()


def test_options_may_change_while_running() -> None:
    limiter: FlowLimiter[int] = FlowLimiter(FlowOptions(max_in_queue=3))
    for at in range(1, 5):
        limiter.frame(at, at)
    limiter.options = FlowOptions(max_in_flight=2, max_in_queue=1)
    step = limiter.finish(0)
    assert step.released == (2,)
    assert step.dropped == (3,)


def test_time_that_does_not_advance_is_refused() -> None:
    limiter: FlowLimiter[int] = FlowLimiter()
    limiter.frame(5, 1)
    with pytest.raises(ValueError, match="must increase"):
        limiter.frame(5, 2)


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 3), st.integers(0, 3))
def test_every_frame_is_released_or_dropped_once_in_order_and_limits_hold(
    events: list[bool], flying: int, queued: int
) -> None:
    limiter: FlowLimiter[int] = FlowLimiter(FlowOptions(max_in_flight=flying, max_in_queue=queued))
    decided: list[int] = []
    for at, arrives in enumerate(events):
        if arrives:
            step = limiter.frame(at, at)
        elif limiter.in_flight:
            step = limiter.finish(limiter.in_flight[0])
        else:
            continue
        decided += [stamp for stamp, _ in step.allow]
        assert len(limiter.in_flight) <= flying
        assert len(limiter) <= queued
    assert decided == sorted(set(decided))
    assert len(decided) + len(limiter) == sum(events)
