"""Disk images, packed or not: checked before anything is written, and what was written checked after.

bmaptool writes and checks what it reads, but it neither looks at the image before it starts nor reads the card back.
"""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import gzip
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree import ElementTree

from . import Refused

#: linux/fs.h
BLKRRPART, BLKFLSBUF = 0x125F, 0x1261
PIECE = 1 << 20
#: Partitions end at a multiple of this.
ALIGN = 4 << 20
MAX_BMAP = 64 << 20
SUFFIXES = (".wic", ".wic.bz2", ".wic.gz", ".wic.xz", ".wic.zst", ".img")
#: MBR types of FAT partitions.
FAT_TYPES = frozenset({0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E, 0xEF})
#: The unit that applies settings at the first boot, and its entry in a directory of ext2, ext3 or ext4: length of the name,
#: type (a regular file), name. Programs that only mention the unit do not count.
APPLIER = "edgeai-provision.service"
APPLIER_ENTRY = bytes([len(APPLIER), 1]) + APPLIER.encode()
#: Where the superblock of ext2, ext3 and ext4 keeps its magic number, in bytes from the start of the partition.
EXT_MAGIC, EXT_MAGIC_AT = b"\x53\xef", 1080

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of an image that matter, and their SHA-256 in hex ("" = not known yet)."""

    start: int
    length: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image on disk; after `check`, all its digests are known."""

    path: Path
    bmap: Path | None
    #: Bytes unpacked; 0 = not known before it was read.
    size: int
    ranges: tuple[Range, ...]
    #: Why settings cannot be given to a device with this image, "" where they can; known after `check`.
    no_settings: str = ""


def find(path: Path) -> Image:
    """The image and its block map, if one lies beside it. Refused for what is not an image."""
    if not path.is_file():
        raise Refused(f"there is no image {path}; ./scripts/build prints where it left one")
    if not path.name.endswith(SUFFIXES):
        raise Refused(f"{path.name} is not one of {', '.join('*' + s for s in SUFFIXES)}")
    stem = re.sub(r"\.(bz2|gz|xz|zst)$", "", path.name)
    for name in (f"{path.name}.bmap", f"{stem}.bmap", f"{stem.rpartition('.')[0]}.bmap"):
        bmap = path.with_name(name)
        if bmap.is_file():
            size, ranges = read_bmap(bmap)
            return Image(path, bmap, size, ranges)
    return Image(path, None, path.stat().st_size if stem == path.name else 0, ())


def read_bmap(path: Path) -> tuple[int, tuple[Range, ...]]:
    """(bytes of the image, its mapped ranges). Refused if damaged."""
    data = path.read_bytes() if path.stat().st_size <= MAX_BMAP else b""
    try:
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("declares a document type")
        tree = ElementTree.fromstring(data)  # noqa: S314  what could hurt, entities, was refused in the line above
        size, block = int(tree.findtext("ImageSize", "")), int(tree.findtext("BlockSize", ""))
        kind = tree.findtext("ChecksumType", "sha256").strip().lower()
        own = tree.findtext("BmapFileChecksum", "").strip()
        if own and kind == "sha256" and hashlib.sha256(data.replace(own.encode(), b"0" * len(own))).hexdigest() != own:
            raise ValueError("its own checksum is wrong")
        ranges = []
        end = 0
        for element in tree.iterfind("BlockMap/Range"):
            first, _, last = (element.text or "").strip().partition("-")
            start, stop = int(first) * block, min((int(last or first) + 1) * block, size)
            if not end <= start < stop:
                raise ValueError("its ranges are out of order or behind the end")
            end = stop
            digest = element.get("chksum", "") if kind == "sha256" else ""
            ranges.append(Range(start, stop - start, digest.strip().lower()))
        if not ranges or not 0 < block <= 1 << 24:
            raise ValueError("it maps nothing")
    except (ElementTree.ParseError, ValueError) as error:
        raise Refused(f"block map {path} is damaged ({error}); copy it again, or move it away to do without") from None
    return size, tuple(ranges)


def check(image: Image, progress: Progress) -> Image:
    """Read the whole image before a single byte is written. Refused where it is cut off or damaged."""
    ranges = image.ranges or (Range(0, 1 << 62),)
    known: list[Range] = []
    position = 0
    seen = _Seen()
    try:
        with _unpacked(image.path) as stream:
            for wanted in ranges:
                position += _skip(stream, wanted.start - position)
                digest = hashlib.sha256()
                length = 0
                for piece in _pieces(stream, wanted.length):
                    seen.look(position + length, piece)
                    digest.update(piece)
                    length += len(piece)
                    progress("checking image", position + length, image.size)
                position += length
                if image.bmap and length != wanted.length:
                    raise Refused(f"{image.path} ends after {position} of {image.size} bytes; copy or build it again")
                if wanted.sha256 and digest.hexdigest() != wanted.sha256:
                    raise Refused(
                        f"{image.path} is damaged or is not the one of {image.bmap}: bytes {wanted.start} to "
                        f"{wanted.start + length - 1} have another checksum; copy or build it again"
                    )
                known.append(Range(wanted.start, length, digest.hexdigest()))
            position += _skip(stream, 1 << 62)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise Refused(f"{image.path} is cut off or damaged ({error}); copy or build it again") from None
    if image.bmap and position < image.size:
        raise Refused(f"{image.path} ends after {position} of {image.size} bytes; copy or build it again")
    size = image.size if image.bmap else position
    end = max((start + length for _, start, length in mbr(seen.head)), default=0)
    if not end:
        raise Refused(f"{image.path} has no partition table: it is not an image of a whole disk")
    if end > size and not image.bmap:
        raise Refused(f"{image.path} ends after {size} bytes but its partitions need {end}; copy or build it again")
    return Image(image.path, image.bmap, size, tuple(known), seen.no_settings())


class _Seen:
    """What `check` notices of an image while it passes: whether it has a place for settings, and a unit that applies them."""

    def __init__(self) -> None:
        #: The first sectors: the partition table.
        self.head = b""
        self._partitions: list[tuple[int, int, int]] = []
        #: The first bytes of partitions, by where they start.
        self._starts: dict[int, bytes] = {}
        self._applies = False
        self._end, self._tail = 0, b""

    def look(self, position: int, piece: bytes) -> None:
        """The bytes of the image at `position`; pieces come in order, with gaps where the block map has some."""
        if not self.head:
            self.head = piece[: 34 * 512]
            self._partitions = mbr(self.head)
        for _, start, _ in self._partitions:
            if position <= start < position + len(piece):
                self._starts[start] = piece[start - position :][: 2 << 10]
        if not self._applies:
            before = self._tail if position == self._end else b""
            self._applies = APPLIER_ENTRY in before + piece[: len(APPLIER_ENTRY)] or APPLIER_ENTRY in piece
            self._end, self._tail = position + len(piece), piece[-len(APPLIER_ENTRY) :]

    def no_settings(self) -> str:
        """Why this image takes no settings, "" where it takes them or where that cannot be told (a packed root)."""
        if not any(kind in FAT_TYPES and is_fat(self._starts.get(start, b"")) for kind, start, _ in self._partitions):
            return "it has no FAT boot partition, so there is no place for them"
        readable = any(start[EXT_MAGIC_AT:][:2] == EXT_MAGIC for start in self._starts.values())
        if readable and not self._applies:
            return f"it has no {APPLIER}, so nothing on the device would apply them"
        return ""


def write(image: Image, target: Path) -> None:
    """Have bmaptool write it. Refused when that fails."""
    tool = shutil.which("bmaptool")
    if tool is None:
        raise Refused("bmaptool is not installed (Debian: apt install bmap-tools)")
    how = ["--bmap", str(image.bmap)] if image.bmap else ["--nobmap"]
    done = subprocess.run([tool, "copy", *how, str(image.path), str(target)], check=False)
    if done.returncode:
        raise Refused(f"bmaptool failed; {target} holds a part of the image and will not boot")


def verify(image: Image, target: Path, progress: Progress) -> None:
    """Read what was written back from the medium itself. Refused at the first difference."""
    total = sum(r.length for r in image.ranges)
    done = 0
    with target.open("rb", buffering=0) as device:
        forget_cache(device)
        for wanted in image.ranges:
            device.seek(wanted.start)
            digest = hashlib.sha256()
            for piece in _pieces(cast("BinaryIO", device), wanted.length):
                digest.update(piece)
                done += len(piece)
                progress("verifying", done, total)
            if digest.hexdigest() != wanted.sha256:
                raise Refused(
                    f"{target} does not hold what was written: bytes {wanted.start} to "
                    f"{wanted.start + wanted.length - 1} differ; the card or its reader is faulty, try another"
                )


def forget_cache(device: BinaryIO) -> None:
    """Let the next reads come from the medium, not from this computer's memory. Flushes first."""
    os.fsync(device.fileno())
    with contextlib.suppress(OSError):
        fcntl.ioctl(device.fileno(), BLKFLSBUF)
    os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def reserved(target: Path) -> Iterator[None]:
    """Keep udev, and with it every desktop that mounts new cards, away until the card is complete.

    systemd-udevd leaves a disk alone whose node is locked with flock.
    """
    with target.open("rb") as device:
        try:
            fcntl.flock(device.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{target} is being used by another program; wait for it or end it") from None
        yield


def grow_last_partition(target: Path, size: int) -> int:
    """Let the last partition of a disk of `size` bytes reach to its end; the file system in it follows at the first boot.

    Returns the bytes gained: 0 where nothing is to be gained, or where the table is not four primary entries (GPT, extended).
    Refused if the disk does not keep it.
    """
    with target.open("r+b", buffering=0) as device:
        table = device.read(512)
        partitions = [(start, length) for _, start, length in mbr(table)]
        kinds = {table[offset + 4] for offset in range(446, 510, 16)}
        if not partitions or kinds & {0xEE, 0x05, 0x0F, 0x85}:
            return 0
        start, length = max(partitions)
        # A whole number of a card's erase blocks, and what 32 bits can say.
        wanted = min(size // ALIGN * ALIGN - start, 0xFFFFFFFF * 512)
        if wanted <= length:
            return 0
        changed = bytearray(table)
        for offset in range(446, 510, 16):
            if table[offset + 4] and struct.unpack_from("<I", table, offset + 8)[0] * 512 == start:
                # Cylinders and heads end long before a card does; this is what fdisk writes then.
                changed[offset + 5 : offset + 8] = b"\xfe\xff\xff"
                struct.pack_into("<I", changed, offset + 12, wanted // 512)
        device.seek(0)
        device.write(changed)
        forget_cache(cast("BinaryIO", device))
        device.seek(0)
        if device.read(512) != changed:
            raise Refused(f"{target} does not keep its partition table; the card or its reader is faulty, try another")
    return wanted - length


def reread_partitions(target: Path) -> None:
    """Tell the kernel about the new partition table; it finds out by itself when the card is plugged in again."""
    with target.open("rb") as device, contextlib.suppress(OSError):
        fcntl.ioctl(device.fileno(), BLKRRPART)


def mbr(head: bytes) -> list[tuple[int, int, int]]:
    """(type, first byte, bytes) of the primary partitions, or of those of a GPT whose start is in `head`."""
    if len(head) < 512 or head[510:512] != b"\x55\xaa":
        return []
    partitions = []
    for offset in range(446, 510, 16):
        kind, start, length = head[offset + 4], *struct.unpack_from("<II", head, offset + 8)
        if kind and length:
            partitions.append((kind, start * 512, length * 512))
    if [f[0] for f in partitions] == [0xEE] and head[512:520] == b"EFI PART":
        first, count, size = struct.unpack_from("<QII", head, 512 + 72)
        partitions = []
        for n in range(min(count, 128) if first == 2 and size == 128 else 0):
            entry = head[1024 + n * 128 : 1152 + n * 128]
            if len(entry) == 128 and any(entry[:16]):
                low, high = struct.unpack_from("<QQ", entry, 32)
                partitions.append((0x0C, low * 512, (high - low + 1) * 512))
    return partitions


def is_fat(sector: bytes) -> bool:
    """Whether a partition that begins with these bytes holds FAT12, FAT16 or FAT32."""
    return sector[54:57] == b"FAT" or sector[82:87] == b"FAT32"


def boot_partition(device: Path) -> int:
    """Where the FAT boot partition begins, in bytes. Refused if there is none."""
    with device.open("rb") as file:
        for kind, start, _ in mbr(file.read(34 * 512)):
            file.seek(start)
            sector = file.read(512)
            if kind in FAT_TYPES and is_fat(sector):
                return start
    raise Refused(f"{device} has no FAT boot partition, so there is no place for settings; flash without them")


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    if path.suffix == ".zst":
        tool = shutil.which("zstd")
        if tool is None:
            raise Refused("zstd is not installed (Debian: apt install zstd)")
        with subprocess.Popen(
            [tool, "-dcq", "--", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                yield cast("BinaryIO", process.stdout)
            except BaseException:
                process.kill()
                raise
            words = cast("BinaryIO", process.stderr).read().decode("utf-8", "replace").strip()
            if process.wait():
                raise OSError(words or "zstd failed")
        return
    openers: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
    with openers.get(path.suffix, open)(path, "rb") as stream:
        yield stream


def _pieces(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (piece := stream.read(min(PIECE, length))):
        length -= len(piece)
        yield piece


def _skip(stream: BinaryIO, length: int) -> int:
    """How far it went."""
    return sum(len(piece) for piece in _pieces(stream, length))
