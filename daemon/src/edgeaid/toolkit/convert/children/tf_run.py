"""Child (environment tensorflow): run a SavedModel or a frozen graph on random inputs.

Usage: python tf_run.py REQUEST.json
Request: model, kind (saved-model | graphdef), input and output (node names, frozen graphs only), shape (of the first
input; [] = as the model says, 1 where it does not), count, seed, made and outputs (.npz to write, `data`: runs x
value), answer (JSON to write: shape, and output, the signature's name of what was kept).
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf


def saved_model(request: dict[str, Any]) -> tuple[Any, str, Callable[[Any], Any]]:
    """(first input's TensorSpec, output's name, function from value to first output)."""
    loaded = tf.saved_model.load(request["model"])
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    if len(specs) != 1:
        raise SystemExit(f"the model has {len(specs)} inputs; only models with one are compared")
    (name, spec), output = next(iter(specs.items())), min(signature.structured_outputs)

    def run(value: Any, loaded: Any = loaded) -> Any:  # keeps what the signature's variables belong to
        return signature(**{name: tf.constant(value, spec.dtype)})[output].numpy()

    return spec, output, run


def frozen_graph(request: dict[str, Any]) -> tuple[Any, str, Callable[[Any], Any]]:
    """The same for a frozen graph."""
    definition = tf.compat.v1.GraphDef()
    with open(request["model"], "rb") as file:
        definition.ParseFromString(file.read())
    whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    graph = whole.graph
    first, last = (graph.get_tensor_by_name(f"{request[side]}:0") for side in ("input", "output"))
    part = whole.prune(first, last)
    return tf.TensorSpec(first.shape, first.dtype), "", lambda value: part(tf.constant(value, first.dtype)).numpy()


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    spec, output, run = (saved_model if request["kind"] == "saved-model" else frozen_graph)(request)
    if spec.shape.rank is None and not request["shape"]:
        raise SystemExit("the model does not say the shape of its input; give it with --shape")
    shape = request["shape"] or [1 if d is None else d for d in spec.shape]
    generator = np.random.default_rng(request["seed"])
    values = generator.uniform(0, 1, [request["count"], *shape]).astype(spec.dtype.as_numpy_dtype)
    np.savez(request["made"], data=values)
    np.savez(request["outputs"], data=np.stack([run(value) for value in values]))
    with open(request["answer"], "w") as file:
        json.dump({"shape": shape, "output": output}, file)


if __name__ == "__main__":
    main(sys.argv[1])
