"""Camera and screen without a board: the kiosk on Weston's headless backend, and the names of GStreamer's plugins."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rig.paths import TOP

DEVICE = TOP / "meta-edgeai/recipes-edgeai/edgeai-screen/edgeai-screen/device"
GROUPS = TOP / "meta-edgeai/recipes-core/packagegroups"
BOUNDARY = b"edgeai-frame"


def need(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"not installed: {' '.join(missing)}; apt-get install weston gstreamer1.0-tools gstreamer1.0-plugins-bad"
        )


@pytest.fixture
def session(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a client of Weston, which runs with the words of the image's unit and without a display."""
    need("weston", "gst-launch-1.0")
    (line,) = re.findall(r"^ExecStart=/usr/bin/weston (.*)$", (DEVICE / "10-edgeai-kiosk.conf").read_text(), re.M)
    # systemd-notify wants a unit; the backend stands in for a screen.
    words = [word for word in line.split() if not word.startswith("--modules")] + ["--backend=headless-backend.so"]
    tmp_path.chmod(0o700)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    log = tmp_path / "weston.log"
    weston = subprocess.Popen(["weston", *words, "--socket=screen", f"--log={log}"], env=environment)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "screen").exists():
            assert weston.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield environment | {
            "WAYLAND_DISPLAY": str(tmp_path / "screen"),
            "GST_REGISTRY_1_0": str(tmp_path / "registry"),
        }
    finally:
        weston.terminate()
        weston.wait(30)


def show(screen: str, environment: dict[str, str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the program that fills the screen until it ends."""
    return subprocess.run(
        [DEVICE / "screen"],
        env=environment | {"SCREEN": screen},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_a_client_fills_the_kiosk(session: dict[str, str]) -> None:
    done = show("!gst-launch-1.0 -q videotestsrc num-buffers=20 ! videoconvert ! waylandsink", session)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def pictures(directory: Path, count: int) -> Iterator[tuple[Path, list[bytes]]]:
    """A Unix socket that answers one request with `count` JPEG pictures, in the form of the daemon's route; and the request's head."""
    picture = directory / "picture.jpg"
    subprocess.run(
        [
            "gst-launch-1.0",
            "-q",
            "videotestsrc",
            "num-buffers=1",
            "!",
            "jpegenc",
            "!",
            "filesink",
            f"location={picture}",
        ],
        check=True,
    )
    jpeg = picture.read_bytes()
    heads: list[Any] = []
    part = b"--%b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nX-Edgeai-Frame: 1\r\n\r\n%b\r\n" % (
        BOUNDARY,
        len(jpeg),
        jpeg,
    )
    kind = b"Content-Type: multipart/x-mixed-replace; boundary=" + BOUNDARY

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heads.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\nConnection: close\r\n\r\n" + part * count)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "daemon.sock"))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield directory / "daemon.sock", heads
        thread.join(30)


def test_a_streams_pictures_fill_the_kiosk(session: dict[str, str], tmp_path: Path) -> None:
    need("curl")
    with pictures(tmp_path, 10) as (path, heads):
        done = show("entrance", session | {"EDGEAI_SOCKET": str(path)})
    assert done.returncode == 0, done.stderr
    assert not re.search("CRITICAL|ERROR", done.stderr), done.stderr
    assert heads[0].startswith(b"GET /edgeai/v1/streams/entrance/mjpeg?boxes=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("screen", ["", "a stream; reboot", "../../etc/passwd"])
def test_a_wrong_setting_is_named_and_not_tried_again(screen: str) -> None:
    done = show(screen, dict(os.environ))
    assert done.returncode == 78
    assert "SCREEN" in done.stderr
    assert "RestartPreventExitStatus=78" in (DEVICE / "edgeai-screen.service").read_text()


def test_every_gstreamer_package_that_is_named_is_a_plugin_of_gstreamer() -> None:
    """A package of OpenEmbedded is called after the plugin's library."""
    directories = sorted(Path("/usr/lib").glob("*/gstreamer-1.0"))
    if not directories or not (directories[0] / "libgstwaylandsink.so").is_file():
        pytest.skip("not installed: gstreamer1.0-plugins-bad")
    files = [GROUPS / "packagegroup-edgeai-camera.bb", DEVICE.parents[1] / "edgeai-screen_1.0.bb"]
    names = re.findall(r"gstreamer1\.0-plugins-(?:base|good|bad)-(\w+)", "\n".join(path.read_text() for path in files))
    assert len(names) > 20
    assert [name for name in names if not (directories[0] / f"libgst{name}.so").is_file()] == []
