"""The kernel gives no new process: the device is tried again, clients are told, and the daemon still ends in time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.waiting import eventually

IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup whose number of processes can be limited."""
    top = next((p for p in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if os.access(p, os.W_OK)), None)
    if top is None or os.geteuid() != 0:
        pytest.skip("limiting processes needs root and a writable cgroup")
    path = top / f"edgeai-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error.strerror}")
    if not (path / "pids.max").exists():
        path.rmdir()
        pytest.skip("the pids controller is not enabled here")
    yield path
    (path / "pids.max").write_text("max")
    until = time.monotonic() + 10
    while (path / "cgroup.procs").read_text() and time.monotonic() < until:
        time.sleep(0.1)
    path.rmdir()


def confine(daemon: Running, group: Path) -> None:
    """Put the daemon and its children into the group."""
    for pid in (daemon.process.pid, *_children(daemon.process.pid)):
        (group / "cgroup.procs").write_text(str(pid))


def without_worker(start: Callable[..., Running], group: Path) -> Running:
    """A daemon whose worker is gone and cannot be started again."""
    daemon = start()
    confine(daemon, group)
    (group / "pids.max").write_text("1")
    os.kill(daemon.worker(), signal.SIGKILL)
    return daemon


def _children(pid: int) -> list[int]:
    texts = [t.read_text() for t in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(number) for text in texts for number in text.split()]


def test_a_device_whose_worker_cannot_be_started_is_tried_until_it_can(
    group: Path, start: Callable[..., Running]
) -> None:
    daemon = without_worker(start, group)
    with daemon.client(fast=False) as client:
        eventually(lambda: daemon.json("GET", "/v2/health/ready")[0] == 503)
        eventually(lambda: "Resource temporarily unavailable" in client.devices()[0]["reason"])
        eventually(lambda: daemon.log.read_text().count("cannot be started") >= 4)
        started = time.monotonic()
        with pytest.raises(errors.Unavailable, match="cannot be started"):
            client.infer("digits", IMAGE)
        assert time.monotonic() - started < 5
        (group / "pids.max").write_text("max")
        eventually(lambda: client.devices()[0]["state"] == "ready")
        eventually(lambda: daemon.json("GET", "/v2/health/ready")[0] == 200)
        assert client.infer("digits", IMAGE)["scores"].argmax() == 3


def test_a_model_that_waits_for_a_device_that_recovers_can_be_asked_for_again(
    group: Path, start: Callable[..., Running]
) -> None:
    daemon = without_worker(start, group)
    with daemon.client(fast=False) as client:
        eventually(lambda: client.devices()[0]["state"] == "recovering")
        client.unload("digits")
        with pytest.raises(errors.Unavailable, match="no device yet"):
            client.load("digits")
        with pytest.raises(errors.Unavailable, match=r"no device yet .* cpu0 is recovering"):
            client.infer("digits", IMAGE)
        (group / "pids.max").write_text("max")
        eventually(lambda: daemon.json("GET", "/v2/models/digits/ready")[0] == 200)
        assert client.infer("digits", IMAGE)["scores"].argmax() == 3


@pytest.mark.parametrize("hanging", [False, True])
def test_the_daemon_ends_in_time_without_a_process_to_be_had_and_with_a_worker_that_hangs(
    group: Path, start: Callable[..., Running], hanging: bool
) -> None:
    daemon = start("[server]\ndrain_seconds = 1\n")
    confine(daemon, group)
    (group / "pids.max").write_text("1")
    pid = daemon.worker()
    os.kill(pid, signal.SIGSTOP if hanging else signal.SIGKILL)
    if hanging:
        eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    else:
        eventually(lambda: daemon.json("GET", "/v2/models/digits/ready")[0] != 200)
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < 1 + 2


def test_the_daemon_can_be_stopped_while_it_loads(start: Callable[..., Running], tmp_path: Path) -> None:
    from .test_probation import slow

    file = tmp_path / "slow.tflite"
    file.write_bytes(slow())
    daemon = start("[server]\ndrain_seconds = 1\n[limits]\nload_seconds = 3\n", models={"zzz": file})
    assert daemon.stop() == 0
    daemon.config.write_text("[server]\ndrain_seconds = 1\n")
    daemon.start(wait=False)
    eventually(lambda: "model 'digits/1' is ready" in daemon.log.read_text(), 120)
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < 1 + 2
