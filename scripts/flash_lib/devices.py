"""Which block device may be overwritten. Facts come from sysfs and procfs, whose places can be given for tests."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import Refused

#: What is mounted there runs this computer.
SYSTEM_MOUNTS = ("/", "/boot", "/boot/efi", "/boot/firmware", "/usr", "/var", "/home")
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole disk."""

    #: Its node, symbolic links resolved.
    path: Path
    #: Name in sysfs, such as sda, mmcblk0 or loop0.
    name: str
    #: Vendor and model, or the backing file of a loop device.
    model: str
    #: Bytes.
    size: int
    #: usb, mmc, loop or other.
    transport: str
    #: True for a card reader, USB stick, SD card or loop device.
    removable: bool


@dataclass(frozen=True, slots=True)
class System:
    """Where the kernel's tables are."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")

    def directory(self, number: int) -> Path | None:
        """The sysfs directory of a device number."""
        path = self.sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
        return path.resolve() if path.exists() else None


def inspect(device: Path, system: System | None = None) -> Disk:
    """The whole disk behind a path. Refused for anything else."""
    system = system or System()
    try:
        path = device.resolve(strict=True)
        status = path.stat()
    except OSError as error:
        raise Refused(f"{device}: {error.strerror}; `lsblk` lists the disks") from None
    if not stat.S_ISBLK(status.st_mode):
        raise Refused(f"{device} is not a block device; `lsblk` lists the disks")
    directory = system.directory(status.st_rdev)
    if directory is None:
        raise Refused(f"{device} is not known to the kernel; plug it in again")
    if (directory / "partition").exists():
        raise Refused(f"{device} is a partition; give the whole disk, /dev/{directory.parent.name}")
    return _disk(path, directory)


def _disk(path: Path, directory: Path) -> Disk:
    transport = "other"
    if (directory / "loop").is_dir() or re.fullmatch(r"loop\d+", directory.name):
        transport = "loop"
    elif re.search(r"/usb\d+/", f"{directory}/"):
        transport = "usb"
    elif re.search(r"/mmc\d+/", f"{directory}/") or re.fullmatch(r"mmcblk\d+", directory.name):
        transport = "mmc"
    words = [_text(directory / "device" / name) for name in ("vendor", "model", "name")]
    model = " ".join(w for w in words if w) or _text(directory / "loop/backing_file") or "(no model name)"
    size = int(_text(directory / "size") or 0) * SECTOR
    removable = transport != "other" or _text(directory / "removable") == "1"
    return Disk(path, directory.name, model, size, transport, removable)


def check(disk: Disk, needed: int, *, not_removable: bool = False, system: System | None = None) -> None:
    """Refused unless `needed` bytes may be written to `disk`. `not_removable` lifts that one rule only."""
    system = system or System()
    directory = system.sys / "class/block" / disk.name
    if not directory.exists():
        directory = system.sys / "block" / disk.name
    parts = {directory.resolve(), *(p.parent for p in directory.resolve().glob("*/partition"))}
    mounts = [mount for mount, number in _mounts(system) if _layers(system.directory(number), system) & parts]
    for mount in mounts:
        if mount in SYSTEM_MOUNTS:
            raise Refused(f"{disk.path} holds {mount} of this computer: it is never overwritten")
    for mount in mounts:
        raise Refused(f"{disk.path} is in use: mounted at {mount}; `umount {mount}` first")
    for swap, number in _swaps(system):
        if _layers(system.directory(number), system) & parts:
            raise Refused(f"{disk.path} is in use: {swap} is swap space; `swapoff {swap}` first")
    for part in sorted(parts):
        holders = sorted(p.name for p in (part / "holders").glob("*"))
        if holders:
            raise Refused(f"{disk.path} is in use by {', '.join(holders)} (LVM, RAID or encryption); stop that first")
    if disk.size == 0:
        raise Refused(f"{disk.path} has no size: is a card in the reader (or a file behind the loop device)?")
    if _text(directory / "ro") == "1":
        raise Refused(f"{disk.path} is write-protected; look for the small switch on the card's side")
    if disk.size < needed:
        raise Refused(f"{disk.path} is too small: {disk.size} bytes, and the image needs {needed}; take a larger card")
    if not disk.removable and not not_removable:
        raise Refused(
            f"{disk.path} ({disk.model}) is not removable: neither USB, nor an SD card, nor a loop device. "
            "If it really is the one, say so twice: --yes --yes-really-not-removable"
        )


def _layers(directory: Path | None, system: System) -> set[Path]:
    """A device's directory and those of all that it lies on, through LVM, RAID and loop devices."""
    layers: set[Path] = set()
    waiting = [directory] if directory else []
    while waiting:
        here = waiting.pop()
        if here in layers:
            continue
        layers.add(here)
        waiting += [p.resolve() for p in (here / "slaves").glob("*")]
        backing = _text(here / "loop/backing_file") or _text(here.parent / "loop/backing_file")
        if backing:
            try:
                under = system.directory(os.stat(backing).st_dev)
            except OSError:
                under = None
            waiting += [under] if under else []
    return layers


def _mounts(system: System) -> Iterator[tuple[str, int]]:
    """(mount point, device number) of all that is mounted from a block device."""
    for line in (system.proc / "self/mountinfo").read_text("utf-8", "replace").splitlines():
        fields = line.split(" ")
        try:
            major, minor = map(int, fields[2].split(":"))
            source = fields[fields.index("-") + 2]
        except (ValueError, IndexError):
            continue
        mount = _plain(fields[4])
        if major:
            yield mount, os.makedev(major, minor)
        elif source.startswith("/dev/"):
            # btrfs and others have numbers of their own; the source names the disk
            yield from ((mount, number) for number in _number(_plain(source)))


def _swaps(system: System) -> Iterator[tuple[str, int]]:
    try:
        lines = (system.proc / "swaps").read_text("utf-8", "replace").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        name = _plain(line.split()[0])
        for number in _number(name):
            yield name, number


def _number(name: str) -> list[int]:
    """The device that a path is, or the one it lies on (a swap file)."""
    try:
        status = os.stat(name)
    except OSError:
        return []
    return [status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev]


def _plain(text: str) -> str:
    """Undo the kernel's octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
