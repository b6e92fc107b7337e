"""From a trained Keras network to a model directory: int8 conversion, names, goldens, samples, manifest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from evaluate import Runner
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

Array = npt.NDArray[Any]

LICENSE = "CC-BY-4.0"
SOURCE = (
    "Trained by daemon/training/train.py on 'Optical Recognition of Handwritten Digits' by E. Alpaydin and C. Kaynak, "
    "UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0, as scikit-learn "
    "ships it"
)


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
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False, input_signature=signature)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
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


def write(
    folder: Path,
    *,
    content: bytes,
    manifest: str,
    labels: Sequence[str],
    goldens: Sequence[Array],
    samples: Mapping[str, Image.Image],
    truth: Mapping[str, Any],
) -> None:
    """Write a model directory. `goldens` are [H,W] uint8 pictures; `manifest` is its head, without what is computed."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "samples").mkdir(exist_ok=True)
    (folder / "model.tflite").write_bytes(content)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    runner = Runner(folder / "model.tflite")
    text = manifest.rstrip() + "\n"
    for number, picture in enumerate(goldens):
        tensor = (picture.astype(np.int16) - 128).astype(np.int8)[None, :, :, None]
        np.save(folder / "golden" / f"{number}.in.npy", tensor)
        np.save(folder / "golden" / f"{number}.out.npy", runner.run(tensor))
        text += (
            f'\n[[golden]]\ninputs = {{ "{runner.input.name}" = "golden/{number}.in.npy" }}\n'
            f'outputs = {{ "{runner.output.name}" = "golden/{number}.out.npy" }}\nruntime = "litert"\n'
        )
    text = text.replace("@SHA256@", hashlib.sha256(content).hexdigest())
    for name, image in samples.items():
        image.save(folder / "samples" / f"{name}.png", optimize=True)
    (folder / "samples" / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    partial = folder / "model.toml.part"
    partial.write_text(text)
    os.replace(partial, folder / "model.toml")


def described(content: bytes) -> str:
    """Operators of a model, for the log."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return re.sub(r"\s+", " ", ", ".join(codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators))
