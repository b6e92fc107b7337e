"""How long to wait for what was done before."""

from __future__ import annotations

from edgeaid.serving.patience import FACTOR, SHORTEST, Patience


def test_the_first_time_may_take_as_long_as_it_ever_may() -> None:
    assert Patience().limit(60) == 60


def test_what_was_quick_is_not_waited_for_longer_than_the_shortest_limit() -> None:
    patience = Patience()
    patience.succeeded(0.3)
    assert patience.limit(60) == SHORTEST


def test_what_was_slow_gets_a_multiple_of_that_but_never_more_than_the_longest() -> None:
    patience = Patience()
    patience.succeeded(5)
    assert patience.limit(60) == 5 * FACTOR
    patience.succeeded(50)
    assert patience.limit(60) == 60


def test_each_limit_that_ran_out_doubles_the_next_until_it_succeeds() -> None:
    patience = Patience()
    patience.succeeded(0.3)
    limits = []
    for _ in range(4):
        limits.append(patience.limit(60))
        patience.gave_up()
    assert limits == [SHORTEST, 2 * SHORTEST, 4 * SHORTEST, 60]
    patience.succeeded(0.3)
    assert patience.limit(60) == SHORTEST


def test_a_limit_shorter_than_the_shortest_holds() -> None:
    patience = Patience()
    patience.succeeded(0.3)
    assert patience.limit(2) == 2
