"""Child (environment tensorflow): Keras, SavedModel or frozen graph to TFLite. Usage: python tf_convert.py REQUEST.json

Request: model, kind (keras | saved-model | graphdef), inputs and outputs (names, frozen graphs only), shape (optional
fixed input shape), schemes ({int8 | int16x8 | float16 | dynamic: file to write}), representative (.npz with `data`,
float32, first dimension = samples; int8 and int16x8 only), io (int8 | uint8 | float32; int8 only), per_channel,
float_out, answer (JSON to write).
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf


def from_frozen(function: Any) -> Callable[[], Any]:
    """Variables become constants first: Keras 3 leaves READ_VARIABLE in the graph, which does not calibrate."""
    constants = import_module("tensorflow.python.framework.convert_to_constants")
    frozen = constants.convert_variables_to_constants_v2(function)
    return lambda: tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def function_of(request: dict[str, Any]) -> Callable[[], Any]:
    """A converter's constructor for the model, with batch size 1."""
    kind, path = request["kind"], request["model"]
    if kind == "graphdef":
        inputs, outputs = request["inputs"], request["outputs"]
        shapes = {inputs[0]: request["shape"]} if request.get("shape") else None
        return lambda: tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(path, inputs, outputs, shapes)
    if kind == "saved-model":
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
        names = list(signature.structured_input_signature[1])
        specs = [signature.structured_input_signature[1][n] for n in names]
        fixed = [
            tf.TensorSpec([1 if d is None else d for d in s.shape], s.dtype, n)
            for n, s in zip(names, specs, strict=True)
        ]

        def run(*values: Any) -> Any:
            return signature(**dict(zip(names, values, strict=True)))

        traced = tf.function(run, input_signature=fixed).get_concrete_function()
        return from_frozen(traced)
    model = tf.keras.models.load_model(path, compile=False)
    fixed_shapes = [[1, *tensor.shape[1:]] for tensor in model.inputs]
    if any(d is None for shape in fixed_shapes for d in shape):
        raise SystemExit("the model's input has variable dimensions; export it with fixed height and width")
    # A fixed batch keeps SHAPE, STRIDED_SLICE and PACK out of the graph.
    fixed = [tf.TensorSpec(s, t.dtype, t.name.split(":")[0]) for s, t in zip(fixed_shapes, model.inputs, strict=True)]

    def call(*values: Any) -> Any:
        return model(values[0] if len(values) == 1 else list(values), training=False)

    concrete = tf.function(call, input_signature=fixed).get_concrete_function()
    return from_frozen(concrete)


def quantise(converter: Any, scheme: str, request: dict[str, Any]) -> None:
    """Set the converter's options for a scheme."""
    lite = tf.lite
    converter.optimizations = [lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel = not request.get("per_channel", True)
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme not in ("int8", "int16x8"):
        return
    data = np.load(request["representative"], allow_pickle=False)["data"].astype(np.float32)

    def samples() -> Iterator[list[Any]]:
        for number, sample in enumerate(data):
            print(f"sample {number + 1} of {len(data)}", flush=True)
            yield [sample[None]]

    converter.representative_dataset = samples
    if scheme == "int16x8":
        wide = lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide]
        converter.inference_input_type = converter.inference_output_type = tf.int16
        return
    converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS_INT8]
    io = {"int8": tf.int8, "uint8": tf.uint8, "float32": tf.float32}[request["io"]]
    converter.inference_input_type = converter.inference_output_type = io


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    tf_rounded: Any = import_module("tf_rounded")
    graph = tf_rounded.load(request["model"]) if request["kind"] == "graphdef" else None
    own, note = None, ""
    if graph is not None and tf_rounded.rounded(graph):
        directory = os.path.dirname(request["answer"])
        if "int8" in request["schemes"]:
            own = tf_rounded.by_own_ranges(request, graph, os.path.join(directory, "own_ranges.pb"))
            note = "ranges are those that the graph was trained with" if own else (
                "the graph's ranges do not suffice: all ranges are measured with the representative data"
            )  # fmt: skip
        plain = os.path.join(directory, "without_ranges.pb")
        tf_rounded.without(graph, plain)
        request["model"] = plain
    make = function_of(request)
    if request.get("float_out"):
        with open(request["float_out"], "wb") as binary:
            binary.write(make().convert())
    for scheme, output in request["schemes"].items():
        content = own if scheme == "int8" else None
        if content is None:
            converter = make()
            quantise(converter, scheme, request)
            content = converter.convert()
        with open(output, "wb") as binary:
            binary.write(content)
    with open(request["answer"], "w") as file:
        json.dump({"tensorflow": tf.__version__, "note": note}, file)


if __name__ == "__main__":
    main(sys.argv[1])
