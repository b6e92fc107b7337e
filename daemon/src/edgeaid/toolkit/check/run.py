"""Rules SAN that need a run: does the output depend on the input, and is it a number?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InvalidModel
from ...formats.tflite.reader import EDGETPU_OP, TfliteModel
from ..run import have_litert, litert
from .rules import Findings
from .tflite import KNOWN_CUSTOM

RUNS = 8
#: Operators whose output may be the same for very different inputs: they end in 0 or 1.
_SQUASHING = frozenset({"SOFTMAX", "LOGISTIC", "TANH", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE"})


def check(path: Path, model: TfliteModel, findings: Findings, timeout: float = 120.0) -> None:
    """Run the model on random inputs in a child process and look at what comes out."""
    if any(code not in KNOWN_CUSTOM for code in model.custom_codes):
        if EDGETPU_OP not in model.custom_codes:
            findings.add("SAN007", "", f"custom operators {', '.join(model.custom_codes)}")
        return
    if not have_litert():
        findings.add("SAN009", "", "no TFLite runtime installed")
        return
    # Wide enough for every published normalisation; a network that ignores this ignores everything.
    request = {"runs": RUNS, "seed": 1, "threads": 1, "low": -1.0, "high": 1.0}
    try:
        answer = litert(path, request, timeout)
    except InvalidModel as error:
        findings.add("SAN007", "", error)
        return
    findings.facts["cpu_us"] = round(float(answer["us"]))
    for number, spec in enumerate(model.outputs):
        runs = [answer[f"output_{run}_{number}"] for run in range(RUNS)]
        if any(r.dtype.kind == "f" and not np.isfinite(r).all() for r in runs):
            findings.add("SAN008", spec.name, "NaN or infinite values")
            continue
        same = all(r.shape == runs[0].shape and np.array_equal(r, runs[0]) for r in runs[1:])
        # Class maps and counts may be equal for noise; what must differ are scores.
        scores = runs[0].dtype.kind == "f" or runs[0].dtype.itemsize == 1
        if same and scores and not _saturated(path, model, number, request, timeout):
            findings.add("SAN001", spec.name, f"equal in {RUNS} runs of random inputs")


def _saturated(path: Path, model: TfliteModel, number: int, request: dict[str, float], timeout: float) -> bool:
    """Whether what goes into the last squashing operators differs although the output does not."""
    graph = model.subgraphs[0]
    producer = {i: o for o in graph.operators for i in o.outputs}
    index = graph.outputs[number]
    while (operator := producer.get(index)) is not None and operator.name in _SQUASHING and operator.inputs[0] >= 0:
        index = operator.inputs[0]
    if index == graph.outputs[number] or index in graph.inputs:
        return False
    answer = litert(path, {**request, "keep": np.array([index])}, timeout)
    runs = [answer[f"kept_{run}_{index}"] for run in range(RUNS)]
    return any(not np.array_equal(r, runs[0]) for r in runs[1:])
