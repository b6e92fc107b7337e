"""The hardware rungs on a made-up machine."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from usbtree import CORAL, UsbTree

from edgeaid.devices import rungs
from edgeaid.devices.discovery import Found, scan
from edgeaid.devices.ladder import Rung
from edgeaid.errors import DeviceError


@pytest.fixture
def stick(tree: UsbTree) -> Found:
    tree.plug("1-1.4", CORAL)
    return scan(tree.sys, tree.dev)[0]


def test_a_usb_reset_is_one_ioctl_on_the_node(stick: Found) -> None:
    calls = []

    def ioctl(descriptor: int, request: int) -> None:
        calls.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")), request))

    asyncio.run(rungs.perform(Rung.USB_RESET, stick, ioctl=ioctl))
    assert calls == [(stick.node, 0x5514)]


def test_a_reset_that_the_kernel_refuses_says_what_and_leaks_no_descriptor(stick: Found) -> None:
    def ioctl(descriptor: int, request: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(DeviceError, match=r"usb:1-1\.4: cannot reset its USB port .*not permitted; docs/devices.md"):
        rungs.usb_reset(stick, ioctl=ioctl)
    assert os.listdir("/proc/self/fd") == before


def test_a_stick_that_left_meanwhile_is_a_device_error(tree: UsbTree, stick: Found) -> None:
    tree.unplug("1-1.4")
    with pytest.raises(DeviceError, match="No such file"):
        rungs.usb_reset(stick)
    with pytest.raises(DeviceError, match="No such file"):
        asyncio.run(rungs.authorize(stick, sysfs=tree.sys, dark_s=0))


def test_authorization_is_withdrawn_and_renewed(tree: UsbTree, stick: Found) -> None:
    path = tree.sys / "bus/usb/devices/1-1.4/authorized"
    seen = []

    async def scenario() -> None:
        task = asyncio.create_task(rungs.authorize(stick, sysfs=tree.sys, dark_s=0.01))
        await asyncio.sleep(0)
        seen.append(path.read_text())
        await task
        seen.append(path.read_text())

    asyncio.run(scenario())
    assert seen == ["0", "1"]


def test_a_cancelled_pulse_never_leaves_the_port_dark(tree: UsbTree, stick: Found) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(rungs.port_power(stick, sysfs=tree.sys, dark_s=60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert (tree.sys / "bus/usb/devices/1-1:1.0/1-1-port4/disable").read_text() == "0"


def test_a_hub_without_switchable_power_is_explained(tree: UsbTree, stick: Found) -> None:
    (tree.sys / "bus/usb/devices/1-1:1.0/1-1-port4/disable").unlink()
    with pytest.raises(DeviceError, match="hub with per-port power"):
        asyncio.run(rungs.perform(Rung.PORT_POWER, stick, sysfs=tree.sys))


def test_the_port_of_a_root_hub_is_found_too(tree: UsbTree) -> None:
    assert (rungs.port_folder("2-1", tree.sys) / "disable").exists()
    assert (rungs.port_folder("1-1.4", tree.sys) / "disable").exists()


def test_retry_and_reopen_touch_nothing_and_pcie_cannot_be_reset_as_usb(stick: Found) -> None:
    card = replace(stick, id="pci:0000:01:00.0", usb_ids=None)
    asyncio.run(rungs.perform(Rung.RETRY, card))
    asyncio.run(rungs.perform(Rung.REOPEN, card))
    with pytest.raises(DeviceError, match="not on USB"):
        asyncio.run(rungs.perform(Rung.USB_RESET, card))
