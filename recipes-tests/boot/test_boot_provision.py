"""From scripts/flash to a device that has its settings: name, time zone, keys, Wi-Fi and models at the first boot, secrets gone."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import machine, paths
from rig.link import Link, wait_for

from .card import renamed_model, ssh_key, wait_serving, write_card

pytestmark = pytest.mark.slow

PHRASE = "correct horse battery staple"
SSID = "Café am Eck"

#: Where on the disk that the emulator shows the guest a secret still is: name of the partition, or nothing.
SEARCH = """
import sys
for number in (1, 2):
    with open(f"/dev/vda{number}", "rb", buffering=0) as disk:
        tail = b""
        while block := disk.read(1 << 22):
            for secret in sys.argv[1:]:
                if secret.encode() in tail + block:
                    print(number, secret)
            tail = block[-64:]
"""


class Device:
    """A flashed card and the machine that runs it."""

    def __init__(self, card: Path, disk: Path, key: Path) -> None:
        self.card, self.disk, self.key = card, disk, key
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.machine: machine.Machine | None = None

    def boot(self) -> Link:
        board = machine.Board(ssh_port=self.port, read_only_root=True)
        self.machine = machine.boot(self.card, paths.work_dir(), self.disk, board, fresh=not self.disk.is_file())
        self.machine.wait_up()
        assert self.machine.link is not None
        return self.machine.link

    def stop(self) -> None:
        if self.machine is not None:
            assert self.machine.shut_down() == 0
            self.kill()

    def kill(self) -> None:
        if self.machine is not None:
            self.machine.kill()
            self.machine.remove()
            self.machine = None

    def ssh(self, command: str) -> str:
        words = ["ssh", "-i", str(self.key), "-p", str(self.port), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "root@127.0.0.1", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def device(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    if image.suffix != ".wic":
        pytest.skip("the boot partition is on a card image; this release has none here (wic)")
    directory = tmp_path_factory.mktemp("card")
    key = ssh_key(directory)
    (directory / "password").write_text(PHRASE + "\n")
    card = write_card(
        image, directory / "card.img", "--hostname", "kitchen", "--timezone", "Europe/Berlin", "--ssh-key", key.with_suffix(".pub"),
        "--wifi-ssid", SSID, "--wifi-country", "DE", "--wifi-password-file", directory / "password",
        "--preload", renamed_model(directory, "mine", 3),
    )  # fmt: skip
    made = Device(card, directory / "card.qcow2", key)
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def guest(device: Device) -> Link:
    """Commands inside, after the first boot."""
    link = device.boot()
    wait_serving(link, device.disk.parent)
    return link


def test_the_settings_were_applied_without_a_problem(guest: Link) -> None:
    log = guest.run("cat /boot/edgeai-provision.log").check()
    assert "problem" not in log
    assert guest.run("systemctl is-active edgeai-provision.service").out.strip() == "active"
    assert guest.run("systemctl --failed --no-legend --plain").check().strip() == ""


def test_the_device_has_its_name_and_time_zone(guest: Link) -> None:
    assert guest.run("uname -n; cat /etc/hostname").check().split() == ["kitchen", "kitchen"]
    assert guest.run("date +%Z").check().strip() in ("CET", "CEST")


def test_the_owner_of_the_key_logs_in(guest: Link, device: Device) -> None:
    out = wait_for(
        lambda: guest.run("systemctl is-active ssh.service sshd.service sshd.socket").out, 60, "an SSH server"
    )
    assert "active" in out.split()
    assert device.ssh("id -un; uname -n").split() == ["root", "kitchen"]
    assert guest.run("stat -c %a ~root/.ssh ~root/.ssh/authorized_keys").check().split() == ["700", "600"]


def test_the_supplicant_has_the_network_and_nobody_else_may_read_it(guest: Link) -> None:
    from edgeaid.provision.settings import preshared_key

    path = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
    text = guest.run(f"cat {path}").check()
    assert f"ssid={SSID.encode().hex()}" in text
    assert f"psk={preshared_key(SSID, PHRASE)}" in text
    assert "country=DE" in text
    assert guest.run(f"stat -c '%U %a' {path}").check().strip() == "root 600"
    assert guest.run(f"cat {path}", user="edgeai").code != 0


def test_no_secret_is_left_on_the_boot_partition(guest: Link) -> None:
    from edgeaid.provision.settings import preshared_key

    psk = preshared_key(SSID, PHRASE)
    guest.run("sync; echo 3 > /proc/sys/vm/drop_caches").check()
    hits = guest.python(SEARCH, psk, PHRASE, timeout=600).check().splitlines()
    # The key is on the root partition, in the supplicant's own file; the passphrase never was on the card.
    assert {line.split()[0] for line in hits} <= {"2"}
    assert not any(PHRASE in line for line in hits)
    assert "kitchen" in guest.run("cat /boot/edgeai.toml").check()


def test_the_model_on_the_card_serves_and_its_bundle_is_gone(guest: Link) -> None:
    assert guest.run("ls -R /boot | grep -c edgeai$").out.strip() == "0"
    assert guest.run("stat -c %U:%G /var/lib/edgeai/models/mine/3/model.toml").check().strip() == "edgeai:edgeai"
    shown = guest.run("edgeai models").check()
    assert any(line.split()[:3] == ["mine", "3*", "READY"] for line in shown.splitlines()), shown


def test_the_same_file_is_not_applied_twice_and_a_new_one_is(guest: Link, device: Device) -> None:
    guest.run("sed -i 's/^hostname = .*/hostname = \"attic\"/' /boot/edgeai.toml; hostname > /run/x; sync").check()
    device.stop()
    link = device.boot()
    assert link.run("uname -n").check().strip() == "attic"
    assert "no new key; left as it is" in link.run("cat /boot/edgeai-provision.log").check()
    assert "psk=" in link.run("cat /etc/wpa_supplicant/wpa_supplicant-wlan0.conf").check()
    link.run("rm /boot/edgeai-provision.log").check()
    device.stop()
    link = device.boot()
    assert link.run("test -e /boot/edgeai-provision.log").code != 0
    assert "nothing new in edgeai.toml" in link.run("journalctl -b -u edgeai-provision -o cat").check()
    assert link.run("uname -n").check().strip() == "attic"
