"""What a scan of sysfs tells."""

from __future__ import annotations

from pathlib import Path

from edgeaid.devices.discovery import scan

from ..support.usbtree import CH340, CORAL, CORAL_BOOT, MOVIDIUS, NCS2_BOOT, UsbTree


def test_a_machine_without_accelerators_or_without_sysfs_has_none(tree: UsbTree, tmp_path: Path) -> None:
    assert scan(tree.sys, tree.dev) == ()
    assert scan(tmp_path / "nowhere", tree.dev) == ()


def test_a_coral_stick_keeps_its_id_when_its_firmware_changes_everything_else(tree: UsbTree) -> None:
    tree.plug("1-1.4", CORAL_BOOT)
    (before,) = scan(tree.sys, tree.dev)
    tree.become("1-1.4", CORAL)
    (after,) = scan(tree.sys, tree.dev)
    assert (before.id, before.state, before.target) == ("usb:1-1.4", "booting", "edgetpu")
    assert (after.id, after.state, after.target) == ("usb:1-1.4", "ready", "edgetpu")
    assert before.node != after.node
    assert after.number > before.number
    assert after.node is not None
    assert after.node.exists()


def test_a_stick_that_moves_from_usb_2_to_usb_3_of_one_socket_keeps_its_id(tree: UsbTree) -> None:
    tree.same_socket("1-2", "2-2")
    tree.plug("1-2", CORAL_BOOT)
    (before,) = scan(tree.sys, tree.dev)
    tree.unplug("1-2")
    tree.plug("2-2", CORAL, speed=5000)
    (after,) = scan(tree.sys, tree.dev)
    assert before.id == after.id == "usb:1-2"
    assert (after.port, after.speed) == ("2-2", 5000.0)


def test_the_two_movidius_sticks_are_told_apart_by_what_they_were(tree: UsbTree) -> None:
    tree.plug("1-1.1", NCS2_BOOT)
    assert scan(tree.sys, tree.dev)[0].target == "ncs2"
    tree.become("1-1.1", MOVIDIUS)
    assert scan(tree.sys, tree.dev)[0].target == "ncs"
    (told,) = scan(tree.sys, tree.dev, targets={"usb:1-1.1": "ncs2"})
    assert (told.target, told.kind) == ("ncs2", "Neural Compute Stick 2")


def test_a_serial_board_is_found_by_its_tty_and_named_by_its_port(tree: UsbTree) -> None:
    tree.plug("1-1.2", CH340, tty="ttyUSB0")
    (board,) = scan(tree.sys, tree.dev)
    assert (board.id, board.target) == ("usb:1-1.2", "k210")
    assert board.nodes == (tree.dev / "ttyUSB0",)


def test_a_serial_bridge_without_a_tty_is_not_reported_yet(tree: UsbTree) -> None:
    tree.plug("1-1.2", CH340)
    assert scan(tree.sys, tree.dev) == ()


def test_a_pcie_card_is_named_by_its_address(tree: UsbTree) -> None:
    tree.add_apex()
    (card,) = scan(tree.sys, tree.dev)
    assert (card.id, card.target, card.node) == ("pci:0000:01:00.0", "edgetpu", tree.dev / "apex_0")
    assert card.to_json()["usb_ids"] is None


def test_an_unreadable_device_does_not_hide_the_others(tree: UsbTree) -> None:
    tree.plug("1-1.1", CORAL)
    tree.plug("1-1.2", CORAL)
    (tree.sys / "bus/usb/devices/1-1.1/devnum").write_text("")
    assert [device.id for device in scan(tree.sys, tree.dev)] == ["usb:1-1.2"]


def test_what_users_see_is_plain(tree: UsbTree) -> None:
    tree.plug("1-1.4", CORAL, serial="abc")
    shown = scan(tree.sys, tree.dev)[0].to_json()
    assert shown["usb_ids"] == "18d1:9302"
    assert shown["speed_mbit"] == 480.0
    assert shown["serial"] == "abc"
