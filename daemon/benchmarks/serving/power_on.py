"""Where the time from power-on to a daemon that answers goes: what systemd-analyze says, as a table and a chart.

usage: scripts/emulate --fresh --run "export SYSTEMD_PAGER=; systemd-analyze time; \
         systemd-analyze critical-chain edgeaid.service; systemd-analyze blame" > boot.txt
       python daemon/benchmarks/serving/power_on.py boot.txt [--pages]

The same commands on a Pi give its own. Shares of the whole are shown, not seconds: an emulated processor is slower by a
factor of its own, but by about the same one in every step. With `--pages` the table and the chart of
docs/performance.md are replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
from html import escape
from pathlib import Path
from typing import Any, Final

import pages

#: Units that took longest, in the table.
LONGEST: Final = 6
_UNITS: Final = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_SPAN: Final = r"(?:\d+(?:\.\d+)?(?:h|min|ms|us|s)\s?)+"
_PHASE: Final = re.compile(rf"({_SPAN})\s*\((\w+)\)")
_CHAIN: Final = re.compile(rf"^[\s└─`-]*([\w@.\\:-]+\.\w+)(?: @({_SPAN}))?(?: \+({_SPAN}))?\s*$")
_BLAME: Final = re.compile(rf"^\s*({_SPAN})\s([\w@.\\:-]+\.\w+)\s*$")


def seconds(text: str) -> float:
    """A time span as systemd writes it: `1min 2.5s`, `340ms`."""
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(h|min|ms|us|s)", text))


def parsed(text: str) -> dict[str, Any]:
    """Phases of the start, the chain that ends with the daemon, and what took longest. ValueError without them."""
    phases: dict[str, float] = {}
    chain: list[dict[str, Any]] = []
    longest: list[tuple[str, float]] = []
    for line in text.splitlines():
        if line.startswith("Startup finished in"):
            phases = {name: seconds(span) for span, name in _PHASE.findall(line)}
        elif (match := _BLAME.match(line)) is not None:
            longest.append((match[2], seconds(match[1])))
        elif (match := _CHAIN.match(line)) is not None and (match[2] or match[3]):
            chain.append({"unit": match[1], "at": seconds(match[2] or ""), "takes": seconds(match[3] or "")})
    if "userspace" not in phases or not chain or not longest:
        raise ValueError("the text has not what systemd-analyze time, critical-chain and blame print")
    chain.reverse()
    # The chain's end says when it was started; it became ready when that was over.
    before = sum(span for name, span in phases.items() if name != "userspace")
    last = chain[-1]
    if not last["at"] and len(chain) > 1:  # not told: it begins where what it waited for ended
        last["at"] = chain[-2]["at"] + chain[-2]["takes"]
    return {"phases": phases, "before": before, "chain": chain, "longest": longest[:LONGEST],
            "ready": before + last["at"] + last["takes"]}  # fmt: skip


def table(results: pages.Results) -> str:
    """Shares of the time from the kernel's first step to the daemon's READY."""
    boot = results["boot"]
    whole = boot["ready"]

    def share(span: float) -> str:
        return f"{100 * span / whole:.0f} %"

    rows = [["kernel and what comes before it", "0 %", share(boot["before"])]]
    rows += [[step["unit"], share(boot["before"] + step["at"]), share(step["takes"])] for step in boot["chain"]]
    text = pages.table(["what the daemon's READY waits for", "begins at", "takes"], rows)
    named = ", ".join(f"{unit} {share(span)}" for unit, span in boot["longest"])
    return f"{text}\nLongest starts, beside each other: {named}.\n"


def chart(results: pages.Results) -> str:
    """The chain as bars over the time from power-on to READY."""
    boot = results["boot"]
    steps = [("kernel", 0.0, boot["before"])]
    steps += [(s["unit"], boot["before"] + s["at"], s["takes"]) for s in boot["chain"]]
    height = 40 + 24 * len(steps)
    title = "From power-on to READY: what edgeaid.service waits for"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-family="sans-serif" font-size="13">'
        f'<title>{title}</title><rect width="640" height="{height}" fill="#ffffff"/>'
        f'<text x="4" y="20" font-weight="bold">{title}</text>'
    ]
    for number, (name, begin, takes) in enumerate(steps):
        y, x = 40 + 24 * number, 250 + 370 * begin / boot["ready"]
        fill = "#2266aa" if name.startswith("edgeai") else "#999999"
        width = max(370 * takes / boot["ready"], 1.0)
        lines.append(
            f'<text x="4" y="{y + 13}">{escape(name)}</text>'
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{fill}"/>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("text", type=Path, help="what the commands above printed")
    parser.add_argument("--pages", action="store_true", help="write the table of docs/performance.md, and its chart")
    options = parser.parse_args()
    try:
        results = {"boot": parsed(options.text.read_text(errors="replace"))}
    except ValueError as error:
        sys.exit(f"{options.text}: {error}")
    print(table(results))
    if options.pages:
        page = pages.DAEMON / "docs" / "performance.md"
        page.write_text(pages.replaced(page.read_text(), "boot", table(results)))
        (pages.CHARTS / "boot.svg").write_text(chart(results))


if __name__ == "__main__":
    main()
