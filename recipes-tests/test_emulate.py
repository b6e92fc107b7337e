"""scripts/emulate says what is missing or wrong before it fetches, builds or boots anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "recipes-tests"))

from rig import initramfs, machine, paths, store  # noqa: E402  the path above has to be set first


def emulate(work: Path, *words: object, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGEAI_TEST_WORK": str(work)}
    if path:
        environment["PATH"] = path
    return subprocess.run(
        [sys.executable, str(TOP / "scripts/emulate"), *map(str, words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH on which the emulator's programs are, in name only."""
    directory = tmp_path / "tools"
    directory.mkdir()
    for name in ("qemu-system-aarch64", "qemu-img", "apt-get", "dpkg-deb", "depmod", "modprobe"):
        (directory / name).write_text("#!/bin/sh\nexit 1\n")
        (directory / name).chmod(0o755)
    return directory


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_without_qemu_it_names_the_packages_and_touches_nothing(tmp_path: Path, tools: Path) -> None:
    (tools / "qemu-system-aarch64").unlink()
    (tools / "qemu-img").unlink()
    done = emulate(tmp_path / "work", path=str(tools))
    refused(done, "qemu-system-aarch64", "apt-get install qemu-system-arm qemu-utils")
    assert list((tmp_path / "work").glob("*")) == []


def test_without_apt_it_says_where_it_can_run(tmp_path: Path, tools: Path) -> None:
    (tools / "apt-get").unlink()
    refused(emulate(tmp_path / "work", path=str(tools)), "Debian or Ubuntu")


def test_an_image_that_is_not_there_is_named(tmp_path: Path, tools: Path) -> None:
    refused(emulate(tmp_path / "work", tmp_path / "no.wic", path=str(tools)), "no.wic: there is no such file")


def test_a_private_key_is_refused(tmp_path: Path, tools: Path) -> None:
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n")
    refused(emulate(tmp_path / "work", "--ssh-key", key, path=str(tools)), "private key")
    refused(emulate(tmp_path / "work", "--ssh-key", tmp_path / "none", path=str(tools)), "No such file")


def test_a_console_wants_a_terminal(tmp_path: Path, tools: Path) -> None:
    refused(emulate(tmp_path / "work", "--console", path=str(tools)), "--console needs a terminal")


def test_one_image_is_emulated_once_at_a_time(tmp_path: Path) -> None:
    image = tmp_path / "edgeai-image.wic"
    image.write_bytes(b"x")
    first = store.open_store(tmp_path / "disks", image, machine.Board())
    with pytest.raises(paths.Missing, match="emulated already"):
        store.open_store(tmp_path / "disks", image, machine.Board())
    store.open_store(tmp_path / "disks", image, machine.Board(cpu="cortex-a53")).lock.close()
    first.lock.close()
    store.open_store(tmp_path / "disks", image, machine.Board()).lock.close()


def test_disks_of_an_image_that_was_written_again_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "edgeai-image.wic"
    image.write_bytes(b"x")

    def reopened() -> bool:
        opened = store.open_store(tmp_path / "disks", image, machine.Board())
        there = opened.disk.is_file() and opened.kept.is_file()
        opened.disk.touch()
        opened.kept.touch()
        opened.lock.close()
        return there

    assert not reopened()
    assert reopened()
    image.write_bytes(b"another one")
    assert not reopened()
    assert reopened()
    monkeypatch.setattr(initramfs, "INIT", "other")
    assert not reopened()
    image.unlink()
    other = tmp_path / "other.wic"
    other.touch()
    store.open_store(tmp_path / "disks", other, machine.Board()).lock.close()
    assert list((tmp_path / "disks").glob("*.qcow2")) == []
