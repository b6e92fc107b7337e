"""Every figure of serving in one run: one command, one JSON file, bar charts as SVG, and the tables of the pages.

usage: python daemon/benchmarks/serving/everything.py DATA [--peers PYTHON]... [--quick] [--out DIRECTORY] [--pages]

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
import tempfile
import time
from pathlib import Path
from typing import Any

import pages

HERE = Path(__file__).resolve().parent
SMALL = "mobilenet_v1_0.25_128_quant.tflite"
LARGE = "mobilenet_v2_1.0_224_quant.tflite"
SLOW = "deeplabv3_mnv2_dm05_pascal_quant.tflite"
PICTURE = "cat_720p.jpg"


def commands(data: Path, peers: list[str], *, quick: bool) -> dict[str, list[str]]:
    """Arguments of each part."""
    small, large, slow, picture = (str(data / name) for name in (SMALL, LARGE, SLOW, PICTURE))
    latency = [
        small,
        "--requests",
        "200" if quick else "2000",
        *(part for python in peers for part in ("--peers", python)),
    ]
    return {
        "run": latency,
        "pictures": [small, picture, "--seconds", "0.3" if quick else "2"],
        "counts": [small, "--picture", picture, "--large", slow, "--requests", "100" if quick else "1000"],
        "life": [small, "--large", large, "--rounds", "1" if quick else "7"],
        "load": [small, "--slow", slow, "--seconds", "0.5" if quick else "5"],
    }


def main() -> None:
    """Run all parts, one after the other; what fails is said and left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--peers",
        default=[],
        metavar="PYTHON",
        action="append",
        help="interpreter of an environment as peers.py says; repeatable",
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", help="a part: run, pictures, counts, life or load")
    parser.add_argument("--out", type=Path, default=Path("serving-figures"))
    parser.add_argument("--pages", action="store_true", help="write the tables of README and docs, and their charts")
    options = parser.parse_args()
    if options.quick and options.pages:
        parser.error("--quick shows only that everything runs: no figures for pages")
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": {"processor": _processor(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load_average": os.getloadavg()[0],
    }
    failed = []
    # Installed software is compiled: an environment that forbids it would have every start compile all modules again.
    bytecode = tempfile.TemporaryDirectory(prefix="edgeai-bytecode-")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode.name
    for part, arguments in commands(options.data, options.peers, quick=options.quick).items():
        if options.only and part not in options.only:
            continue
        print(f"--- {part}", flush=True)
        begin = time.monotonic()
        file = options.out / f"{part}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / f"{part}.py"), *arguments, "--json", str(file)]
        status = subprocess.run(command, check=False, env=environment).returncode
        print(f"    {time.monotonic() - begin:.0f} s", flush=True)
        if status or not file.is_file():
            failed.append(part)
            continue
        results[part] = json.loads(file.read_text())
    (options.out / "all.json").write_text(json.dumps(results, indent=1))
    for name, drawing in pages.charts(results).items():
        (options.out / name).write_text(drawing)
    (options.out / "table.md").write_text(pages.tables(results))
    print(pages.tables(results))
    if options.pages:
        pages.write(results)
    bytecode.cleanup()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
