"""K210 boards: the right package is made, kflash gets it, and a board that never answers does not hold anybody up."""

from __future__ import annotations

import importlib.util
import os
import pty
import sys
import time
from pathlib import Path

import pytest
from edgeaid.toolkit.compile import kfpkg
from flash_lib import Refused, k210

from .conftest import TOP, Flash


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    path = tmp_path / "firmware.bin"
    path.write_bytes(bytes(range(256)) * 40)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The smallest thing that is recognised as a kmodel v4."""
    path = tmp_path / "face.kmodel"
    path.write_bytes(b"LDMK\x04\0\0\0" + bytes(4096))
    return path


def program(path: Path, text: str) -> list[str]:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return [str(path)]


def test_a_model_goes_to_its_address_without_a_prefix(firmware: Path, model: Path) -> None:
    data, _ = k210.package(firmware, model)
    first, second = kfpkg.read(data)
    assert (first.address, first.data, first.sha256_prefix) == (0, firmware.read_bytes(), True)
    assert (second.address, second.data, second.sha256_prefix) == (0x500000, model.read_bytes(), False)


def test_a_package_of_firmware_gets_the_model_too(firmware: Path, model: Path, tmp_path: Path) -> None:
    kfpkg.write(tmp_path / "fw.kfpkg", {0: firmware})
    data, _ = k210.package(tmp_path / "fw.kfpkg", model)
    assert [p.address for p in kfpkg.read(data)] == [0, 0x500000]


def test_files_in_the_wrong_order_are_refused(firmware: Path, model: Path) -> None:
    with pytest.raises(Refused, match="firmware comes first"):
        k210.package(model, firmware)
    with pytest.raises(Refused, match="not a kmodel"):
        k210.package(firmware, firmware)
    with pytest.raises(Refused, match=r"absent\.bin: No such file or directory$"):
        k210.package(firmware.with_name("absent.bin"), None)


def test_kflash_is_told_port_speed_and_board(firmware: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    text = f"import sys\nopen({str(note)!r}, 'w').write(repr((sys.argv[1:-1], len(open(sys.argv[-1], 'rb').read()))))\n"
    k210.flash(program(tmp_path / "kflash", text), "/dev/x", b"abc", 115200, "dan", 60)
    assert note.read_text() == repr((["-p", "/dev/x", "-b", "115200", "-B", "dan"], 3))


def test_a_kflash_that_tries_for_ever_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = (
        "import subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '1000'])\nopen({str(note)!r}, 'w').write(str(child.pid))\n"
        "while True: time.sleep(1)\n"
    )
    with pytest.raises(Refused, match="was ended; press the board's reset button"):
        k210.flash(program(tmp_path / "kflash", text), "/dev/x", b"abc", 115200, None, 5)
    stat = Path(f"/proc/{note.read_text()}/stat")
    for _ in range(100):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child is still there")


def test_a_failing_kflash_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="status 3"):
        k210.flash(program(tmp_path / "kflash", "raise SystemExit(3)"), "/dev/x", b"abc", 115200, None, 60)


def test_a_missing_kflash_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match="pip install kflash"):
        k210.find_kflash(tmp_path)


def test_the_time_limit_leaves_room_for_the_slowest_line() -> None:
    # a megabyte takes 91 s at 115200
    assert k210.seconds(1 << 20, 115200) > 2 * 91


def test_the_real_kflash_on_a_port_without_a_board_ends_with_advice(flash: Flash, firmware: Path, model: Path) -> None:
    try:
        k210.find_kflash(TOP)
    except Refused as error:
        pytest.skip(str(error))
    leader, follower = pty.openpty()
    try:
        done = flash("--k210", os.ttyname(follower), firmware, model, "--time-limit", "15", "--baud", "115200")
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 1
    assert "flash: kflash" in done.stderr
    assert "--baud" in done.stderr


def test_a_dry_run_needs_no_board(flash: Flash, firmware: Path, model: Path) -> None:
    try:
        k210.find_kflash(TOP)
    except Refused as error:
        pytest.skip(str(error))
    done = flash("--k210", "/dev/nowhere", firmware, model, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was written" in done.stdout
    absent = flash("--k210", "/dev/nowhere", firmware, model)
    assert absent.returncode == 1
    assert "there is no port" in absent.stderr


def test_help_reads_like_a_page_and_wrong_arguments_exit_with_2(flash: Flash) -> None:
    page = flash("--help")
    assert page.returncode == 0
    for word in ("usage:", "--yes-really-not-removable", "--k210", "exit status", "examples"):
        assert word in page.stdout
    assert flash("only-an-image").returncode == 2
    assert flash("--k210", "/dev/x").returncode == 2
