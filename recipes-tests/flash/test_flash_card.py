"""Images are written to real loop devices, read back and provisioned; wrong targets and images are refused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from edgeaid.models import repository
from edgeaid.provision import apply as provision
from flash_lib import images

from .conftest import BOOT, END, MIB, ROOT, TOP, Flash, run

pytestmark = pytest.mark.root

PHRASE = "correct horse battery"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr me"
Loop = Callable[..., Path]
#: The second entry of a partition table.
LAST = 446 + 16


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def untouched(device: Path) -> bool:
    with device.open("rb") as file:
        return not any(file.read(2 * MIB))


def same_partitions(device: Path, image: Path) -> bool:
    """Whether the table and both file systems are those of the image, except that the last partition may be longer."""
    with device.open("rb") as a, image.open("rb") as b:
        written, wanted = bytearray(a.read(END * 512)), bytearray(b.read(END * 512))
    for data in (written, wanted):
        data[LAST + 5 : LAST + 8] = bytes(3)
        data[LAST + 12 : LAST + 16] = bytes(4)
    return written == wanted


@pytest.mark.parametrize("packer", ["", "bzip2", "gzip", "xz", "zstd"])
def test_an_image_is_written_and_verified(image: Path, loop: Loop, flash: Flash, packer: str) -> None:
    device = loop()
    source = image
    if packer:
        kept = image.read_bytes()
        run(packer, "-q", image)
        source = next(p for p in image.parent.glob("card.wic.*") if p.suffix != ".bmap" and p != image)
        image.write_bytes(kept)
    done = flash(source, device, "--yes")
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert same_partitions(device, image)


def test_the_last_partition_reaches_to_the_end_of_the_card_and_its_file_system_follows(
    image: Path, loop: Loop, flash: Flash
) -> None:
    device = loop(size=29 * MIB)
    done = flash(image, device, "--yes")
    assert done.returncode == 0, done.stderr
    assert "reaches to the end of the card" in done.stdout
    assert same_partitions(device, image)
    boot, root = json.loads(run("sfdisk", "--json", device))["partitiontable"]["partitions"]
    assert (boot["start"], boot["size"]) == (BOOT, ROOT - BOOT)
    assert (root["start"], root["size"]) == (ROOT, 28 * MIB // 512 - ROOT)  # a multiple of 4 MiB
    part = Path(run("losetup", "--find", "--show", "-o", ROOT * 512, "--sizelimit", root["size"] * 512, device).strip())
    try:
        run("e2fsck", "-f", "-p", part)
        run("resize2fs", part)
        assert f"Block count:              {root['size'] * 512 // 1024}" in run("dumpe2fs", "-h", part)
    finally:
        run("losetup", "--detach", part)


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_table_that_is_not_four_primary_partitions_is_left_alone(tmp_path: Path, label: str) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(32 * MIB))
    extended = (
        "start=8192,size=16384,type=5\nstart=10240,size=4096,type=83\n" if label == "dos" else "start=8192,size=4096\n"
    )
    run("sfdisk", "--quiet", disk, input=f"label: {label}\nstart=2048,size=4096\n{extended}")
    before = disk.read_bytes()
    assert images.grow_last_partition(disk, 32 * MIB) == 0
    assert disk.read_bytes() == before


def test_without_a_block_map_all_is_written_and_that_is_said(image: Path, loop: Loop, flash: Flash) -> None:
    image.with_name("card.wic.bmap").unlink()
    device = loop()
    done = flash(image, device, "--yes")
    assert done.returncode == 0, done.stderr
    assert "no block map" in done.stdout
    assert "verified" in done.stdout
    assert same_partitions(device, image)


def test_the_name_of_the_device_has_to_be_typed(image: Path, loop: Loop, flash: Flash) -> None:
    device = loop()
    refused(flash(image, device, typed="yes\n"), "not confirmed")
    refused(flash(image, device), "not confirmed")
    assert untouched(device)
    assert flash(image, device, typed=f"{device.name}\n").returncode == 0
    assert not untouched(device)


def test_a_dry_run_writes_nothing(image: Path, loop: Loop, flash: Flash) -> None:
    device = loop()
    done = flash(image, device, "--dry-run", "--hostname", "x")
    assert done.returncode == 0, done.stderr
    assert untouched(device)


def test_a_device_applies_what_was_written_for_it(image: Path, loop: Loop, flash: Flash, tmp_path: Path) -> None:
    device = loop()
    (tmp_path / "key.pub").write_text(KEY + "\n")
    (tmp_path / "password").write_text(PHRASE + "\n")
    done = flash(
        image, device, "--yes", "--hostname", "kitchen", "--timezone", "Europe/Berlin",
        "--ssh-key", tmp_path / "key.pub",
        "--wifi-ssid", "Café", "--wifi-country", "DE", "--wifi-password-file", tmp_path / "password",
        "--preload", TOP / "daemon/src/edgeaid/models/defaults/digits/1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PHRASE.encode() not in device.read_bytes()
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr/share/zoneinfo/Europe").mkdir(parents=True)
    (root / "usr/share/zoneinfo/Europe/Berlin").touch()
    (root / "var/lib/edgeai").mkdir(parents=True)
    run("mcopy", "-s", "-n", "-i", f"{device}@@{BOOT * 512}", "::", root / "boot")
    report = provision.run(root, root / "boot")
    assert report is not None
    assert report.problems == []
    assert (root / "etc/hostname").read_text() == "kitchen\n"
    assert (root / "root/.ssh/authorized_keys").read_text() == KEY + "\n"
    network = (root / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf").read_text()
    assert f"ssid={'Café'.encode().hex()}" in network
    assert repository.Repository([root / "var/lib/edgeai/models"]).names() == ["digits"]
    # the image's own files are still there
    assert (root / "boot/config.txt").is_file()


def test_nothing_is_provisioned_unless_asked(image: Path, loop: Loop, flash: Flash) -> None:
    device = loop()
    assert flash(image, device, "--yes").returncode == 0
    assert "edgeai" not in run("mdir", "-b", "-i", f"{device}@@{BOOT * 512}", "::")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hostname", "Not A Name"], "hostname"),
        (["--timezone", "../x"], "timezone"),
        (["--wifi-ssid", "x"], "--wifi-country"),
        (["--wifi-country", "DE"], "--wifi-ssid"),
        (["--ssh-key", "/dev/null"], "holds no key"),
        (["--ssh-key", str(TOP / "README.md")], "not an SSH public key"),
        (["--preload", str(TOP / "scripts")], "--preload"),
        (["--preload", str(TOP / "README.md")], "--preload"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    image: Path, loop: Loop, flash: Flash, options: list[str], words: str
) -> None:
    device = loop()
    refused(flash(image, device, "--yes", *options), words)
    assert untouched(device)


def test_a_private_key_never_goes_onto_a_card(image: Path, loop: Loop, flash: Flash, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    refused(flash(image, loop(), "--yes", "--ssh-key", tmp_path / "id"), "private key")


def test_a_mounted_disk_is_refused(image: Path, loop: Loop, flash: Flash, tmp_path: Path) -> None:
    device = loop()
    run("mke2fs", "-q", "-t", "ext4", device)
    point = tmp_path / "mounted here"
    point.mkdir()
    done = subprocess.run(["mount", device, point], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        refused(flash(image, device, "--yes", "--yes-really-not-removable"), f"mounted at {point}")
    finally:
        run("umount", point)
    assert flash(image, device, "--yes").returncode == 0


def test_a_partition_and_a_disk_with_a_mounted_partition_are_refused(
    image: Path, loop: Loop, flash: Flash, tmp_path: Path
) -> None:
    device = loop(file=image)
    subprocess.run(["partx", "--add", device], capture_output=True, check=False)
    part = Path(f"{device}p2")
    if not part.exists():
        pytest.skip("this kernel makes no partitions of loop devices")
    try:
        refused(flash(image, part, "--yes"), f"give the whole disk, {device}")
        point = tmp_path / "point"
        point.mkdir()
        done = subprocess.run(["mount", part, point], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        try:
            refused(flash(image, device, "--yes"), f"mounted at {point}")
        finally:
            run("umount", point)
    finally:
        subprocess.run(["partx", "--delete", device], capture_output=True, check=False)


def test_a_symbolic_link_is_judged_by_what_it_points_to(image: Path, flash: Flash, tmp_path: Path) -> None:
    (tmp_path / "card").symlink_to(image)
    refused(flash(image, tmp_path / "card", "--yes"), "not a block device")


def test_the_disk_this_computer_runs_from_is_refused_however_often_one_insists(image: Path, flash: Flash) -> None:
    number = Path("/").stat().st_dev
    directory = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not directory.exists():
        pytest.skip("the root file system is on no block device")
    disk = directory.resolve()
    if (disk / "partition").exists():
        disk = disk.parent
    node = Path("/dev") / disk.name
    if not node.exists() or not stat.S_ISBLK(node.stat().st_mode):
        pytest.skip(f"{node} is not there")
    # a dry run, in case the rule is broken
    refused(flash(image, node, "--yes", "--yes-really-not-removable", "--dry-run"), "never overwritten")


def test_a_card_that_is_too_small_is_refused(image: Path, loop: Loop, flash: Flash) -> None:
    device = loop(size=4 * MIB)
    refused(flash(image, device, "--yes"), "too small")
    assert untouched(device)


@pytest.mark.parametrize("packer", ["", "bzip2", "gzip", "xz", "zstd"])
@pytest.mark.parametrize("with_map", [True, False])
def test_an_image_that_is_cut_off_is_refused(
    image: Path, loop: Loop, flash: Flash, packer: str, with_map: bool
) -> None:
    if packer:
        run(packer, "-q", image)
        image = next(p for p in image.parent.glob("card.wic.*") if p.suffix != ".bmap")
    if not with_map:
        (image.parent / "card.wic.bmap").unlink()
    os.truncate(image, image.stat().st_size * 2 // 3)
    device = loop()
    refused(flash(image, device, "--yes"), "copy or build it again")
    assert untouched(device)


def test_an_image_with_one_changed_byte_is_refused(image: Path, loop: Loop, flash: Flash) -> None:
    damage(image, BOOT * 512 + 3)
    device = loop()
    refused(flash(image, device, "--yes"), "another checksum")
    assert untouched(device)


def test_a_damaged_block_map_is_refused(image: Path, loop: Loop, flash: Flash) -> None:
    path = image.with_name("card.wic.bmap")
    path.write_text(path.read_text().replace("<BlockSize> 4096", "<BlockSize> 8192"))
    device = loop()
    refused(flash(image, device, "--yes"), "its own checksum is wrong")
    assert untouched(device)


def test_a_file_without_partitions_is_no_image(loop: Loop, flash: Flash, tmp_path: Path) -> None:
    (tmp_path / "other.wic").write_bytes(bytes(MIB))
    device = loop()
    refused(flash(tmp_path / "other.wic", device, "--yes"), "no partition table")


def test_a_card_that_forgets_a_byte_is_found_out(image: Path, loop: Loop, flash: Flash, tmp_path: Path) -> None:
    """A bmaptool that damages the card after writing stands for a card that lies."""
    device = loop()
    directory = tmp_path / "bin"
    directory.mkdir()
    tool = directory / "bmaptool"
    place = ROOT * 512 + 1024 + 60
    tool.write_text(
        f'#!/bin/sh\n{shutil.which("bmaptool")} "$@" || exit\n'
        f"printf X | dd of={device} bs=1 seek={place} conv=notrunc,fsync status=none\n"
    )
    tool.chmod(0o755)
    refused(
        flash(image, device, "--yes", "--hostname", "x", path=directory), "differ; the card or its reader is faulty"
    )
    done = flash(image, device, "--yes", "--no-verify", path=directory)
    assert done.returncode == 0
    assert "verified" not in done.stdout


def test_a_disk_that_another_program_has_reserved_is_left_alone(image: Path, loop: Loop, flash: Flash) -> None:
    device = loop()
    with device.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused(flash(image, device, "--yes"), "used by another program")
    assert untouched(device)


def test_a_failing_bmaptool_is_no_success(image: Path, loop: Loop, flash: Flash, tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "bmaptool").write_text("#!/bin/sh\nexit 1\n")
    (directory / "bmaptool").chmod(0o755)
    refused(flash(image, loop(), "--yes", path=directory), "bmaptool failed")


SETTINGS = (
    ("--hostname", "x"),
    ("--timezone", "Europe/Berlin"),
    ("--preload", TOP / "daemon/src/edgeaid/models/defaults/digits/1"),
)


@pytest.mark.parametrize("words", SETTINGS)
def test_an_image_without_a_boot_partition_is_refused_with_settings_before_anything_is_written(
    image: Path, loop: Loop, flash: Flash, words: tuple[object, ...]
) -> None:
    image.with_name("card.wic.bmap").unlink()
    with image.open("r+b") as file:
        file.seek(446 + 4)
        file.write(b"\x83")
    device = loop()
    refused(flash(image, device, "--yes", *words), "no FAT boot partition")
    assert untouched(device)
    assert flash(image, device, "--yes").returncode == 0, "without settings it is written"


@pytest.mark.parametrize("words", SETTINGS)
def test_an_image_that_would_not_apply_settings_is_refused_with_them_before_anything_is_written(
    image: Path, loop: Loop, flash: Flash, tmp_path: Path, words: tuple[object, ...]
) -> None:
    image.with_name("card.wic.bmap").unlink()
    root = tmp_path / "root"
    root.mkdir()
    (root / "report.py").write_text("units = ['edgeai-provision.service']")  # to mention the unit is not to have it
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-E", f"offset={ROOT * 512}", image, f"{(END - ROOT) // 2}k")
    device = loop()
    refused(flash(image, device, "--yes", *words), "has no edgeai-provision.service")
    assert untouched(device)
    assert flash(image, device, "--yes").returncode == 0, "without settings it is written"


def test_a_root_that_cannot_be_searched_is_no_reason_to_refuse_settings(image: Path, loop: Loop, flash: Flash) -> None:
    image.with_name("card.wic.bmap").unlink()
    with image.open("r+b") as file:
        file.seek(ROOT * 512)
        file.write(b"hsqs" + bytes((END - ROOT) * 512 - 4))  # the magic number of a squashfs
    assert flash(image, loop(), "--yes", "--hostname", "x").returncode == 0


@pytest.mark.parametrize("cut", range(-2, 30, 4))
def test_the_unit_is_seen_where_two_pieces_of_the_image_meet(
    image: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    image.with_name("card.wic.bmap").unlink()
    monkeypatch.setattr(images, "PIECE", image.read_bytes().index(images.APPLIER_ENTRY) + cut)
    assert images.check(images.find(image), lambda *_: None).no_settings == ""


def damage(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ 0xFF]))
