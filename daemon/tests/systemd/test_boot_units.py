"""What runs once at boot does its work within its sandbox."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Container
from .test_units import TREE

pytestmark = pytest.mark.root

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGEga2V5IG9mIGEgdGVzdCB0aGF0IG5vYm9keSBoYXMu test"
SETTINGS = f"""schema = 1
hostname = "kitchen"
timezone = "Europe/Madrid"
[wifi]
ssid = "cellar"
password = "only for the test"
country = "ES"
[ssh]
authorized_keys = ["{KEY}"]
"""
GROW = TREE / "meta-edgeai/recipes-core/edgeai-persistent/edgeai-persistent/device/edgeai-data-grow.service"
MIB = 1 << 20


def test_settings_from_the_boot_partition_are_applied_within_the_sandbox(container: Container) -> None:
    container.run("mkdir", "-p", "/boot")
    container.run("tee", "/boot/edgeai.toml", stdin=SETTINGS)
    done = container.run("systemctl", "start", "edgeai-provision.service", check=False)
    assert done.returncode == 0, container.run("journalctl", "-u", "edgeai-provision", "-o", "cat").stdout
    log = container.run("cat", "/boot/edgeai-provision.log").stdout
    assert "problem" not in log
    assert log.count("done:") == 4
    assert container.run("hostname").stdout == "kitchen\n"
    assert container.run("readlink", "/etc/localtime").stdout.endswith("Europe/Madrid\n")
    assert KEY in container.run("cat", "/root/.ssh/authorized_keys").stdout
    assert "psk=" in container.run("cat", "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf").stdout
    assert "only for the test" not in container.run("cat", "/boot/edgeai.toml").stdout


@pytest.fixture
def small(container: Container, tmp_path: Path) -> Iterator[None]:
    """A file system on /data of the container that is half as large as its device."""
    missing = [tool for tool in ("losetup", "mke2fs") if shutil.which(tool) is None]
    if missing or not GROW.exists():
        pytest.skip(f"not here: {' '.join(missing) or GROW}")
    if container.run("test", "-x", "/usr/lib/systemd/systemd-growfs", check=False).returncode:
        pytest.skip("systemd-growfs is not installed")
    image = tmp_path / "card"
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", str(image), "32M"], check=True)
    made = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.strip()}")
    device = made.stdout.strip()
    number = Path(device).name.removeprefix("loop")
    try:
        container.run("sh", "-c", f"test -b {device} || mknod {device} b 7 {number}")
        container.run("mkdir", "-p", "/data", "/dev/block")
        container.run("ln", "-sf", device, f"/dev/block/7:{number}")
        container.run("mount", device, "/data")
        yield
        container.run("umount", "/data")
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def _may_resize() -> bool:
    """Whether root of this computer has CAP_SYS_RESOURCE (bit 24), which some sandboxes take away."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


@pytest.mark.skipif(not _may_resize(), reason="root has no CAP_SYS_RESOURCE here: no file system can be resized")
def test_a_file_system_grows_to_its_partition_within_the_sandbox(container: Container, small: None) -> None:
    def size() -> int:
        blocks, length = container.run("stat", "-f", "-c", "%b %S", "/data").stdout.split()
        return int(blocks) * int(length)

    assert size() < 32 * MIB
    container.run("tee", f"/etc/systemd/system/{GROW.name}", stdin=GROW.read_text())
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", GROW.name)
    status = container.run("systemctl", "status", "--no-pager", GROW.name).stdout
    assert "status=0" in status, status
    assert size() > 50 * MIB
