"""Child: time a TFLite model's beginnings, one operator longer each. Usage: python -m edgeaid.toolkit.profile.child
MODEL REQUEST.json

Request: runs (at least), seconds (per beginning, at most), threads, answer (JSON to write).
Answer: prefixes (microseconds of the first 1, 2, ... operators, the fastest run), whole (microseconds of the whole
model: fastest, median, 99th percentile).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...formats.tflite import reader as tflite
from ..litert_run import allocated, random_input
from .prefix import prefix


def interpreter(content: bytes, threads: int) -> Any:
    """An interpreter of whichever runtime is installed, ready to run on random inputs."""
    try:
        from ai_edge_litert import interpreter as runtime
    except ImportError:
        from tflite_runtime import interpreter as runtime
    made = allocated(runtime, model_content=content, num_threads=threads)
    generator = np.random.default_rng(0)
    for detail in made.get_input_details():
        made.set_tensor(detail["index"], random_input(detail, generator, 0.0, 1.0))
    return made


def times(content: bytes, request: dict[str, Any]) -> list[float]:
    """Microseconds of each run; the first two are not counted."""
    made = interpreter(content, request["threads"])
    made.invoke()
    made.invoke()
    measured: list[float] = []
    until = time.perf_counter() + request["seconds"]
    while len(measured) < request["runs"] or (time.perf_counter() < until and len(measured) < 50 * request["runs"]):
        start = time.perf_counter()
        made.invoke()
        measured.append((time.perf_counter() - start) * 1e6)
    return measured


def main(model: str, path: str) -> None:
    """See the module."""
    request: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
    content = Path(model).read_bytes()
    graph = tflite.read(content).subgraphs[0]
    whole = times(content, request)
    count = len(graph.operators)
    prefixes = [min(times(prefix(content, graph, n), request)) for n in range(1, count)]
    answer = {
        "prefixes": [*prefixes, min(whole)],
        "whole": [min(whole), float(np.median(whole)), float(np.percentile(whole, 99))],
    }
    Path(request["answer"]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
