"""`authorized` and port power from within the daemon's confinement, under a real systemd; the bus is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import DAEMON, Container

pytestmark = pytest.mark.root

TREE = (DAEMON / "tests" / "support" / "usbtree.py").read_text()
MACHINE = "/var/lib/machine"
STEP = """
import asyncio, sys
from pathlib import Path
from edgeaid.devices import recovery_steps
from edgeaid.devices.discovery import scan
from edgeaid.devices.ladder import Step
sysfs = Path("/var/lib/machine/sys")
device = next(d for d in scan(sysfs, Path("/var/lib/machine/dev")) if d.port == sys.argv[2])
try:
    (sysfs / "bus/usb/devices" / device.port / "authorized").write_text("0")
    print("may write by itself")
except OSError as error:
    print("refused:", error.strerror)
asyncio.run(recovery_steps.perform(Step(sys.argv[1]), device, sysfs=sysfs, dark_s=0.1))
print("done")
"""
#: What of edgeaid.service decides here.
CONFINED = (
    "User=edgeai", "Group=edgeai", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict",
    "ProtectKernelTunables=yes", "RestrictAddressFamilies=AF_UNIX AF_NETLINK", "SystemCallFilter=@system-service",
)  # fmt: skip


@pytest.fixture(scope="module")
def bus(container: Container) -> Container:
    """A made-up machine inside, with one stick, that belongs to root; the helper looks there."""
    container.python(f"{TREE}\nUsbTree(Path('{MACHINE}')).plug('1-1.4', CORAL)\n")
    drop_in = "/etc/systemd/system/edgeaid-usb@.service.d/50-test.conf"
    lines = f"[Service]\\nEnvironment=EDGEAI_SYSFS={MACHINE}/sys\\nReadWritePaths={MACHINE}\\n"
    container.run("sh", "-c", f"mkdir -p $(dirname {drop_in}); printf '{lines}' > {drop_in}; systemctl daemon-reload")
    return container


@pytest.mark.parametrize(
    ("step", "attribute"),
    [
        ("authorized", "bus/usb/devices/1-1.4/authorized"),
        ("port-power", "bus/usb/devices/1-1:1.0/1-1-port4/disable"),
    ],
)
def test_the_daemon_may_not_write_but_its_helper_does(bus: Container, step: str, attribute: str) -> None:
    path = Path(MACHINE) / "sys" / attribute
    bus.run("touch", "-d", "2000-01-01", str(path))
    properties = [word for line in CONFINED for word in ("-p", line)]
    environment = ["-E", "PYTHONPATH=/usr/lib/edgeaid-test/src:/usr/lib/edgeaid-test/site"]
    command = ["systemd-run", "--wait", "--pipe", "-q", *properties, *environment, "/usr/bin/python3", "-c", STEP]
    said = bus.run(*command, step, "1-1.4", timeout=120, check=False)
    journal = bus.run("journalctl", "-u", "edgeaid-usb@*", "-o", "cat", "--no-pager").stdout
    assert [line.partition(":")[0] for line in said.stdout.splitlines()] == ["refused", "done"], said.stderr + journal
    assert bus.run("stat", "-c", "%y", str(path)).stdout[:4] != "2000", "the helper wrote it"
    assert bus.run("cat", str(path)).stdout.strip() == {"authorized": "1", "port-power": "0"}[step]


def test_nobody_else_reaches_the_helper(bus: Container) -> None:
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/edgeai/usb.sock')"
    for user in ("keeper", "asker", "stranger"):
        assert "PermissionError" in bus.python(connect, user=user, check=False).stderr
    bus.python(connect, user="edgeai")


def test_the_helper_itself_can_write_nothing_else(bus: Container) -> None:
    script = (
        "import os\nfor path in ('/etc/passwd', '/proc/sys/kernel/hostname', '/run/x', '/var/lib/x'):\n"
        " try:\n  os.close(os.open(path, os.O_WRONLY | os.O_CREAT)); print('may write', path)\n"
        " except OSError: pass\nprint('caps', open('/proc/self/status').read().split('CapEff:')[1].split()[0])\n"
    )
    unit = bus.run("systemctl", "cat", "edgeaid-usb@.service").stdout
    keep = ("Protect", "ReadOnly", "Private", "ProcSubset", "CapabilityBoundingSet", "NoNewPriv", "User=", "Temporary")
    properties = [w for line in unit.splitlines() if line.startswith(keep) for w in ("-p", line)]
    said = bus.run("systemd-run", "--wait", "--pipe", "-q", *properties, "/usr/bin/python3", "-c", script, timeout=120)
    assert said.stdout.split() == ["caps", "0000000000000000"]
