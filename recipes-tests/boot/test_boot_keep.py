"""A flashed card with a read-only root, booted again and again: what makes a device known to others stays the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig.link import Link, wait_for

from .card import ssh_key, write_card
from .test_boot_provision import Device

pytestmark = pytest.mark.slow

PHRASE = "correct horse battery staple"


@dataclass(frozen=True, slots=True)
class Identity:
    """How others know a device, and what its owner set."""

    machine_id: str
    host_keys: frozenset[str]
    hostname: str
    zone: str
    network: str


def host_keys(link: Link) -> frozenset[str]:
    """Public host keys: kind and key. Strangers are shown the same ones, or the login below would be refused."""
    wait_for(lambda: link.run("test -s /data/etc/ssh/ssh_host_ed25519_key.pub").code == 0, 600, "host keys")
    wait_for(lambda: link.run("systemctl is-active sshdgenkeys.service").out.strip() == "active", 600, "all host keys")
    lines = link.run("cat /data/etc/ssh/ssh_host_*_key.pub").check().splitlines()
    return frozenset(" ".join(line.split()[:2]) for line in lines)


def identity(link: Link) -> Identity:
    return Identity(
        machine_id=link.run("cat /etc/machine-id").check().strip(),
        host_keys=host_keys(link),
        hostname=link.run("uname -n").check().strip(),
        zone=link.run("readlink -f /etc/localtime").check().strip(),
        network=link.run("cat /etc/wpa_supplicant/wpa_supplicant-wlan0.conf").check(),
    )


@pytest.fixture(scope="module")
def device(full_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    directory = tmp_path_factory.mktemp("keep")
    key = ssh_key(directory)
    (directory / "password").write_text(PHRASE + "\n")
    card = write_card(
        full_image, directory / "card.img", "--hostname", "cellar", "--timezone", "Europe/Berlin", "--ssh-key", key.with_suffix(".pub"),
        "--wifi-ssid", "home", "--wifi-country", "DE", "--wifi-password-file", directory / "password",
    )  # fmt: skip
    made = Device(card, directory / "card.qcow2", key)
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def first(device: Device) -> Identity:
    """The first boot; afterwards the owner changes the daemon's settings, and the power goes."""
    link = device.boot()
    assert link.run("systemctl --failed --no-legend --plain").check().strip() == ""
    assert link.run("findmnt -no OPTIONS /").check().split(",")[0] == "ro"
    now = identity(link)
    device.ssh("true")
    link.run("echo '# mine' >> /etc/edgeai/edgeaid.toml; touch /var/lib/systemd/kept; sync").check()
    device.kill()
    return now


@pytest.fixture(scope="module")
def again(device: Device, first: Identity) -> Link:
    """Commands inside, after the second boot."""
    return device.boot()


def test_the_first_boot_makes_an_identity_and_takes_the_settings(first: Identity) -> None:
    assert len(first.machine_id) == 32
    assert {key.split()[0] for key in first.host_keys} >= {"ssh-ed25519", "ssh-rsa"}
    assert (first.hostname, first.zone) == ("cellar", "/usr/share/zoneinfo/Europe/Berlin")
    assert f"ssid={b'home'.hex()}" in first.network


def test_the_image_itself_has_no_identity(again: Link) -> None:
    """Two cards of one image must not be the same device."""
    again.run("mkdir -p /run/image && mount --bind / /run/image").check()
    assert again.run("cat /run/image/etc/machine-id").check().strip() in ("", "uninitialized")
    assert again.run("ls /run/image/etc/ssh /run/image/data | grep -c key").out.strip() == "0"


def test_the_second_boot_is_the_same_device(first: Identity, again: Link) -> None:
    assert identity(again) == first


def test_a_client_that_trusts_the_first_boots_key_logs_in_again(device: Device, first: Identity, again: Link) -> None:
    known = device.disk.with_name("known_hosts")
    known.write_text("".join(f"[127.0.0.1]:{device.port} {key}\n" for key in sorted(first.host_keys)))
    line = ["ssh", "-i", str(device.key), "-p", str(device.port), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    line += ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}", "root@127.0.0.1", "uname -n"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "cellar", done.stderr


def test_what_the_owner_and_systemd_wrote_is_there(again: Link) -> None:
    assert again.run("tail -n 1 /etc/edgeai/edgeaid.toml").check().strip() == "# mine"
    again.run("test -e /var/lib/systemd/kept").check()
    assert again.run("journalctl -b -u edgeai-provision -o cat").check().count("nothing new in edgeai.toml") == 1


def test_only_the_data_partition_is_written(again: Link) -> None:
    assert again.run("findmnt -no OPTIONS /").check().split(",")[0] == "ro"
    sources = again.run("findmnt -rno SOURCE -O rw -t ext4").check().split()
    assert {source.split("[")[0] for source in sources} == {"/dev/vda3"}
    for path in ("/etc/hostname", "/etc/edgeai/edgeaid.toml", "/root/.ssh/authorized_keys"):
        assert again.run(f"readlink -f {path}").check().strip() == f"/data{path}"
    # The daemon's user owns its models and nothing else of what is kept.
    assert again.run("touch /data/etc/x", user="edgeai").code != 0
    assert again.run("cat /data/etc/ssh/ssh_host_ed25519_key", user="edgeai").code != 0


def test_the_data_partition_has_all_of_the_card(again: Link) -> None:
    blocks = int(again.run("cat /sys/class/block/vda3/size").check()) // 2
    assert int(again.run("df --output=size -k /data | tail -1").check()) > blocks * 0.9


def test_without_its_data_partition_the_device_boots_and_says_so(device: Device, again: Link) -> None:
    again.run("tune2fs -L other /dev/vda3").check()
    device.stop()
    link = device.boot()
    assert "no partition edgeai-data" in link.run("dmesg").check()
    assert link.run("findmnt -no FSTYPE /data").check().strip() == "tmpfs"
    assert len(link.run("cat /etc/machine-id").check().strip()) == 32
    assert link.run("systemctl is-active edgeaid.service edgeaid.socket").out.split()[-1] == "active"
