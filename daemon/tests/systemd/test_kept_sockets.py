"""A daemon that binds its own sockets under systemd: the manager keeps them over a crash."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.waiting import eventually
from .conftest import Container

pytestmark = pytest.mark.root

UNIT = "edgeaid-bare.service"
SOCKET = "/run/edgeaid-bare/edgeaid.sock"
#: Connects while nobody serves: without the kept socket this is refused at once.
ASK = f"""
import sys
from edgeaid.client import Client
with Client("{SOCKET}", fast=False, timeout=120) as client:
    print(client.get("/v2/health/live"))
"""


@pytest.fixture
def bare(container: Container) -> Iterator[Container]:
    """A daemon without socket units, restarted two seconds after a crash."""
    settings = (
        "Type=notify NotifyAccess=main Restart=on-failure RestartSec=2 FileDescriptorStoreMax=8 TimeoutStartSec=120"
    )
    words = [word for setting in settings.split() for word in ("-p", setting)]
    container.run(
        "systemd-run", "--unit", UNIT, *words, "-p", "RuntimeDirectory=edgeaid-bare",
        "-p", "RuntimeDirectoryPreserve=restart", "-p", "StateDirectory=edgeaid-bare",
        "/usr/bin/edgeaid", "--socket", SOCKET, timeout=200,
    )  # fmt: skip
    yield container
    container.run("systemctl", "stop", UNIT, check=False)


def test_a_request_made_while_the_daemon_is_down_is_answered_after_its_restart(bare: Container) -> None:
    before = bare.show(UNIT, "MainPID", "NFileDescriptorStore")
    assert int(before["NFileDescriptorStore"]) >= 1
    bare.run("kill", "-KILL", before["MainPID"])
    eventually(lambda: bare.show(UNIT, "ActiveState", "SubState")["SubState"] == "auto-restart", 30, "the unit to wait")
    assert "True" in bare.python(ASK, timeout=200).stdout
    assert bare.show(UNIT, "MainPID")["MainPID"] != before["MainPID"]


def test_a_clean_stop_leaves_nothing_behind(bare: Container) -> None:
    bare.run("systemctl", "stop", UNIT)
    assert bare.run("ls", SOCKET, check=False).returncode != 0
