"""Power cuts: the emulator is killed at random while models are pushed, loaded and removed; every boot after it is whole.

EDGEAI_TEST_CUTS  how many (20)
EDGEAI_TEST_SEED  repeats the moments of a run; each run prints its own
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from boot.conftest import CPU, TOP
from rig import machine, paths
from rig.link import GuestError, Link

pytestmark = pytest.mark.slow

MODEL = TOP / "daemon/src/edgeaid/models/defaults/digit-scenes/1/model.tflite"
CUTS = int(os.environ.get("EDGEAI_TEST_CUTS", "20"))
SEED = int(os.environ.get("EDGEAI_TEST_SEED", str(random.randrange(1 << 32))))
#: Accepted models that stay from one life to the next; the others are removed, or loading them would be all a boot does.
KEPT = 3

OWN_MODELS_ONLY = "sed -i 's#, \"/usr/share/edgeai/models\"##' /etc/edgeai/edgeaid.toml && sync"

#: What lies in the writable repository: name/version -> whether every file of its manifest is there with its digest.
VERIFY = """
import hashlib, json, pathlib, tomllib
versions = {}
for version in pathlib.Path("/var/lib/edgeai/models").glob("[!.]*/*"):
    try:
        artifacts = tomllib.loads((version / "model.toml").read_text())["artifacts"].values()
        whole = all(hashlib.sha256((version / a["file"]).read_bytes()).hexdigest() == a["sha256"] for a in artifacts)
    except (OSError, ValueError, KeyError):
        whole = False
    versions[f"{version.parent.name}/{version.name}"] = whole and bool(artifacts)
print(json.dumps(versions))
"""


@dataclass(slots=True)
class Ledger:
    """What the daemon promised so far."""

    accepted: list[str] = field(default_factory=list)  # names whose push was answered
    removed: set[str] = field(default_factory=set)  # names whose removal was answered
    leaving: str = ""  # name whose removal was asked for and not answered
    pushed: int = 0
    in_flight: int = 0  # names found whole after a cut although no answer arrived: the answer was lost, not the model


def _work_until_dark(path: Path, ledger: Ledger, life: int, dark: threading.Event) -> None:
    """Push and load new models, remove old ones, until the machine is gone; the ledger holds what was answered."""
    from edgeaid import errors
    from edgeaid.client import Client

    number = 0
    try:
        with Client(path, fast=False, timeout=300) as client:
            while not dark.is_set():
                name = f"cut-{life}-{number}"
                number += 1
                client.push(name, MODEL)
                ledger.accepted.append(name)
                ledger.pushed += 1
                client.load(name)
                if len(ledger.accepted) > KEPT:
                    ledger.leaving = ledger.accepted[0]
                    client.unload(ledger.leaving)
                    ledger.accepted.remove(ledger.leaving)
                    client.remove(ledger.leaving, "1")
                    ledger.removed.add(ledger.leaving)
                    ledger.leaving = ""
    except (errors.EdgeaiError, OSError):
        assert dark.wait(5), "the daemon failed before the power did"


def _check_what_is_there(link: Link, path: Path, ledger: Ledger) -> None:
    """Nothing accepted is lost, nothing removed is back, nothing half is visible, on disk and through the daemon."""
    from edgeaid.client import Client

    stored = json.loads(link.python(VERIFY).check())
    assert {name for name, whole in stored.items() if not whole} == set(), "half a model is on the card"
    names = {key.split("/")[0] for key in stored}
    assert set(ledger.accepted) <= names, "an accepted model is lost"
    assert not ledger.removed & names, "a removed model is back"
    with Client(path, fast=False, timeout=600) as client:
        shown = {model["name"] for model in client.models()}
        assert {name for name in shown if name.startswith("cut-")} == names
        unknown = names - set(ledger.accepted) - {ledger.leaving}
        ledger.in_flight += len(unknown)
        for name in [*unknown, *ledger.accepted]:
            client.load(name)
            client.request("GET", f"/v2/models/{name}/ready")
        for name in unknown | ({ledger.leaving} & names):
            client.unload(name)
            client.remove(name, "1")
    ledger.removed |= unknown | ({ledger.leaving} - {""})
    ledger.accepted = [name for name in ledger.accepted if name != ledger.leaving]
    ledger.leaving = ""


def _life(image: Path, disk: Path, ledger: Ledger, number: int, seconds: float) -> str:
    """One life: boot, check everything, work until the power goes. Returns a line about it."""
    started = time.monotonic()
    running = machine.boot(image, paths.work_dir(), disk, machine.Board(cpu=CPU), fresh=not disk.is_file())
    try:
        link = running.link
        assert link is not None
        state = running.wait_up(timeout=1200)
        booted = time.monotonic() - started
        assert (state, link.run("systemctl --failed --no-legend --plain").out) == ("running", "")
        path = running.directory / "edgeaid.sock"
        link.forward(path, "/run/edgeai/edgeaid.sock")
        kept = len(ledger.accepted)
        _check_what_is_there(link, path, ledger)
        if not number:  # the distribution's models would be most of what each boot does
            link.run(OWN_MODELS_ONLY).check()
        assert "EXT4-fs error" not in link.run("journalctl -k -b --no-pager").out
        checked = time.monotonic() - started - booted
        before, dark = ledger.pushed, threading.Event()
        problems: list[BaseException] = []

        def work() -> None:
            try:
                _work_until_dark(path, ledger, number, dark)
            except BaseException as error:
                problems.append(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        time.sleep(seconds)
        dark.set()
        running.kill()
        worker.join(timeout=60)
        assert not worker.is_alive()
        assert problems == []
        return (
            f"up in {booted:.0f} s, {kept} accepted models checked in {checked:.0f} s, "
            f"{ledger.pushed - before} more accepted, cut after {seconds:.1f} s"
        )
    except GuestError as error:
        raise AssertionError(f"{error}\n{running.console()[-3000:]}") from error
    finally:
        running.kill()
        running.remove()


def test_power_cuts_during_push_and_load_lose_nothing(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = random.Random(SEED)
    ledger = Ledger()
    for number in range(CUTS + 1):
        seconds = moments.uniform(0.2, 12.0) if number < CUTS else 0.0  # the last life only looks
        line = _life(image, tmp_path / "card.qcow2", ledger, number, seconds)
        with capsys.disabled():
            print(f"\n[seed {SEED}, life {number} of {CUTS}: {line}]", end="", flush=True)
    assert ledger.pushed > CUTS // 2, "hardly anything was accepted: the cuts came too early to prove anything"
    with capsys.disabled():
        print(f"\n[{ledger.pushed} models accepted, {ledger.in_flight} whole although their answer was cut off]")
