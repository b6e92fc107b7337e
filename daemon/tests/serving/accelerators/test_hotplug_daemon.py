"""Sticks that come and go on a made-up bus, the stand-in library behind them, a running daemon above."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ...support.daemon import Running
from ...support.usbtree import UsbTree
from ...support.waiting import eventually
from .conftest import Control

CORAL_BOOT = (0x1A6E, 0x089A)
CORAL = (0x18D1, 0x9302)
PORT = "1-1.2"
EMBED = "mobilenet_v1_1.0_224_quant_embedding_extractor"
LARGE = ("embed", f"{EMBED}.tflite", f"{EMBED}_edgetpu.tflite")
BIG = np.zeros((1, 224, 224, 3), np.uint8)


def stick(daemon: Running) -> Any:
    with daemon.client() as client:
        return next((d for d in client.devices() if d["target"] == "edgetpu"), None)


def state(daemon: Running) -> Any:
    device = stick(daemon)
    return device["state"] if device else None


def cycle(daemon: Running, control: Any, tree: Any, sticks: Any) -> None:
    control("devices", "vanish")
    tree.unplug(PORT)
    eventually(lambda: state(daemon) in ("absent", "recovering", "failed", "quarantined"))
    with daemon.client() as client:
        assert client.infer("embed", BIG).outputs
    control(f"devices {sticks}")
    tree.plug(PORT, CORAL)
    eventually(lambda: state(daemon) == "ready")


def start(edge_daemon: Any, tree: Any, settings: str = "") -> Any:
    sticks = f"usb:{tree.sys}/bus/usb/devices/{PORT}"
    text = f"discover_seconds = 0.2\n[models]\nembedded = false\n{settings}"
    daemon, control = edge_daemon([LARGE], text, commands=("devices",), tree=tree)
    return daemon, control, sticks


def test_a_stick_is_found_used_missed_and_found_again(
    edge_daemon: Callable[..., tuple[Any, Control]], tree: UsbTree
) -> None:
    daemon, control, sticks = start(edge_daemon, tree)
    assert stick(daemon) is None
    control(f"devices {sticks}")
    tree.plug(PORT, CORAL)
    eventually(lambda: state(daemon) == "ready")
    assert stick(daemon)["id"] == f"usb:{PORT}"
    assert stick(daemon)["hardware"]["kind"].startswith("Coral")
    eventually(lambda: stick(daemon)["models"] == ["embed/1"])
    with daemon.client() as client:
        for _ in range(3):
            client.infer("embed", BIG)
    for _ in range(2):
        cycle(daemon, control, tree, sticks)
    with daemon.client() as client:
        assert any(event["kind"] == "recovery" for event in client.events())


def test_a_stick_that_comes_back_on_the_other_bus_of_its_socket_is_the_same_device_and_is_opened_there(
    edge_daemon: Callable[..., tuple[Any, Control]], tree: UsbTree
) -> None:
    tree.same_socket("1-2", "2-2")
    place = f"usb:{tree.sys}/bus/usb/devices"
    tree.plug("1-2", CORAL_BOOT)
    daemon, control = edge_daemon(
        [LARGE], "discover_seconds = 0.2\n[models]\nembedded = false\n", commands=(f"devices {place}/1-2",), tree=tree
    )
    eventually(lambda: state(daemon) == "ready")
    assert stick(daemon)["facts"]["path"].endswith("/1-2")
    control("devices", "vanish")
    tree.unplug("1-2")
    tree.plug("2-2", CORAL, speed=5000)
    with daemon.client() as client:
        for _ in range(5):
            assert client.infer("embed", BIG).outputs
    control(f"devices {place}/2-2")
    eventually(lambda: stick(daemon)["facts"]["path"].endswith("/2-2") and state(daemon) == "ready")
    with daemon.client() as client:
        sticks = [d for d in client.devices() if d["target"] == "edgetpu"]
        # Where the daemon looked between pulling and plugging, it is seen to leave and to come; else to have moved.
        kinds = ("device-changed", "device-added")
        moved = next(event for event in client.events() if event["kind"] in kinds and event["port"] == "2-2")
    assert [(d["id"], d["hardware"]["port"], d["hardware"]["usb_ids"]) for d in sticks] == [
        ("usb:1-2", "2-2", "18d1:9302")
    ]
    assert moved["device"] == "usb:1-2"


@pytest.mark.slow
def test_500_cycles_leak_no_descriptor_no_process_and_no_memory(
    edge_daemon: Callable[..., tuple[Any, Control]], tree: UsbTree
) -> None:
    # Ten a minute, on purpose: without this setting the daemon would leave the stick alone after the sixth.
    daemon, control, sticks = start(edge_daemon, tree, "[recovery]\nflaps = 1000\n")
    control(f"devices {sticks}")
    tree.plug(PORT, CORAL)
    eventually(lambda: state(daemon) == "ready")
    status = f"/proc/{daemon.process.pid}"

    def counts() -> Any:
        children = Path(f"{status}/task/{daemon.process.pid}/children").read_text().split()  # zombies are in it too
        rss = int(Path(f"{status}/statm").read_text().split()[1]) * 4
        return len(os.listdir(f"{status}/fd")), len(children), rss

    for _ in range(20):
        cycle(daemon, control, tree, sticks)
    before = counts()
    for number in range(480):
        cycle(daemon, control, tree, sticks)
        if number % 60 == 59:
            print(f"{number + 21} cycles: descriptors, children, resident KiB: {counts()}", flush=True)
    after = counts()
    print(f"descriptors, children, resident KiB: {before} after 20 cycles, {after} after 500")
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 4096
