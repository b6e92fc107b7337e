"""The first program of a device with a read-only root, on partitions of a loop device and with this computer's programs."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import MIB, TOP, run

pytestmark = pytest.mark.root

PREINIT = TOP / "meta-edgeai/recipes-core/edgeai-persistent/edgeai-persistent/device/preinit"
#: Stands where systemd is; writes down what it was given, and what is mounted when it starts.
SYSTEMD = '#!/bin/sh\necho "$@"\nls /data/etc 2>/dev/null || true\n'
ID = re.compile(r"--machine-id=([0-9a-f]{32}) quiet\n")


class Device:
    """A card with root and data partition; `boot` runs the first program as the kernel would, in a mount namespace of its own."""

    def __init__(self, root: Path, data: Path, directory: Path) -> None:
        self.root, self.data, self.directory = root, data, directory

    def boot(self) -> str:
        """Standard output of what stands for systemd."""
        script = (
            f"mount -o ro {self.root} {self.directory} && for d in usr dev; do mount --rbind /$d {self.directory}/$d; done && "
            f"exec chroot {self.directory} /opt/edgeai/preinit quiet"
        )
        return run("unshare", "--mount", "--pid", "--fork", "sh", "-c", script)

    def inside(self, command: str) -> str:
        """A command with the data partition mounted at $D."""
        script = f"mount {self.data} {self.directory} && export D={self.directory} && {command}"
        return run("unshare", "--mount", "sh", "-c", script)


@pytest.fixture
def device(loop: Callable[..., Path], tmp_path: Path) -> Iterator[Device]:
    image, tree = tmp_path / "card", tmp_path / "tree"
    for directory in (
        "usr",
        "dev",
        "proc",
        "sys",
        "data",
        "etc",
        "root",
        "opt/systemd",
        "opt/edgeai/factory/etc",
        "opt/edgeai/factory/root",
    ):
        (tree / directory).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for path, text in ((tree / "opt/edgeai/preinit", PREINIT.read_text()), (tree / "opt/systemd/systemd", SYSTEMD)):
        path.write_text(text.replace("@LIBDIR@", "/opt"))
        path.chmod(0o755)
    (tree / "opt/edgeai/persistent").write_text("/etc/hostname\n/etc/localtime\n/etc/later\n/root/.ssh/\n")
    (tree / "opt/edgeai/factory/etc/hostname").write_text("factory\n")
    (tree / "opt/edgeai/factory/etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    run("sfdisk", "--quiet", image, input="label: dos\nstart=2048,size=2048\nstart=4096,size=16384\nstart=20480\n")
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", f"offset={4096 * 512}", image, "8M")
    run("mke2fs", "-q", "-t", "ext4", "-L", "edgeai-data", "-E", f"offset={20480 * 512}", image, "14M")
    disk = loop(file=image)
    done = subprocess.run(["partx", "--add", disk], capture_output=True, text=True, check=False)
    parts = [Path(f"{disk}p{number}") for number in (1, 2, 3)]
    deadline = time.monotonic() + 10
    while not parts[2].is_block_device() and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        if not parts[2].is_block_device():
            pytest.skip(f"partitions of a loop device cannot be had here: {done.stderr.strip()}")
        mount = tmp_path / "mount"
        mount.mkdir()
        yield Device(parts[1], parts[2], mount)
    finally:
        subprocess.run(["partx", "--delete", disk], capture_output=True, check=False)


def test_the_first_boot_makes_an_identity_and_the_next_ones_keep_it(device: Device) -> None:
    first = device.boot()
    match = ID.match(first)
    assert match is not None, first
    assert device.boot() == first
    assert device.inside("cat $D/etc/machine-id").strip() == match[1]


def test_files_of_the_image_are_copied_once_and_then_left_alone(device: Device) -> None:
    device.boot()
    assert device.inside("cat $D/etc/hostname; readlink $D/etc/localtime; stat -c %a $D/root/.ssh; ls $D/etc") == (
        "factory\n/usr/share/zoneinfo/UTC\n700\nhostname\nlocaltime\nmachine-id\n"
    )
    device.inside("echo mine > $D/etc/hostname")
    device.boot()
    assert device.inside("cat $D/etc/hostname").strip() == "mine"


def test_a_copy_that_a_power_cut_left_half_is_made_again(device: Device) -> None:
    device.inside("mkdir -p $D/etc && printf fact > $D/etc/hostname.new && printf 12ab > $D/etc/machine-id.new")
    assert ID.match(device.boot())
    assert device.inside("cat $D/etc/hostname; ls $D/etc").split() == ["factory", "hostname", "localtime", "machine-id"]


@pytest.mark.parametrize("bad", ["", "0" * 32, "short", "g" * 32, "uninitialized"])
def test_what_is_no_machine_id_is_replaced(device: Device, bad: str) -> None:
    device.inside(f"mkdir -p $D/etc && echo '{bad}' > $D/etc/machine-id")
    first = device.boot()
    assert ID.match(first), "systemd would not start with it"
    assert device.boot() == first


def test_without_the_data_partition_the_images_own_files_are_in_memory(device: Device) -> None:
    kept = device.boot()
    run("e2label", device.data, "other")
    without = device.boot()
    assert ID.match(without), without
    assert without.splitlines()[1:] == ["hostname", "localtime", "machine-id"]
    run("e2label", device.data, "edgeai-data")
    assert device.boot() == kept


def test_a_damaged_data_partition_is_repaired(device: Device) -> None:
    first = device.boot()
    with device.data.open("r+b", buffering=0) as disk:  # the group descriptors, behind the superblock with the label
        disk.seek(2048)
        disk.write(b"\xff" * 1024)
        os.fsync(disk.fileno())
    assert device.boot() == first
