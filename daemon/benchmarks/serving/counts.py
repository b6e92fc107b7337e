"""Processor time, instructions and system calls per request: what a slower machine's cost can be foreseen from.

usage: python daemon/benchmarks/serving/counts.py MODEL.tflite [--picture FILE] [--requests N] [--json FILE]

Processor time is the kernel's count for each process; the least of many short turns, because a neighbour's work only
adds to it. Instructions come from `perf stat` where the machine has counters for it (a Pi has, most virtual machines
have not), system calls from strace. The daemon's short wait for an answer (`poll_microseconds`) is off: it would count
idle turns. The first row is the machine itself: a fixed piece of Python, and the model alone, so that two machines can
be compared.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from edgeaid.client import Client

#: Turns of a measurement of processor time.
TURNS = 50
CONFIG = "[server]\npoll_microseconds = 0\n[limits]\ndecoders = 1\n"


@contextmanager
def daemon(folder: Path, config: str = "") -> Iterator[tuple[Path, int]]:
    """(socket, pid) of a daemon that has no model."""
    (folder / "edgeaid.toml").write_text(config)
    socket = folder / "edgeaid.sock"
    command = [sys.executable, "-m", "edgeaid", "--config", str(folder / "edgeaid.toml"), "--socket", str(socket)]
    command += ["--model-repository", str(folder / "models"), "--no-embedded", "--log-level", "error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with Client(socket) as client:
            client.wait(60)
        yield socket, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def fixed_work() -> int:
    """A piece of Python that is the same everywhere: calls, attributes, small objects."""
    total = 0
    for number in range(2000):
        total += len(str(number)) + max(number, 7)
    return total


def used(pid: int) -> float:
    """Microseconds of processor time that a process has had."""
    if pid == os.getpid():
        return time.process_time() * 1e6  # the kernel's file lags behind for a process that is running
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


def processor(pids: dict[str, int], once: Callable[[], Any], count: int) -> dict[str, float]:
    """Microseconds of processor time per call, by process: the least of TURNS turns."""
    turns = []
    for _ in range(TURNS):
        before = {name: used(pid) for name, pid in pids.items()}
        for _ in range(max(1, count // TURNS)):
            once()
        turns.append({name: (used(pid) - before[name]) / max(1, count // TURNS) for name, pid in pids.items()})
    return {name: round(min(turn[name] for turn in turns), 1) for name in pids}


def under_way(client: Client, data: Any, count: int) -> Callable[[], Any]:
    """`count` requests sent before their answers are read; the figures are divided by it."""
    client.infer("bench", data)
    session, sock = client._core._fast, client._transport._fast.sock
    assert session is not None
    assert sock is not None
    (binding,) = session._bindings.values()

    def once() -> None:
        for _ in range(count):
            sock.send(session.question(binding, 0, None))
        for _ in range(count):
            sock.recv(4096)

    return once


def bare_clients(client: Client, plain: Client, data: Any) -> dict[str, Callable[[], Any]]:
    """The least that a client of each transport has to do: what ours is above it is its own cost."""
    client.infer("bench", data)
    plain.infer("bench", data)
    session, sock = client._core._fast, client._transport._fast.sock
    assert session is not None
    (binding,) = session._bindings.values()
    (place,), (output,) = binding.inputs.values(), binding.outputs.values()
    request, stream = plain._core._prepared["bench", ""].start, plain._transport._http._sock
    assert stream is not None

    def over_fast() -> None:
        place[...] = data
        sock.send(session.question(binding, 0, None))
        sock.recv(4096)
        output.copy()

    def over_http() -> None:
        stream.sendmsg([request, data])
        answer = stream.recv(65536)
        np.frombuffer(answer, output.dtype, output.size, len(answer) - output.nbytes)

    return {"fast socket, bare client": over_fast, "HTTP binary, bare client": over_http}


def ways(client: Client, plain: Client, data: Any, picture: bytes) -> dict[str, Callable[[], Any]]:
    """One blocking call per row of the table."""
    return {
        "fast socket": lambda: client.infer("bench", data),
        "HTTP binary": lambda: plain.infer("bench", data),
        **bare_clients(client, plain, data),
        "fast socket, 8 under way": under_way(client, data, 8),
        "picture, 640x480": lambda: plain.classify("bench", picture, max_results=1),
    }


def instructions(pids: dict[str, int], once: Callable[[], Any], count: int) -> dict[str, float]:
    """Instructions per call, by process; empty where they cannot be counted."""
    if shutil.which("perf") is None:
        return {}
    table = {}
    for name, pid in pids.items():
        command = ["perf", "stat", "-x", ",", "-e", "instructions", "-p", str(pid)]
        counter = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)  # it does not say when it has begun
        for _ in range(count):
            once()
        counter.send_signal(signal.SIGINT)
        number = (counter.communicate()[1].strip() or "none").splitlines()[-1].partition(",")[0]
        if not number.isdecimal():
            return {}
        table[name] = round(int(number) / count)
    return table


def calls(pids: dict[str, int], once: Callable[[], Any], count: int) -> dict[str, dict[str, float]]:
    """System calls per call of `once`, by process and name; empty without strace."""
    if shutil.which("strace") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        tracers = {}
        for name, pid in pids.items():
            command = ["strace", "-f", "-c", "-U", "calls,name", "-o", f"{folder}/{name}", "-p", str(pid)]
            tracers[name] = subprocess.Popen(command, stderr=subprocess.PIPE)
            tracers[name].stderr.readline()  # type: ignore[union-attr]  # it says that it is attached
        for _ in range(count):
            once()
        table = {}
        for name, tracer in tracers.items():
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
            rows = re.findall(r"^\s*(\d+)\s+(\w+)$", Path(folder, name).read_text(), re.MULTILINE)
            table[name] = {
                call: round(int(n) / count, 2) for n, call in rows if call != "total" and int(n) >= count / 10
            }
        return table


def script(model: Path, picture: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """(the model alone, what people write for a picture) in this process."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = tuple(source["shape"][2:0:-1])

    def whole() -> int:
        image = Image.open(io.BytesIO(picture)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        interpreter.set_tensor(source["index"], np.asarray(image)[None])
        interpreter.invoke()
        return int(interpreter.get_tensor(target["index"])[0].argmax())

    return interpreter.invoke, whole


def processes(pid: int) -> dict[str, int]:
    """Process ids of this client, the daemon, its worker and its decoder, where they run."""
    kinds = {"edgeai-cpu": "worker", "edgeai-media": "decoder"}
    named = {"client": os.getpid(), "daemon": pid}
    for child in psutil.Process(pid).children():
        for start, name in kinds.items():
            if child.name().startswith(start):
                named[name] = child.pid
    return named


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="a quantised classifier that takes raw RGB")
    parser.add_argument("--picture", type=Path, help="default: noise, which is the worst that a JPEG can hold")
    parser.add_argument("--large", type=Path, help="a model with a large input, for two rows more")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    source = Image.open(options.picture) if options.picture else Image.effect_noise((640, 480), 60)
    encoded = io.BytesIO()
    source.convert("RGB").resize((640, 480)).save(encoded, "JPEG", quality=90)
    picture = encoded.getvalue()
    rows: dict[str, dict[str, Any]] = {}
    alone, whole = script(options.model, picture)
    here = {"client": os.getpid()}
    for name, once in {"fixed piece of Python": fixed_work, "model alone": alone, "script, 640x480": whole}.items():
        rows[name] = {"us": processor(here, once, options.requests), "instructions": instructions(here, once, 100)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeai-counts-")))
        socket, pid = stack.enter_context(daemon(folder, CONFIG))
        client, plain = (stack.enter_context(Client(socket, fast=fast)) for fast in (True, False))
        client.push("bench", options.model)
        shape = client.metadata("bench")["inputs"][0]["shape"]
        for way, once in ways(client, plain, np.zeros(shape, np.uint8), picture).items():
            for _ in range(20):
                once()
            pids = processes(pid)
            if way != "picture, 640x480":
                pids.pop("decoder", None)
            rows[way] = {
                "us": processor(pids, once, options.requests),
                "instructions": instructions(pids, once, 100),
                "calls": calls({n: p for n, p in pids.items() if n != "client"}, once, 100),
            }
        if options.large:
            client.push("large", options.large)
            given = client.metadata("large")["inputs"][0]["shape"]
            data = np.zeros(given, np.uint8)
            for title, asked in (("fast socket", client), ("HTTP binary", plain)):
                once = partial(asked.infer, "large", data)
                once()
                pids = {name: number for name, number in processes(pid).items() if name != "decoder"}
                rows[f"{title}, {data.nbytes // 1000} kB"] = {
                    "us": processor(pids, once, 2 * TURNS),
                    "instructions": instructions(pids, once, 20),
                    "calls": calls({n: p for n, p in pids.items() if n != "client"}, once, 20),
                }
    for name, row in rows.items():
        print(f"{name:24}{sum(row['us'].values()):9.0f} us of processor time")
        for process, microseconds in row["us"].items():
            table = row.get("calls", {}).get(process, {})
            count = row["instructions"].get(process)
            print(
                f"    {process:10}{microseconds:9.0f} us"
                + (f"{count:12,} instructions" if count else "")
                + (f"{sum(table.values()):6.1f} system calls: " if table else "")
                + ", ".join(f"{call} {n:g}" for call, n in table.items())
            )
    if options.json:
        facts = {"model": options.model.name, "load_average": os.getloadavg()[0], "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
