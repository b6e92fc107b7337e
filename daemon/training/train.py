#!/usr/bin/env python3
"""Make the embedded default models from scikit-learn's digits: train, quantise to int8, measure, write.

    python daemon/training/train.py digits --out /tmp/models     # also: scenes, mask

Writes DIR/<name>/1/ and prints what the int8 file scores on digits that it never saw. Needs requirements.lock and the
`edgeaid` package; minutes on two cores. All seeds are fixed; another TensorFlow or processor still gives other last
digits. With --model an int8 file that exists is measured and written again, nothing is trained.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its summation order depends on the number of threads

import export
import keras
import losses
import measure
import networks
import numpy as np
import numpy.typing as npt
import synth
import tensorflow as tf
from measure import Split
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Array = npt.NDArray[Any]

SEED = 20240501
#: Digits held out, the same share of each class; no model here ever sees one of them.
HELD_OUT = 540
BATCH = 32


def split() -> tuple[Split, Split]:
    """Digits to train with, and digits held out."""
    bunch = load_digits()
    parts = train_test_split(
        bunch.images, bunch.target, test_size=HELD_OUT, random_state=SEED, stratify=bunch.target, shuffle=True
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def fit(model: keras.Model, batches: Callable[[int], Any], loss: Any, *, epochs: int, steps: int) -> None:
    """Adam with a cosine schedule; `batches` gives a fresh (inputs, targets) iterator for each epoch."""
    schedule = keras.optimizers.schedules.CosineDecay(
        3e-4, epochs * steps, alpha=0.01, warmup_target=3e-3, warmup_steps=steps
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4)

    @tf.function(autograph=False)
    def step(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(targets, model(tf.cast(inputs, tf.float32)[..., None] / 255, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    for epoch in range(epochs):
        began, total, count = time.monotonic(), 0.0, 0
        for inputs, targets in batches(epoch):
            total += float(step(inputs, targets))
            count += 1
        print(f"epoch {epoch + 1}/{epochs}: loss {total / count:.4f}, {time.monotonic() - began:.0f} s", flush=True)


def fixed(model: keras.Model, build: Callable[[int], keras.Model]) -> keras.Model:
    """The same network with a batch of 1."""
    copy = build(1)
    copy.set_weights(model.get_weights())
    return copy


def scene_batches(
    scenes: list[synth.Scene], targets: Array, rng: np.random.Generator, size: int
) -> Callable[[int], Any]:
    """Shuffled batches of all scenes."""
    pictures = np.stack([scene.picture for scene in scenes])

    def batches(_: int) -> Any:
        order = rng.permutation(len(scenes))
        for at in range(0, len(scenes) - size + 1, size):
            chosen = order[at : at + size]
            yield pictures[chosen], targets[chosen]

    return batches


def train_digits(training: Split, epochs: int) -> bytes:
    """The classifier."""
    rng = np.random.default_rng(SEED)
    side, size, repeat = networks.DIGIT_SIDE, 64, 4
    model = networks.digits()
    steps = len(training.labels) * repeat // size

    def batches(_: int) -> Any:
        order = np.concatenate([rng.permutation(len(training.labels)) for _ in range(repeat)])
        for at in range(0, steps * size, size):
            chosen = order[at : at + size]
            yield np.stack([synth.augmented(training.images[i], rng, side) for i in chosen]), training.labels[chosen]

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fit(model, batches, loss, epochs=epochs, steps=steps)
    pictures = [synth.augmented(training.images[i], rng, side) for i in range(300)]
    return export.renamed(export.convert(fixed(model, networks.digits), pictures), "scores")


def train_scenes(training: Split, epochs: int, count: int) -> bytes:
    """The detector."""
    scenes = measure.scene_set(training, count, SEED + 1)
    model = networks.scenes()
    batches = scene_batches(scenes, losses.cell_targets(scenes), np.random.default_rng(SEED), BATCH)
    fit(model, batches, losses.cell_loss, epochs=epochs, steps=count // BATCH)
    return export.renamed(export.convert(fixed(model, networks.scenes), [s.picture for s in scenes[:300]]), "cells")


def train_mask(training: Split, epochs: int, count: int) -> bytes:
    """The segmenter."""
    scenes = measure.scene_set(training, count, SEED + 1)
    model = networks.mask()
    targets = np.stack([measure.half_mask(s) for s in scenes]).astype(np.int32)
    batches = scene_batches(scenes, targets, np.random.default_rng(SEED), BATCH)
    fit(model, batches, losses.mask_loss, epochs=epochs, steps=count // BATCH)
    return export.renamed(export.convert(fixed(model, networks.mask), [s.picture for s in scenes[:300]]), "points")


def write_held_out(file: Path, held_out: Split) -> None:
    """The held-out digits for tests that have no scikit-learn."""
    np.savez_compressed(file, images=held_out.images.astype(np.uint8), labels=held_out.labels.astype(np.uint8))
    print(f"{file}: {len(held_out.labels)} digits, {file.stat().st_size} bytes")


def main() -> int:
    """Parse the command line and do one job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "scenes", "mask", "held-out"), help="held-out: digits as .npz")
    parser.add_argument("--out", type=Path, required=True, help="directory for <name>/1/, or the .npz file")
    parser.add_argument("--model", type=Path, help="measure and write this int8 file instead of training one")
    parser.add_argument("--epochs", type=int, help="fewer for a quick look")
    parser.add_argument("--scenes", type=int, default=20000, help="scenes to train with (default 20000)")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    began = time.monotonic()
    training, held_out = split()
    if arguments.what == "held-out":
        write_held_out(arguments.out, held_out)
        return 0
    if arguments.model:
        content = arguments.model.read_bytes()
    elif arguments.what == "digits":
        content = train_digits(training, arguments.epochs or 40)
    elif arguments.what == "scenes":
        content = train_scenes(training, arguments.epochs or 24, arguments.scenes)
    else:
        content = train_mask(training, arguments.epochs or 12, arguments.scenes)
    {"digits": measure.digits, "scenes": measure.scenes, "mask": measure.mask}[arguments.what](
        content, arguments.out, held_out
    )
    print(f"{len(content)} bytes, operators: {export.described(content)}")
    print(f"took {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
