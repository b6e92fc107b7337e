"""The hardware steps on a made-up machine."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeaid.devices import recovery_steps
from edgeaid.devices.discovery import Hardware, scan
from edgeaid.devices.ladder import Step
from edgeaid.devices.usb_helper import answer
from edgeaid.errors import DeviceError

from ..support.usbtree import CORAL, UsbTree


@pytest.fixture
def stick(tree: UsbTree) -> Hardware:
    tree.plug("1-1.4", CORAL)
    return scan(tree.sys, tree.dev)[0]


def test_a_usb_reset_is_one_ioctl_on_the_node(stick: Hardware) -> None:
    calls = []

    def ioctl(descriptor: int, request: int) -> None:
        calls.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")), request))

    asyncio.run(recovery_steps.perform(Step.USB_RESET, stick, ioctl=ioctl))
    assert calls == [(stick.node, 0x5514)]


def test_a_reset_that_the_kernel_refuses_says_what_and_leaks_no_descriptor(stick: Hardware) -> None:
    def ioctl(descriptor: int, request: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(DeviceError, match=r"usb:1-1\.4: cannot reset its USB port .*not permitted; docs/devices.md"):
        recovery_steps.usb_reset(stick, ioctl=ioctl)
    assert os.listdir("/proc/self/fd") == before


def test_a_stick_that_left_meanwhile_is_a_device_error(tree: UsbTree, stick: Hardware) -> None:
    tree.unplug("1-1.4")
    with pytest.raises(DeviceError, match="No such file"):
        recovery_steps.usb_reset(stick)
    with pytest.raises(DeviceError, match="No such file"):
        asyncio.run(recovery_steps.perform(Step.AUTHORIZED, stick, sysfs=tree.sys, dark_s=0))


def test_authorization_is_withdrawn_and_renewed(tree: UsbTree, stick: Hardware) -> None:
    path = tree.sys / "bus/usb/devices/1-1.4/authorized"
    seen = []

    async def scenario() -> None:
        task = asyncio.create_task(recovery_steps.perform(Step.AUTHORIZED, stick, sysfs=tree.sys, dark_s=0.01))
        await asyncio.sleep(0)
        seen.append(path.read_text())
        await task
        seen.append(path.read_text())

    asyncio.run(scenario())
    assert seen == ["0", "1"]


def test_a_cancelled_pulse_never_leaves_the_port_dark(tree: UsbTree, stick: Hardware) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(recovery_steps.perform(Step.PORT_POWER, stick, sysfs=tree.sys, dark_s=60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert (tree.sys / "bus/usb/devices/1-1:1.0/1-1-port4/disable").read_text() == "0"


def test_a_hub_without_switchable_power_is_explained(tree: UsbTree, stick: Hardware) -> None:
    (tree.sys / "bus/usb/devices/1-1:1.0/1-1-port4/disable").unlink()
    with pytest.raises(DeviceError, match="hub with per-port power"):
        asyncio.run(recovery_steps.perform(Step.PORT_POWER, stick, sysfs=tree.sys))


def test_a_blue_socket_goes_dark_on_both_its_ports(tree: UsbTree) -> None:
    tree.same_socket("1-2", "2-2")
    tree.plug("2-2", CORAL, speed=5000)
    device = scan(tree.sys, tree.dev)[0]
    disable = [tree.sys / f"bus/usb/devices/{bus}-0:1.0/usb{bus}-port2/disable" for bus in (1, 2)]
    seen = []

    async def scenario() -> None:
        task = asyncio.create_task(recovery_steps.perform(Step.PORT_POWER, device, sysfs=tree.sys, dark_s=0.01))
        await asyncio.sleep(0)
        seen.append([path.read_text() for path in disable])
        await task
        seen.append([path.read_text() for path in disable])

    asyncio.run(scenario())
    assert seen == [["1", "1"], ["0", "0"]]


class Helper:
    """The real helper behind a real socket, as edgeaid-usb.socket starts it; attributes that only it may write."""

    def __init__(self, tree: UsbTree, path: Path) -> None:
        self.tree = tree
        self.path = path
        self.calls: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        self.calls.append(line)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeaid.devices.usb_helper",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "EDGEAI_SYSFS": str(self.tree.sys)},
        )  # fmt: skip
        writer.write((await process.communicate(line))[0])
        await writer.drain()
        writer.close()


def forbid(path: Path) -> None:
    """A write to it fails as on a read-only /sys, also for root: a link to where nobody may write."""
    path.unlink()
    path.symlink_to("/proc/sys/kernel/osrelease")


def test_what_the_daemon_may_not_write_the_helper_does(tree: UsbTree, stick: Hardware, tmp_path: Path) -> None:
    other = UsbTree(tmp_path / "as-the-helper-sees-it")
    other.plug("1-1.4", CORAL)
    forbid(tree.sys / "bus/usb/devices/1-1.4/authorized")
    helper = Helper(other, tmp_path / "usb.sock")

    async def scenario() -> None:
        async with await asyncio.start_unix_server(helper.serve, helper.path):
            await recovery_steps.perform(Step.AUTHORIZED, stick, sysfs=tree.sys, helper=helper.path)

    asyncio.run(scenario())
    assert helper.calls == [b"authorized 1-1.4\n"]
    assert (other.sys / "bus/usb/devices/1-1.4/authorized").read_text() == "1"


def test_without_a_helper_the_step_says_what_to_start(tree: UsbTree, stick: Hardware, tmp_path: Path) -> None:
    forbid(tree.sys / "bus/usb/devices/1-1.4/authorized")
    with pytest.raises(DeviceError, match=r"systemctl enable --now edgeaid-usb\.socket"):
        asyncio.run(recovery_steps.perform(Step.AUTHORIZED, stick, sysfs=tree.sys, helper=tmp_path / "none"))


@pytest.mark.parametrize(
    "request_",
    [b"", b"authorized\n", b"authorized 1-1.4", b"reset 1-1.4\n", b"authorized ../../x\n", b"authorized usb1\n",
     b"authorized 1-1.4 1-1.3\n", b"port-power 1-1.4/../1-1\n", b"\xff" * 64],
)  # fmt: skip
def test_the_helper_understands_two_words_and_a_port_and_nothing_else(tree: UsbTree, request_: bytes) -> None:
    tree.plug("1-1.4", CORAL)
    assert answer(request_, tree.sys, 0).startswith("not understood")


def test_the_helper_touches_accelerators_and_empty_ports_only(tree: UsbTree) -> None:
    tree.plug("1-1.3", (0x0781, 0x5581))  # a disk
    assert answer(b"port-power 1-1.3\n", tree.sys, 0) == "port 1-1.3 holds 0781:5581, which is not a device of edgeaid"
    assert "not a device of edgeaid" in answer(b"authorized 1-1\n", tree.sys, 0), "a hub, with everything behind it"
    assert answer(b"port-power 1-1.2\n", tree.sys, 0) == "ok"
    tree.plug("1-1.4", CORAL)
    assert answer(b"authorized 1-1.4\n", tree.sys, 0) == "ok"


def test_the_port_of_a_root_hub_is_found_too(tree: UsbTree) -> None:
    assert (recovery_steps.port_directory("2-1", tree.sys) / "disable").exists()
    assert (recovery_steps.port_directory("1-1.4", tree.sys) / "disable").exists()


def test_retry_and_reopen_touch_nothing_and_pcie_cannot_be_reset_as_usb(stick: Hardware) -> None:
    card = replace(stick, id="pci:0000:01:00.0", usb_ids=None)
    asyncio.run(recovery_steps.perform(Step.RETRY, card))
    asyncio.run(recovery_steps.perform(Step.REOPEN, card))
    with pytest.raises(DeviceError, match="not on USB"):
        asyncio.run(recovery_steps.perform(Step.USB_RESET, card))
