#!/usr/bin/env python3
"""Train a classifier of handwritten digits on MNIST's four files, and lay out what `edgeai model deploy` wants.

usage: mnist.py MNIST OUT [--epochs N]

MNIST is a directory with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
t10k-labels-idx1-ubyte, each as it is or with .gz; any pictures of one size in that format will do. Writes
OUT/mnist.keras, OUT/train/*.png (pictures to calibrate with) and OUT/test/<class>/*.png (pictures to measure with).
Needs TensorFlow and Pillow: `edgeai model environments tensorflow --create` prints an interpreter that has both.
"""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import numpy.typing as npt
from keras import layers
from PIL import Image

Array = npt.NDArray[Any]
#: Pictures to calibrate with, and to measure with.
CALIBRATION, TESTED = 200, 1000


def read(directory: Path, name: str) -> Array:
    """An array of bytes in the IDX format: two zeros, a type, the number of dimensions, the dimensions, the values."""
    path = directory / name
    content = gzip.decompress((directory / f"{name}.gz").read_bytes()) if not path.is_file() else path.read_bytes()
    if content[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an IDX file of bytes")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def network(side: int, classes: int) -> keras.Model:
    """Two convolutions and two dense layers; every operator of it runs on each accelerator."""
    return keras.Sequential([
        layers.Input((side, side, 1)),
        layers.Conv2D(16, 5, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(32, 5, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.4),
        layers.Dense(classes, activation="softmax"),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    keras.utils.set_random_seed(1)
    pictures, labels = (read(options.mnist, f"train-{n}") for n in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    tested, truth = (read(options.mnist, f"t10k-{n}") for n in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    model = network(pictures.shape[1], int(labels.max()) + 1)
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pictures[..., None] / np.float32(255), labels, epochs=options.epochs, batch_size=64, verbose=2)
    (options.out / "train").mkdir(parents=True, exist_ok=True)
    model.save(options.out / "mnist.keras")
    for number, picture in enumerate(pictures[:CALIBRATION]):
        Image.fromarray(picture).save(options.out / "train" / f"{number:04}.png")
    for number, (picture, label) in enumerate(zip(tested[:TESTED], truth, strict=False)):
        part = options.out / "test" / str(label)
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(part / f"{number:04}.png")


if __name__ == "__main__":
    main()
