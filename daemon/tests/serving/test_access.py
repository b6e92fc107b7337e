"""Roles of peers, and denials that cannot flood the journal."""

from __future__ import annotations

import os
import socket
import time

import pytest

from edgeaid import errors
from edgeaid.config import Access
from edgeaid.serving import access
from edgeaid.serving.access import Denials, Peer, Role, Roles
from edgeaid.serving.events import EventLog


def test_a_peer_is_known_by_what_the_kernel_says_of_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid, uid, gid, groups = access.credentials(ours)
    assert (pid, uid, gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert set(groups) == set(os.getgroups())


def test_the_best_role_of_all_groups_counts_and_strangers_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"edgeai": 900, "edgeai-observe": 901, "edgeai-infer": 902, "edgeai-control": 903}
    monkeypatch.setattr(access, "_gids", lambda names: frozenset(numbers[n] for n in names))
    monkeypatch.setattr(os, "geteuid", lambda: 990)
    roles = Roles(Access())
    assert roles.of(0, set()) == roles.of(990, set()) == Role.CONTROL
    assert roles.of(1000, {100}) == Role.NOBODY
    assert roles.of(1000, {100, 901}) == Role.OBSERVE
    assert roles.of(1000, {900}) == roles.of(1000, {901, 902}) == Role.INFER
    assert roles.of(1000, {901, 903}) == Role.CONTROL


def test_denials_name_user_and_process_and_a_flood_of_them_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log = EventLog()
    denials = Denials(log)
    for number in range(500):
        with pytest.raises(errors.PermissionDenied, match="needs the role 'infer', user id 1000 has 'nobody'"):
            denials.deny(Peer(1000, 77, Role.NOBODY), Role.INFER, "POST /x")
        with pytest.raises(errors.PermissionDenied):
            denials.deny(Peer(1001, 78, Role.OBSERVE), Role.CONTROL, "PUT /y")
        now[0] += 0.01 if number else 0.0
    texts = [e.message for e in log.ring]
    assert texts[:2] == ["POST /x denied to user id 1000, process 77", "PUT /y denied to user id 1001, process 78"]
    assert 8 <= len(texts) <= 12
    assert "and 10" in texts[2]
    assert "more before it" in texts[2]
