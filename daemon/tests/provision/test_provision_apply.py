"""Settings are applied to a root directory, whole or not at all, and the boot partition forgets the secrets."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from edgeaid.models import pack, repository
from edgeaid.provision import apply as provision
from edgeaid.provision.settings import FILE, LOG, MODELS, preshared_key

PHRASE = "correct horse battery"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr me"
OTHER = KEY.replace("me", "other").replace("a2tr ", "a2ts ")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for directory in ("etc", "boot", "var/lib/edgeai", "usr/share/zoneinfo/Europe"):
        (root / directory).mkdir(parents=True)
    (root / "usr/share/zoneinfo/Europe/Berlin").write_bytes(b"TZif")
    (root / "etc/passwd").write_text("daemon:x:1:1::/:/bin/sh\nroot:x:0:0:root:/home/root:/bin/sh\n")
    return root


def put(root: Path, text: str) -> None:
    (root / "boot" / FILE).write_text("schema = 1\n" + text)


def run(root: Path) -> provision.Applied | None:
    return provision.run(root, root / "boot")


def preload(root: Path, name: str = "digits") -> str:
    directory = root / "boot" / MODELS
    directory.mkdir(exist_ok=True)
    return pack.write(repository.EMBEDDED / name / "1", directory).name


WIFI = f'[wifi]\nssid = "home"\ncountry = "DE"\npassword = "{PHRASE}"\n'


def test_everything_is_applied_at_once(root: Path) -> None:
    file = preload(root)
    put(
        root,
        f'hostname = "kitchen"\ntimezone = "Europe/Berlin"\n{WIFI}'
        f'[ssh]\nauthorized_keys = ["{KEY}"]\n[models]\npreload = ["{file}"]\n',
    )
    report = run(root)
    assert report is not None
    assert report.problems == []
    assert (root / "etc/hostname").read_text() == "kitchen\n"
    assert os.readlink(root / "etc/localtime") == "../usr/share/zoneinfo/Europe/Berlin"
    network = root / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
    assert network.stat().st_mode & 0o777 == 0o600
    text = network.read_text()
    assert f"ssid={b'home'.hex()}\n" in text
    assert f"psk={preshared_key('home', PHRASE)}\n" in text
    assert PHRASE not in text
    keys = root / "home/root/.ssh/authorized_keys"
    assert keys.read_text() == KEY + "\n"
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    stored = repository.Repository([root / "var/lib/edgeai/models"]).find("digits", "1")
    assert repository.verify(stored, "cpu").is_file()
    assert not (root / "boot" / MODELS).exists()
    log = (root / "boot" / LOG).read_text()
    assert "done: hostname: kitchen" in log
    assert PHRASE not in log


def test_on_a_read_only_root_everything_is_written_to_the_data_partition(root: Path) -> None:
    (root / "usr/lib/edgeai").mkdir(parents=True)
    (root / "usr/lib/edgeai/persistent").write_text("/etc/hostname\n")
    (root / "data/etc/edgeai").mkdir(parents=True)
    (root / "etc/hostname").symlink_to("/data/etc/hostname")
    text = f'hostname = "kitchen"\ntimezone = "Europe/Berlin"\n{WIFI}[ssh]\nauthorized_keys = ["{KEY}"]\n'
    put(root, text)
    report = run(root)
    assert report is not None
    assert report.problems == []
    data = root / "data"
    assert (data / "etc/hostname").read_text() == "kitchen\n"
    assert os.readlink(data / "etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
    assert "psk=" in (data / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf").read_text()
    assert (data / "home/root/.ssh/authorized_keys").read_text() == KEY + "\n"
    assert [path.name for path in (root / "etc").iterdir() if not path.is_symlink()] == ["passwd"]
    assert run(root) is None, "applied twice"


def test_the_secret_is_erased_from_the_boot_partition(root: Path) -> None:
    put(root, WIFI)
    run(root)
    for path in (root / "boot").rglob("*"):
        assert PHRASE.encode() not in path.read_bytes()


def test_the_same_file_is_not_applied_twice(root: Path) -> None:
    put(root, 'hostname = "one"\n' + WIFI)
    assert run(root) is not None
    (root / "etc/hostname").write_text("changed by hand\n")
    assert run(root) is None
    assert (root / "etc/hostname").read_text() == "changed by hand\n"


def test_an_edited_file_is_applied_again_and_keeps_the_network(root: Path) -> None:
    put(root, 'hostname = "one"\n' + WIFI)
    run(root)
    path = root / "boot" / FILE
    path.write_text(path.read_text().replace("one", "two"))
    report = run(root)
    assert report is not None
    assert report.problems == []
    assert (root / "etc/hostname").read_text() == "two\n"
    assert "psk=" in (root / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf").read_text()


def test_a_power_cut_before_the_erasing_is_made_good_by_the_next_boot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, 'hostname = "kitchen"\n' + WIFI)

    def cut(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(provision, "erase", cut)
        with pytest.raises(KeyboardInterrupt):
            run(root)
    report = run(root)
    assert report is not None
    assert report.problems == []
    assert PHRASE not in (root / "boot" / FILE).read_text()


def test_wifi_without_a_password_needs_the_word_open(root: Path) -> None:
    put(root, '[wifi]\nssid = "home"\ncountry = "DE"\n')
    report = run(root)
    assert report is not None
    assert "open = true" in report.problems[0]
    put(root, '[wifi]\nssid = "home"\ncountry = "DE"\nopen = true\n')
    run(root)
    assert "key_mgmt=NONE" in (root / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf").read_text()


def test_keys_are_added_to_those_that_are_there(root: Path) -> None:
    put(root, f'[ssh]\nauthorized_keys = ["{KEY}"]\n')
    run(root)
    put(root, f'[ssh]\nauthorized_keys = ["{KEY}", "{OTHER}"]\n')
    run(root)
    assert (root / "home/root/.ssh/authorized_keys").read_text() == f"{KEY}\n{OTHER}\n"


def test_a_bad_key_is_reported_and_the_rest_is_applied(root: Path) -> None:
    put(root, 'hostname = "kitchen"\nhostnam = "x"\ntimezone = "Mars/Base"\n' + WIFI)
    report = run(root)
    assert report is not None
    assert len(report.problems) == 2
    log = (root / "boot" / LOG).read_text()
    assert "problem: 'hostnam'" in log
    assert "problem: timezone" in log
    assert (root / "etc/hostname").read_text() == "kitchen\n"
    assert not (root / "etc/localtime").exists()


def test_a_typing_error_costs_its_line_only_and_the_text_is_kept_without_the_secret(root: Path) -> None:
    put(root, f'hostname = "kitchen\n{WIFI}')
    report = run(root)
    assert report is not None
    assert "not TOML" in report.problems[0]
    assert not (root / "etc/hostname").exists()
    assert any(done.startswith("wifi") for done in report.done)
    kept = (root / "boot" / FILE).read_text()
    assert PHRASE not in kept
    assert 'hostname = "kitchen' in kept
    assert run(root) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent", "renamed"])
def test_a_damaged_model_is_reported_and_never_half_there(root: Path, damage: str) -> None:
    file = preload(root)
    path = root / "boot" / MODELS / file
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    elif damage == "absent":
        path.unlink()
    else:
        file = "other-1.edgeai"
        path.rename(path.with_name(file))
    put(root, f'hostname = "kitchen"\n[models]\npreload = ["{file}"]\n')
    report = run(root)
    assert report is not None
    assert len(report.problems) == 1
    assert (root / "etc/hostname").is_file()
    models = root / "var/lib/edgeai/models"
    assert repository.Repository([models]).names() == []
    staging = models / repository.STAGING
    assert not staging.exists() or list(staging.iterdir()) == []


def test_a_model_that_is_there_already_is_left_alone(root: Path) -> None:
    put(root, f'[models]\npreload = ["{preload(root)}"]\n')
    run(root)
    put(root, f'hostname = "x"\n[models]\npreload = ["{preload(root)}"]\n')
    report = run(root)
    assert report is not None
    assert any("there already" in text for text in report.done)


def test_a_symbolic_link_is_not_taken_for_a_model(root: Path) -> None:
    file = preload(root)
    path = root / "boot" / MODELS / file
    path.rename(root / "elsewhere")
    path.symlink_to(root / "elsewhere")
    put(root, f'[models]\npreload = ["{file}"]\n')
    report = run(root)
    assert report is not None
    assert len(report.problems) == 1


def test_erasing_writes_over_the_place_of_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    before = path.stat().st_ino
    provision.erase(path, b"short\n")
    assert path.read_bytes() == b"short\n"
    assert path.stat().st_ino == before


def test_without_a_file_there_is_nothing_to_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert provision.main(["--root", str(root)]) == 0
    assert "nothing new" in capsys.readouterr().err


def test_the_exit_status_tells_problems_from_success(root: Path) -> None:
    put(root, 'hostname = "kitchen"\n')
    assert provision.main(["--root", str(root)]) == 0
    put(root, 'hostname = "-"\n')
    assert provision.main(["--root", str(root)]) == 1


def test_a_device_failure_is_tried_again_at_the_next_boot(root: Path) -> None:
    put(root, 'hostname = "kitchen"\n')
    (root / "etc/hostname").mkdir()
    report = run(root)
    assert report is not None
    assert "hostname" in report.problems[0]
    (root / "etc/hostname").rmdir()
    assert run(root) is not None
    assert (root / "etc/hostname").read_text() == "kitchen\n"


def test_state_is_the_digest_of_what_is_on_the_boot_partition(root: Path) -> None:
    put(root, 'hostname = "kitchen"\n')
    run(root)
    assert (root / provision.STATE).read_text().strip() == hashlib.sha256(
        (root / "boot" / FILE).read_bytes()
    ).hexdigest()


def test_a_bundle_is_read_from_an_open_file(tmp_path: Path) -> None:
    packed = pack.pack(pack.collect(repository.EMBEDDED / "digits" / "1")[1])
    provision._extract(io.BytesIO(packed), tmp_path)
    assert (tmp_path / "model.toml").stat().st_mode & 0o777 == 0o640
