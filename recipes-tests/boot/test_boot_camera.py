"""The feature camera on a booted image: a camera of the kernel's own (vivid) is opened by who may open it, as streams do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.link import Link, wait_for

from .card import write_card
from .test_boot_full import Device

pytestmark = pytest.mark.slow

#: What a stream of the daemon starts for a USB camera, for three frames.
CAPTURE = (
    "gst-launch-1.0 -q v4l2src device=/dev/edgeai/camera0 num-buffers=3 ! decodebin ! queue ! videoconvert ! videoscale ! "
    "video/x-raw,width=160,height=90,pixel-aspect-ratio=1/1 ! videoconvert ! video/x-raw,format=RGB ! pnmenc ! fdsink fd=1 sync=false"
)
PICTURE = len(b"P6\n160 90\n255\n") + 160 * 90 * 3


@pytest.fixture(scope="module")
def guest(full_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    directory = tmp_path_factory.mktemp("camera")
    device = Device(write_card(full_image, directory / "card.img"), directory / "card.qcow2")
    try:
        link = device.boot()
        if link.run("modprobe vivid n_devs=1 node_types=0x1").code:
            pytest.skip("this image's kernel has no vivid module")
        wait_for(lambda: link.run("test -e /dev/edgeai/camera0").code == 0, 120, "the camera's link")
        yield link
    finally:
        device.cut()


def test_the_camera_has_a_name_and_its_group(guest: Link) -> None:
    assert guest.run("stat -L -c %G:%a /dev/edgeai/camera0").check().strip() == "video:660"
    assert "vivid" in guest.run("v4l2-ctl -d /dev/edgeai/camera0 --info").check()


def test_what_libcamera_opens_belongs_to_the_group_too(guest: Link) -> None:
    for path in guest.run("ls -d /dev/media* /dev/dma_heap/* 2>/dev/null").out.split():
        assert guest.run(f"stat -c %G {path}").check().strip() == "video", path


def test_the_daemons_unit_lets_its_programs_take_pictures(guest: Link) -> None:
    """In a unit with the daemon's own walls, and as its user: devices, memory, system calls, registry of plugins."""
    walls = guest.run("systemctl cat edgeaid.service").check()
    assert "50-camera.conf" in walls
    lines = [line for line in walls.splitlines() if line.partition("=")[0] in WALLS]
    unit = "\n".join(
        ["[Service]", "Type=oneshot", *lines, f"ExecStart=/bin/sh -c '{CAPTURE} > /var/cache/edgeai/frames.ppm'", ""]
    )
    guest.put("/run/systemd/system/capture.service", unit.encode())
    guest.run("systemctl daemon-reload").check()
    done = guest.run("systemctl start capture.service", timeout=600)
    assert done.code == 0, guest.run("journalctl -b -u capture.service -o cat").out
    frames = guest.run("cat /var/cache/edgeai/frames.ppm | wc -c").check()
    assert int(frames) == 3 * PICTURE
    assert guest.run("ls /var/cache/edgeai/gstreamer-registry.bin").code == 0


#: Lines of edgeaid.service and its drop-ins that say what a process in it may do.
WALLS = set(
    "User Group UMask CacheDirectory NoNewPrivileges CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp PrivateIPC "
    "PrivateMounts PrivateDevices DevicePolicy DeviceAllow ProtectClock ProtectHostname ProtectKernelLogs ProtectKernelModules "
    "ProtectKernelTunables ProtectControlGroups ProtectProc RestrictAddressFamilies IPAddressDeny IPAddressAllow RestrictNamespaces "
    "RestrictRealtime RestrictSUIDSGID LockPersonality MemoryDenyWriteExecute RemoveIPC KeyringMode SystemCallArchitectures SystemCallFilter "
    "SystemCallErrorNumber Environment TasksMax LimitNOFILE MemoryMax MemoryHigh".split()
)


def test_the_daemon_still_stands_behind_its_walls(guest: Link) -> None:
    score = guest.run("systemd-analyze security --no-pager edgeaid.service").check()
    assert float(score.split("Overall exposure level for edgeaid.service:")[1].split()[0]) <= 2.0
