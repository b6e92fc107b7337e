#!/usr/bin/env python3
"""Write the table of runtimes into meta-edgeai/README.md from the recipes themselves.

usage: status_table.py [--check]     --check: exit 1 where README.md differs, change nothing

A recipe says how far it got here in EDGEAI_STATUS; the feature that brings it is looked up in kas/feature and the packagegroups.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LAYER = TOP / "meta-edgeai"
README = LAYER / "README.md"
BEGIN, END = "<!-- status table: recipes-tests/layer/status_table.py -->", "<!-- end of status table -->"
MACHINES = (
    "raspberrypi3-64", "raspberrypi4-64", "raspberrypi5", "raspberrypi0-2w-64", "raspberrypi-cm4", "raspberrypi-cm5-io-board",
    "raspberrypi-armv8", "qemuarm64",
)  # fmt: skip
#: Machines that a feature is for, where not all.
ONLY = {"gasket-module": ("raspberrypi5", "raspberrypi-cm4", "raspberrypi-cm5-io-board", "raspberrypi-armv8")}
#: Status word -> what it says.
MEANING = {
    "ran": "built, packaged and run on a booted image (test distribution in recipes-tests)",
    "built": "built and packaged by real BitBake (test distribution), not run on a device",
    "resolved": "parsed on both releases, and every task of it and of what it needs resolved in a dry run "
    "(openvino-vpu-firmware on scarthgap only); **not built**: its sources are not to be had where the tests run",
}


def field(text: str, name: str) -> str:
    match = re.search(rf'^{name} = "((?:[^"\\]|\\.)*)"', text, re.M)
    return match[1] if match else ""


def rows() -> list[tuple[str, ...]]:
    table = []
    for path in sorted(LAYER.glob("recipes-*/*/*.bb")):
        text = path.read_text()
        for include in re.findall(r"^require (\S+)", text, re.M):
            near = path.parent / include
            text += near.read_text() if near.is_file() else ""
        status = field(text, "EDGEAI_STATUS")
        if not status:
            continue
        name, _, version = path.stem.partition("_")
        machines = ONLY.get(name, MACHINES)
        marks = ["yes" if m in machines else "-" for m in MACHINES]
        table.append((f"`{name}`", version, field(text, "SUMMARY"), *marks, status))
    return table


def table() -> str:
    head = ("recipe", "version", "what", *MACHINES, "status")
    lines = ["| " + " | ".join(head) + " |", "|" + ":--|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows()]
    lines += ["", *(f"- *{word}*: {meaning}" for word, meaning in MEANING.items())]
    return "\n".join(lines)


def main() -> int:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        return int(wanted != text)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
