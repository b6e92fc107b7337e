"""What this machine says of itself: programs, packages, groups, udev rules."""

from __future__ import annotations

import grp
import importlib.metadata
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..usb_ids import USB

_ASK: Final = (
    "import ctypes,sys; f=ctypes.CDLL(sys.argv[1]).edgetpu_version; f.restype=ctypes.c_char_p; print(f().decode())"
)


def vcgencmd() -> str:
    """Output of `vcgencmd get_throttled`, empty where there is none."""
    return output(["vcgencmd", "get_throttled"])


def edgetpu_version(library: Path) -> str:
    """`BuildLabel(...), RuntimeVersion(14)` from a child process; empty when the library does not load."""
    return output([sys.executable, "-c", _ASK, str(library)])


def installed(package: str) -> str:
    """Version of a Python package here, empty when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def udev_rules(directories: Iterable[Path]) -> set[tuple[int, int]]:
    """USB ids that any udev rule opens: names both ids and sets a GROUP, a MODE or the uaccess tag."""
    opened = set()
    for directory in directories:
        for file in sorted(directory.glob("*.rules")):
            text = re.sub(r"\\\n", " ", text_of(file))
            if not re.search(r'GROUP\s*:?=|MODE\s*:?=|TAG\s*\+=\s*"uaccess"', text):
                continue
            for line in text.splitlines():
                vendor = re.search(r'idVendor\}\s*==\s*"([0-9a-fA-F]{4})"', line)
                product = re.search(r'idProduct\}\s*==\s*"([0-9a-fA-F]{4})"', line)
                if vendor is None or line.lstrip().startswith("#"):
                    continue
                pairs = [pair for pair in USB if pair[0] == int(vendor[1], 16)]
                opened |= {pair for pair in pairs if product is None or pair[1] == int(product[1], 16)}
    return opened


def groups_of(user: str) -> set[str]:
    """A user's groups, by name; for the current user those of this very process, which may be older."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return {group_name(number) for number in os.getgroups()} if user == str(os.geteuid()) else set()
    numbers = os.getgroups() if entry.pw_uid == os.geteuid() else os.getgrouplist(user, entry.pw_gid)
    return {group_name(number) for number in (*numbers, entry.pw_gid)}


def group_name(number: int) -> str:
    """Name of a group, its number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def text_of(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def output(command: list[str], *, failed: bool = False) -> str:
    """What a program says; nothing where it is missing, too slow or (unless `failed`) exits with an error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if failed or done.returncode == 0 else ""
