"""The screen of the feature weston on a booted machine: Debian's Weston without a display, our program, a stream of the daemon."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import machine, packages, paths
from rig.link import Link, wait_for

from .conftest import CPU, TOP

pytestmark = pytest.mark.slow

DEVICE = TOP / "meta-edgeai/recipes-edgeai/edgeai-screen/edgeai-screen/device"
#: dash and coreutils because everything depends on them, so that no package says so.
DEBIAN = (
    "weston",
    "curl",
    "gstreamer1.0-tools",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-bad",
    "dash",
    "coreutils",
)
#: Where Debian's packages are in the guest; the image itself has no Weston.
ROOT = "/run/debian"
STREAM = """
[stream.entrance]
source = "test:pattern"
fps = 2
[[stream.entrance.stage]]
classify = "digits"
"""


@pytest.fixture(scope="module")
def guest(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    """A machine with a second disk of Debian's packages, mounted, and Weston running from it with the words of the image's unit."""
    directory = tmp_path_factory.mktemp("screen")
    disk = directory / "debian.img"
    try:
        paths.need("mkfs.ext4")
        (directory / "root").mkdir()
        packages.debian_root(directory, DEBIAN, directory / "root")
        size = sum(path.lstat().st_size for path in (directory / "root").rglob("*")) * 3 // 2 >> 20
        subprocess.run(["mkfs.ext4", "-q", "-d", directory / "root", disk, f"{size + 64}M"], check=True)
        extra = ("-drive", f"if=none,id=debian,file={disk},format=raw", "-device", "virtio-blk-pci,drive=debian")
        running = machine.boot(image, paths.work_dir(), directory / "run.qcow2", machine.Board(cpu=CPU, extra=extra))
    except paths.Missing as error:
        pytest.skip(str(error))
    try:
        link = running.link
        assert link is not None
        running.wait_up(timeout=1200)
        link.run(f"mkdir {ROOT} && mount /dev/vdb {ROOT}").check()
        for name in ("dev", "proc", "run/edgeai"):
            link.run(f"mkdir -p {ROOT}/{name} && mount --bind /{name} {ROOT}/{name}").check()
        link.run(f"mkdir -p -m 0700 {ROOT}/run/screen && mkdir -p {ROOT}/tmp {ROOT}/usr/lib/edgeai").check()
        link.put(f"{ROOT}/usr/lib/edgeai/screen", (DEVICE / "screen").read_bytes(), 0o755)
        for shell in ("kiosk", "fullscreen"):
            start_weston(link, shell)
        yield link
        assert running.shut_down() == 0
    finally:
        running.kill()
        running.remove()


def start_weston(link: Link, shell: str) -> None:
    """Weston with the words of the image's unit, but one of its shells and no display; its socket has the shell's name."""
    (line,) = re.findall(r"^ExecStart=(/usr/bin/weston .*)$", (DEVICE / "10-edgeai-kiosk.conf").read_text(), re.M)
    # systemd-notify wants a unit; the backend stands in for a screen.
    words = [word for word in line.split() if not word.startswith("--modules")] + [
        "--backend=headless-backend.so",
        "--use-pixman",
    ]
    command = " ".join(words).replace("kiosk-shell", f"{shell}-shell")
    link.run(inside(f"{command} --socket={shell} --log=/run/screen/{shell}.log & echo started", f"{shell}.out")).check()
    wait_for(
        lambda: link.run(f"test -S {ROOT}/run/screen/{shell}").code == 0, 120, f"the socket of Weston's {shell} shell"
    )


def inside(command: str, output: str, shell: str = "kiosk") -> str:
    """A shell line that runs a command with Debian's packages as its root."""
    settings = f"XDG_RUNTIME_DIR=/run/screen WAYLAND_DISPLAY=/run/screen/{shell} GST_REGISTRY_1_0=/run/screen/registry LC_ALL=C.UTF-8"
    return f"chroot {ROOT} /bin/sh -c 'export {settings}; {command}' > {ROOT}/run/screen/{output} 2>&1"


def test_a_client_fills_the_kiosk(guest: Link) -> None:
    done = guest.run(
        inside(
            'SCREEN="!gst-launch-1.0 -q videotestsrc num-buffers=5 ! videoconvert ! waylandsink" /usr/lib/edgeai/screen',
            "client",
        ),
        timeout=600,
    )
    assert done.code == 0, guest.run(f"cat {ROOT}/run/screen/client {ROOT}/run/screen/kiosk.log").out


def test_a_stream_of_the_daemon_is_on_the_screen(guest: Link) -> None:
    guest.put("/etc/edgeai/streams.d/entrance.toml", STREAM.encode())
    guest.run("systemctl reload edgeaid.service").check()
    wait_for(lambda: "running" in guest.run("edgeai stream list").out, 300, "the stream")
    # The kiosk shell of Debian's Weston (10) draws a client once where there is no input device; a device with HDMI has one, the headless
    # backend has none.
    command = "SCREEN=entrance WAYLAND_DEBUG=client /usr/lib/edgeai/screen"
    guest.run(inside(f"{command} & echo started", "stream", "fullscreen")).check()

    def shown() -> int:
        said = guest.run(f"cat {ROOT}/run/screen/stream").out
        return len(re.findall(r"wl_surface@\d+\.attach\(wl_buffer@\d+", said))

    wait_for(lambda: shown() > 4, 300, "picture after picture of the stream")
