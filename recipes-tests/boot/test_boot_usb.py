"""USB as the guest's kernel and udev see it: a serial board on QEMU's USB, a Coral stick made of software."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from boot import serial_board
from boot.conftest import TOP
from rig.link import Link, wait_for
from rig.machine import Machine

if TYPE_CHECKING:
    from edgeaid.client import Client

pytestmark = pytest.mark.slow
STANDINS = TOP / "daemon" / "tests" / "standins"

CORAL_DRIVER = """
import fcntl, os, struct, sys, time, glob
def node(vendor):
    for path in glob.glob("/sys/bus/usb/devices/*/idVendor"):
        if open(path).read().strip() == vendor:
            directory = os.path.dirname(path)
            return "/dev/bus/usb/%03d/%03d" % (int(open(directory + "/busnum").read()), int(open(directory + "/devnum").read()))
CONTROL = 0xC0185500
def control(fd, kind, request, value, data_or_length):
    import ctypes
    size = data_or_length if isinstance(data_or_length, int) else len(data_or_length)
    buffer = ctypes.create_string_buffer(b"" if isinstance(data_or_length, int) else bytes(data_or_length), max(size, 1))
    block = struct.pack("<BBHHHIxxxxQ", kind, request, value, 0, size, 2000, ctypes.addressof(buffer))
    done = fcntl.ioctl(fd, CONTROL, bytearray(block), True)
    return buffer.raw[:size]
fd = os.open(node("1a6e"), os.O_RDWR)
firmware = bytes(range(256)) * 40
for block in range(0, len(firmware), 256):
    control(fd, 0x21, 1, block // 256, firmware[block:block + 256])
    control(fd, 0xA1, 3, 0, 6)
control(fd, 0x21, 1, len(firmware) // 256, b"")
print(control(fd, 0xA1, 3, 0, 6)[4])
os.close(fd)
"""


def test_serial_board_is_seen_computes_and_leaves(booted: Machine, guest: Link, edgeai_socket: Path) -> None:
    """udev names it, the daemon opens it, uploads its agent and a model over the line, and notices when it is gone."""
    from edgeaid.client import Client

    if guest.run("python3 -c 'import serial'").code:
        pytest.skip(
            "the image has not the feature k210: build recipes-tests/kas/full.yml, name it in EDGEAI_TEST_IMAGE"
        )
    data, manifest = serial_board.model("small")
    guest.put("/var/lib/edgeai/models/small/1/m.kmodel", data)
    guest.put("/var/lib/edgeai/models/small/1/model.toml", manifest.encode())
    guest.run("chown -R edgeai:edgeai /var/lib/edgeai/models/small").check()
    picture = np.random.default_rng(1).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    expected = serial_board.facts.answer(picture.tobytes(), (12288,))[0]
    with Client(edgeai_socket, fast=False, timeout=600) as client:
        with serial_board.plugged(booted, "k210") as board:
            wait_for(lambda: guest.run("test -c /dev/edgeai/k210").code == 0, 300, "the serial board's link")
            assert guest.run("stat -L -c %G:%a /dev/edgeai/k210").check().strip() == "dialout:660"
            wait_for(lambda: _state(client, "k210") == "ready", 300, "the daemon to open the board")
            client.load("small")
            assert client.infer("small", {"input0": picture}).outputs["output0"].tobytes() == expected
            assert board.do("stats")["forwards"] > 0
        wait_for(lambda: guest.run("test -e /dev/edgeai/k210").code != 0, 300, "the link to go")
        wait_for(lambda: _state(client, "k210") != "ready", 600, "the daemon to notice")
        client.unload("small")


def _state(client: Client, target: str) -> str:
    """State of the first device of a target, or nothing."""
    return next((device["state"] for device in client.devices() if device["target"] == target), "")


@pytest.fixture
def coral(guest: Link) -> Iterator[Link]:
    """A stick behind vhci_hcd; commands go through a FIFO, its words to a file."""
    if guest.run("modprobe vhci_hcd").code:
        pytest.skip("this image's kernel has no vhci_hcd module")
    guest.put("/run/usb_coral.py", (STANDINS / "usb_coral.py").read_bytes())
    guest.run("rm -f /run/coral.in /run/coral.out; mkfifo /run/coral.in")
    guest.run("(python3 /run/usb_coral.py <> /run/coral.in > /run/coral.out 2>&1 &) </dev/null >/dev/null 2>&1").check()
    wait_for(lambda: "attached boot" in guest.run("cat /run/coral.out").out, 300, "the stick to be plugged in")
    yield guest
    guest.run("echo quit > /run/coral.in")
    wait_for(lambda: guest.run("pgrep -f usb_coral.py").code != 0, 300, "the stand-in to end")


def test_coral_changes_its_identity_with_its_firmware_and_udev_follows(coral: Link) -> None:
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code == 0, 300, "the link of the boot identity")
    assert coral.run("stat -L -c %G:%a /dev/edgeai/coral-dfu").check().strip() == "plugdev:660"
    place = coral.run("basename $(dirname $(grep -l 1a6e /sys/bus/usb/devices/*/idVendor))").check().strip()
    assert coral.python(CORAL_DRIVER, user="edgeai").check().strip() == "7"
    wait_for(lambda: "attached running" in coral.run("cat /run/coral.out").out, 300, "the stick to come back")
    assert "firmware 10240" in coral.run("cat /run/coral.out").out
    wait_for(
        lambda: coral.run("test -e /dev/edgeai/coral && ! test -e /dev/edgeai/coral-dfu").code == 0,
        300,
        "the link of the running identity",
    )
    assert coral.run("basename $(dirname $(grep -l 18d1 /sys/bus/usb/devices/*/idVendor))").check().strip() == place


def test_coral_pulled_and_plugged_leaves_and_returns(coral: Link) -> None:
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code == 0, 300, "the link")
    coral.run("echo unplug > /run/coral.in").check()
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code != 0, 300, "the link to go")
    coral.run("echo plug > /run/coral.in").check()
    wait_for(lambda: coral.run("test -e /dev/edgeai/coral-dfu").code == 0, 300, "the link to return")
    assert coral.run("systemctl is-active edgeaid").out.strip() == "active"
