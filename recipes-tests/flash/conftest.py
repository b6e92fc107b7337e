"""A small card image, and loop devices to write it to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "scripts"), str(TOP / "daemon" / "src")]

MIB = 1 << 20
#: Partitions of the image, in sectors.
BOOT, ROOT, END = 2048, 6144, 14336
TOOLS = ("bmaptool", "mcopy", "mkfs.vfat", "mke2fs", "sfdisk", "losetup", "bzip2", "xz", "zstd", "gzip")

Flash = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: object, **options: Any) -> str:
    """Standard output of a command that must succeed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 7 MiB image with its block map: FAT and ext4, with a hole between that the block map leaves out."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (recipes-tests/host-packages-flash.txt)")
    directory = tmp_path_factory.mktemp("image")
    image, fat = directory / "card.wic", directory / "fat"
    with image.open("wb") as file:
        file.truncate(END * 512)
    table = f"label: dos\nstart={BOOT},size={ROOT - BOOT},type=c,bootable\nstart={ROOT},type=83\n"
    run("sfdisk", "--quiet", image, input=table)
    run("mkfs.vfat", "-C", fat, (ROOT - BOOT) // 2)
    run("mcopy", "-i", fat, Path(__file__), "::config.txt")
    with image.open("r+b") as file:
        file.seek(BOOT * 512)
        file.write(fat.read_bytes())
    units = directory / "root/usr/lib/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(TOP / "daemon/systemd/edgeai-provision.service", units)
    run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-d",
        directory / "root",
        "-E",
        f"offset={ROOT * 512}",
        image,
        f"{(END - ROOT) // 2}k",
    )
    run("cp", "--sparse=always", image, directory / "sparse.wic")
    (directory / "sparse.wic").rename(image)
    fat.unlink()
    (directory / "card.wic.bmap").write_text(run("bmaptool", "create", image))
    return image


@pytest.fixture
def image(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the image and its block map, free to be damaged."""
    for path in (pristine, pristine.with_name("card.wic.bmap")):
        run("cp", "--sparse=always", path, tmp_path / path.name)
    return tmp_path / "card.wic"


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes loop devices of a size in bytes or of a file."""
    if os.geteuid():
        pytest.skip("loop devices need root")
    made: list[str] = []

    def attach(size: int = 9 * MIB, file: Path | None = None) -> Path:
        if file is None:
            file = tmp_path / f"target{len(made)}"
            with file.open("wb") as stream:
                stream.truncate(size)
        done = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop device is to be had: {done.stderr.strip()}")
        made.append(done.stdout.strip())
        return Path(made[-1])

    yield attach
    for name in made:
        subprocess.run(["losetup", "--detach", name], check=False)


@pytest.fixture
def flash() -> Flash:
    """Run scripts/flash with arguments; `typed` goes to its standard input, `path` in front of PATH."""

    def call(*arguments: object, typed: str = "", path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        if path:
            environment["PATH"] = f"{path}:{environment['PATH']}"
        return subprocess.run(
            [sys.executable, TOP / "scripts/flash", *map(str, arguments)],
            capture_output=True,
            text=True,
            input=typed,
            env=environment,
            timeout=300,
            check=False,
        )

    return call
