"""Hot-plug on a made-up machine."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest

from edgeaid.devices.discovery import scan
from edgeaid.devices.monitor import Change, Memory, Monitor

from ..support.usbtree import CORAL, CORAL_BOOT, MOVIDIUS, NCS2_BOOT, UsbTree


def look(memory: Memory, tree: UsbTree, now: float) -> list[tuple[str, str, str]]:
    changes = memory.update(scan(tree.sys, tree.dev, targets=memory.targets), now)
    return [(change.what, change.hardware.id, change.hardware.state) for change in changes]


def test_firmware_starting_between_two_looks_is_a_change_of_the_same_device(tree: UsbTree) -> None:
    memory = Memory()
    tree.plug("1-1.4", CORAL_BOOT)
    assert look(memory, tree, 0) == [("added", "usb:1-1.4", "booting")]
    tree.become("1-1.4", CORAL)
    assert look(memory, tree, 1) == [("changed", "usb:1-1.4", "ready")]
    assert look(memory, tree, 2) == []


def test_a_stick_that_comes_back_on_another_bus_keeps_its_name(tree: UsbTree) -> None:
    memory = Memory()
    tree.plug("1-1.4", NCS2_BOOT)
    look(memory, tree, 0)
    tree.unplug("1-1.4")
    assert look(memory, tree, 1) == [("removed", "usb:1-1.4", "booting")]
    tree.plug("2-1", MOVIDIUS, speed=5000)
    assert look(memory, tree, 2) == [("added", "usb:1-1.4", "ready")]
    assert memory.devices["usb:1-1.4"].target == "ncs2"
    assert memory.devices["usb:1-1.4"].port == "2-1"


def test_a_move_seen_in_one_look_is_a_change(tree: UsbTree) -> None:
    memory = Memory()
    tree.plug("1-1.4", CORAL_BOOT)
    look(memory, tree, 0)
    tree.unplug("1-1.4")
    tree.plug("2-1", CORAL, speed=5000)
    assert look(memory, tree, 1) == [("changed", "usb:1-1.4", "ready")]


def test_two_sticks_that_might_have_moved_are_not_guessed_at(tree: UsbTree) -> None:
    memory = Memory()
    tree.plug("1-1.1", CORAL_BOOT)
    tree.plug("1-1.2", CORAL_BOOT)
    look(memory, tree, 0)
    tree.unplug("1-1.1")
    tree.unplug("1-1.2")
    look(memory, tree, 1)
    tree.plug("2-1", CORAL)
    assert look(memory, tree, 2) == [("added", "usb:2-1", "ready")]


def test_a_stick_plugged_elsewhere_after_a_while_is_another_device(tree: UsbTree) -> None:
    memory = Memory()
    tree.plug("1-1.4", CORAL_BOOT)
    look(memory, tree, 0)
    tree.unplug("1-1.4")
    look(memory, tree, 1)
    tree.plug("2-1", CORAL)
    assert look(memory, tree, 60) == [("added", "usb:2-1", "ready")]


def test_a_newcomer_in_the_old_place_of_a_moved_stick_gets_that_name_and_neither_is_lost(tree: UsbTree) -> None:
    memory = Memory()
    tree.plug("1-1.4", CORAL_BOOT)
    look(memory, tree, 0)
    tree.unplug("1-1.4")
    tree.plug("2-1", CORAL)
    look(memory, tree, 1)
    tree.plug("1-1.4", CORAL)
    look(memory, tree, 2)
    assert sorted(memory.devices) == ["usb:1-1.4", "usb:2-1"]


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_without_udev_changes_arrive_by_looking(tree: UsbTree) -> None:
    changes: list[Change] = []

    async def scenario() -> None:
        tree.plug("1-1.3", CORAL)
        monitor = Monitor(changes.append, sysfs=tree.sys, dev=tree.dev, interval_s=0.01)
        monitor.start()
        assert [change.what for change in changes] == ["added"]
        assert not monitor.uses_udev
        tree.unplug("1-1.3")
        await until(lambda: changes[-1].what == "removed")
        monitor.stop()

    asyncio.run(scenario())


def test_a_listener_that_fails_does_not_stop_the_watch(tree: UsbTree, caplog: pytest.LogCaptureFixture) -> None:
    def listener(change: Change) -> None:
        raise RuntimeError(change.what)

    async def scenario() -> None:
        monitor = Monitor(listener, sysfs=tree.sys, dev=tree.dev, interval_s=0.01)
        monitor.start()
        tree.plug("1-1.3", CORAL)
        await until(lambda: "added" in caplog.text)
        tree.unplug("1-1.3")
        await until(lambda: "removed" in caplog.text)
        monitor.stop()

    asyncio.run(scenario())


def test_udev_events_come_through_the_real_netlink_socket() -> None:
    pytest.importorskip("pyudev")

    async def scenario() -> None:
        monitor = Monitor(lambda change: None)
        monitor.start()
        try:
            if not monitor.uses_udev:
                pytest.skip("no netlink socket for udev events here")
        finally:
            monitor.stop()
        assert not monitor.uses_udev

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(scenario())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_hundred_plug_cycles_leak_neither_descriptors_nor_memory(tree: UsbTree) -> None:
    memory = Memory()

    def cycle(number: int) -> None:
        now = number * 3.0
        tree.plug("1-1.4", CORAL_BOOT)
        assert look(memory, tree, now) == [("added", "usb:1-1.4", "booting")]
        if number % 3 == 0:  # every third comes back elsewhere
            tree.unplug("1-1.4")
            tree.plug("2-1", CORAL, speed=5000)
            assert look(memory, tree, now + 1) == [("changed", "usb:1-1.4", "ready")]
            tree.unplug("2-1")
        else:
            tree.become("1-1.4", CORAL)
            assert look(memory, tree, now + 1) == [("changed", "usb:1-1.4", "ready")]
            tree.unplug("1-1.4")
        assert look(memory, tree, now + 2) == [("removed", "usb:1-1.4", "ready")]

    for number in range(20):
        cycle(number)
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    blocks = sys.getallocatedblocks()
    for number in range(20, 120):
        cycle(number)
    gc.collect()
    # A single object kept per cycle would be 100 and more.
    assert sys.getallocatedblocks() - blocks < 80
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not memory.devices
    assert len(memory.targets) <= 1
    assert len(memory._alias) <= 1
