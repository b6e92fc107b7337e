"""From a trained Keras network to an int8 model file with names that a reader understands."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from typing import Any

import flatbuffers
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

Array = npt.NDArray[Any]


def convert(model: keras.Model, pictures: Iterable[Array]) -> bytes:
    """Int8 weights, inputs and outputs. `pictures` [H,W] uint8 set the ranges.

    The batch of `model` must be fixed at 1: with an open one, a Flatten becomes SHAPE, STRIDED_SLICE and PACK.
    """

    def representative() -> Iterable[list[Array]]:
        # Both ends of the range first, so that the input's scale is exactly 1/255 and stored = grey - 128.
        yield [np.zeros(model.input_shape, np.float32)]
        yield [np.ones(model.input_shape, np.float32)]
        for picture in pictures:
            yield [(picture.astype(np.float32) / 255)[None, :, :, None]]

    signature = [keras.InputSpec(shape=model.input_shape, dtype="float32", name="image")]
    with tempfile.TemporaryDirectory() as directory:
        model.export(directory, verbose=False, input_signature=signature)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def renamed(content: bytes, output: str) -> bytes:
    """Call the input "image" and the output `output`, drop the names of inner tensors and the converter's remarks.

    Inner names are the paths of the training machine's graph: a third of a small file, and nobody reads them.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    for number, tensor in enumerate(graph.tensors):
        tensor.name = f"t{number}".encode()
    graph.tensors[graph.inputs[0]].name = b"image"
    graph.tensors[graph.outputs[0]].name = output.encode()
    graph.name = b"main"
    model.description = b""
    # Signatures and metadata repeat the old names.
    model.signatureDefs = []
    model.metadata = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def described(content: bytes) -> str:
    """Operators of a model, for the log."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return re.sub(r"\s+", " ", ", ".join(codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators))
