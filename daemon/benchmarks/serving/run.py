"""What serving adds to an inference: raw interpreter, edgeaid over each transport, and peers, in one run.

usage: python daemon/benchmarks/serving/run.py MODEL.tflite [--requests N] [--peers PYTHON]... [--json FILE]

Every way answers the same request with the same runtime and one thread; ways take turns in rounds so that a
machine whose speed drifts hits all alike. Figures are medians over all requests of a way; "adds" is its median less the
raw one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from floors import bare_grpc, bare_hops, over_grpc, raw_loop, shared_memory

from edgeaid.client import Client
from edgeaid.serving.metrics import rss_bytes

ROUNDS = 10
CLIENTS = 4
BARE = "gRPC, bare server"


@contextmanager
def edgeaid(model: Path, grpc: bool) -> Iterator[tuple[Path, int, float, int]]:
    """A daemon that serves MODEL: (socket, pid, seconds to READY, resident bytes before any model)."""
    with tempfile.TemporaryDirectory(prefix="edgeai-bench-") as name:
        top = Path(name)
        directory = top / "models" / "bench" / "1"
        directory.mkdir(parents=True)
        shutil.copy(model, directory / "model.tflite")
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        (directory / "model.toml").write_text(
            f'schema = 1\nname = "bench"\n[artifacts.cpu]\nfile = "model.tflite"\nsha256 = "{digest}"\nthreads = 1\n'
        )
        socket = top / "edgeaid.sock"
        command = [
            sys.executable,
            "-m",
            "edgeaid",
            "--socket",
            socket,
            "--model-repository",
            top / "models",
            "--no-embedded",
        ]
        command += ["--log-level", "error"] + (["--grpc-socket", top / "grpc.sock"] if grpc else [])
        environment = {
            **os.environ,
            "MALLOC_MMAP_THRESHOLD_": "8388608",
            "MALLOC_TRIM_THRESHOLD_": "67108864",
        }  # as in the unit
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        before = 0
        try:
            with Client(socket) as client:
                while not client.is_ready():
                    before = rss_bytes(process.pid) or before
                    time.sleep(0.005)
            yield socket, process.pid, time.perf_counter() - started, before
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def client_ways(socket: Path, data: Any, *, grpc: bool) -> dict[str, Callable[[], None]]:
    """One blocking call per transport."""
    fast, plain = Client(socket), Client(socket, fast=False)
    name = plain.metadata("bench")["inputs"][0]["name"]
    body = json.dumps(
        {"inputs": [{"name": name, "datatype": "UINT8", "shape": list(data.shape), "data": data.ravel().tolist()}]}
    ).encode()
    ways = {
        "fast socket": lambda: fast.infer("bench", {name: data}) and None,
        "HTTP binary": lambda: plain.infer("bench", {name: data}) and None,
        "HTTP JSON": lambda: plain.request("POST", "/v2/models/bench/infer", body) and None,
    }
    if grpc:
        ways["gRPC"] = over_grpc(socket.parent / "grpc.sock", name, data)
    return ways


def measure(once: Callable[[], None], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    samples = []
    clock = time.perf_counter
    for _ in range(count):
        started = clock()
        once()
        samples.append(clock() - started)
    return samples


def _load(socket: str, transport: str, count: int, barrier: Any, queue: Any, data: Any) -> None:
    if transport == BARE:
        once = over_grpc(Path(socket), "in", data)
    else:
        once = client_ways(Path(socket), data, grpc=transport == "gRPC")[transport]
    measure(once, 20)
    barrier.wait()
    started = time.time()
    measure(once, count)
    queue.put((started, time.time(), count))


def throughput(socket: Path, transport: str, count: int, data: Any) -> float:
    """Requests per second of CLIENTS processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(CLIENTS), context.Queue()
    args = (str(socket), transport, count // CLIENTS, barrier, queue, data)
    processes = [context.Process(target=_load, args=args) for _ in range(CLIENTS)]
    for process in processes:
        process.start()
    rows = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(r[2] for r in rows) / (max(r[1] for r in rows) - min(r[0] for r in rows))


def _shape(model: Path) -> tuple[int, ...]:
    """Shape of the model's input, read in a process of its own: what forks later must have no runtime yet."""
    code = (
        "import sys; from ai_edge_litert.interpreter import Interpreter; "
        "print(*Interpreter(sys.argv[1]).get_input_details()[0]['shape'])"
    )
    text = subprocess.run([sys.executable, "-c", code, str(model)], check=True, capture_output=True, text=True).stdout
    return tuple(map(int, text.split()))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=3000, help="per way")
    parser.add_argument(
        "--peers", metavar="PYTHON", action="append", help="interpreter of an environment as peers.py says; repeatable"
    )
    parser.add_argument("--no-grpc", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    grpc = not args.no_grpc
    with ExitStack() as stack:
        hops = stack.enter_context(bare_hops(args.model))  # forks, so before the interpreter's threads
        shape = _shape(args.model)
        through = stack.enter_context(shared_memory(args.model, np.zeros(shape, np.uint8)))
        once, data = raw_loop(args.model)
        socket, pid, ready, before = stack.enter_context(edgeaid(args.model, grpc))
        ways = {"raw interpreter": once, "two bare hops": hops, "shared memory": through}
        ways |= client_ways(socket, data, grpc=grpc)
        if grpc:
            bare = stack.enter_context(bare_grpc(args.model, data))
            ways[BARE] = over_grpc(bare, "in", data)
            threads = stack.enter_context(bare_grpc(args.model, data, asynchronous=False))
            ways["gRPC, bare sync server"] = over_grpc(threads, "in", data)
        if args.peers:
            from peers import peer_ways

            ways.update(peer_ways(stack, args.peers, args.model, data))
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            measure(way, 50)
        for _ in range(ROUNDS):
            for name, way in ways.items():
                samples[name] += measure(way, args.requests // ROUNDS)
        raw_rates, rates = [], {name: [] for name in ("fast socket", "HTTP binary", *(["gRPC", BARE] if grpc else []))}
        for _ in range(3):
            raw_rates.append(1 / statistics.fmean(measure(once, args.requests // 3)))
            for name, rate in rates.items():
                rate.append(throughput(bare if name == BARE else socket, name, args.requests, data))
        loaded = rss_bytes(pid)
    floor = statistics.median(samples["raw interpreter"])
    rows = []
    for name, values in samples.items():
        values.sort()
        median = statistics.median(values)
        rows.append(
            {
                "way": name,
                "p50_us": median * 1e6,
                "p99_us": values[int(0.99 * len(values))] * 1e6,
                "adds_us": (median - floor) * 1e6,
                "times_raw": median / floor,
            }
        )
    raw_rate = statistics.median(raw_rates)
    served = {
        name: {"per_second": statistics.median(rate), "of_raw": statistics.median(rate) / raw_rate}
        for name, rate in rates.items()
    }
    result = {
        "model": args.model.name, "requests": args.requests, "clients": CLIENTS, "load_average": os.getloadavg()[0],
        "latency": rows, "raw_per_second": raw_rate, "throughput": served,
        "ready_seconds": ready, "rss_before_models_mib": before / 2**20, "rss_after_mib": loaded / 2**20,
    }  # fmt: skip
    print(f"{'one client':18}{'p50 us':>10}{'p99 us':>10}{'adds us':>10}{'x raw':>8}")
    for row in rows:
        print(f"{row['way']:18}{row['p50_us']:10.0f}{row['p99_us']:10.0f}{row['adds_us']:10.0f}{row['times_raw']:8.2f}")
    print(f"\n{CLIENTS} clients, raw alone {raw_rate:.0f}/s")
    for name, value in served.items():
        print(f"{name:18}{value['per_second']:10.0f}/s{value['of_raw']:10.2f} of raw")
    print(
        f"\nREADY after {ready:.2f} s; resident before models {before / 2**20:.1f} MiB, "
        f"at the end {loaded / 2**20:.1f} MiB"
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
