"""Power cuts: the emulator is killed at random while models are pushed and loaded; every boot after it must be whole."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from pathlib import Path

import pytest
from conftest import TOP, wait_for

from rig import machine, paths

DEFAULTS = TOP / "daemon/src/edgeaid/models/defaults"
SETTLE = 90.0


def _push_until_dark(socket_path: Path, model: Path, accepted: list[str], stop: threading.Event) -> None:
    """Push and load new models, one after another, until the machine is gone. Names whose push was answered are `accepted`."""
    from edgeaid.client import Client

    with contextlib.suppress(Exception), Client(socket_path, fast=False, timeout=120) as client:
        number = len(accepted) * 1000 + random.randrange(1000)
        while not stop.is_set():
            name = f"cut-{number}"
            client.push(name, model)
            accepted.append(name)
            client.load(name)
            number += 1


def _cut(image: Path, disk: Path, accepted: list[str], seconds: float) -> None:
    """One life: boot, check that everything accepted before is there and loads, push until the power goes."""
    running = machine.boot(image, paths.work_dir(), disk, fresh=not disk.is_file())
    try:
        link = running.link
        assert link is not None
        wait_for(lambda: link.run("systemctl is-active edgeaid").code == 0, 240, "edgeaid after a power cut")
        assert link.run("systemctl --failed --no-legend --plain").check().strip() == ""
        stored = set(link.run("ls /var/lib/edgeai/models").check().split())
        assert set(accepted) <= stored, "an accepted model is lost"
        path = running.folder / "edgeaid.sock"
        link.forward(path, "/run/edgeai/edgeaid.sock")
        from edgeaid.client import Client

        with Client(path, fast=False, timeout=240) as client:
            shown = {model["name"]: model for model in client.models()}
            assert set(accepted) <= set(shown)
            half = {
                name
                for name, model in shown.items()
                if name.startswith("cut-") and model.get("state") not in ("READY", "UNAVAILABLE", "")
            }
            assert not half - {n for n in half if shown[n].get("state") == "LOADING"}
            for name in accepted[-2:]:
                client.load(name)
        stop = threading.Event()
        pusher = threading.Thread(
            target=_push_until_dark, args=(path, DEFAULTS / "digits/1/model.tflite", accepted, stop), daemon=True
        )
        pusher.start()
        time.sleep(seconds)
        running.process.kill()  # the power goes
        stop.set()
        pusher.join(timeout=30)
    finally:
        running.kill()
        running.remove()


def _cuts(image: Path, folder: Path, count: int) -> None:
    disk = folder / "card.qcow2"
    accepted: list[str] = []
    for _ in range(count):
        _cut(image, disk, accepted, random.uniform(0.5, 12.0))
    assert accepted, "nothing was ever accepted: the test pushed nothing"
    shutil.rmtree(folder)


def test_power_cut_during_push_and_load_loses_nothing(image: Path, tmp_path: Path) -> None:
    _cuts(image, tmp_path / "short", 2)


@pytest.mark.slow
def test_twenty_power_cuts_during_push_and_load_lose_nothing(image: Path, tmp_path: Path) -> None:
    _cuts(image, tmp_path / "long", 20)
