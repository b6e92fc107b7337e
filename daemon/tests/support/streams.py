"""What tests of streams share: videos of moving digits, and waiting for what a stream should reach."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeaid.client import Client
from edgeaid.client.streams import Streams
from edgeaid.streams.process.pictures import Digits
from tests.support.daemon import Running
from tests.support.waiting import eventually

SIZE = 384
TRACKED = [{"detect": "digit-scenes"}, {"track": {}}]


def put(daemon: Running, name: str, **table: Any) -> dict[str, Any]:
    """Add a stream."""
    status, answer = daemon.json("PUT", f"/edgeai/v1/streams/{name}", table)
    assert status in (200, 201), answer
    return dict(answer)


def show(daemon: Running, name: str) -> dict[str, Any]:
    """What the daemon says of a stream."""
    status, answer = daemon.json("GET", f"/edgeai/v1/streams/{name}")
    assert status == 200, answer
    return dict(answer)


def reaches(daemon: Running, name: str, state: str, seconds: float = 60.0) -> dict[str, Any]:
    """Wait for a state."""
    return dict(eventually(lambda: (s := show(daemon, name))["state"] == state and s, seconds))


def accounted(frames: dict[str, Any]) -> bool:
    """Every captured frame is somewhere."""
    ended = frames["gated"] + frames["inferred"] + sum(frames["dropped"].values()) + frames["under_way"]
    return bool(frames["captured"] == ended)


def gone(daemon: Running, name: str) -> None:
    """Remove a stream."""
    daemon.json("DELETE", f"/edgeai/v1/streams/{name}")


def events_of(daemon: Running, name: str) -> list[dict[str, Any]]:
    """All events that a stream keeps, up to its end."""
    kept: list[dict[str, Any]] = []
    with Client(daemon.socket, fast=False) as client:
        for event in Streams(client).events(name):
            kept.append(event)
            if event["type"] == "state" and event["state"] in ("ended", "failed", "stopped"):
                return kept
    raise AssertionError("the events ended")


@pytest.fixture(scope="session")
def frames_of_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of 40 pictures with three digits that move."""
    directory = tmp_path_factory.mktemp("frames")
    scene = Digits(SIZE, SIZE)
    for number in range(40):
        scene.frame(number).save(directory / f"{number:04}.png")
    return directory


@pytest.fixture(scope="session")
def video(frames_of_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a video."""
    gst = shutil.which("gst-launch-1.0")
    if gst is None:
        pytest.skip("GStreamer (gst-launch-1.0) is not installed")
    file = tmp_path_factory.mktemp("video") / "digits.avi"
    source = ["multifilesrc", f"location={frames_of_digits}/%04d.png", "caps=image/png,framerate=10/1", "!", "pngdec"]
    tail = ["!", "videoconvert", "!", "jpegenc", "!", "avimux", "!", "filesink", f"location={file}"]
    subprocess.run([gst, "-q", *source, *tail], check=True, timeout=120)
    return file
