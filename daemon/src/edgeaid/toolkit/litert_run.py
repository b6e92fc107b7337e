"""Child: run a TFLite model and write its tensors to an .npz.

Usage: python -m edgeaid.toolkit.litert_run MODEL REQUEST.npz ANSWER.npz
REQUEST holds `runs`, `seed`, `threads`, `keep` (names of intermediate tensors as indices) and optional arrays
`input_<run>_<input>`; ANSWER holds `output_<run>_<output>`, `kept_<run>_<tensor>`, `input_<run>_<input>`, `us` (median
microseconds per run), `names` and `quantization` rows. Random inputs cover the whole range of integer types, and the
range of the declared normalisation `low`..`high` for floats.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

Array = Any


def interpreter(path: str, threads: int, keep: bool) -> Any:
    """An interpreter of whichever runtime is installed; delegates off when every tensor has to be kept."""
    try:
        from ai_edge_litert import interpreter as runtime
    except ImportError:
        from tflite_runtime import interpreter as runtime
    options: dict[str, Any] = {"model_path": path, "num_threads": threads}
    if keep:
        options["experimental_preserve_all_tensors"] = True
        options["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return allocated(runtime, **options)


def allocated(runtime: Any, **options: Any) -> Any:
    """An interpreter with its tensors; what XNNPACK refuses gets the runtime's own kernels, as in the daemon."""
    try:
        made = runtime.Interpreter(**options)
        made.allocate_tensors()
    except RuntimeError as error:
        if "experimental_op_resolver_type" in options or "XNNPackDelegate" not in str(error):
            raise
        own = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return allocated(runtime, **options, experimental_op_resolver_type=own)
    return made


def random_input(detail: dict[str, Any], generator: np.random.Generator, low: float, high: float) -> Array:
    """Values for an input as get_input_details describes it."""
    dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
    if dtype.kind == "f":
        return (low + pattern(shape, generator) * (high - low)).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    info = np.iinfo(dtype)
    if dtype.itemsize > 1:  # indices and counts: small numbers
        return generator.integers(0, 4, shape).astype(dtype)
    return np.rint(info.min + pattern(shape, generator) * (float(info.max) - info.min)).astype(dtype)


def pattern(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Values from 0 to 1: even noise, or for pictures also coarse patches between two random levels.

    A network may call all noise the same; large shapes of different brightness are distinguished by any that works.
    """
    noise = generator.uniform(0, 1, shape)
    if len(shape) != 4 or generator.integers(0, 3) == 0:
        return noise
    parts = int(generator.integers(2, 6))
    patches = generator.uniform(0, 1, (shape[0], parts, parts, shape[3]))
    rows = np.arange(shape[1]) * parts // max(1, shape[1])
    columns = np.arange(shape[2]) * parts // max(1, shape[2])
    coarse = patches[:, rows][:, :, columns]
    level, contrast = generator.uniform(0, 0.5), generator.uniform(0.3, 1)
    return np.clip(level + contrast * (0.9 * coarse + 0.1 * noise), 0, 1)


def main(model: str, request_path: str, answer_path: str) -> None:
    """See the module."""
    request = dict(np.load(request_path, allow_pickle=False))
    keep = [int(i) for i in request.get("keep", ())]
    made = interpreter(model, int(request.get("threads", 1)), bool(keep))
    inputs, outputs = made.get_input_details(), made.get_output_details()
    generator = np.random.default_rng(int(request.get("seed", 0)))
    low, high = float(request.get("low", 0.0)), float(request.get("high", 1.0))
    answer: dict[str, Array] = {}
    times = []
    for run in range(int(request["runs"])):
        # Each run answers as a fresh interpreter would: a recurrent network's state of the run before would change it.
        made.reset_all_variables()
        for number, detail in enumerate(inputs):
            value = request.get(f"input_{run}_{number}")
            if value is None:
                value = random_input(detail, generator, low, high)
                answer[f"input_{run}_{number}"] = value
            made.set_tensor(detail["index"], value)
        start = time.perf_counter()
        made.invoke()
        times.append(time.perf_counter() - start)
        for number, detail in enumerate(outputs):
            answer[f"output_{run}_{number}"] = made.get_tensor(detail["index"])
        for index in keep:
            answer[f"kept_{run}_{index}"] = made.get_tensor(index)
    answer["us"] = np.float64(np.median(times) * 1e6)
    answer["names"] = np.array([d["name"] for d in (*inputs, *outputs)])
    answer["quantization"] = np.array([d["quantization"] for d in (*inputs, *outputs)], np.float64)
    np.savez(answer_path, **answer)


if __name__ == "__main__":
    main(*sys.argv[1:4])
