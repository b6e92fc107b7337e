"""int8 models of float ones by several calibrations. usage (quantizer environment): methods.py CHILD DIRECTORY...

CHILD is the toolkit's quantize_tflite.py, whose own ranges are the method `min-max`. Writes DIRECTORY/<method>.tflite.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

#: Values of one tensor that are kept of one sample, to take percentiles of all samples.
KEPT = 4096
Pair = tuple[float, float]


def load(path: str) -> Any:
    """A module by its path."""
    spec = spec_from_file_location("child", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def observe(content: bytes, data: Any, names: set[str]) -> dict[str, list[Any]]:
    """Values of every named tensor, a sorted array per sample."""
    runtime = import_module("ai_edge_litert.interpreter")
    made = runtime.Interpreter(
        model_content=content, num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    made.allocate_tensors()
    generator = np.random.default_rng(0)
    seen: dict[str, list[Any]] = {}
    for sample in data:
        made.set_tensor(made.get_input_details()[0]["index"], sample[None])
        made.invoke()
        for detail in made.get_tensor_details():
            if detail["name"] not in names or detail["dtype"] != np.float32:
                continue
            try:
                values = made.get_tensor(detail["index"]).ravel()
            except ValueError:  # scratch memory
                continue
            if values.size > KEPT:
                extremes = [values.min(), values.max()]
                values = np.concatenate([generator.choice(values, KEPT - 2, replace=False), extremes])
            seen.setdefault(detail["name"], []).append(np.sort(values))
    return seen


def mean_of_batches(size: int) -> Callable[[list[Any]], Pair]:
    """The mean over batches of `size` samples of each batch's smallest and largest value."""

    def by_method(values: list[Any]) -> Pair:
        batches = [values[i : i + size] for i in range(0, len(values), size)]
        lows = [min(v[0] for v in batch) for batch in batches]
        highs = [max(v[-1] for v in batch) for batch in batches]
        return float(np.mean(lows)), float(np.mean(highs))

    return by_method


def percentile(share: float) -> Callable[[list[Any]], Pair]:
    """What `share` percent of all values lie below, and the same from below."""

    def by_method(values: list[Any]) -> Pair:
        low, high = np.quantile(np.concatenate(values), [1 - share / 100, share / 100])
        return float(low), float(high)

    return by_method


METHODS: dict[str, Callable[[list[Any]], Pair]] = {
    "mean of 1": mean_of_batches(1), "mean of 10": mean_of_batches(10), "99.9 %": percentile(99.9),
    "99.99 %": percentile(99.99), "99.999 %": percentile(99.999),
}  # fmt: skip


def main(child: str, directories: list[str]) -> None:
    """All methods for all models."""
    toolkit = load(child)
    quantizer, recipe = (import_module(f"ai_edge_quantizer.{name}") for name in ("quantizer", "recipe"))
    for directory in map(Path, directories):
        data = np.load(directory / "data.npz")["data"]
        content, key, name = toolkit.with_signature((directory / "float.tflite").read_bytes())
        by_method: dict[str, dict[str, Any]] = {"min-max": toolkit.ranges(content, key, name, data)}
        made = quantizer.Quantizer(content)
        made.load_quantization_recipe(recipe.static_wi8_ai8())
        by_method["moving average"] = made.calibrate({key: [{name: sample[None]} for sample in data]})
        seen = observe(content, data, set(by_method["min-max"]))
        for method, work in METHODS.items():
            by_method[method] = dict(by_method["min-max"])
            for tensor, values in seen.items():
                extremes = by_method["min-max"][tensor]
                if np.size(extremes.get("min")) != 1:
                    continue  # weights per channel
                pair = work(values)
                shape = np.shape(extremes["min"])
                by_method[method][tensor] = {
                    side: np.full(shape, value, np.float32) for side, value in zip(("min", "max"), pair, strict=True)
                }
        for method, ranges in by_method.items():
            made = quantizer.Quantizer(content)
            made.load_quantization_recipe(recipe.static_wi8_ai8())
            (directory / f"{method}.tflite").write_bytes(made.quantize(ranges).quantized_model)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
