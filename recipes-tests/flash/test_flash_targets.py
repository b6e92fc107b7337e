"""Which disks may be overwritten, decided from tables of a computer that is made up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from flash_lib import Refused, devices

from .conftest import MIB


@dataclass(slots=True)
class Computer:
    """A sysfs and a procfs in a directory."""

    top: Path

    @property
    def system(self) -> devices.System:
        return devices.System(self.top / "sys", self.top / "proc")

    def add(self, path: str, number: str, *, size: int = 64 * MIB, removable: bool = False, model: str = "") -> Path:
        """A device at a path below sys/devices."""
        directory = self.top / "sys/devices" / path
        directory.mkdir(parents=True)
        (directory / "size").write_text(f"{size // 512}\n")
        (directory / "removable").write_text(f"{int(removable)}\n")
        (directory / "ro").write_text("0\n")
        if model:
            (directory / "device").mkdir()
            (directory / "device/model").write_text(f"{model}  \n")
        for link in (f"dev/block/{number}", f"class/block/{directory.name}"):
            place = self.top / "sys" / link
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(directory)
        return directory

    def part(self, path: str, number: str) -> Path:
        directory = self.add(path, number)
        (directory / "partition").write_text("1\n")
        return directory

    def mount(self, *lines: str) -> None:
        (self.top / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))

    def disk(self, name: str) -> devices.Disk:
        """As inspect would describe it, without the need of a node."""
        directory = (self.top / "sys/class/block" / name).resolve()
        return devices._disk(Path("/dev") / name, directory)


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    """An NVMe disk with / and LVM, a USB stick, an SD card, a SATA disk."""
    made = Computer(tmp_path)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n")
    made.add("pci0/nvme/nvme0n1", "259:0", model="Fast Disk")
    made.part("pci0/nvme/nvme0n1/nvme0n1p1", "259:1")
    made.part("pci0/nvme/nvme0n1/nvme0n1p2", "259:2")
    made.add("pci0/usb2/2-1/host0/block/sdb", "8:16", removable=True, model="Stick")
    made.part("pci0/usb2/2-1/host0/block/sdb/sdb1", "8:17")
    made.add("platform/mmc0/mmc0:aaaa/block/mmcblk0", "179:0")
    made.add("pci0/ata1/host1/block/sda", "8:0", model="Hard Disk")
    made.part("pci0/ata1/host1/block/sda/sda1", "8:1")
    made.mount(
        "22 1 259:2 / / rw shared:1 - ext4 /dev/nvme0n1p2 rw",
        "23 22 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw",
        "24 22 0:5 / /proc rw - proc proc rw",
    )
    return made


def test_a_usb_stick_and_an_sd_card_are_welcome(computer: Computer) -> None:
    for name in ("sdb", "mmcblk0"):
        devices.check(computer.disk(name), MIB, system=computer.system)
    assert computer.disk("sdb").model == "Stick"
    assert (computer.disk("sdb").transport, computer.disk("mmcblk0").transport) == ("usb", "mmc")


def test_a_built_in_disk_needs_two_words(computer: Computer) -> None:
    with pytest.raises(Refused, match=r"not removable.*--yes --yes-really-not-removable"):
        devices.check(computer.disk("sda"), MIB, system=computer.system)
    devices.check(computer.disk("sda"), MIB, not_removable=True, system=computer.system)


@pytest.mark.parametrize("insist", [False, True])
def test_the_system_disk_is_never_overwritten(computer: Computer, insist: bool) -> None:
    with pytest.raises(Refused, match="never overwritten"):
        devices.check(computer.disk("nvme0n1"), MIB, not_removable=insist, system=computer.system)


def test_a_system_on_lvm_protects_the_disk_below(computer: Computer) -> None:
    volume = computer.add("virtual/block/dm-0", "253:0")
    (volume / "slaves").mkdir()
    (volume / "slaves/sda1").symlink_to(computer.top / "sys/devices/pci0/ata1/host1/block/sda/sda1")
    computer.mount("22 1 253:0 / / rw - ext4 /dev/mapper/root rw")
    with pytest.raises(Refused, match="never overwritten"):
        devices.check(computer.disk("sda"), MIB, not_removable=True, system=computer.system)


def test_a_member_of_a_volume_that_is_not_mounted_is_in_use(computer: Computer) -> None:
    holders = computer.top / "sys/devices/pci0/usb2/2-1/host0/block/sdb/sdb1/holders"
    holders.mkdir()
    (holders / "dm-1").symlink_to("/nowhere")
    with pytest.raises(Refused, match="in use by dm-1"):
        devices.check(computer.disk("sdb"), MIB, system=computer.system)


def test_a_mounted_partition_of_a_stick_is_named_with_its_place(computer: Computer) -> None:
    computer.mount(r"30 22 8:17 / /media/my\040stick rw - vfat /dev/sdb1 rw")
    with pytest.raises(Refused, match="mounted at /media/my stick"):
        devices.check(computer.disk("sdb"), MIB, system=computer.system)


@pytest.mark.root
def test_swap_space_is_in_use(computer: Computer, tmp_path: Path) -> None:
    node = tmp_path / "swap node"
    try:
        os.mknod(node, 0o060600, os.makedev(8, 17))
    except PermissionError:
        pytest.skip("making a device node needs root")
    name = str(node).replace(" ", "\\040")
    (tmp_path / "proc/swaps").write_text(f"Filename Type Size Used Priority\n{name} partition 1 0 -2\n")
    with pytest.raises(Refused, match="swap space"):
        devices.check(computer.disk("sdb"), MIB, system=computer.system)


def test_an_empty_reader_a_switch_and_a_small_card_are_told_apart(computer: Computer) -> None:
    directory = computer.top / "sys/class/block/sdb"
    (directory / "ro").write_text("1\n")
    with pytest.raises(Refused, match="write-protected"):
        devices.check(computer.disk("sdb"), MIB, system=computer.system)
    (directory / "ro").write_text("0\n")
    with pytest.raises(Refused, match="too small"):
        devices.check(computer.disk("sdb"), 65 * MIB, system=computer.system)
    (directory / "size").write_text("0\n")
    with pytest.raises(Refused, match="is a card in the reader"):
        devices.check(computer.disk("sdb"), MIB, system=computer.system)


@pytest.mark.root
def test_a_partition_is_refused_with_the_name_of_its_disk(computer: Computer, tmp_path: Path) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o060600, os.makedev(8, 17))
    except PermissionError:
        pytest.skip("making a device node needs root")
    (tmp_path / "link").symlink_to(node)
    with pytest.raises(Refused, match=r"is a partition; give the whole disk, /dev/sdb"):
        devices.inspect(tmp_path / "link", computer.system)


def test_files_and_missing_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="not a block device"):
        devices.inspect(tmp_path / "file")
    with pytest.raises(Refused, match="No such file"):
        devices.inspect(tmp_path / "absent")
