"""edgeai-screen.service of the layer under its walls: a client of Weston's kiosk, which runs without a display here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from ..support.waiting import eventually
from .conftest import DAEMON, Container

pytestmark = [pytest.mark.root, pytest.mark.slow]

UNIT = "edgeai-screen.service"
DEVICE = DAEMON.parent / "meta-edgeai/recipes-edgeai/edgeai-screen/edgeai-screen/device"
#: The session as weston-init starts it, on the backend without a display.
WESTON = """[Service]
Environment=XDG_RUNTIME_DIR=/run
Group=wayland
UMask=0007
ExecStart=/usr/bin/weston --backend=headless-backend.so --shell=kiosk-shell.so --idle-time=0 --socket=wayland-0
"""
SCREEN = "SCREEN='!gst-launch-1.0 -q videotestsrc num-buffers=20 ! videoconvert ! waylandsink'\n"


@pytest.fixture
def session(container: Container) -> Iterator[Container]:
    if not DEVICE.is_dir():
        pytest.skip("the layer is not beside the daemon here")
    for tool in ("weston", "gst-launch-1.0"):
        if shutil.which(tool) is None:
            pytest.skip(f"not installed: {tool}")
    container.run("groupadd", "--force", "wayland")
    container.run("mkdir", "-p", "/usr/lib/edgeai", f"/run/systemd/system/{UNIT}.d")
    container.run("tee", "/usr/lib/edgeai/screen", stdin=(DEVICE / "screen").read_text())
    container.run("chmod", "755", "/usr/lib/edgeai/screen")
    container.run("tee", "/etc/edgeai/screen.conf", stdin=SCREEN)
    container.run("tee", f"/run/systemd/system/{UNIT}", stdin=(DEVICE / UNIT).read_text())
    # there is no graphics card, and pictures end here: one run is enough
    container.run(
        "tee", f"/run/systemd/system/{UNIT}.d/test.conf", stdin="[Unit]\nConditionPathExists=\n[Service]\nRestart=no\n"
    )
    container.run("tee", "/run/systemd/system/weston.service", stdin=WESTON)
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", "weston.service")
    eventually(lambda: container.run("test", "-S", "/run/wayland-0", check=False).returncode == 0, 60, "Weston")
    yield container
    container.run("systemctl", "stop", UNIT, "weston.service", check=False)


def test_pictures_reach_the_screen_from_inside_the_units_walls(session: Container) -> None:
    session.run("systemctl", "start", UNIT)
    eventually(lambda: session.show(UNIT, "ActiveState")["ActiveState"] != "active", 120, "twenty pictures")
    said = session.run("journalctl", "-b", "-u", UNIT, "-o", "cat").stdout
    state = session.show(UNIT, "Result", "ExecMainStatus")
    assert state == {"Result": "success", "ExecMainStatus": "0"}, said
    assert "ERROR" not in said
    assert "CRITICAL" not in said
