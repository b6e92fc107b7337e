"""What is counted for one HTTP connection."""

from __future__ import annotations

import pytest

from edgeaid.api.http.account import Account
from edgeaid.config import Limits
from edgeaid.errors import Unavailable
from edgeaid.serving.holdings import Holdings, Kind

USER = 4711


def account(limits: Limits) -> tuple[Holdings, Account]:
    """An account of a user, whose connection was just admitted."""
    holdings = Holdings(lambda: limits)
    holdings.take(USER, Kind.HTTP)
    return holdings, Account(holdings, USER)


def test_a_closed_connection_gives_back_all_that_was_counted_for_it() -> None:
    holdings, one = account(Limits())
    one.take(1000)
    one.give(300)
    one.set_unread(5000)
    one.set_unread(2000)
    assert holdings.of(USER, Kind.BYTES) == 2700
    one.close()
    assert (holdings.of(USER, Kind.BYTES), holdings.of(USER, Kind.HTTP)) == (0, 0)
    assert (holdings.total(Kind.BYTES), holdings.total(Kind.HTTP)) == (0, 0)


def test_bytes_behind_a_request_are_not_given_back_twice_when_their_client_leaves() -> None:
    holdings, one = account(Limits())
    one.take(800)
    one.close()
    one.give(800)  # what was scheduled before the client left
    assert holdings.total(Kind.BYTES) == 0


def test_unread_answers_are_counted_above_the_limit_and_leave_no_room_for_bodies() -> None:
    holdings, one = account(Limits(buffer_bytes_per_user=1000))
    one.set_unread(1500)
    assert holdings.of(USER, Kind.BYTES) == 1500
    with pytest.raises(Unavailable, match="user id 4711 would hold more than 1000"):
        one.take(1)
    one.set_unread(0)
    one.take(1000)
    assert holdings.of(USER, Kind.BYTES) == 1000
