"""Sticks that come and go on a made-up bus, the stand-in library behind them, a running daemon above."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

CORAL = (0x18D1, 0x9302)
PORT = "1-1.2"
EMBED = "mobilenet_v1_1.0_224_quant_embedding_extractor"
LARGE = ("embed", f"{EMBED}.tflite", f"{EMBED}_edgetpu.tflite")
BIG = np.zeros((1, 224, 224, 3), np.uint8)


def eventually(check, seconds=60.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if check():
            return
        time.sleep(0.05)
    raise AssertionError("did not happen in time")


def stick(daemon):
    with daemon.client() as client:
        return next((d for d in client.devices() if d["target"] == "edgetpu"), None)


def state(daemon):
    found = stick(daemon)
    return found["state"] if found else None


def cycle(daemon, control, tree, sticks):
    control("devices", "vanish")
    tree.unplug(PORT)
    eventually(lambda: state(daemon) in ("absent", "recovering", "failed", "quarantined"))
    with daemon.client() as client:
        assert client.infer("embed", BIG).outputs
    control(f"devices {sticks}")
    tree.plug(PORT, CORAL)
    eventually(lambda: state(daemon) == "ready")


def start(edge_daemon, tree):
    sticks = f"usb:{tree.sys}/bus/usb/devices/{PORT}"
    daemon, control = edge_daemon([LARGE], "[models]\nembedded = false\n", commands=("devices",), tree=tree)
    return daemon, control, sticks


def test_a_stick_is_found_used_missed_and_found_again(edge_daemon, tree):
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


@pytest.mark.slow
def test_500_cycles_leak_no_descriptor_no_process_and_no_memory(edge_daemon, tree):
    daemon, control, sticks = start(edge_daemon, tree)
    control(f"devices {sticks}")
    tree.plug(PORT, CORAL)
    eventually(lambda: state(daemon) == "ready")
    status = f"/proc/{daemon.process.pid}"

    def counts():
        children = open(f"{status}/task/{daemon.process.pid}/children").read().split()  # noqa: SIM115  one read
        rss = int(open(f"{status}/statm").read().split()[1]) * 4  # noqa: SIM115  one read
        return len(os.listdir(f"{status}/fd")), len(children), rss

    for _ in range(20):
        cycle(daemon, control, tree, sticks)
    before = counts()
    for _ in range(480):
        cycle(daemon, control, tree, sticks)
    after = counts()
    print(f"descriptors, children, resident KiB: {before} after 20 cycles, {after} after 500")
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 4096
