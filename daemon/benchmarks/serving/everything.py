"""Every figure of serving in one run: one command, one JSON file, bar charts as SVG, and the lines for the docs.

usage: python daemon/benchmarks/serving/everything.py DATA [--peers PYTHON] [--quick] [--out DIRECTORY]

DATA is a directory with the models and the picture named below. About twelve minutes on a quiet machine of two
processors; --quick takes two and shows only that everything runs. What each part measures: `--help` of the parts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SMALL = "mobilenet_v1_0.25_128_quant.tflite"
LARGE = "mobilenet_v2_1.0_224_quant.tflite"
SLOW = "deeplabv3_mnv2_dm05_pascal_quant.tflite"
PICTURE = "cat_720p.jpg"


def commands(data: Path, peers: str, *, quick: bool) -> dict[str, list[str]]:
    """Arguments of each part."""
    small, large, slow, picture = (str(data / name) for name in (SMALL, LARGE, SLOW, PICTURE))
    latency = [small, "--requests", "200" if quick else "2000", *(["--peers", peers] if peers else [])]
    return {
        "run": latency,
        "pictures": [small, picture, "--seconds", "0.3" if quick else "2"],
        "counts": [small, "--picture", picture, "--large", slow, "--requests", "100" if quick else "1000"],
        "life": [small, "--large", large, "--rounds", "1" if quick else "7"],
        "load": [small, "--slow", slow, "--seconds", "0.5" if quick else "5"],
    }


def bars(title: str, unit: str, rows: list[tuple[str, float]]) -> str:
    """A bar chart as SVG."""
    most = max((value for _, value in rows), default=1) or 1
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {40 + 24 * len(rows)}" font-family="sans-serif" '
        f'font-size="13"><title>{escape(title)}</title><text x="4" y="20" font-weight="bold">{escape(title)}</text>'
    ]
    for number, (name, value) in enumerate(rows):
        y = 40 + 24 * number
        width = 340 * value / most
        lines.append(
            f'<text x="4" y="{y + 13}">{escape(name)}</text><rect x="190" y="{y}" width="{width:.1f}" height="18" '
            f'fill="{"#2266aa" if not name.startswith(OTHERS) else "#999999"}"/>'
            f'<text x="{196 + width:.1f}" y="{y + 13}">{value:,.2f} {escape(unit)}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


#: Rows that are not edgeaid's.
OTHERS = ("raw", "two bare", "shared", "gRPC, bare", "MLServer", "LitServe", "Flask", "script")


def charts(results: dict[str, Any]) -> dict[str, str]:
    """SVG files by name."""
    drawn = {}
    if "run" in results:
        rows = [(row["way"], row["times_raw"]) for row in results["run"]["latency"]]
        drawn["latency.svg"] = bars("Latency of one client, raw interpreter = 1", "", rows)
    if "pictures" in results:
        pairs = [
            (f"{row['size']}, {clients} client{'s' if clients > 1 else ''}", row[f"share {clients}"])
            for row in results["pictures"]["rows"]
            for clients in (1, 4)
        ]
        drawn["pictures.svg"] = bars("Pictures per second, the script = 1", "", pairs)
    return drawn


def table(results: dict[str, Any]) -> str:
    """The lines of the README and of the docs."""
    lines = ["| one client | times the interpreter alone |", "|---|---|"]
    lines += [f"| {row['way']} | {row['times_raw']:.2f} |" for row in results.get("run", {}).get("latency", [])]
    lines += ["", "| pictures, share of the script | 1 client | 4 clients |", "|---|---|---|"]
    lines += [
        f"| {row['size']} | {row['share 1']:.2f} | {row['share 4']:.2f} |"
        for row in results.get("pictures", {}).get("rows", [])
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all parts, one after the other; what fails is said and left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", default="", metavar="PYTHON", help="interpreter of an environment as peers.py says")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", help="a part: run, pictures, counts, life or load")
    parser.add_argument("--out", type=Path, default=Path("serving-figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": {"processor": _processor(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load_average": os.getloadavg()[0],
    }
    failed = []
    for part, arguments in commands(options.data, options.peers, quick=options.quick).items():
        if options.only and part not in options.only:
            continue
        print(f"--- {part}", flush=True)
        begin = time.monotonic()
        file = options.out / f"{part}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / f"{part}.py"), *arguments, "--json", str(file)]
        status = subprocess.run(command, check=False).returncode
        print(f"    {time.monotonic() - begin:.0f} s", flush=True)
        if status or not file.is_file():
            failed.append(part)
            continue
        results[part] = json.loads(file.read_text())
    (options.out / "all.json").write_text(json.dumps(results, indent=1))
    for name, drawing in charts(results).items():
        (options.out / name).write_text(drawing)
    (options.out / "table.md").write_text(table(results))
    print(table(results))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
