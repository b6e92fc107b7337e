"""The daemon as a service: activation, readiness, watchdog, reload, roles, confinement."""

from __future__ import annotations

import json

import pytest

from ..support.waiting import eventually
from .conftest import Container

pytestmark = pytest.mark.root

ASK = """
from edgeaid.client import Client
with Client("/run/edgeai/edgeaid.sock", fast=False) as client:
    print(sorted(model["name"] for model in client.models()))
"""
ROLES = """
import json
from edgeaid import errors
from edgeaid.client import Client
results = {}
with Client("/run/edgeai/edgeaid.sock", fast=False) as client:
    calls = {
        "observe": lambda: client.get("/v2/models/digits"),
        "infer": lambda: client.post("/v2/models/digits/infer", {"inputs": []}),
        "control": lambda: client.load("digits"),
    }
    for name, call in calls.items():
        try:
            call()
            results[name] = "yes"
        except errors.PermissionDenied:
            results[name] = "no"
        except errors.InvalidRequest:
            results[name] = "yes"
print(json.dumps(results))
"""


@pytest.fixture
def daemon(container: Container) -> Container:
    """The container with the daemon up."""
    container.run("systemctl", "start", "edgeaid.service", timeout=200)
    return container


def fresh(container: Container, old: str) -> bool:
    """A daemon other than process `old` is up."""
    state = container.show("edgeaid.service", "MainPID", "ActiveState")
    return state["ActiveState"] == "active" and state["MainPID"] not in ("0", old)


def test_first_request_starts_the_daemon(container: Container) -> None:
    container.run("systemctl", "stop", "edgeaid.service")
    assert container.show("edgeaid.service", "ActiveState")["ActiveState"] == "inactive"
    assert "digits" in container.python(ASK, timeout=200).stdout
    eventually(
        lambda: container.show("edgeaid.service", "ActiveState")["ActiveState"] == "active",
        120,
        "the daemon to say it is ready",
    )


def test_service_is_started_when_the_daemon_says_so(daemon: Container) -> None:
    state = daemon.show("edgeaid.service", "ActiveState", "SubState", "StatusText", "Result")
    assert (state["ActiveState"], state["SubState"], state["Result"]) == ("active", "running", "success")
    assert "digits" in state["StatusText"]


def test_daemon_runs_as_its_own_user_without_capabilities(daemon: Container) -> None:
    state = daemon.show("edgeaid.service", "MainPID", "User")
    assert state["User"] == "edgeai"
    status = daemon.run("cat", f"/proc/{state['MainPID']}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_stop_leaves_the_sockets(daemon: Container) -> None:
    daemon.run("systemctl", "stop", "edgeaid.service", timeout=60)
    assert daemon.show("edgeaid.service", "Result")["Result"] == "success"
    for name in ("edgeaid.sock", "fast.sock"):
        daemon.run("test", "-S", f"/run/edgeai/{name}")


def test_killed_daemon_comes_back(daemon: Container) -> None:
    pid = daemon.show("edgeaid.service", "MainPID")["MainPID"]
    daemon.run("kill", "-KILL", pid)
    eventually(lambda: fresh(daemon, pid), 120, "a new daemon")


def test_watchdog_ends_a_stopped_daemon_and_a_new_one_comes(daemon: Container) -> None:
    drop_in = "/etc/systemd/system/edgeaid.service.d/60-watchdog.conf"
    daemon.run(
        "sh",
        "-c",
        f"printf '[Service]\\nWatchdogSec=10s\\n' > {drop_in} && systemctl daemon-reload && systemctl restart edgeaid",
        timeout=200,
    )
    try:
        pid = daemon.show("edgeaid.service", "MainPID")["MainPID"]
        daemon.run("kill", "-STOP", pid)
        eventually(lambda: fresh(daemon, pid), 180, "the watchdog and a new daemon")
        assert "watchdog" in daemon.run("journalctl", "-u", "edgeaid", "-o", "cat", "--no-pager").stdout.lower()
    finally:
        daemon.run(
            "sh",
            "-c",
            f"rm {drop_in}; systemctl daemon-reload; systemctl reset-failed edgeaid; systemctl restart edgeaid",
            timeout=200,
        )


def test_reload_takes_settings_over_without_a_new_process(daemon: Container) -> None:
    pid = daemon.show("edgeaid.service", "MainPID")["MainPID"]
    daemon.run(
        "sh",
        "-c",
        "cp /etc/edgeai/edgeaid.toml /run/saved; printf '\\n[limits]\\nqueue = 63\\n' >> /etc/edgeai/edgeaid.toml",
    )
    try:
        daemon.run("systemctl", "reload", "edgeaid.service", timeout=120)
        eventually(
            lambda: (
                daemon.run(
                    "journalctl", "MESSAGE_ID=fe56015018bc470e8decef8c32813cdb", "-o", "cat", "--no-pager"
                ).stdout
            ),
            60,
            "the reload's event",
        )
    finally:
        daemon.run("cp", "/run/saved", "/etc/edgeai/edgeaid.toml")
    assert daemon.show("edgeaid.service", "MainPID", "ActiveState") == {"MainPID": pid, "ActiveState": "active"}


def test_reload_with_bad_settings_keeps_the_old_ones(daemon: Container) -> None:
    pid = daemon.show("edgeaid.service", "MainPID")["MainPID"]
    daemon.run("sh", "-c", "cp /etc/edgeai/edgeaid.toml /run/saved; echo nonsense >> /etc/edgeai/edgeaid.toml")
    try:
        daemon.run("systemctl", "reload", "edgeaid.service", check=False, timeout=120)
        eventually(
            lambda: daemon.run("journalctl", "-u", "edgeaid", "-p", "err", "-o", "cat", "--no-pager").stdout,
            60,
            "an error in the journal",
        )
    finally:
        daemon.run("cp", "/run/saved", "/etc/edgeai/edgeaid.toml")
    assert daemon.show("edgeaid.service", "MainPID", "ActiveState") == {"MainPID": pid, "ActiveState": "active"}


@pytest.mark.parametrize(
    ("user", "may"),
    [
        ("watcher", {"observe"}),
        ("asker", {"observe", "infer"}),
        ("keeper", {"observe", "infer", "control"}),
        ("stranger", set()),
    ],
)
def test_role_of_a_user_comes_from_its_groups(daemon: Container, user: str, may: set[str]) -> None:
    roles = json.loads(daemon.python(ROLES, user=user, timeout=120).stdout)
    assert {name for name, answer in roles.items() if answer == "yes"} == may
