"""A backend in a process of its own, told what to do by JSON lines: what the tests kill, hang and abort."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from edgeaid.backends import Backend, ModelIO, create
from edgeaid.tensors import NUMPY


def run(backend: Backend, io: ModelIO, key: str, seed: int) -> dict[str, object]:
    """One inference on seeded noise; the sum of the first output tells answers apart."""
    noise = np.random.default_rng(seed)
    inputs = [noise.integers(0, 200, s.shape).astype(NUMPY[s.datatype]) for s in io.inputs]
    outputs = [np.zeros(s.shape, NUMPY[s.datatype]) for s in io.outputs]
    phases = backend.infer(key, inputs, outputs)
    return {"sum": float(outputs[0].astype(np.float64).sum()), "infer_ns": phases.infer_ns}


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # runtimes print
    backend = create(sys.argv[1])
    models: dict[str, ModelIO] = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "open":
                answer = dict(backend.open(order["device"], order["options"]).facts)
            elif order["do"] == "load":
                models[order["key"]] = io = backend.load(order["key"], Path(order["artifact"]), order["options"])
                answer = dict(io.facts)
            elif order["do"] == "infer":
                answer = run(backend, models[order["key"]], order["key"], order["seed"])
            else:
                backend.close()
                answer = {}
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
