"""What doctor says about made-up machines."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgeaid import usb_ids
from edgeaid.doctor import checks as doctor
from edgeaid.doctor import machine
from edgeaid.doctor import report as doctor_report
from edgeaid.doctor.checks import Observation, Places

from ..support.usbtree import CORAL, CORAL_BOOT, NCS2_BOOT, UsbTree

RULES = Path(__file__).parents[2] / "systemd" / "70-edgeai.rules"
GOOD = "BuildLabel(N/A), RuntimeVersion(14)"


@pytest.fixture
def places(tree: UsbTree, tmp_path: Path) -> Places:
    """A well-kept machine: rules, libraries, runtime, daemon."""
    rules, libraries, models = tmp_path / "rules.d", tmp_path / "lib", tmp_path / "models"
    for directory in (rules, libraries, models):
        directory.mkdir()
    shutil.copy(RULES, rules)
    (libraries / "libedgetpu.so.1").touch()
    socket = tmp_path / "edgeaid.sock"
    socket.touch()
    return Places(
        sysfs=tree.sys,
        dev=tree.dev,
        rules=(rules,),
        libraries=(libraries,),
        models=models,
        socket=socket,
        throttled=lambda: "throttled=0x0",
        edgetpu=lambda library: GOOD,
        package=lambda name: "2.1.0" if name == "ai-edge-litert" else "",
    )


def only(findings: list[Observation], check: str) -> Observation:
    kept = [finding for finding in findings if finding.check == check]
    assert len(kept) == 1, findings
    return kept[0]


def test_a_well_kept_machine_has_nothing_to_do(tree: UsbTree, places: Places) -> None:
    tree.plug("2-1", CORAL, speed=5000)
    findings = doctor.run(places, user="root")
    assert {finding.level for finding in findings} == {"ok"}, findings
    assert "Coral USB Accelerator at usb:2-1" in only(findings, "devices").text


def test_no_accelerator_is_a_note_and_not_a_problem(places: Places) -> None:
    assert only(doctor.run(places), "devices").level == "note"


def test_the_rules_we_install_cover_every_stick_we_know(places: Places) -> None:
    opened = machine.udev_rules(places.rules)
    sticks = {ids for ids, known in usb_ids.USB.items() if not known.serial}
    assert sticks <= opened


@pytest.mark.parametrize("line", ["", '# ATTR{idVendor}=="18d1", GROUP="plugdev"\n'])
def test_a_missing_udev_rule_is_named_with_the_ids(tree: UsbTree, places: Places, line: str) -> None:
    tree.plug("2-1", CORAL, speed=5000)
    (places.rules[0] / "70-edgeai.rules").write_text(line)
    finding = only(doctor.run(places, user="nobody"), "udev rule")
    assert finding.level == "problem"
    assert "18d1:9302" in finding.text
    assert "70-edgeai.rules" in finding.todo


@pytest.mark.root
def test_a_missing_group_is_named_with_the_command(tree: UsbTree, places: Places) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file to a group")
    tree.plug("2-1", CORAL, speed=5000)
    node = next((tree.dev / "bus/usb/002").iterdir())
    os.chown(node, 0, 20)  # dialout on Debian
    node.chmod(0o660)
    finding = only(doctor.run(places, user="nobody"), "group")
    assert str(node) in finding.text
    assert "usermod -aG" in finding.todo


def test_a_stick_on_usb_2_is_told_about_but_not_while_it_boots(tree: UsbTree, places: Places) -> None:
    tree.plug("1-1.4", CORAL_BOOT)
    assert not [f for f in doctor.run(places) if f.check == "usb speed"]
    tree.become("1-1.4", CORAL)
    finding = only(doctor.run(places), "usb speed")
    assert "480 Mbit/s" in finding.text
    assert "blue" in finding.todo


def test_a_stick_that_may_fall_asleep_is_told_about(tree: UsbTree, places: Places) -> None:
    tree.plug("2-1", CORAL, speed=5000)
    power = tree.sys / "bus/usb/devices/2-1/power"
    power.mkdir()
    (power / "control").write_text("auto\n")
    assert only(doctor.run(places), "autosuspend").level == "warning"


@pytest.mark.parametrize(
    ("throttled", "level", "words"),
    [
        ("throttled=0x50005", "problem", "the supply voltage is too low and the CPU is throttled"),
        ("throttled=0x50000", "warning", "since the last boot"),
        ("throttled=0x80008", "problem", "temperature limit"),
        ("throttled=0x0", "ok", "good"),
    ],
)
def test_the_firmwares_word_on_power_is_translated(places: Places, throttled: str, level: str, words: str) -> None:
    finding = only(doctor.run(replace(places, throttled=lambda: throttled)), "power")
    assert finding.level == level
    assert words in finding.text


def test_without_vcgencmd_the_kernels_sensor_is_asked(tree: UsbTree, places: Places) -> None:
    places = replace(places, throttled=lambda: "")
    assert not [f for f in doctor.run(places) if f.check == "power"]
    sensor = tree.sys / "class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("rpi_volt\n")
    (sensor / "in0_lcrit_alarm").write_text("1\n")
    assert only(doctor.run(places), "power").level == "problem"
    (sensor / "in0_lcrit_alarm").write_text("0\n")
    assert only(doctor.run(places), "power").level == "ok"


def test_googles_old_library_with_a_new_runtime_is_a_problem_naming_both(places: Places) -> None:
    old = "BuildLabel(COMPILER=5.4.0 20160609,CL_NUMBER=363130932), RuntimeVersion(14)"
    finding = only(doctor.run(replace(places, edgetpu=lambda library: old)), "libedgetpu")
    assert finding.level == "problem"
    assert "CL_NUMBER=363130932" in finding.text
    assert "ai-edge-litert 2.1.0" in finding.text
    pair = replace(
        places, edgetpu=lambda library: old, package=lambda name: "2.5.0.post1" if name == "tflite-runtime" else ""
    )
    assert only(doctor.run(pair), "libedgetpu").level == "ok"


def test_an_edge_tpu_without_its_library_is_a_problem(tree: UsbTree, places: Places) -> None:
    tree.plug("2-1", CORAL, speed=5000)
    (places.libraries[0] / "libedgetpu.so.1").unlink()
    assert only(doctor.run(places), "libedgetpu").level == "problem"


def test_a_library_that_does_not_load_is_asked_in_a_child_and_reported(places: Places) -> None:
    finding = only(doctor.run(replace(places, edgetpu=machine.edgetpu_version)), "libedgetpu")
    assert "does not load" in finding.text


def test_no_runtime_at_all_is_a_problem(places: Places) -> None:
    assert only(doctor.run(replace(places, package=lambda name: "")), "runtime").level == "problem"


def test_missing_movidius_firmware_names_file_source_and_licence(tree: UsbTree, places: Places) -> None:
    tree.plug("1-1.1", (0x03E7, 0x2150))
    tree.plug("1-1.2", NCS2_BOOT)
    libraries = places.libraries[0]
    (libraries / "libmvnc.so.0").touch()
    (libraries / "libopenvino_intel_myriad_plugin.so").touch()
    first, second = (finding for finding in doctor.run(places) if finding.check == "firmware")
    assert "MvNCAPI.mvcmd" in first.text
    assert "Software Tools License" in first.todo
    assert "usb-ma2x8x.mvcmd" in second.text
    assert "storage.openvinotoolkit.org" in second.todo
    (libraries / "mvnc").mkdir()
    (libraries / "mvnc/MvNCAPI.mvcmd").touch()
    (libraries / "usb-ma2x8x.mvcmd").touch()
    assert not [finding for finding in doctor.run(places) if finding.check == "firmware"]


def add_model(places: Places, file: Path) -> None:
    directory = places.models / "bird" / "1"
    directory.mkdir(parents=True)
    shutil.copy(file, directory / "m.tflite")
    (directory / "model.toml").write_text('schema = 1\nname = "bird"\n[artifacts.edgetpu]\nfile = "m.tflite"\n')


def test_a_model_compiled_for_a_newer_runtime_is_named_with_both_versions(places: Places, shared_data: Path) -> None:
    add_model(places, next(shared_data.rglob("*0.25_128*edgetpu.tflite")))
    assert not [finding for finding in doctor.run(places) if finding.check == "model"]
    old = replace(places, edgetpu=lambda library: "BuildLabel(N/A), RuntimeVersion(10)")
    finding = only(doctor.run(old), "model")
    assert "runtime 12; this machine has 10" in finding.text
    assert "--min_runtime_version 10" in finding.todo


def test_a_damaged_model_is_reported_and_the_rest_is_still_checked(places: Places, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00" * 40)
    add_model(places, broken)
    findings = doctor.run(places)
    assert only(findings, "model").level == "problem"
    assert only(findings, "daemon").level == "ok"


def test_a_daemon_that_does_not_listen_is_a_warning(places: Places) -> None:
    places.socket.unlink()
    assert only(doctor.run(places), "daemon").level == "warning"


def test_the_worst_comes_first(tree: UsbTree, places: Places) -> None:
    tree.plug("1-1.4", CORAL)
    levels = [doctor.LEVELS.index(f.level) for f in doctor.run(replace(places, package=lambda name: ""))]
    assert levels == sorted(levels, reverse=True)


def test_the_report_is_one_text_with_findings_devices_and_versions(tree: UsbTree, places: Places) -> None:
    tree.plug("2-1", CORAL, speed=5000)
    text = doctor_report.report(places)
    for part in ("== findings ==", "== devices ==", "usb:2-1", "ai-edge-litert 2.1.0", "2-1 18d1:9302 5000 Mbit/s"):
        assert part in text


def test_the_report_names_our_links_and_who_may_open_them(tree: UsbTree, places: Places) -> None:
    directory = tree.dev / "edgeai"
    directory.mkdir(parents=True)
    (tree.dev / "stick").touch(mode=0o660)
    (directory / "coral").symlink_to("../stick")
    (directory / "gone").symlink_to("../nothing")
    text = doctor_report.report(places, served="model digits 1 READY on cpu0")
    assert "coral -> ../stick (group " in text
    assert "gone: points to nothing" in text
    assert "== daemon ==\nmodel digits 1 READY on cpu0\n" in text
