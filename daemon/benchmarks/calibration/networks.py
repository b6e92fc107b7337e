"""Eleven small networks of different kinds, trained on drawn digits or made sounds, with the same data for all methods.

usage (in the tensorflow environment): networks.py DIRECTORY [NAME...]
Writes DIRECTORY/<name>/float.tflite, tensorflow.tflite (int8 by TensorFlow's own converter) and data.npz: `data` (200
samples for calibration, float32), `x` and `y` (1000 for the test), `metric`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

layers = tf.keras.layers
SIZE = 24
Ends = tuple[Any, Any]


def draw(digit: int, generator: np.random.Generator) -> tuple[Any, Any]:
    """A digit as it is and with noise, float32 [SIZE, SIZE], 0..1."""
    image = Image.new("L", (SIZE * 2, SIZE * 2))
    font = ImageFont.load_default(size=float(generator.uniform(26, 40)))
    x, y = generator.uniform(9, 18, 2)
    ImageDraw.Draw(image).text((x, y - 8), str(digit), fill=int(generator.integers(150, 256)), font=font)
    image = image.rotate(float(generator.uniform(-15, 15))).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    clean = np.asarray(image, np.float32) / 255
    return clean, np.clip(clean + generator.normal(0, 0.05, clean.shape), 0, 1).astype(np.float32)


def digits(count: int, seed: int) -> tuple[Any, Any, Any]:
    """Noisy pictures [count, SIZE, SIZE, 1], classes, clean pictures."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, count)
    pairs = [draw(int(n), generator) for n in labels]
    return np.stack([p[1] for p in pairs])[..., None], labels, np.stack([p[0] for p in pairs])[..., None]


def sounds(count: int, seed: int) -> tuple[Any, Any]:
    """Tones of four pitches, steady or rising, in noise: float32 [count, 512, 1], and eight classes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 8, count)
    t = np.arange(512) / 512
    made = []
    for label in labels:
        pitch, rise = 12 + 9 * (label % 4) + generator.uniform(-2, 2), (label // 4) * 25
        tone = np.sin(2 * np.pi * (pitch * t + rise * t * t) + generator.uniform(0, 6))
        made.append(generator.uniform(0.2, 1) * tone * np.exp(-generator.uniform(0, 4) * t))
    values = np.stack(made) + generator.normal(0, 0.25, (count, 512))
    return values.astype(np.float32)[..., None], labels


def boxes(clean: Any) -> Any:
    """Top, left, bottom, right of what is drawn, some way from 0..1 as real regressions are."""
    corners = []
    for picture in clean[..., 0]:
        rows, columns = np.where(picture > 0.2)
        corners.append([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    return (np.array(corners, np.float32) - 12) / 4


def conv(x: Any, count: int, kernel: int = 3, stride: int = 1, activation: str | None = "relu") -> Any:
    x = layers.Conv2D(count, kernel, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x


def depthwise(x: Any, stride: int, activation: str) -> Any:
    x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
    return layers.Activation(activation)(layers.BatchNormalization(momentum=0.9)(x))


def picture() -> Any:
    return tf.keras.Input((SIZE, SIZE, 1))


def classes(x: Any, count: int = 10) -> Any:
    return layers.Dense(count, activation="softmax")(x)


def plain() -> Ends:
    """Convolutions with biases, pooling, one dense layer."""
    x = start = picture()
    for count in (8, 16):
        x = layers.MaxPooling2D()(layers.Conv2D(count, 3, padding="same", activation="relu")(x))
    return start, classes(layers.Flatten()(x))


def dense() -> Ends:
    start = picture()
    x = layers.Dense(64, activation="relu")(layers.Flatten()(start))
    return start, classes(layers.Dense(32, activation="tanh")(x))


def mobilenet() -> Ends:
    """Depthwise separable, ReLU6."""
    start = picture()
    x = conv(start, 8, stride=2, activation="relu6")
    for count, stride in ((16, 1), (32, 2), (32, 1)):
        x = conv(depthwise(x, stride, "relu6"), count, 1, activation="relu6")
    return start, classes(layers.GlobalAveragePooling2D()(x))


def mobilenet3() -> Ends:
    """Inverted residuals with squeeze and excitation, hard swish."""
    start = picture()
    x = conv(start, 8, stride=2, activation="hard_silu")
    for count, stride in ((16, 1), (24, 2)):
        y = depthwise(conv(x, 32, 1, activation="hard_silu"), stride, "hard_silu")
        weight = layers.Conv2D(8, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(y))
        y = layers.Multiply()([y, layers.Conv2D(32, 1, activation="hard_sigmoid")(weight)])
        x = conv(y, count, 1, activation=None)
    return start, classes(layers.GlobalAveragePooling2D()(x))


def resnet() -> Ends:
    start = picture()
    x = conv(start, 12)
    for count in (12, 24):
        x = conv(x, count, stride=2)
        x = layers.Activation("relu")(layers.Add()([x, conv(conv(x, count), count, activation=None)]))
    return start, classes(layers.GlobalAveragePooling2D()(x))


def densenet() -> Ends:
    """Concatenations, swish."""
    start = picture()
    x = conv(start, 8)
    for _ in range(2):
        for _ in range(2):
            x = layers.Concatenate()([x, conv(x, 8, activation="silu")])
        x = layers.AveragePooling2D(2)(x)
    return start, classes(layers.GlobalAveragePooling2D()(x))


def attention() -> Ends:
    """Patches, two blocks of self-attention with layer normalisation."""
    start = picture()
    x = layers.Reshape((16, 24))(layers.Conv2D(24, 6, strides=6)(start))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        query, key, value = (layers.Dense(24)(y) for _ in range(3))
        weights = layers.Softmax()(layers.Dot((2, 2))([query, key]))
        x = layers.Add()([x, layers.Dot((2, 1))([weights, value])])
        y = layers.Dense(48, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(24)(y)])
    return start, classes(layers.GlobalAveragePooling1D()(x))


def sound() -> Ends:
    """Convolutions in one dimension on samples of both signs."""
    x = start = tf.keras.Input((512, 1))
    for count in (8, 16, 24):
        x = layers.Conv1D(count, 9, strides=3, padding="same", activation="relu")(x)
    return start, classes(layers.GlobalAveragePooling1D()(x), 8)


def segmentation() -> Ends:
    """A small U-Net: transposed convolution, bilinear resizing, skips."""
    start = picture()
    a = conv(start, 8)
    b = conv(a, 16, stride=2)
    x = layers.Conv2DTranspose(16, 2, strides=2)(conv(b, 24, stride=2))
    x = layers.UpSampling2D(interpolation="bilinear")(conv(layers.Concatenate()([x, b]), 16))
    return start, layers.Conv2D(1, 1, activation="sigmoid")(conv(layers.Concatenate()([x, a]), 8))


def denoiser() -> Ends:
    """Leaky ReLU; the answer is a picture of real values."""
    x = start = picture()
    for count in (12, 8):
        x = layers.LeakyReLU()(layers.Conv2D(count, 3, strides=2, padding="same")(x))
    x = layers.LeakyReLU()(layers.Conv2DTranspose(12, 2, strides=2)(x))
    return start, layers.Conv2D(1, 3, padding="same")(layers.Conv2DTranspose(8, 2, strides=2)(x))


def detector() -> Ends:
    """Four coordinates."""
    x = start = picture()
    for count in (8, 16, 24):
        x = conv(x, count, stride=2)
    return start, layers.Dense(4)(layers.Flatten()(x))


#: Network, and epochs of training.
NETWORKS: dict[str, tuple[Callable[[], Ends], int]] = {
    "plain": (plain, 8), "dense": (dense, 12), "mobilenet": (mobilenet, 10), "mobilenet3": (mobilenet3, 12),
    "resnet": (resnet, 12), "densenet": (densenet, 8), "attention": (attention, 16), "sound": (sound, 10),
    "segmentation": (segmentation, 3), "denoiser": (denoiser, 8), "detector": (detector, 12),
}  # fmt: skip


def task(name: str, count: int, seed: int) -> tuple[Any, Any, str, str]:
    """Inputs, what is right, loss, metric."""
    if name == "sound":
        return *sounds(count, seed), "sparse_categorical_crossentropy", "accuracy"
    x, labels, clean = digits(count, seed)
    match name:
        case "segmentation":
            return x, (clean > 0.3).astype(np.float32), "binary_crossentropy", "iou"
        case "denoiser":
            return x, clean, "mse", "r2"
        case "detector":
            return x, boxes(clean), "mse", "boxes"
        case _:
            return x, labels, "sparse_categorical_crossentropy", "accuracy"


def export(model: Any, calibration: Any, directory: Path) -> None:
    """The float model and TensorFlow's int8 one, both with batch size 1."""
    spec = tf.TensorSpec([1, *calibration.shape[1:]], tf.float32, name="input")
    traced = tf.function(lambda v: model(v, training=False)).get_concrete_function(spec)
    constants = import_module("tensorflow.python.framework.convert_to_constants")
    frozen = constants.convert_variables_to_constants_v2(traced)
    for kind in ("float", "tensorflow"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        if kind == "tensorflow":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([v[None]] for v in calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        (directory / f"{kind}.tflite").write_bytes(converter.convert())


def main(directory: Path, names: list[str]) -> None:
    """Train what is not there yet."""
    for name, (build, epochs) in NETWORKS.items():
        target = directory / name
        if (names and name not in names) or (target / "data.npz").is_file():
            continue
        tf.keras.utils.set_random_seed(5)
        x, y, loss, metric = task(name, 4000, 1)
        test_x, test_y, _, _ = task(name, 1000, 2)
        model = tf.keras.Model(*build())
        model.compile(tf.keras.optimizers.Adam(2e-3), loss=loss)
        model.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
        target.mkdir(parents=True, exist_ok=True)
        export(model, x[:200], target)
        np.savez(target / "data.npz", data=x[:200], x=test_x, y=test_y, metric=metric)
        print(f"{name}: {model.count_params()} parameters", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
