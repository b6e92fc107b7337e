"""One image, one boot, many tests. What is missing on the host is said in the skip.

EDGEAI_TEST_RELEASE  Yocto release of the test image (scarthgap)
EDGEAI_TEST_CPU      emulated processor: cortex-a53 (Pi 3), cortex-a72 (Pi 4, the default), cortex-a76 (Pi 5)
EDGEAI_TEST_IMAGE    an image that exists; nothing is built
EDGEAI_TEST_SNAPSHOT with EDGEAI_TEST_IMAGE, for work on the tests: a file that keeps the booted machine for the next run
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "recipes-tests"))
sys.path.insert(0, str(TOP / "daemon" / "src"))

from rig import bitbake, machine, paths  # noqa: E402  the path above has to be set first
from rig.link import GuestError, Link, wait_for  # noqa: E402

RELEASE = os.environ.get("EDGEAI_TEST_RELEASE", "scarthgap")
CPU = os.environ.get("EDGEAI_TEST_CPU", "cortex-a72")
SNAPSHOT = os.environ.get("EDGEAI_TEST_SNAPSHOT", "")
DIGIT = TOP / "daemon/src/edgeaid/models/defaults/digits/1/samples"


@pytest.fixture(scope="session")
def image() -> Iterator[Path]:
    """An image of ours: EDGEAI_TEST_IMAGE, else built by the test distribution from this checkout.

    It is a link of this run's own: whoever builds again meanwhile does not take it away.
    """
    named = os.environ.get("EDGEAI_TEST_IMAGE")
    if named:
        yield Path(named)
        return
    try:
        paths.need("qemu-system-aarch64", "qemu-img")
        build = bitbake.prepare(RELEASE)
        seconds = bitbake.build_image(build)
    except paths.Missing as error:
        pytest.skip(str(error))
    print(f"\nedgeai-image for {build.release}: {seconds:.0f} s")
    built = build.image("wic")
    for left in paths.work_dir().glob("image-*"):  # of runs that were killed
        if not Path("/proc", left.stem.removeprefix("image-")).is_dir():
            left.unlink()
    own = paths.work_dir() / f"image-{os.getpid()}{built.suffix}"
    own.hardlink_to(built)
    yield own
    own.unlink()


@dataclass(slots=True)
class FirstAnswer:
    """When the machine first classified a picture: seconds since QEMU started, and what it answered or why not."""

    seconds: float = 0.0
    label: str = ""
    problem: str = ""


@pytest.fixture(scope="session")
def first_answer() -> FirstAnswer:
    """Filled in while the machine boots."""
    return FirstAnswer()


def _ask_until_answered(link: Link, path: Path, first: FirstAnswer, started: float) -> None:
    """A client that asks from the moment on when the socket exists, as an application on the device would."""
    from edgeaid import errors
    from edgeaid.client import Client

    picture = next(iter(sorted(DIGIT.glob("*.png")))).read_bytes()
    while not first.label and time.monotonic() < started + 1200:
        try:
            if link.run("test -S /run/edgeai/edgeaid.sock", timeout=60).code == 0:
                with Client(path, fast=False, timeout=600) as client:
                    answer = client.classify("digits", picture)
                first.seconds, first.label = time.monotonic() - started, answer["classes"][0]["label"]
        except (errors.EdgeaiError, GuestError, OSError) as error:
            first.problem = f"{type(error).__name__}: {error}"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def full_image() -> Path:
    """A card image with read-only root, gRPC and the stand-in for a Neural Compute Stick: recipes-tests/kas/full.yml."""
    named = os.environ.get("EDGEAI_TEST_FULL_IMAGE")
    if named:
        return Path(named)
    try:
        paths.need("qemu-system-aarch64", "qemu-img")
        build = bitbake.prepare(RELEASE, variant="full")
        seconds = bitbake.build_image(build)
    except paths.Missing as error:
        pytest.skip(str(error))
    print(f"\nedgeai-image with features: {seconds:.0f} s")
    return build.image("wic")


@pytest.fixture(scope="package")
def booted(
    image: Path, first_answer: FirstAnswer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[machine.Machine]:
    """A running machine (virt, 1 GB)."""
    board = machine.Board(cpu=CPU, extra=("-device", "qemu-xhci,id=xhci"))
    started = time.monotonic()
    directory = tmp_path_factory.mktemp("disk")
    disk = Path(SNAPSHOT or directory / "run.qcow2")
    load = "ready" if SNAPSHOT and disk.is_file() else ""
    try:
        running = machine.boot(image, paths.work_dir(), disk, board, fresh=not load, load=load)
    except paths.Missing as error:
        pytest.skip(str(error))
    try:
        assert running.link is not None
        running.link.forward(directory / "first.sock", "/run/edgeai/edgeaid.sock")
        asker = threading.Thread(
            target=_ask_until_answered,
            args=(running.link, directory / "first.sock", first_answer, started),
            daemon=True,
        )
        asker.start()
        try:
            state = running.wait_up(timeout=1200)
        except GuestError:
            print(running.link.run("systemctl list-jobs; systemctl --failed").out)
            raise
        print(f"\nbooted in {time.monotonic() - started:.0f} s: {state}")
        asker.join(300)
        if SNAPSHOT and not load:
            running.save("ready")
        yield running
        assert running.shut_down() == 0
    finally:
        running.kill()
        running.remove()


@pytest.fixture(scope="package")
def guest(booted: machine.Machine) -> Link:
    """Commands inside."""
    link = booted.link
    assert link is not None
    wait_for(lambda: link.run("systemctl is-active edgeaid.service").code == 0, 300, "edgeaid to be active")
    return link


@pytest.fixture(scope="package")
def edgeai_socket(guest: Link, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The daemon's HTTP socket, on the host."""
    path = tmp_path_factory.mktemp("forward") / "edgeaid.sock"
    guest.forward(path, "/run/edgeai/edgeaid.sock")
    return path
