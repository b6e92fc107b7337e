"""Processor time of a request in an emulated machine whose clock counts instructions; run there by recipes-tests.

usage: python3 guest.py MODEL.tflite PICTURE.jpg (asks the daemon at $EDGEAI_SOCKET, by default the system's)

In a guest that was started with QEMU's `-icount shift=0` a nanosecond of the clock is one instruction, so what the
kernel says of a process's time is the number of its instructions, those of its system calls among them. Prints
thousands of instructions per request, by process: the least of five turns.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeaid.client import Client

SOCKET = os.environ.get("EDGEAI_SOCKET", "/run/edgeai/edgeaid.sock")


def spent(pid: int) -> int:
    """Nanoseconds of processor time that all threads of a process have had."""
    if pid == os.getpid():
        return time.process_time_ns()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def processes() -> dict[str, int]:
    """Process ids of this client, the daemon, its worker and its decoder, where they run."""
    named = {"client": os.getpid()}
    kinds = {"edgeai-cpu": "worker", "edgeai-media": "decoder"}
    for process in filter(lambda p: p.name.isdecimal(), Path("/proc").iterdir()):
        try:
            command, numbers = (process / "comm").read_text(), (process / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        for start, name in kinds.items():
            if command.startswith(start):
                named[name] = int(process.name)
                named["daemon"] = int(numbers.rpartition(")")[2].split()[1])  # the parent of its workers
    return named


def count(way: str, once: Callable[[], Any], pids: dict[str, int], requests: int = 10) -> None:
    """Print thousands of instructions per call of `once`."""
    turns = []
    for _ in range(5):
        before = {name: spent(pid) for name, pid in pids.items()}
        for _ in range(requests):
            once()
        turns.append({name: (spent(pid) - before[name]) / requests for name, pid in pids.items()})
    least = {name: round(min(turn[name] for turn in turns) / 1e3) for name in pids}
    print(f"{way:20}", *(f"{name} {thousands:,}" for name, thousands in least.items()), flush=True)


def fixed_work() -> int:
    """The piece of Python that counts.py measures."""
    total = 0
    for number in range(2000):
        total += len(str(number)) + max(number, 7)
    return total


def main() -> None:
    """Measure."""
    from ai_edge_litert.interpreter import Interpreter
    from PIL import Image

    model, picture = sys.argv[1], Path(sys.argv[2]).read_bytes()
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    size = tuple(map(int, source["shape"][2:0:-1]))

    def script() -> None:
        image = Image.open(io.BytesIO(picture)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        interpreter.set_tensor(source["index"], np.asarray(image)[None])
        interpreter.invoke()

    here = {"client": os.getpid()}
    for way, once in {"fixed piece of Python": fixed_work, "model alone": interpreter.invoke, "script": script}.items():
        once()
        count(way, once, here)
    data = np.zeros(source["shape"], source["dtype"])
    with Client(SOCKET) as fast, Client(SOCKET, fast=False) as plain:
        fast.push("bench", model)
        for way, once in {
            "fast socket": lambda: fast.infer("bench", data),
            "HTTP binary": lambda: plain.infer("bench", data),
            "picture": lambda: plain.classify("bench", picture, max_results=1),
        }.items():
            for _ in range(5):
                once()
            pids = processes()
            if way != "picture":
                pids.pop("decoder", None)
            count(way, once, pids)


if __name__ == "__main__":
    main()
