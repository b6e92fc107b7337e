"""`edgeai doctor --report`: what a bug report, or the checklist of docs/testing.md, needs, as one text."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .. import __version__
from ..devices.discovery import scan
from .checks import Places, run
from .machine import group_name, output, text_of

_PACKAGES: Final = ("ai-edge-litert", "tflite-runtime", "numpy", "aiohttp", "pyudev", "pyserial", "openvino", "hpack")


def report(places: Places | None = None, *, served: str = "") -> str:
    """What `run` finds, versions, units, devices and journal, a section each.

    No environment, no addresses, no user names except the one that runs this: people post such files.
    `served` is what the daemon says of its models and devices: a section of its own.
    """
    places = places or Places()
    units = ["edgeaid.service", "edgeaid.socket", "edgeaid-fast.socket", "edgeai-provision.service"]
    shown = "Id,ActiveState,SubState,Result,NRestarts,StatusText,MemoryCurrent,MemoryPeak"
    sections: dict[str, str] = {
        "findings": "\n".join(
            f"{f.level:8} {f.check}: {f.text}{' -> ' + f.todo if f.todo else ''}" for f in run(places)
        ),
        "versions": "\n".join(
            f"{name} {version}"
            for name, version in (
                ("edgeaid", __version__),
                ("python", platform.python_version()),
                ("kernel", f"{platform.release()} {platform.machine()}"),
                *((package, places.package(package)) for package in _PACKAGES),
            )
            if version
        ),
        "board": text_of(Path("/proc/device-tree/model")).rstrip("\0") or "unknown",
        "system": text_of(Path("/etc/os-release")),
        # A degraded system makes systemctl exit 1; what it says counts.
        "state": output(["systemctl", "is-system-running"], failed=True) or "no systemd",
        "failed units": output(["systemctl", "--failed", "--no-legend", "--plain", "--no-pager"]) or "none",
        "units": output(["systemctl", "show", "--no-pager", "-p", shown, *units]) or "none",
        "exposure": _last(output(["systemd-analyze", "security", "--no-pager", "edgeaid.service"])),
        "links": _links(places.dev / "edgeai") or "none",
        "devices": "\n".join(str(device.to_json()) for device in scan(places.sysfs, places.dev)) or "none",
        "usb": "\n".join(_usb_lines(places.sysfs)) or "none",
        "daemon": served or "not asked",
        "memory": "\n".join(text_of(Path("/proc/meminfo")).splitlines()[:3]),
        "errors since boot": output(["journalctl", "-p", "err", "-b", "-n", "50", "--no-pager", "-o", "short-iso"])
        or "none",
        "journal": output(["journalctl", "-u", "edgeaid", "-n", "200", "--no-pager", "-o", "short-iso"]) or "none",
    }
    return "".join(f"== {title} ==\n{text.rstrip()}\n\n" for title, text in sections.items())


def _usb_lines(sysfs: Path) -> Iterator[str]:
    for directory in sorted((sysfs / "bus/usb/devices").glob("*-*")):
        if ":" not in directory.name:
            parts = [text_of(directory / name).strip() for name in ("idVendor", "idProduct", "speed", "product")]
            yield f"{directory.name} {parts[0]}:{parts[1]} {parts[2]} Mbit/s {parts[3]}"


def _links(directory: Path) -> str:
    """`coral -> ../bus/usb/001/002 (root:plugdev 660)` for every name that a udev rule of ours gave."""
    lines = []
    for path in sorted(directory.glob("*")) if directory.is_dir() else ():
        try:
            info = path.stat()
        except OSError:
            lines.append(f"{path.name}: points to nothing")
            continue
        target = f" -> {path.readlink()}" if path.is_symlink() else ""
        lines.append(f"{path.name}{target} (group {group_name(info.st_gid)}, mode {info.st_mode & 0o777:o})")
    return "\n".join(lines)


def _last(text: str) -> str:
    """The last line, which is the verdict, without the arrow in front of it."""
    lines = text.strip().splitlines()
    return lines[-1].strip().lstrip("→ ") if lines else "unknown"
