"""edgeai-mqtt.service with the condition that an image puts before it: quiet without settings, then on the broker."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from ..support.waiting import eventually
from .conftest import DAEMON, Container

pytestmark = pytest.mark.root
pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

UNIT = "edgeai-mqtt.service"
DIRECTORY = f"/run/systemd/system/{UNIT}.d"
RECIPE = DAEMON.parent / "meta-edgeai/recipes-edgeai/edgeaid/edgeaid-mqtt_0.1.0.bb"
PROGRAM = """#!/bin/sh
export PYTHONPATH=/usr/lib/edgeaid-test/src:/usr/lib/edgeaid-test/site
exec /usr/bin/python3 -m edgeaid.bridges.mqtt "$@"
"""
BROKER = "listener 1883 127.0.0.1\nallow_anonymous true\n"
#: Prints the first retained message of a topic.
LISTEN = """
import sys
import paho.mqtt.subscribe as subscribe
print(subscribe.simple(sys.argv[1], hostname="127.0.0.1").payload.decode())
"""


@pytest.fixture(scope="module")
def installed(container: Container) -> Iterator[Container]:
    """The unit as the package has it, and a broker on the loopback."""
    broker = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
    if broker is None:
        pytest.skip("mosquitto is not installed")
    if not RECIPE.is_file():
        pytest.skip("the layer is not beside the daemon here")
    ((lines, place),) = re.findall(r"printf '(.*?)' \"\$\{sysconfdir\}(.*?)\"", RECIPE.read_text())
    condition = lines.replace("\\n", "\n") % f"/etc{place}"
    container.run("tee", "/usr/bin/edgeai-mqtt", stdin=PROGRAM)
    container.run("chmod", "755", "/usr/bin/edgeai-mqtt")
    container.run("mkdir", "-p", DIRECTORY)
    container.run("tee", f"{DIRECTORY}/10-configured.conf", stdin=condition)
    container.run("tee", "/run/broker.conf", stdin=BROKER)
    container.run("systemctl", "daemon-reload")
    container.run("systemd-run", "--unit=test-broker", broker, "-c", "/run/broker.conf")
    yield container
    container.run("systemctl", "stop", UNIT, "test-broker", check=False)
    container.run("rm", "-rf", DIRECTORY, "/etc/edgeai/mqtt.env")
    container.run("systemctl", "daemon-reload")


def test_without_settings_it_is_not_started_and_nothing_fails(installed: Container) -> None:
    installed.run("systemctl", "start", UNIT)
    state = installed.show(UNIT, "ActiveState", "ConditionResult", "Result")
    assert state == {"ActiveState": "inactive", "ConditionResult": "no", "Result": "success"}


def test_with_settings_it_tells_the_broker_of_this_device(installed: Container) -> None:
    installed.run("tee", "/etc/edgeai/mqtt.env", stdin="EDGEAI_MQTT_BROKER=127.0.0.1\nEDGEAI_MQTT_NODE=attic\n")
    installed.run("systemctl", "start", UNIT)

    def told() -> bool:
        said = installed.run(
            "/usr/bin/timeout", "20", "/usr/bin/python3", "-c", LISTEN, "edgeai/attic/availability", check=False
        )
        return said.stdout.strip() == "online"

    eventually(
        told, 120, f"the device to be online: {installed.run('journalctl', '-b', '-u', UNIT, '-o', 'cat').stdout}"
    )
    assert installed.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
