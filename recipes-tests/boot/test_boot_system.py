"""The image as a system: it boots clean, the daemon is up by itself, confined, and recovers."""

from __future__ import annotations

import json
import re

import pytest

from boot.conftest import FirstAnswer
from rig.link import Link, wait_for
from rig.machine import Machine

ASK = """
from edgeaid.client import Client
with Client(fast=False, timeout=280) as client:
    print(sorted(model["name"] for model in client.models()))
"""


def show(guest: Link, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    out = guest.run(["systemctl", "show", unit, "-p", ",".join(names)]).check()
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def test_boots_to_multi_user_without_a_failed_unit(guest: Link) -> None:
    failed = guest.run("systemctl --failed --no-legend --plain").check()
    assert failed.strip() == ""
    assert guest.run("systemctl is-active multi-user.target").out.strip() == "active"


def test_machine_is_the_architecture_of_the_product(guest: Link) -> None:
    assert guest.run("uname -m").check().strip() == "aarch64"


def test_daemon_is_up_and_owns_its_sockets(guest: Link) -> None:
    state = show(guest, "edgeaid.service", "ActiveState", "SubState", "TriggeredBy", "User")
    assert state["ActiveState"] == "active"
    assert "edgeaid.socket" in state["TriggeredBy"]
    assert state["User"] == "edgeai"
    sockets = guest.run("ss -xl 2>/dev/null | grep /run/edgeai || ls -l /run/edgeai").check()
    assert "edgeaid.sock" in sockets
    assert "fast.sock" in sockets


def test_first_request_starts_the_daemon(guest: Link) -> None:
    guest.run("systemctl stop edgeaid.service").check()
    assert show(guest, "edgeaid.service", "ActiveState")["ActiveState"] == "inactive"
    assert show(guest, "edgeaid.socket", "ActiveState")["ActiveState"] == "active"
    assert "digits" in guest.python(ASK).check()
    wait_for(
        lambda: show(guest, "edgeaid.service", "ActiveState")["ActiveState"] == "active",
        600,
        "the daemon to say it is ready",
    )


def test_journal_entry_of_the_start_has_its_fields(guest: Link) -> None:
    lines = guest.run("journalctl -u edgeaid -o json MESSAGE_ID=9672b2c56cb646c6b00eb20e9f7aaf6a").check().splitlines()
    assert lines
    entry = json.loads(lines[-1])
    assert entry["SYSLOG_IDENTIFIER"] == "edgeaid"
    assert int(entry["EDGEAI_MS"]) > 0


def test_journal_says_which_model_was_loaded(guest: Link) -> None:
    lines = guest.run("journalctl -u edgeaid -o json MESSAGE_ID=bafa992149c74d6ca2fde8aa632da4ee").check().splitlines()
    assert "digits" in {re.split("[:/@]", json.loads(line)["EDGEAI_MODEL"])[0] for line in lines}


def test_live_unit_scores_at_most_1_5_in_systemd_analyze_security(guest: Link) -> None:
    out = guest.run("systemd-analyze security --no-pager edgeaid.service").check()
    score = float(out.split("Overall exposure level for edgeaid.service:")[1].split()[0])
    assert score <= 1.5


def test_one_gigabyte_is_enough_for_system_and_daemon(guest: Link) -> None:
    total, available = (
        int(
            guest.run(
                f"awk '/^{key}:/ {{print $2}}' /proc/meminfo || sed -n 's/^{key}: *\\([0-9]*\\).*/\\1/p' /proc/meminfo"
            ).out.split()[0]
        )
        for key in ("MemTotal", "MemAvailable")
    )
    assert total < 1_048_576
    assert available > 400_000
    assert int(show(guest, "edgeaid.service", "MemoryCurrent")["MemoryCurrent"]) < 400 << 20


def records(guest: Link, *words: str) -> int:
    """How many the daemon has written that fit. (A cursor does not do: journalctl skips the first that fits after it.)"""
    return len(guest.run(["journalctl", "-q", "-u", "edgeaid", "-o", "cat", *words]).out.splitlines())


def test_good_settings_are_taken_over_without_a_restart(guest: Link) -> None:
    before = show(guest, "edgeaid.service", "MainPID")["MainPID"]
    reread = "MESSAGE_ID=fe56015018bc470e8decef8c32813cdb"
    seen = records(guest, reread)
    guest.run(
        "cp /etc/edgeai/edgeaid.toml /run/saved.toml; printf '\\n[limits]\\nqueue = 63\\n' >> /etc/edgeai/edgeaid.toml"
    ).check()
    try:
        guest.run("systemctl reload edgeaid").check()
        wait_for(lambda: records(guest, reread) > seen, 300, "the reload")
    finally:
        guest.run("cp /run/saved.toml /etc/edgeai/edgeaid.toml")
    assert show(guest, "edgeaid.service", "MainPID")["MainPID"] == before


def test_bad_settings_change_nothing_and_are_in_the_journal(guest: Link) -> None:
    before = show(guest, "edgeaid.service", "MainPID")["MainPID"]
    seen = records(guest, "-p", "err")
    guest.run(
        "cp /etc/edgeai/edgeaid.toml /run/saved.toml; echo 'not a setting = 1' >> /etc/edgeai/edgeaid.toml"
    ).check()
    try:
        guest.run("systemctl reload edgeaid")
        wait_for(lambda: records(guest, "-p", "err") > seen, 300, "an error in the journal")
    finally:
        guest.run("cp /run/saved.toml /etc/edgeai/edgeaid.toml; systemctl reload edgeaid")
    state = show(guest, "edgeaid.service", "MainPID", "ActiveState")
    assert (state["MainPID"], state["ActiveState"]) == (before, "active")


def test_killed_daemon_comes_back_and_its_sockets_never_went(guest: Link) -> None:
    pid = show(guest, "edgeaid.service", "MainPID")["MainPID"]
    guest.run(f"kill -KILL {pid}").check()
    wait_for(
        lambda: show(guest, "edgeaid.service", "MainPID", "ActiveState") | {"old": pid} if _fresh(guest, pid) else None,
        600,
        "a new daemon",
    )
    assert show(guest, "edgeaid.socket", "ActiveState")["ActiveState"] == "active"


def test_watchdog_kills_a_stopped_daemon_and_it_returns(guest: Link) -> None:
    guest.run(
        "printf '[Service]\\nWatchdogSec=20s\\n' > /run/systemd/system/edgeaid.service.d/60-test.conf; systemctl daemon-reload; systemctl restart edgeaid",
        timeout=300,
    ).check()
    try:
        pid = show(guest, "edgeaid.service", "MainPID")["MainPID"]
        guest.run(f"kill -STOP {pid}").check()
        wait_for(lambda: _fresh(guest, pid), 600, "the watchdog and a new daemon")
        assert "watchdog" in guest.run("journalctl -u edgeaid -o cat -n 200").out.lower()
    finally:
        guest.run(
            "rm /run/systemd/system/edgeaid.service.d/60-test.conf; systemctl daemon-reload; systemctl restart edgeaid",
            timeout=300,
        ).check()


def _fresh(guest: Link, old: str) -> bool:
    state = show(guest, "edgeaid.service", "MainPID", "ActiveState")
    return state["ActiveState"] == "active" and state["MainPID"] not in ("0", old)


def test_first_answer_comes_by_itself_after_power_on(
    booted: Machine, guest: Link, first_answer: FirstAnswer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that waits for the socket is answered; nobody starts anything. The times are told, not judged."""
    assert first_answer.label == "2", first_answer.problem
    line = guest.run("journalctl -b -u edgeaid -o json MESSAGE_ID=9672b2c56cb646c6b00eb20e9f7aaf6a | head -1").check()
    ready = int(json.loads(line)["__MONOTONIC_TIMESTAMP"]) / 1e6
    startup = guest.run("systemd-analyze").out.splitlines()[0]
    with capsys.disabled():
        print(
            f"\n[emulated {booted.board.cpu}: power to first answer {first_answer.seconds:.1f} s; "
            f"kernel to daemon ready {ready:.1f} s; {startup}]"
        )
