"""A plain build directory per release: the layers as the kas files name them, no test distribution, nothing built.

The steps that need the host (a copy of the checkout, a kas of the system's Python, the build user) are the rig's.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kas.includehandler import IncludeHandler

from rig import bitbake
from rig.paths import BUILD_UID, TOP, Missing, need, work_dir

#: Machine files of kas, and BitBake's name for the machine where it is another.
MACHINES = (
    "raspberrypi3-64", "raspberrypi4-64", "raspberrypi5", "raspberrypi0-2w-64", "raspberrypi-cm4", "raspberrypi-cm5-io-board",
    "raspberrypi-armv8", "qemuarm64",
)  # fmt: skip
BITBAKE_NAMES = {"raspberrypi-cm4": "raspberrypi4-64"}
RELEASES = ("wrynose", "scarthgap")
#: Programs that BitBake's sanity check asks for; packages: recipes-tests/host-packages.txt.
TOOLS = (
    "git",
    "gawk",
    "chrpath",
    "diffstat",
    "lz4c",
    "zstd",
    "cpio",
    "file",
    "rpcgen",
    "wget",
    "gcc",
    "g++",
    "make",
    "setpriv",
)
#: For every plain build: no network (sources are never fetched here), and parsing by two processes.
SETTINGS = 'CONNECTIVITY_CHECK_URIS = ""\nBB_NO_NETWORK = "1"\nBB_NUMBER_PARSE_THREADS = "2"\nBB_SERVER_TIMEOUT = "0"\n'


@dataclass(frozen=True, slots=True)
class Workspace:
    """Checked-out layers and a build directory."""

    build: bitbake.Build
    directory: Path

    @property
    def layers(self) -> Path:
        return self.build.top

    def run(self, *command: str, timeout: float = 3600, settings: str = "") -> subprocess.CompletedProcess[str]:
        """A command in the build directory's environment; stdout and stderr come as one text. `settings` go to conf/site.conf."""
        conf = self.directory / "conf" / "site.conf"
        conf.parent.mkdir(parents=True, exist_ok=True)
        text = SETTINGS + settings
        if not conf.is_file() or conf.read_text() != text:
            conf.write_text(text)
        hand_over(self.directory)
        script = f'cd "{self.directory}" && export PATH="{self.layers}/bitbake/bin:{self.layers}/openembedded-core/scripts:$PATH" BUILDDIR="$PWD" && exec "$@"'
        return bitbake.run(self.build, "bash", "-c", script, "--", *command, timeout=timeout)


def hand_over(directory: Path) -> None:
    """The build user owns the build directory; cheap, only its top levels are new."""
    if os.getuid() == 0:
        for path in (directory, directory / "conf", *(directory / "conf").glob("*")):
            os.chown(path, BUILD_UID, BUILD_UID)


def kas_files(release: str, machine: str, *features: str) -> str:
    names = [
        "kas/base.yml",
        f"kas/release/{release}.yml",
        f"kas/machine/{machine}.yml",
        *(f"kas/feature/{f}.yml" for f in features),
    ]
    return ":".join(names)


#: Values of EDGEAI_RUNTIMES besides the default; each has a feature of kas and a package group.
RUNTIMES = (
    "tensorflow",
    "edgetpu",
    "edgetpu-pcie",
    "ncs",
    "ncs2",
    "k210",
    "grpc",
    "frigate",
    "mqtt",
    "camera",
    "weston",
)


def feature_names() -> list[str]:
    return sorted(p.stem for p in (TOP / "kas" / "feature").glob("*.yml"))


def workspace(release: str, machine: str = "raspberrypi4-64", *features: str) -> Workspace:
    """Check out the layers of a release (once, seconds) and write the configuration of one machine.

    Raises Missing with what to install or why it cannot be had.
    """
    need(*TOOLS)
    if problem := bitbake.reachable():
        raise Missing(problem)
    locales = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.lower()
    if "en_us.utf8" not in locales:
        raise Missing("BitBake wants the locale en_US.UTF-8: localedef -i en_US -f UTF-8 en_US.UTF-8")
    work = work_dir() / "layer"
    work.mkdir(exist_ok=True)
    build = bitbake.Build(release, work)
    bitbake._kas(work)
    (build.top / "home").mkdir(parents=True, exist_ok=True)
    bitbake._git_config(build)
    bitbake.sync(build)
    for directory in (work, build.top, build.top / "home"):
        if os.getuid() == 0:
            os.chown(directory, BUILD_UID, BUILD_UID)
    done = bitbake.run(build, "kas", "checkout", kas_files(release, machine, *features), timeout=900)
    if done.returncode:
        raise RuntimeError(f"kas checkout failed:\n{done.stdout[-3000:]}")
    return Workspace(build, build.top / "build")


def empty_build(base: Workspace, name: str, layers: list[Path], local_conf: str) -> Workspace:
    """Another build directory over the same checked-out layers, with these layers only; what it built before is removed."""
    directory = base.build.top / name
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "conf").mkdir(parents=True)
    listed = " ".join(str(path) for path in layers)
    (directory / "conf" / "bblayers.conf").write_text(f'BBPATH = "${{TOPDIR}}"\nBBFILES ?= ""\nBBLAYERS = "{listed}"\n')
    (directory / "conf" / "local.conf").write_text(local_conf)
    hand_over(directory)
    return Workspace(base.build, directory)


def load_script(name: str) -> ModuleType:
    """A program of scripts/ as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(TOP / "scripts" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def merged(*features: str, release: str = "wrynose", machine: str = "raspberrypi4-64") -> dict[str, Any]:
    """The configuration of a machine with features."""
    return merge(kas_files(release, machine, *features))


def merge(files: str) -> dict[str, Any]:
    """The configuration as kas merges it. kas checks each file against its schema while it loads it; nothing is checked out."""
    handler = IncludeHandler([str(TOP / name) for name in files.split(":")])
    handler.top_repo_path = str(TOP)
    handler.ensure_from_same_repo = lambda: None
    config: dict[str, Any]
    config, missing = handler.get_config()
    if missing:
        raise RuntimeError(f"kas wants other repositories first: {missing}")
    return config
