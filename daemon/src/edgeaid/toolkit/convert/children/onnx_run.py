"""Child (any environment with onnxruntime, or onnx alone): run an ONNX model. Usage: python onnx_run.py REQUEST.json

Request: model, inputs (.npz with `data`: runs x first input; "" = random ones, written to `made`), made, count, seed,
outputs (.npz to write: `data` of the first output), shaped (optional .onnx to write: the model with the shape of every
value in it; needs onnx), answer.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np


def runner(path: str) -> tuple[tuple[str, list[Any], Any], Callable[[Any], Any]]:
    """(name, shape, dtype) of the first input, and a function from its value to the first output."""
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError:
        onnx: Any = import_module("onnx")
        reference: Any = import_module("onnx.reference").ReferenceEvaluator(path)
        model = onnx.load(path, load_external_data=False)
        weights = {i.name for i in model.graph.initializer}
        first = next(i for i in model.graph.input if i.name not in weights)
        kind = first.type.tensor_type
        shape = [d.dim_value or None for d in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        return (first.name, shape, dtype), lambda value: reference.run(None, {first.name: value})[0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    dtype = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}.get(
        first.type, np.float32
    )
    shape = [d if isinstance(d, int) else None for d in first.shape]
    return (first.name, shape, dtype), lambda value: session.run(None, {first.name: value})[0]


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    (name, shape, dtype), run = runner(request["model"])
    fixed = request.get("shape") or [1 if d is None else d for d in shape]
    if request.get("inputs"):
        data = np.load(request["inputs"], allow_pickle=False)["data"].astype(dtype)
    else:
        generator = np.random.default_rng(request.get("seed", 0))
        data = generator.uniform(0, 1, [request["count"], *fixed])
        data = (data * 255 if np.dtype(dtype).kind in "iu" else data).astype(dtype)
        np.savez(request["made"], data=data)
    np.savez(request["outputs"], data=np.stack([run(sample) for sample in data]))
    if request.get("shaped"):
        onnx: Any = import_module("onnx")
        inference: Any = import_module("onnx.shape_inference")
        onnx.save(inference.infer_shapes(onnx.load(request["model"])), request["shaped"])
    with open(request["answer"], "w") as file:
        json.dump({"input": name, "shape": fixed, "dtype": np.dtype(dtype).name}, file)


if __name__ == "__main__":
    main(sys.argv[1])
