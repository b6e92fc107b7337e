"""The configuration for bitbake-setup (wrynose's own tool, beside kas): the same commits as kas, and a build directory by the real tool."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from layer.workspace import MACHINES, Workspace, hand_over
from rig import bitbake
from rig.paths import TOP

CONFIG = "kas/bitbake-setup/edgeai-wrynose.conf.json"


def config() -> dict[str, Any]:
    described: dict[str, Any] = json.loads((TOP / CONFIG).read_text())
    return described


def test_bitbake_setup_takes_the_commits_of_the_lock_file() -> None:
    lock = yaml.safe_load((TOP / "kas/release/wrynose.lock.yml").read_text())["overrides"]["repos"]
    for name, source in config()["sources"].items():
        assert source["git-remote"]["rev"] == lock[name]["commit"], name


def test_bitbake_setup_offers_machines_that_kas_has() -> None:
    (one,) = config()["bitbake-setup"]["configurations"]
    named = {option["name"].removeprefix("machine/") for option in one["oe-fragments-one-of"]["machine"]["options"]}
    assert named <= set(MACHINES)
    assert {"raspberrypi4-64", "raspberrypi5", "qemuarm64"} <= named


def test_bitbake_setup_sets_what_the_machine_files_of_kas_set() -> None:
    (one,) = config()["bitbake-setup"]["configurations"]
    assert "edgeai-rpi/raspberrypi" in one["oe-fragments"]
    of_kas = yaml.safe_load((TOP / "kas/machine/include/raspberrypi.yml").read_text())["local_conf_header"][
        "20-raspberrypi"
    ]
    fragment = (TOP / "meta-edgeai/conf/fragments/raspberrypi.conf").read_text()
    lines = [line for line in of_kas.splitlines() if not line.startswith("#")]
    assert len(lines) > 1
    assert [
        line for line in fragment.splitlines() if line and not line.startswith("BB_CONF_FRAGMENT") and "=" in line
    ] == lines


def test_bitbake_setup_makes_a_build_directory_of_this_distribution(wrynose: Workspace) -> None:
    top: Path = wrynose.build.top / "setup"
    shutil.rmtree(top, ignore_errors=True)
    (top / "conf").mkdir(parents=True)
    hand_over(top)
    sources = [
        word for name in config()["sources"] for word in ("--use-local-source", name, str(wrynose.layers / name))
    ]
    done = bitbake.run(
        wrynose.build, str(wrynose.layers / "bitbake/bin/bitbake-setup"),
        "--setting", "default", "top-dir-prefix", str(top), "--setting", "default", "top-dir-name", "t",
        "init", "--non-interactive", *sources, str(wrynose.build.project / CONFIG), "edgeai", "machine/raspberrypi5", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    directory = top / "t/edgeai-wrynose-raspberrypi5/build"
    asked = bitbake.run(
        wrynose.build, "bash", "-c", f". {directory}/init-build-env >/dev/null && bitbake-getvar MACHINE && bitbake-getvar DISTRO && bitbake-getvar BBLAYERS && bitbake-getvar LICENSE_FLAGS_ACCEPTED",
        timeout=300,
    )  # fmt: skip
    value = dict(re.findall(r'^(MACHINE|DISTRO|BBLAYERS|LICENSE_FLAGS_ACCEPTED)="(.*)"$', asked.stdout, re.MULTILINE))
    assert (value["MACHINE"], value["DISTRO"]) == ("raspberrypi5", "edgeai"), asked.stdout[-2000:]
    assert value["LICENSE_FLAGS_ACCEPTED"].split() == ["synaptics-killswitch"]
    assert str(wrynose.build.project / "meta-edgeai") in [
        os.path.normpath(layer) for layer in value["BBLAYERS"].split()
    ]
