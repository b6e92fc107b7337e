#!/usr/bin/env python3
"""How long reading model files takes after start-up: detect, read, and the whole of `edgeai model inspect`.

    python benchmarks/formats.py FILE... [--repeat N] [--json]

Files are read into memory first; times are the median and the slowest of N runs, milliseconds, in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from edgeaid.formats.detect import detect
from edgeaid.toolkit.inspect.files import inspect_bytes
from edgeaid.toolkit.inspect.html import page


def measure(work: Callable[[], object], repeat: int) -> dict[str, float]:
    """Milliseconds of wall time and of processor time; they differ on a busy machine."""
    wall, cpu = [], []
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.thread_time()
        work()
        wall.append((time.perf_counter() - start) * 1e3)
        cpu.append((time.thread_time() - start_cpu) * 1e3)
    return {
        "first": wall[0],
        "median": statistics.median(wall),
        "max": max(wall),
        "cpu_median": statistics.median(cpu),
        "cpu_max": max(cpu),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for path in options.files:
        data = path.read_bytes()
        report = inspect_bytes(data, path)
        row: dict[str, object] = {"file": path.name, "kind": report.kind, "bytes": len(data)}
        for name, work in (
            ("detect", lambda data=data: detect(data)),
            ("inspect", lambda data=data, path=path: inspect_bytes(data, path)),
            ("page", lambda report=report: page([report])),
        ):
            row |= {f"{name}_{what}_ms": value for what, value in measure(work, options.repeat).items()}
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'file':72} {'bytes':>9} {'detect':>8} {'inspect':>8} {'max':>8} {'cpu':>8} {'cpu max':>8} {'page':>8}  ms")
    for r in rows:
        keys = (
            "detect_median",
            "inspect_median",
            "inspect_max",
            "inspect_cpu_median",
            "inspect_cpu_max",
            "page_median",
        )
        numbers = " ".join(f"{r[f'{key}_ms']:>8.2f}" for key in keys)
        print(f"{str(r['file'])[:72]:72} {r['bytes']:>9} {numbers}")


if __name__ == "__main__":
    main()
