"""Many models, many clients: throughput, latency, fairness and memory as both grow.

usage: python daemon/benchmarks/serving/load.py MODEL.tflite [--slow MODEL.tflite] [--seconds S] [--json FILE]

Every client asks one request after the other, each on a connection of its own, models in turn. What it asks of a model
for the first time is counted apart: it asks for the tensors too, and gives them their places in its memory. Fairness is
Jain's index over what each client got afterwards: 1 = all the same, 1/n = one got everything. With --slow: the small
model's latency beside one client of a slow model, with one worker and with two (`[[device]]` twice).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.daemon import Running

from edgeaid.client import Client
from edgeaid.errors import Unavailable
from edgeaid.serving.metrics import rss_bytes

MODELS = (1, 10, 50)
CLIENTS = (1, 8, 64)
#: Seconds that clients wait for each other.
PATIENCE = 300.0
#: Processes that the clients are spread over.
PROCESSES = 4
TWO_WORKERS = '[[device]]\nid = "cpu0"\ntarget = "cpu"\n[[device]]\nid = "cpu1"\ntarget = "cpu"\n'


@dataclass(frozen=True, slots=True)
class Got:
    """What one client got."""

    #: Of its first round: seconds in all, and answers.
    first_seconds: float
    first: int
    #: Seconds of each answer afterwards.
    latencies: list[float]
    refused: int


class _Asker:
    """One client."""

    def __init__(self, client: Client, names: list[str], first: int) -> None:
        self.client = client
        self.names = names
        self.number = first
        self.latencies: list[float] = []
        self.refused = 0
        self.data = np.zeros(client.metadata(names[first % len(names)])["inputs"][0]["shape"], np.uint8)

    def ask(self) -> None:
        """The next model; a refusal is counted, and the same is asked again."""
        begin = time.perf_counter()
        try:
            self.client.infer(self.names[self.number % len(self.names)], self.data)
        except Unavailable:
            self.refused += 1
            time.sleep(0.001)
            return
        self.latencies.append(time.perf_counter() - begin)
        self.number += 1


def _one(socket: str, names: list[str], first: int, seconds: float, together: Any, rows: list[Got]) -> None:
    together.wait()
    begin = time.perf_counter()
    with Client(socket) as client:
        asker = _Asker(client, names, first)
        while len(asker.latencies) < len(names):
            asker.ask()
        first_seconds = time.perf_counter() - begin
        asker.latencies.clear()
        together.wait()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            asker.ask()
    rows.append(Got(first_seconds, len(names), asker.latencies, asker.refused))


def ask(socket: str, names: list[str], first: int, count: int, seconds: float, together: Any) -> list[Got]:
    """`count` clients as threads of this process; they wait for the others before each of both parts."""
    rows: list[Got] = []
    threads = [
        threading.Thread(target=_one, args=(socket, names, first + number, seconds, together, rows))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows


def measure(pool: Any, manager: Any, socket: Path, names: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """One cell of the table."""
    share = [clients // PROCESSES + (number < clients % PROCESSES) for number in range(PROCESSES)]
    together = manager.Barrier(clients, None, PATIENCE)
    work = [(str(socket), names, 7 * number, count, seconds, together) for number, count in enumerate(share) if count]
    rows: list[Got] = [row for part in pool.starmap(ask, work, chunksize=1) for row in part]
    counts = [len(row.latencies) for row in rows]
    latencies = sorted(value for row in rows for value in row.latencies)
    return {
        "first_per_second": sum(row.first for row in rows) / max(row.first_seconds for row in rows),
        "per_second": sum(counts) / seconds,
        "p50_ms": statistics.median(latencies) * 1e3 if latencies else None,
        "p99_ms": latencies[int(0.99 * len(latencies))] * 1e3 if latencies else None,
        "jain": sum(counts) ** 2 / (len(counts) * sum(c * c for c in counts)) if any(counts) else 0.0,
        "refused": sum(row.refused for row in rows),
    }


def curve(pool: Any, manager: Any, model: Path, seconds: float) -> list[dict[str, Any]]:
    """Every number of models with every number of clients."""
    rows = []
    for models in MODELS:
        names = [f"m{number}" for number in range(models)]
        with tempfile.TemporaryDirectory(prefix="edgeai-load-") as folder:
            running = Running(Path(folder), "[models]\nembedded = false\n", models=dict.fromkeys(names, model))
            try:
                idle = rss_bytes(running.process.pid)
                for clients in CLIENTS:
                    row = {
                        "models": models,
                        "clients": clients,
                        **measure(pool, manager, running.socket, names, clients, seconds),
                    }
                    row["daemon_mib"] = rss_bytes(running.process.pid) / 2**20
                    row["idle_mib"] = idle / 2**20
                    row["worker_mib"] = rss_bytes(running.worker()) / 2**20
                    rows.append(row)
                    print(
                        f"{models:7}{clients:9}{row['first_per_second']:10.0f}/s{row['per_second']:10.0f}/s{row['p50_ms']:10.2f}{row['p99_ms']:10.2f}"
                        f"{row['jain']:8.3f}{row['refused']:9}{row['daemon_mib']:10.1f}{row['worker_mib']:11.1f}",
                        flush=True,
                    )
            finally:
                running.stop()
    return rows


def beside(pool: Any, manager: Any, model: Path, slow: Path, seconds: float) -> list[dict[str, Any]]:
    """A small model alone and beside a slow one, with one worker and with two."""
    rows = []
    for title, config in (("one worker", ""), ("two workers", TWO_WORKERS)):
        with tempfile.TemporaryDirectory(prefix="edgeai-load-") as folder:
            running = Running(
                Path(folder), f"{config}[models]\nembedded = false\n", models={"small": model, "slow": slow}
            )
            try:
                alone = measure(pool, manager, running.socket, ["small"], 4, seconds)
                work = (str(running.socket), ["slow"], 0, 1, seconds, manager.Barrier(1, None, PATIENCE))
                other = pool.apply_async(ask, work)
                both = measure(pool, manager, running.socket, ["small"], 4, seconds)
                slow_ms = statistics.median(other.get()[0].latencies) * 1e3
            finally:
                running.stop()
        rows.append({"workers": title, "alone": alone, "beside": both, "slow_ms": slow_ms})
        print(
            f"{title}: small model, 4 clients: p99 {alone['p99_ms']:.1f} ms alone, {both['p99_ms']:.1f} beside one of "
            f"{slow_ms:.0f} ms; {alone['per_second']:.0f} and {both['per_second']:.0f}/s"
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--slow", type=Path, help="a model that takes some hundred milliseconds")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each cell")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(PROCESSES + 1) as pool:
        print(f"{'models':>7}{'clients':>9}{'first':>12}{'answers':>12}{'p50 ms':>10}{'p99 ms':>10}{'Jain':>8}"
              f"{'refused':>9}{'daemon MiB':>10}{'worker MiB':>11}")  # fmt: skip
        rows = curve(pool, manager, options.model, options.seconds)
        mixed = beside(pool, manager, options.model, options.slow, options.seconds) if options.slow else []
    first, last = rows[0], rows[-1]
    print(
        f"a model more: {(last['idle_mib'] - first['idle_mib']) / (last['models'] - first['models']):.2f} MiB of the "
        f"daemon, {(last['worker_mib'] - first['worker_mib']) / (last['models'] - first['models']):.2f} of the worker"
    )
    if options.json:
        options.json.write_text(
            json.dumps({"load_average": os.getloadavg()[0], "curve": rows, "beside": mixed}, indent=1)
        )


if __name__ == "__main__":
    main()
