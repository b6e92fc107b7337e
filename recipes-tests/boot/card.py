"""Cards as a person makes them: scripts/flash writes an image and its settings, the emulator starts from the result."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.link import Link, wait_for

from .conftest import TOP

#: Bytes that a card is larger than the image: one that is too small is refused, one of the same size is rare.
SPARE = 16 << 20


@contextlib.contextmanager
def blank_card(card: Path, size: int) -> Iterator[str]:
    """A loop device over the new file `card` of `size` bytes; detached at the end, while the file stays."""
    missing = [
        tool
        for tool in ("bmaptool", "mcopy", "losetup")
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None
    ]
    if os.geteuid():
        pytest.skip("loop devices need root")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (recipes-tests/host-packages-flash.txt)")
    with card.open("wb") as file:
        file.truncate(size)
    done = subprocess.run(["losetup", "--find", "--show", card], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device is to be had: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=False)


def write_card(image: Path, card: Path, *words: object) -> Path:
    """A card image at `card` with `image` and the settings of `words` on it, written by scripts/flash through a loop device."""
    with blank_card(card, image.stat().st_size + SPARE) as device:
        done = subprocess.run(
            [sys.executable, TOP / "scripts/flash", image, device, "--yes", *map(str, words)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return card


def serves(socket: Path, model: str = "digits") -> bool:
    """Whether the daemon behind a socket of this computer serves the model."""
    from edgeaid import errors
    from edgeaid.client import Client

    try:
        with Client(socket, fast=False, timeout=120) as client:
            client.request("GET", f"/v2/models/{model}/ready")
    except (errors.EdgeaiError, OSError):
        return False
    return True


def wait_serving(link: Link, directory: Path) -> None:
    """Until the default models answer: a busy computer may give the guest's worker too little time for its first tries."""
    path = directory / "ready.sock"
    link.forward(path, "/run/edgeai/edgeaid.sock")
    wait_for(lambda: serves(path), 900, "the default models to serve")


def renamed_model(directory: Path, name: str, version: int) -> Path:
    """The model `digits` under another name, as a directory that can be pushed or preloaded."""
    target = directory / name / str(version)
    shutil.copytree(TOP / "daemon/src/edgeaid/models/defaults/digits/1", target)
    manifest = target / "model.toml"
    text = manifest.read_text()
    assert 'name = "digits"' in text
    manifest.write_text(text.replace('name = "digits"', f'name = "{name}"', 1))
    return target


def ssh_key(directory: Path) -> Path:
    """A new private key; the public one is beside it."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed: apt-get install openssh-client")
    path = directory / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(path)], check=True)
    return path
