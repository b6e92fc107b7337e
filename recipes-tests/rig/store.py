"""Disks of the emulator between two starts: what was changed on an image, and the snapshot that the next start continues from."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import initramfs
from .machine import Board
from .paths import Missing

#: Name of the snapshot inside the disk: systemd has started everything.
READY = "ready"


@dataclass(frozen=True, slots=True)
class Store:
    """Files for one image and one board; `lock` is held as long as the object lives, so that nobody else starts the same disk."""

    #: qcow2 over the image, with the snapshot; what happens after the snapshot is forgotten at the next start.
    disk: Path
    #: The same for --keep: no snapshot, nothing is forgotten.
    kept: Path
    #: False where the image, or what starts it, is another than at the last start: the disks were removed.
    same: bool
    lock: IO[str]

    def has_snapshot(self) -> bool:
        if not self.disk.is_file():
            return False
        done = subprocess.run(
            ["qemu-img", "snapshot", "-l", str(self.disk)], capture_output=True, text=True, check=False
        )
        return READY in done.stdout.split()

    def forget(self) -> None:
        self.disk.unlink(missing_ok=True)
        self.kept.unlink(missing_ok=True)


def open_store(directory: Path, image: Path, board: Board) -> Store:
    """The disks of this image on this board. Raises Missing where another emulator is using them."""
    directory.mkdir(parents=True, exist_ok=True)
    _tidy(directory)
    image = image.resolve()
    stem = hashlib.sha256(f"{image} {board}".encode()).hexdigest()[:16]
    lock = (directory / f"{stem}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Missing(f"{image.name} is being emulated already on this board; end that emulator first") from None
    info = image.stat()
    # A disk over an image that was written again is damaged; a snapshot holds the agent that it was started with.
    state = f"{image}\n{info.st_size} {info.st_mtime_ns} {initramfs.fingerprint()}\n"
    noted = directory / f"{stem}.image"
    same = noted.is_file() and noted.read_text() == state
    store = Store(directory / f"{stem}.qcow2", directory / f"{stem}.kept", same, lock)
    if not same:
        store.forget()
        noted.write_text(state)
    return store


def _tidy(directory: Path) -> None:
    """Remove what belongs to images that are gone: every build makes a new file."""
    for noted in directory.glob("*.image"):
        if not Path(noted.read_text().partition("\n")[0]).is_file():
            for suffix in (".qcow2", ".kept", ".lock", ".image"):
                noted.with_suffix(suffix).unlink(missing_ok=True)
