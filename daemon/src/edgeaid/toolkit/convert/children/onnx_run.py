"""Child (any environment with onnxruntime): run an ONNX model. Usage: python onnx_run.py REQUEST.json

Request: model, shapes ({input name: shape}; "" = the first input; others as the file says), constants ({input name:
value}: no input of the result any more), inputs (.npz with `<run>_<input>`; "" = made here), count, seed, made (.npz to
write), outputs (.npz to write, `<run>_<output>`), shaped ("" or .onnx to write: the model with the shape of every
value; needs onnx), answer.
Answer: inputs and outputs ([name, shape, dtype]), free (names of inputs whose shape was chosen here), constants,
itself (per output: largest difference between onnxruntime with and without its optimisations, by the output's range).
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

ort: Any = import_module("onnxruntime")

#: Tried for dimensions that the file leaves open, until the model runs: pictures (height, width), then lengths.
_PICTURES = ((224, 224), (48, 320), (320, 320), (32, 320), (640, 640), (48, 192), (96, 96), (64, 64))
_LENGTHS = (320, 224, 512, 576, 256, 128, 64, 16, 1280, 16000, 900, 1)
_TYPES = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "int64": np.int64, "int32": np.int32,
    "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "uint16": np.uint16, "bool": np.bool_,
}  # fmt: skip
#: Inputs of these names hold a rate, not data: an operator's branch hangs on it.
_RATES = ("sr", "sample_rate", "sampling_rate")
Dims = list[Any]


def dtype(kind: str) -> Any:
    """numpy's type of onnxruntime's text `tensor(float)`."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    if name not in _TYPES:
        raise SystemExit(f"an input is {kind}: only models of numbers are converted")
    return _TYPES[name]


def shapes(inputs: list[Any], given: dict[str, list[int]]) -> Iterator[list[Dims]]:
    """Fixed shapes of all inputs, one proposal after the other; the batch is 1, equal names have equal sizes."""
    files = [given.get(i.name) or (given.get("") if n == 0 else None) or list(i.shape) for n, i in enumerate(inputs)]
    for number, (height, width) in enumerate(_PICTURES):
        length = _LENGTHS[number % len(_LENGTHS)]
        yield [fill(s, n == 0, (height, width), length) for n, s in enumerate(files)]
    for length in _LENGTHS:
        yield [fill(s, n == 0, (length, length), length) for n, s in enumerate(files)]
    for length in _LENGTHS:
        yield [fill(s, True, (length, length), length) for n, s in enumerate(files)]


def fill(shape: Dims, first: bool, picture: tuple[int, int], length: int) -> Dims:
    """One shape with its open dimensions filled; those of further inputs are 1 (states of a batch)."""
    free = [i for i, d in enumerate(shape) if not isinstance(d, int) or d < 1]
    done = list(shape)
    for i in free:
        done[i] = 1 if i == 0 or not first or "batch" in str(shape[i]).lower() else length
    last = len(shape) == 4 and shape[3] in (1, 3, 4)  # channels last
    pixels = [i for i in free if (i in (1, 2) if last else i >= 2)]
    if len(shape) == 4 and len(pixels) == 2 and first:
        done[pixels[0]], done[pixels[1]] = picture
    elif len(shape) == 4 and len(pixels) == 1 and first:
        done[pixels[0]] = picture[1]
    return done


def values(kind: Any, shape: Dims, generator: np.random.Generator, run: int, high: int) -> Any:
    """Noise, and for every other run coarse patches of both signs: a network may call all noise the same."""
    if np.dtype(kind).kind == "f":
        noise = generator.uniform(0, 1, shape)
        if run % 2 and len(shape) == 4:
            patches = generator.uniform(-1, 1, [*shape[:2], 4, 4])
            rows, columns = (np.arange(n) * 4 // n for n in shape[2:])
            noise = 0.9 * patches[:, :, rows][..., columns] + 0.1 * noise
        return noise.astype(kind)
    if np.dtype(kind).kind == "b":
        return generator.integers(0, 2, shape).astype(kind)
    return generator.integers(0, high, shape).astype(kind)


def session(model: Any, optimise: bool = True) -> Any:
    """A session on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def make(run: Any, request: dict[str, Any], constants: dict[str, Any]) -> tuple[list[Dims], list[dict[str, Any]]]:
    """Shapes that the model runs with, and its inputs for every run."""
    inputs = [i for i in run.get_inputs() if i.name not in constants]
    reason = ""
    for high in (256, 10, 2):
        for chosen in shapes(inputs, request.get("shapes") or {}):
            generator = np.random.default_rng(request.get("seed", 0))
            feeds = [
                {i.name: values(dtype(i.type), s, generator, n, high) for i, s in zip(inputs, chosen, strict=True)}
                for n in range(request["count"])
            ]
            try:
                run.run(None, {**feeds[0], **constants})
            except Exception as error:  # onnxruntime has an exception of its own for each status
                reason = str(error).splitlines()[0][-300:]
            else:
                return chosen, feeds
        if all(np.dtype(dtype(i.type)).kind == "f" for i in inputs):
            break
    shown = ", ".join(f"{i.name} {i.shape}" for i in inputs)
    raise SystemExit(f"onnxruntime runs the model with no shape tried ({shown}); give --shape ({reason})")


def itself(model: str, feeds: list[dict[str, Any]], references: list[list[Any]]) -> list[float]:
    """How far onnxruntime is from itself, by each output's range."""
    try:
        other = session(model, optimise=False)
        again = [other.run(None, feed) for feed in feeds]
    except Exception:  # some models run only after its optimisations
        return [0.0] * len(references[0])
    errors = []
    for j, first in enumerate(references[0]):
        a, b = (np.stack([r[j] for r in runs]).astype(np.float64) for runs in (references, again))
        spread = float(np.ptp(a)) if first.size else 0.0
        errors.append(float(np.nanmax(np.abs(a - b))) / spread if spread else 0.0)
    return errors


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    run = session(request["model"])
    constants = {
        i.name: np.array(request.get("constants", {}).get(i.name, 16000), dtype(i.type))
        for i in run.get_inputs()
        if i.name in request.get("constants", {}) or (i.name in _RATES and not i.shape)
    }
    inputs = [i for i in run.get_inputs() if i.name not in constants]
    if request.get("inputs"):
        with np.load(request["inputs"], allow_pickle=False) as data:
            runs = len({key.split("_")[0] for key in data.files})
            feeds = [
                {i.name: data[f"{r}_{n}"].astype(dtype(i.type)) for n, i in enumerate(inputs)} for r in range(runs)
            ]
        chosen = [list(feeds[0][i.name].shape) for i in inputs]
    else:
        chosen, feeds = make(run, request, constants)
        kept = {f"{r}_{n}": feed[i.name] for r, feed in enumerate(feeds) for n, i in enumerate(inputs)}
        np.savez(request["made"], **kept)
    references = [run.run(None, {**feed, **constants}) for feed in feeds]
    for output, value in zip(run.get_outputs(), references[0], strict=True):
        if not isinstance(value, np.ndarray):
            raise SystemExit(
                f"output {output.name} is {output.type}, not a tensor: models of ai.onnx.ml stay with ONNX"
            )
    np.savez(request["outputs"], **{f"{r}_{j}": v for r, out in enumerate(references) for j, v in enumerate(out)})
    if request.get("shaped"):
        onnx: Any = import_module("onnx")
        inference: Any = import_module("onnx.shape_inference")
        onnx.save(inference.infer_shapes(onnx.load(request["model"])), request["shaped"])
    answer = {
        "inputs": [[i.name, s, np.dtype(dtype(i.type)).name] for i, s in zip(inputs, chosen, strict=True)],
        "outputs": [
            [o.name, list(v.shape), v.dtype.name] for o, v in zip(run.get_outputs(), references[0], strict=True)
        ],
        "free": [i.name for i in inputs if any(not isinstance(d, int) or d < 1 for d in i.shape[1:])],
        "constants": {name: value.tolist() for name, value in constants.items()},
        "itself": itself(request["model"], [{**f, **constants} for f in feeds], references),
    }
    with open(request["answer"], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1])
