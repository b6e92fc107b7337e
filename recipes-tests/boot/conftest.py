"""One image, one boot, many tests. What is missing on the host is said in the skip."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "recipes-tests"))
sys.path.insert(0, str(TOP / "daemon" / "src"))

from rig import bitbake, machine, paths  # noqa: E402  the path above has to be set first
from rig.link import GuestError, Link  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building and booting an image takes minutes on two cores: part of ./scripts/test --slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes, not seconds; run by ./scripts/test --slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--release", default=os.environ.get("EDGEAI_TEST_RELEASE", "scarthgap"), help="Yocto release of the test image"
    )
    parser.addoption(
        "--cpu", default="cortex-a72", help="emulated CPU: cortex-a53 (Pi 3), cortex-a72 (Pi 4), cortex-a76 (Pi 5)"
    )


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Path:
    """An image of ours: EDGEAI_TEST_IMAGE, else built by the test distribution from this checkout."""
    named = os.environ.get("EDGEAI_TEST_IMAGE")
    if named:
        return Path(named)
    try:
        paths.need("qemu-system-aarch64", "qemu-img")
        build = bitbake.prepare(
            request.config.getoption("--release", os.environ.get("EDGEAI_TEST_RELEASE", "scarthgap"))
        )
        seconds = bitbake.build_image(build)
    except paths.Missing as error:
        pytest.skip(str(error))
    print(f"\nedgeai-image for {build.release}: {seconds:.0f} s")
    return build.image("wic" if build.release == "scarthgap" else "ext4")


@pytest.fixture(scope="session")
def booted(
    image: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[machine.Machine]:
    """A running machine (virt, 1 GB)."""
    board = machine.Board(cpu=request.config.getoption("--cpu", "cortex-a72"), extra=("-device", "qemu-xhci,id=xhci"))
    started = time.monotonic()
    try:
        running = machine.boot(image, paths.work_dir(), tmp_path_factory.mktemp("disk") / "run.qcow2", board)
    except paths.Missing as error:
        pytest.skip(str(error))
    try:
        try:
            running.wait_up(timeout=600)
        except GuestError:
            print(running.link.run("systemctl list-jobs; systemctl --failed").out)
            raise
        print(f"\nbooted in {time.monotonic() - started:.0f} s")
        yield running
        assert running.shut_down() == 0
    finally:
        running.kill()
        running.remove()


@pytest.fixture(scope="session")
def guest(booted: machine.Machine) -> Link:
    """Commands inside."""
    assert booted.link is not None
    wait_for(lambda: booted.link.run("systemctl is-active edgeaid.service").code == 0, 120, "edgeaid to be active")
    return booted.link


@pytest.fixture(scope="session")
def edgeai_socket(guest: Link, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The daemon's HTTP socket, on the host."""
    path = tmp_path_factory.mktemp("forward") / "edgeaid.sock"
    guest.forward(path, "/run/edgeai/edgeaid.sock")
    return path


def wait_for(condition, seconds: float, what: str):
    """Poll until true; returns the value. An emulated machine has no fixed pace."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)
