"""`edgeai doctor`: what is wrong with this machine, and what to do about it.

Looks at files only (every place injectable), except for two questions that need a program: `vcgencmd` for the power
supply, and a child process that asks libedgetpu for its version, so that a broken library cannot take doctor with it.
"""

from __future__ import annotations

import os
import pwd
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..devices.discovery import Hardware, scan
from ..errors import EdgeaiError
from ..paths import HTTP_SOCKET
from ..usb_ids import BEST_SPEED
from .machine import edgetpu_version, group_name, groups_of, installed, text_of, udev_rules, vcgencmd

LEVELS: Final = ("ok", "note", "warning", "problem")

#: Bits of `vcgencmd get_throttled`: now, and since boot 16 bits higher.
_THROTTLED: Final = {
    0: "the supply voltage is too low",
    1: "the CPU clock is capped because the voltage is too low",
    2: "the CPU is throttled",
    3: "the CPU is near its temperature limit and slowed down",
}

#: Firmware that the libraries look for beside themselves, and where it comes from.
_INTEL: Final = (
    "It is Intel's (Software Tools License Agreement, not redistributable): take it from Intel's archive {archive}, or "
    "build the image with its firmware recipe and accept the licence flag commercial_intel-movidius"
)
_OPENVINO: Final = (
    "It is Intel's (Intel Simplified Software License): take it from firmware_usb-ma2x8x_20230418_40.zip of OpenVINO "
    "2022.3.2 (storage.openvinotoolkit.org/dependencies/myriad/), or build the image with its firmware package"
)


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that was looked at."""

    #: Short name of the check.
    check: str
    #: `ok`, `note` (worth knowing), `warning` (works, badly) or `problem` (does not work).
    level: str
    #: What was seen.
    text: str
    #: What to do; empty when there is nothing to do.
    todo: str = ""

    def to_json(self) -> dict[str, str]:
        """For `--json`."""
        return {"check": self.check, "level": self.level, "text": self.text, "todo": self.todo}


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look; the defaults are this machine."""

    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    rules: tuple[Path, ...] = (Path("/etc/udev/rules.d"), Path("/run/udev/rules.d"), Path("/usr/lib/udev/rules.d"))
    libraries: tuple[Path, ...] = field(
        default_factory=lambda: (
            *sorted(Path("/usr/lib").glob("*-linux-gnu*")),
            Path("/usr/lib"),
            Path("/usr/lib64"),
            Path("/usr/local/lib"),
        )
    )
    models: Path = Path("/var/lib/edgeai/models")
    socket: Path = Path(HTTP_SOCKET)
    throttled: Callable[[], str] = vcgencmd
    edgetpu: Callable[[Path], str] = edgetpu_version
    package: Callable[[str], str] = installed


def run(places: Places | None = None, *, user: str | None = None) -> list[Observation]:
    """All checks, worst first. `user`: whose groups count, by default those of this process."""
    places = places or Places()
    hardware = scan(places.sysfs, places.dev)
    name = user or _own_name()
    findings = [
        *_devices(hardware),
        *_access(places, hardware, name),
        *_speed(hardware),
        *_autosuspend(places, hardware),
        *_power(places),
        *_versions(places, hardware),
        *_firmware(places, hardware),
        *_models(places),
        *_daemon(places),
    ]
    return sorted(findings, key=lambda finding: -LEVELS.index(finding.level))


def _own_name() -> str:
    """This user's name; its number where no list of users has it, as in a container."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _devices(hardware: Iterable[Hardware]) -> Iterator[Observation]:
    devices = list(hardware)
    if not devices:
        yield Observation(
            "devices",
            "note",
            "no accelerator is plugged in; models with a cpu artifact are served by the CPU",
            "if one is plugged in, try another socket and cable: it does not even show up on the bus",
        )
    for device in devices:
        state = "" if device.state == "ready" else ", firmware not loaded yet (normal until first use)"
        yield Observation("devices", "ok", f"{device.kind} at {device.id}{state}")


def _access(places: Places, hardware: Iterable[Hardware], user: str) -> Iterator[Observation]:
    """Groups and udev rules: may the user open the nodes?"""
    ruled = udev_rules(places.rules)
    mine = groups_of(user)
    for device in hardware:
        if device.usb_ids is not None and device.target != "k210" and device.usb_ids not in ruled:
            vendor, product = device.usb_ids
            yield Observation(
                "udev rule",
                "problem" if user != "root" else "warning",
                f"no udev rule opens {device.kind} ({vendor:04x}:{product:04x}) to a group; only root can use it",
                "install 70-edgeai.rules (package edgeaid) into /etc/udev/rules.d, then: udevadm control --reload; "
                "udevadm trigger; and replug the stick",
            )
        for node in device.nodes:
            try:
                status = node.stat()
            except OSError:
                continue
            group = group_name(status.st_gid)
            if user == "root" or (status.st_mode & 0o006) == 0o006 or (group in mine and status.st_mode & 0o060):
                continue
            if status.st_gid == 0:
                continue  # the missing rule above says it all
            yield Observation(
                "group",
                "problem",
                f"user {user!r} may not open {node} of {device.kind}: it belongs to group {group!r}",
                f"sudo usermod -aG {group} {user}, then log in again (or restart edgeaid)",
            )


def _speed(hardware: Iterable[Hardware]) -> Iterator[Observation]:
    for device in hardware:
        best = BEST_SPEED.get(device.target)
        if best is None or device.speed is None or device.state != "ready" or device.speed >= best:
            continue
        yield Observation(
            "usb speed",
            "warning",
            f"{device.kind} at {device.id} runs at {device.speed:g} Mbit/s and could run at {best:g}: sending a model "
            "to it takes up to ten times as long",
            "use a USB 3 socket (blue, on a Pi 4 or 5) and a USB 3 cable; plug it in quickly: a slow push can leave it "
            "on USB 2. A Pi 3 has no USB 3",
        )


def _autosuspend(places: Places, hardware: Iterable[Hardware]) -> Iterator[Observation]:
    for device in hardware:
        control = text_of(places.sysfs / "bus/usb/devices" / device.port / "power/control").strip()
        if device.usb_ids is not None and control == "auto":
            yield Observation(
                "autosuspend",
                "warning",
                f"the kernel may put {device.kind} at {device.id} to sleep, from which some never wake up",
                "install 70-edgeai.rules, which keeps it awake, and replug it",
            )


def _power(places: Places) -> Iterator[Observation]:
    """Under-voltage as the firmware reports it, else from the kernel's sensor."""
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", places.throttled())
    todo = "use the Pi's own power supply and a short thick cable, or a powered hub for the stick"
    if match is not None:
        bits = int(match[1], 16)
        now = [text for bit, text in _THROTTLED.items() if bits >> bit & 1]
        before = [text for bit, text in _THROTTLED.items() if bits >> (bit + 16) & 1 and not bits >> bit & 1]
        if now:
            yield Observation("power", "problem", f"right now {' and '.join(now)}", _cool(now, todo))
        if before:
            yield Observation(
                "power", "warning", f"since the last boot, at some time {' and '.join(before)}", _cool(before, todo)
            )
        if not bits:
            yield Observation("power", "ok", "supply voltage and temperature are and were good")
        return
    for sensor in sorted((places.sysfs / "class/hwmon").glob("hwmon*")):
        if text_of(sensor / "name").strip() == "rpi_volt":
            if text_of(sensor / "in0_lcrit_alarm").strip() == "1":
                yield Observation("power", "problem", "the supply voltage is or was too low", todo)
            else:
                yield Observation("power", "ok", "the supply voltage is good")
            return


def _cool(texts: list[str], todo: str) -> str:
    return todo if any("voltage" in text for text in texts) else "give the board a heat sink or a fan"


def _versions(places: Places, hardware: Iterable[Hardware]) -> Iterator[Observation]:
    """The runtime, the delegate, and whether the two can go together."""
    litert, classic = places.package("ai-edge-litert"), places.package("tflite-runtime")
    runtime = f"ai-edge-litert {litert}" if litert else f"tflite-runtime {classic}" if classic else ""
    if runtime:
        yield Observation("runtime", "ok", f"TFLite models run on {runtime}")
    else:
        yield Observation("runtime", "problem", "no TFLite runtime is installed", "pip install ai-edge-litert")
    library = _library(places, "libedgetpu.so.1")
    has_tpu = any(device.target == "edgetpu" for device in hardware)
    if library is None:
        if has_tpu:
            yield Observation(
                "libedgetpu",
                "problem",
                "an Edge TPU is plugged in, but its library libedgetpu.so.1 is not installed",
                "on the image: feature edgetpu; on Debian: a libedgetpu1-std built for your runtime's version",
            )
        return
    version = places.edgetpu(library)
    if not version:
        yield Observation("libedgetpu", "problem", f"{library} does not load", f"try: ldd {library}")
        return
    # Google's last binary names a change list of its own tree; it was built with TensorFlow 2.5 headers, whose
    # TfLiteRegistration is shorter than the one that runtimes since 2.12 read.
    if "CL_NUMBER=" in version and _newer(litert, classic):
        yield Observation(
            "libedgetpu",
            "problem",
            f"{library} ({version}) was built for TensorFlow 2.5 and crashes {runtime}",
            "install a libedgetpu built with TensorFlow 2.16 or newer (the image's recipe is), or pair this one with "
            "tflite-runtime 2.5",
        )
    else:
        yield Observation("libedgetpu", "ok", f"{library}: {version}")


def _newer(litert: str, classic: str) -> bool:
    """The runtime reads the long TfLiteRegistration."""
    if litert or not classic:
        return bool(litert)
    numbers = [int(part) for part in re.findall(r"\d+", classic)[:2]]
    return numbers >= [2, 12]


def _firmware(places: Places, hardware: Iterable[Hardware]) -> Iterator[Observation]:
    targets = {device.target for device in hardware}
    if "ncs" in targets:
        library = _library(places, "libmvnc.so.0") or _library(places, "libmvnc.so")
        if library is None:
            yield Observation(
                "libmvnc",
                "problem",
                "a Neural Compute Stick is plugged in, but libmvnc is not installed",
                "on the image: feature ncs; elsewhere build it from movidius/ncsdk",
            )
        else:
            directory = library.resolve().parent / "mvnc"
            names = {"MvNCAPI.mvcmd": "NCSDK-1.12.01.01", "MvNCAPI-ma2450.mvcmd": "NCSDK-2.10.01.01"}
            if not any((directory / name).is_file() for name in names):
                yield Observation(
                    "firmware",
                    "problem",
                    f"the stick's firmware is missing: {' (API 1) or '.join(names)} (API 2) in {directory}",
                    _INTEL.format(archive=" or ".join(names.values())),
                )
    if "ncs2" in targets:
        plugin = _library(places, "libopenvino_intel_myriad_plugin.so")
        if plugin is None:
            yield Observation(
                "openvino",
                "problem",
                "a Neural Compute Stick 2 is plugged in, but OpenVINO's MYRIAD plug-in is not installed",
                "it needs OpenVINO 2022.3 built with that plug-in: later releases have none, and PyPI's never had it",
            )
        elif not (plugin.resolve().parent / "usb-ma2x8x.mvcmd").is_file():
            yield Observation(
                "firmware",
                "problem",
                f"the stick's firmware usb-ma2x8x.mvcmd is missing in {plugin.resolve().parent}",
                _OPENVINO,
            )


def _models(places: Places) -> Iterator[Observation]:
    """Models that this machine's runtimes are too old for, and files that cannot be read."""
    from ..formats.edgetpu import reader as edgetpu

    library = _library(places, "libedgetpu.so.1")
    match = re.search(r"RuntimeVersion\((\d+)\)", places.edgetpu(library)) if library is not None else None
    known = int(match[1]) if match else 0
    for manifest in sorted(places.models.glob("*/*/model.toml")):
        key = f"{manifest.parent.parent.name}/{manifest.parent.name}"
        try:
            table: dict[str, Any] = tomllib.loads(manifest.read_text("utf-8"))
            name = table.get("artifacts", {}).get("edgetpu", {}).get("file")
            if not isinstance(name, str) or "/" in name:
                continue
            needed = edgetpu.read((manifest.parent / name).read_bytes()).min_runtime
        except (OSError, ValueError, AttributeError, EdgeaiError) as error:
            yield Observation("model", "problem", f"model {key} cannot be read: {error}", "push it again")
            continue
        if known and needed > known:
            yield Observation(
                "model",
                "problem",
                f"model {key} was compiled for Edge TPU runtime {needed}; this machine has {known}",
                f"update libedgetpu, or compile it again with: edgetpu_compiler --min_runtime_version {known}",
            )


def _daemon(places: Places) -> Iterator[Observation]:
    if not places.socket.exists():
        yield Observation(
            "daemon",
            "warning",
            f"edgeaid does not listen at {places.socket}",
            "systemctl status edgeaid, or start it with: edgeaid --socket PATH",
        )
    elif not os.access(places.socket, os.R_OK | os.W_OK):
        yield Observation(
            "daemon",
            "problem",
            f"you may not connect to edgeaid at {places.socket}",
            "sudo usermod -aG edgeai $USER, then log in again",
        )
    else:
        yield Observation("daemon", "ok", f"edgeaid listens at {places.socket}")


def _library(places: Places, name: str) -> Path | None:
    return next((directory / name for directory in places.libraries if (directory / name).exists()), None)
