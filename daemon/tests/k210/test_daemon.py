"""The whole way: a client, the daemon, its worker, the line, the board."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import facts
from edgeaid.client import Client as DaemonClient


@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_a_daemon_serves_a_board_its_camera_and_survives_its_reset(
    runtime: str, start: Callable[..., Any], tmp_path: Path
) -> None:
    board = start(runtime=runtime)
    data = facts.small_kmodel(32, 32, 3)
    for name, option in (("small", "outputs = [[32, 32, 3]]"), ("watch", "camera = true")):
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        (folder / "m.kmodel").write_bytes(data)
        (folder / "model.toml").write_text(
            f'schema = 1\nname = "{name}"\ntask = "other"\ndescription = "one node"\nlicense = "MIT"\n'
            f'source = "made by this test"\n\n[artifacts.k210]\nfile = "m.kmodel"\n'
            f'sha256 = "{hashlib.sha256(data).hexdigest()}"\n{option}\n'
        )
    config = tmp_path / "edgeaid.toml"
    config.write_text(f'[[device]]\nid = "k0"\ntarget = "k210"\ndevice = "{board.port}"\n')
    socket, log = tmp_path / "s.sock", tmp_path / "log"
    command = [sys.executable, "-m", "edgeaid", "--config", config, "--socket", socket]
    command += ["--model-repository", tmp_path / "models"]
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
            assert client.infer("watch", {}).outputs["output0"].shape == (1, 3072)
    finally:
        daemon.terminate()
        daemon.wait(20)
