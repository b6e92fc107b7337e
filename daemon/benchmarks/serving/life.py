"""Start, memory, recovery and loading: what one waits for besides answers.

usage: python daemon/benchmarks/serving/life.py MODEL.tflite [--large MODEL.tflite] [--rounds N] [--json FILE]

Start: seconds to READY with ten models of the repository, beside an interpreter that only imports numpy and aiohttp.
Memory: resident and own (private) MiB of daemon, fork server and worker. Recovery: from SIGKILL of the worker to the
next answer. Loading: from the first byte of a push to the first answer. Swap: the latest answer while new versions of
the model that is asked are pushed, beside the latest without.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from counts import daemon
from tests.support.daemon import Running

from edgeaid.client import Client
from edgeaid.errors import EdgeaiError

PLAIN = "[models]\nembedded = false\n"
MODELS = 10


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def start(model: Path, rounds: int) -> dict[str, float]:
    """Seconds to READY and of the bare imports, in turns."""
    ready, imports = [], []
    with tempfile.TemporaryDirectory(prefix="edgeai-life-") as folder:
        running = Running(Path(folder), PLAIN, models={f"m{n}": model for n in range(MODELS)})
        running.stop()
        command = [sys.executable, "-c", "import numpy, aiohttp"]
        subprocess.run(command, check=True)  # as the daemon's: the first start compiles
        for _ in range(rounds):
            imports.append(timed(lambda: subprocess.run(command, check=True)))
            begin = time.perf_counter()
            running.start(wait=False)
            with Client(running.socket) as client:
                while not client.is_ready():
                    time.sleep(0.002)
            ready.append(time.perf_counter() - begin)
            running.stop()
    return {"ready_s": statistics.median(ready), "imports_s": statistics.median(imports)}


def memory(model: Path) -> dict[str, dict[str, float]]:
    """Resident and private MiB by process, with one model."""
    table = {}
    with tempfile.TemporaryDirectory(prefix="edgeai-life-") as folder:
        running = Running(Path(folder), PLAIN, models={"bench": model})
        try:
            daemon = psutil.Process(running.process.pid)
            for process in (daemon, *daemon.children(recursive=True)):
                facts = process.memory_full_info()
                name = "daemon" if process == daemon else process.name()
                table[name if name.startswith(("daemon", "edgeai")) else "fork server"] = {
                    "resident": facts.rss / 2**20,
                    "own": facts.uss / 2**20,
                }
        finally:
            running.stop()
    return table


@contextmanager
def empty_daemon() -> Iterator[tuple[Path, int]]:
    """(socket, pid) of a daemon that has no model."""
    with tempfile.TemporaryDirectory(prefix="edgeai-life-") as folder, daemon(Path(folder)) as running:
        yield running


def bare_memory() -> float:
    """Resident MiB of a daemon that has no model."""
    with empty_daemon() as (_, pid):
        return float(psutil.Process(pid).memory_info().rss / 2**20)


def _answers(client: Client, name: str, data: Any) -> bool:
    try:
        client.infer(name, data)
    except EdgeaiError:
        return False
    return True


def recovery(model: Path, rounds: int) -> list[float]:
    """Seconds from the end of a worker to the next answer."""
    samples = []
    with tempfile.TemporaryDirectory(prefix="edgeai-life-") as folder:
        running = Running(Path(folder), PLAIN, models={"bench": model})
        try:
            with running.client() as client:
                data = np.zeros(client.metadata("bench")["inputs"][0]["shape"], np.uint8)
                client.infer("bench", data)
                for _ in range(rounds):
                    worker = running.worker()
                    begin = time.perf_counter()
                    os.kill(worker, signal.SIGKILL)
                    while not _answers(client, "bench", data) or running.worker() == worker:
                        time.sleep(0.001)
                    samples.append(time.perf_counter() - begin)
        finally:
            running.stop()
    return samples


def loading(model: Path, rounds: int) -> list[float]:
    """Seconds from the start of a push to the first answer."""
    samples = []
    with empty_daemon() as (socket, _):
        for number in range(rounds):
            name = f"m{number}"
            with Client(socket) as client:
                begin = time.perf_counter()
                client.push(name, model)
                client.infer(name, np.zeros(client.metadata(name)["inputs"][0]["shape"], np.uint8))
                samples.append(time.perf_counter() - begin)
    return samples


def swap(model: Path, rounds: int) -> dict[str, Any]:
    """Latest answers in seconds, without and while new versions are pushed, and what failed."""
    with tempfile.TemporaryDirectory(prefix="edgeai-life-") as folder:
        running = Running(Path(folder), PLAIN, models={"bench": model})
        failed = 0
        samples: dict[str, list[float]] = {"without": [], "while swapped": []}
        done = threading.Event()

        def asks(kind: str, until: Callable[[], bool]) -> None:
            nonlocal failed
            with running.client() as client:
                data = np.zeros(client.metadata("bench")["inputs"][0]["shape"], np.uint8)
                while not until():
                    begin = time.perf_counter()
                    failed += not _answers(client, "bench", data)
                    samples[kind].append(time.perf_counter() - begin)
                    time.sleep(0.01)

        try:
            until = time.monotonic() + 3
            asks("without", lambda: time.monotonic() > until)
            thread = threading.Thread(target=asks, args=("while swapped", done.is_set))
            thread.start()
            with running.client() as client:
                for _ in range(rounds):
                    client.push("bench", model)
            done.set()
            thread.join()
        finally:
            done.set()
            running.stop()
    return {"failed": failed, **{kind: {"p50": statistics.median(v), "latest": max(v)} for kind, v in samples.items()}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--large", type=Path, help="a model of some megabytes for the pushes; default: MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    large = options.large or options.model
    begun = start(options.model, options.rounds)
    print(
        f"READY with {MODELS} models {begun['ready_s']:.3f} s, the imports alone {begun['imports_s']:.3f} s: "
        f"{begun['ready_s'] / begun['imports_s']:.2f} times"
    )
    bare = bare_memory()
    held = memory(options.model)
    print(f"resident before models {bare:.1f} MiB")
    for name, facts in held.items():
        print(f"    {name:16}{facts['resident']:7.1f} MiB resident, {facts['own']:6.1f} its own")
    back = recovery(options.model, options.rounds)
    print(f"worker back and answering {statistics.median(back) * 1e3:.0f} ms, latest {max(back) * 1e3:.0f}")
    loads = loading(large, options.rounds)
    print(
        f"push of {large.stat().st_size / 1e6:.1f} MB to first answer {statistics.median(loads) * 1e3:.0f} ms, "
        f"latest {max(loads) * 1e3:.0f}"
    )
    swapped = swap(options.model, options.rounds)
    print(
        f"latest answer without a swap {swapped['without']['latest'] * 1e3:.1f} ms, while versions are swapped "
        f"{swapped['while swapped']['latest'] * 1e3:.1f} ms; {swapped['failed']} failed"
    )
    if options.json:
        result = {
            "load_average": os.getloadavg()[0], "start": begun, "rss_before_models_mib": bare, "memory_mib": held,
            "recovery_s": back, "push_to_answer_s": loads, "push_mb": large.stat().st_size / 1e6, "swap": swapped,
        }  # fmt: skip
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
