"""Units as text: what systemd itself thinks of them, without running anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeaid import usb_ids

UNITS = Path(__file__).resolve().parents[2] / "systemd"
TREE = UNITS.parents[1]
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt-get install systemd"
)


def services() -> list[tuple[Path, Path | None]]:
    """Every service of the tree, alone and with each drop-in that is shipped for it."""
    units = [
        file
        for top in ("daemon/systemd", "daemon/examples", "meta-edgeai")
        for file in sorted((TREE / top).rglob("*.service"))
    ]
    drop_ins = [UNITS / "edgeaid-cameras.conf", UNITS / "edgeaid-grpc.conf"]
    drop_ins += sorted((TREE / "meta-edgeai").rglob("50-camera.conf"))
    return [(unit, None) for unit in units] + [(UNITS / "edgeaid.service", drop_in) for drop_in in drop_ins]


@needs_systemd
@pytest.mark.parametrize(("unit", "drop_in"), services(), ids=lambda p: p.name if p else "alone")
def test_every_service_scores_at_most_1_5_in_systemd_analyze_security(
    unit: Path, drop_in: Path | None, tmp_path: Path
) -> None:
    # A drop-in adds to what it drops into, as more lines at the end of the file do.
    whole = tmp_path / unit.name
    whole.write_text(unit.read_text() + (drop_in.read_text() if drop_in else ""))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(whole)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Unknown command" in done.stderr or "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze has no offline check: systemd 250 or newer")
    level = re.search(r"Overall exposure level for \S+\.service: ([\d.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= 1.5, "\n".join(line for line in done.stdout.splitlines() if line.startswith("✗"))


def test_every_socket_has_the_name_that_the_daemon_asks_for() -> None:
    names = {
        path.name: re.findall(r"^FileDescriptorName=(\w+)", path.read_text(), re.M)[0]
        for path in UNITS.glob("*.socket")
        if "Accept=yes" not in path.read_text()
    }
    assert names["edgeaid.socket"] == "http"
    assert names["edgeaid-fast.socket"] == "fast"


def test_rules_know_both_identities_of_every_stick() -> None:
    text = (UNITS / "70-edgeai.rules").read_text()
    for vendor, product in (("1a6e", "089a"), ("18d1", "9302"), ("03e7", "2150"), ("03e7", "2485"), ("03e7", "f63b")):
        assert f'ATTR{{idVendor}}=="{vendor}", ATTR{{idProduct}}=="{product}"' in text


def test_rules_and_daemon_know_the_same_serial_bridges() -> None:
    known = {pair for pair, entry in usb_ids.USB.items() if entry.serial}
    rows = re.findall(
        r'ATTRS{idVendor}=="(\w+)", ATTRS{idProduct}=="([\w|]+)"', (UNITS / "70-edgeai.rules").read_text()
    )
    assert {(int(v, 16), int(p, 16)) for v, products in rows for p in products.split("|")} == known


def test_nothing_is_open_to_everybody_but_the_sockets() -> None:
    assert "0666" not in (UNITS / "70-edgeai.rules").read_text()
    assert "0777" not in "".join(path.read_text() for path in UNITS.iterdir() if path.is_file())


def test_shipped_settings_are_accepted_by_the_daemon() -> None:
    from edgeaid import config

    config.load(UNITS / "edgeaid.toml")
