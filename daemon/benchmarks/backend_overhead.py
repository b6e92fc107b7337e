#!/usr/bin/env python3
"""What the cpu backend adds to the runtime's own invoke: runs of both, in turns, on the same interpreter.

backend_overhead.py MODEL.tflite... [--runs N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from edgeaid.backends.tflite.backend import CpuBackend
from edgeaid.tensors import NUMPY


def measure(model: Path, runs: int) -> None:
    """Print minimum and median, microseconds."""
    backend = CpuBackend()
    backend.open("", {"threads": 1})
    io = backend.load("m", model, {})
    inputs = [np.zeros(s.shape, NUMPY[s.datatype]) for s in io.inputs]
    outputs = [np.zeros(s.shape, NUMPY[s.datatype]) for s in io.outputs]
    invoke = backend._models["m"]._invoke  # the runtime's own call, nothing around it
    columns: dict[str, list[float]] = {"invoke": [], "infer": [], "input": [], "output": [], "beside invoke": []}
    for _ in range(runs):
        start = perf_counter_ns()
        invoke()
        between = perf_counter_ns()
        phases = backend.infer("m", inputs, outputs)
        end = perf_counter_ns()
        columns["invoke"].append(between - start)
        columns["infer"].append(end - between)
        columns["input"].append(phases.input_ns)
        columns["output"].append(phases.output_ns)
        columns["beside invoke"].append(end - between - phases.infer_ns)
    print(f"{model.name}: {runs} runs, microseconds (minimum, median)")
    for name, values in columns.items():
        print(f"  {name:<14} {min(values) / 1e3:10.1f} {statistics.median(values) / 1e3:10.1f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=500)
    arguments = parser.parse_args()
    gc.disable()  # a collection in the middle is nobody's overhead
    for model in arguments.models:
        measure(model, arguments.runs)


if __name__ == "__main__":
    main()
