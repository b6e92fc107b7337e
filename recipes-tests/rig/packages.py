"""Fetches what the test distribution is made of: Debian arm64 packages and Python wheels, by name, current versions.

The host's own apt and dpkg are not touched: apt runs on a private root below the work directory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .paths import LAYER, Missing, need

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PYTHON = "311"
#: Tags of wheels that Debian 12's glibc 2.36 can load.
PLATFORMS = (
    "manylinux2014_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_28_aarch64",
    "manylinux_2_34_aarch64",
)


def replaced() -> dict[str, dict[str, Any]]:
    """conf/replaced.toml: what the test distribution replaces, and with what."""
    return tomllib.loads((LAYER / "conf" / "replaced.toml").read_text())


def wheels() -> dict[str, dict[str, Any]]:
    """conf/wheels.toml: Python packages taken as wheels."""
    return tomllib.loads((LAYER / "conf" / "wheels.toml").read_text())


def wanted_debs() -> list[str]:
    return sorted({name for entry in replaced().values() for name in entry.get("debs", [])})


def debian_mirror() -> str:
    """The Debian mirror that this host uses, else the public one."""
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if path.is_file():
            match = re.search(
                r"(?:^URIs:\s*|^deb (?:\[[^]]*\] )?)(https?://\S*/debian)/?(?:\s|$)", path.read_text(), re.M
            )
            if match:
                return match[1]
    return "http://deb.debian.org/debian"


def _apt_root(root: Path) -> dict[str, str]:
    """A private apt for arm64 below root; returns the environment that selects it."""
    for directory in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "log"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "state/status").touch()
    mirror = debian_mirror()
    security = mirror.removesuffix("/debian") + "/debian-security"
    options = f"[arch=arm64 signed-by={KEYRING}]"
    (root / "etc/sources.list").write_text(
        f"deb {options} {mirror} {SUITE} main non-free-firmware\n"
        f"deb {options} {mirror} {SUITE}-updates main\n"
        f"deb {options} {security} {SUITE}-security main\n"
    )
    (root / "apt.conf").write_text(
        f'Dir "{root}/";\nDir::State "state/";\nDir::State::status "{root}/state/status";\nDir::Cache "cache/";\n'
        f'Dir::Etc "etc/";\nDir::Etc::sourcelist "sources.list";\nDir::Etc::sourceparts "-";\nDir::Etc::parts "-";\nDir::Log "log/";\n'
        'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\nAPT::Sandbox::User "root";\n'
        'APT::Install-Recommends "false";\nAcquire::Languages "none";\nAcquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
        'Acquire::Retries "3";\nDir::Bin::methods "/usr/lib/apt/methods";\n'
    )
    return {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C.UTF-8"}


def fetch_debs(work: Path, some: Sequence[str] = ()) -> Path:
    """Download the packages of replaced.toml (or only `some`) to work/debs; an index.json there maps name -> file. Returns the directory."""
    need("apt-get", "apt-cache", "dpkg-deb")
    directory = work / "debs"
    directory.mkdir(parents=True, exist_ok=True)
    env = _apt_root(work / "apt")
    index_path = directory / "index.json"
    index = json.loads(index_path.read_text()) if index_path.is_file() else {}
    names = list(some) or wanted_debs()
    fits = set(names) <= set(index) if some else set(names) == set(index)
    if (
        fits
        and all((directory / index[name]).is_file() for name in names)
        and not os.environ.get("EDGEAI_TEST_REFRESH")
    ):
        return directory
    update = subprocess.run(["apt-get", "-q", "update"], env=env, capture_output=True, text=True, check=False)
    if update.returncode:
        raise Missing(f"Debian's package index cannot be reached:\n{update.stderr.strip()}")
    kernel = _current_kernel(env)
    stands_for = {
        "linux-image-arm64": kernel,
        "linux-headers-arm64": kernel.replace("image", "headers"),
        "linux-headers-common": kernel.replace("image", "headers").removesuffix("-arm64") + "-common",
    }
    real = {name: stands_for.get(name, name) for name in names}
    # Of a file that is in the current directory apt prints nothing; its own root holds none.
    uris = subprocess.run(
        ["apt-get", "download", "--print-uris", *real.values()],
        env=env,
        cwd=work / "apt",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    file_of = {}
    for line in uris.splitlines():
        _uri, name, *_ = line.split()
        file_of[name.split("_")[0]] = name
    index = dict(index) if some else {}
    for asked, name in real.items():
        index[asked] = file_of[name].replace("%3a", "~epoch~").replace("%3A", "~epoch~")
    missing = [name for asked, name in real.items() if not (directory / index[asked]).is_file()]
    if missing:
        subprocess.run(
            ["apt-get", "-qq", "download", *missing], env=env, cwd=directory, check=True, capture_output=True
        )
        for path in directory.glob("*%3[aA]*.deb"):  # BitBake reads a percent sign in a file name as an escape
            path.rename(directory / re.sub("%3[aA]", "~epoch~", path.name))
    for path in directory.glob("*.deb"):
        if path.name not in index.values():
            path.unlink()
    index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return directory


def debian_root(work: Path, names: Sequence[str], directory: Path) -> None:
    """Unpack Debian packages for arm64 and everything that they depend on below `directory`; no script of theirs runs."""
    need("apt-get", "dpkg-deb")
    env = _apt_root(work / "apt")
    for words in (["update"], ["install", "--yes", "--download-only", *names]):
        done = subprocess.run(["apt-get", "-q", *words], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"Debian's packages cannot be reached:\n{done.stderr.strip()}")
    for path in sorted((work / "apt/cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", path, directory], check=True)


def _current_kernel(env: dict[str, str]) -> str:
    """The kernel package that the meta-package linux-image-arm64 depends on today."""
    show = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", "linux-image-arm64"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    match = re.search(r"^Depends:.*?(linux-image-[\w.+-]+)", show, re.M)
    if not match:
        raise Missing("linux-image-arm64 names no kernel package")
    return match[1]


def fetch_wheels(work: Path) -> Path:
    """Download the wheels of wheels.toml to work/wheels, with an index.json. Returns the directory."""
    directory = work / "wheels"
    directory.mkdir(parents=True, exist_ok=True)
    index = {}
    asked = []
    for name, entry in wheels().items():
        path = _wheel(directory, name, entry["version"])
        if path is None:
            asked.append(f"{name}=={entry['version']}")
    if asked:
        pip_download(directory, asked, wheel=True)
    for name, entry in wheels().items():
        path = _wheel(directory, name, entry["version"])
        if path is None:
            raise Missing(f"no aarch64 wheel of {name} {entry['version']} in {directory}")
        index[name] = path.name
    text = json.dumps(index, indent=1, sort_keys=True) + "\n"
    if not (directory / "index.json").is_file() or (directory / "index.json").read_text() != text:
        (directory / "index.json").write_text(text)
    return directory


def _wheel(directory: Path, name: str, version: str) -> Path | None:
    stem = re.sub(r"[-_.]+", "_", name)
    wheels = [
        p
        for p in directory.glob("*.whl")
        if re.sub(r"[-_.]+", "_", p.name.split("-")[0]).lower() == stem and p.name.split("-")[1] == version
    ]
    return wheels[0] if wheels else None


def fetch_sources(work: Path, needed: dict[str, str], *, wheel: bool = False) -> Path:
    """Fill BitBake's download directory from the Python index: {file name: requirement}. Returns the directory."""
    directory = work / "downloads"
    directory.mkdir(parents=True, exist_ok=True)
    for name, requirement in needed.items():  # one by one: two versions of a thing may be wanted, for two releases
        if not (directory / name).is_file():
            pip_download(directory, [requirement], wheel=wheel)
            if name.endswith(".whl.zip"):
                (directory / name.removesuffix(".zip")).rename(directory / name)
    return directory


def pip_download(directory: Path, requirements: list[str], *, wheel: bool) -> None:
    """Files of requirements (`name==version`) from the Python index: aarch64 wheels for the image's Python, or sources."""
    command = [
        "/usr/bin/python3",
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--disable-pip-version-check",
        "-d",
        str(directory),
    ]
    if wheel:
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
        command += [f"--platform={name}" for name in PLATFORMS]
    else:
        command += ["--no-binary=:all:", "--no-build-isolation"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"the Python index did not give {' '.join(requirements)}:\n{done.stderr.strip()[-2000:]}")
