"""The drop-in of the feature grpc, under the real unit and its walls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.waiting import eventually
from .conftest import UNITS, Container

pytestmark = pytest.mark.root
pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("hpack", reason="needs edgeaid[grpc]")

DIRECTORY = "/run/systemd/system/edgeaid.service.d"
SOCKET = "/run/edgeai/grpc/edgeaid.sock"
ASK = """
import grpc
from edgeaid.api.grpc.schema import HEALTH_MESSAGES
with grpc.insecure_channel("unix:/run/edgeai/grpc/edgeaid.sock") as channel:
    call = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=HEALTH_MESSAGES["HealthCheckResponse"].FromString)
    print(call(HEALTH_MESSAGES["HealthCheckRequest"](), timeout=60).status)
"""


@pytest.fixture(scope="module")
def switched_on(container: Container) -> Iterator[Container]:
    container.run("mkdir", "-p", DIRECTORY)
    container.run("tee", f"{DIRECTORY}/50-grpc.conf", stdin=(UNITS / "edgeaid-grpc.conf").read_text())
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "restart", "edgeaid", timeout=180)
    yield container
    container.run("rm", "-f", f"{DIRECTORY}/50-grpc.conf")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "restart", "edgeaid", timeout=180)


def test_it_answers_the_daemons_group_and_nobody_else(switched_on: Container) -> None:
    assert switched_on.run("stat", "-c", "%U:%G:%a", SOCKET).stdout.strip() == "edgeai:edgeai:660"
    assert switched_on.python(ASK, user="edgeai").stdout.strip() == "1"
    assert switched_on.python(ASK, user="asker", check=False, timeout=120).returncode != 0


def test_the_sockets_of_systemd_stay_where_the_daemon_cannot_write(switched_on: Container) -> None:
    assert switched_on.run("stat", "-c", "%U:%a", "/run/edgeai").stdout.strip() == "root:755"
    assert switched_on.run("test", "-S", "/run/edgeai/edgeaid.sock").returncode == 0


def test_a_crash_does_not_leave_a_socket_in_the_way(switched_on: Container) -> None:
    before = switched_on.show("edgeaid.service", "MainPID")["MainPID"]
    switched_on.run("kill", "-KILL", before)
    eventually(
        lambda: (
            switched_on.show("edgeaid.service", "MainPID", "ActiveState")
            not in ({"MainPID": before, "ActiveState": "active"},)
            and switched_on.show("edgeaid.service", "ActiveState")["ActiveState"] == "active"
        ),
        120,
        "a new daemon",
    )
    assert switched_on.python(ASK, timeout=120).stdout.strip() == "1"


def test_switched_off_it_leaves_no_socket(switched_on: Container) -> None:
    switched_on.run("rm", f"{DIRECTORY}/50-grpc.conf")
    switched_on.run("systemctl", "daemon-reload")
    switched_on.run("systemctl", "restart", "edgeaid", timeout=180)
    assert switched_on.run("test", "-e", SOCKET, check=False).returncode != 0
