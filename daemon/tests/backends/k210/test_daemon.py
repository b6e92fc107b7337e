"""The whole way: a client, the daemon, its worker, the line, the board."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid import config
from edgeaid.client import Client as DaemonClient
from edgeaid.serving.hotplug import Hotplug
from edgeaid.serving.plane import Plane

from ...standins.k210 import facts
from ...support.usbtree import UsbTree


@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_a_daemon_serves_a_board_its_camera_and_survives_its_reset(
    runtime: str, start: Callable[..., Any], tmp_path: Path
) -> None:
    board = start(runtime=runtime)
    data = facts.small_kmodel(32, 32, 3)
    for name, option in (("small", "outputs = [[32, 32, 3]]"), ("watch", "camera = true")):
        directory = tmp_path / "models" / name / "1"
        directory.mkdir(parents=True)
        (directory / "m.kmodel").write_bytes(data)
        (directory / "model.toml").write_text(
            f'schema = 1\nname = "{name}"\ntask = "other"\ndescription = "one node"\nlicense = "MIT"\n'
            f'source = "made by this test"\n\n[artifacts.k210]\nfile = "m.kmodel"\n'
            f'sha256 = "{hashlib.sha256(data).hexdigest()}"\n{option}\n'
        )
    config = tmp_path / "edgeaid.toml"
    config.write_text(f'[[device]]\nid = "k0"\ntarget = "k210"\ndevice = "{board.port}"\n')
    socket, log = tmp_path / "s.sock", tmp_path / "log"
    command = [sys.executable, "-m", "edgeaid", "--config", str(config), "--socket", str(socket)]
    command += ["--model-repository", str(tmp_path / "models")]
    with log.open("wb") as errors:
        environment = {**os.environ, "STATE_DIRECTORY": str(tmp_path / "state")}
        daemon = subprocess.Popen(command, stderr=errors, env=environment)
    try:
        until = time.monotonic() + 60
        while "ready after" not in log.read_text():
            assert daemon.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        picture = np.random.default_rng(1).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
        expected = facts.answer(picture.tobytes(), (12288,))[0]
        with DaemonClient(socket) as client:
            assert client.infer("small", {"input0": picture}).outputs["output0"].tobytes() == expected
            board.do("reset")
            begin = time.monotonic()
            assert client.infer("small", {"input0": picture}).outputs["output0"].tobytes() == expected
            print(f"board reset under a daemon ({runtime}): right answer after {time.monotonic() - begin:.2f} s")
            for fast in (True, False):
                with DaemonClient(socket, fast=fast) as viewer:
                    seen = viewer.infer("watch", {})
                    assert (seen.outputs["output0"].shape, seen.device) == ((1, 3072), "k0")
        follow = ["--socket", socket, "--json", "infer", "watch", "--follow", "--count", "3"]
        command = [sys.executable, "-c", "from edgeaid.cli import main; main()", *map(str, follow)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        lines = [json.loads(line) for line in shown.stdout.splitlines()]
        assert [line["device"] for line in lines] == ["k0"] * 3, shown.stderr
        assert lines[0]["outputs"]["output0"]["values"] != lines[2]["outputs"]["output0"]["values"], "another picture"
    finally:
        daemon.terminate()
        daemon.wait(20)


def test_a_board_that_is_plugged_in_again_keeps_its_name_and_is_opened_at_its_new_tty(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    tree = UsbTree(tmp_path / "machine")
    boards = [start(), start()]

    async def ready(plane: Plane, node: str) -> None:
        async with asyncio.timeout(60):
            while not (
                (device := plane.devices.get("usb:1-1.2")) and device.state == "ready" and device.config.device == node
            ):
                await asyncio.sleep(0.05)

    async def scenario() -> list[str]:
        models = config.Models(repositories=(tmp_path / "none",), embedded=False)
        plane = Plane(config.Config(models=models))
        await plane.start()
        hotplug = Hotplug(plane, sysfs=tree.sys, dev=tree.dev)
        hotplug.start()
        try:
            for number, board in enumerate(boards):
                tty = f"ttyUSB{number}"
                tree.plug("1-1.2", (0x1A86, 0x7523), tty=tty)
                (tree.dev / tty).unlink()
                (tree.dev / tty).symlink_to(board.port)
                await ready(plane, str(tree.dev / tty))
                tree.unplug("1-1.2")
                async with asyncio.timeout(60):
                    while plane.devices["usb:1-1.2"].state != "absent":
                        await asyncio.sleep(0.05)
            return [event.kind for event in plane.events.ring if event.fields.get("device") == "usb:1-1.2"]
        finally:
            hotplug.stop()
            await plane.stop()

    kinds = asyncio.run(scenario())
    assert kinds.count("device-added") == kinds.count("device-removed") == 2
