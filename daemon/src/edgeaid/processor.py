"""What this machine's processor is called."""

from __future__ import annotations

import contextlib
import functools
import platform
from pathlib import Path
from typing import Final

#: MIDR part numbers (Arm Ltd.) of the cores in Raspberry Pis.
CORES: Final = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}


@functools.cache
def name() -> str:
    """What /proc says: the model name on x86, the core's name or part number on ARM, else the architecture."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    part = fields.get("CPU part", "")
    return fields.get("model name") or CORES.get(part, part) or platform.machine()


def core() -> str:
    """Name of the core as tolerances use it (cortex-a53, ...); the architecture where it is not one of those."""
    text = name().lower()
    return text if text in {core.lower() for core in CORES.values()} else platform.machine()
