#!/usr/bin/env python3
"""Train an SSD detector on pictures of your own.

usage: ssd.py PICTURES OUT [--epochs N] [--side 128] [--backbone FILE.keras]

PICTURES is a directory of pictures with boxes.csv: `file,label,xmin,ymin,xmax,ymax` in pixels, a line per object; a
picture without objects has a line with its name only. Every fifth picture is kept aside. Writes OUT/detector.keras,
OUT/labels.txt, OUT/train/*.png (to calibrate with) and OUT/test/*.png with OUT/test/boxes.csv (to look at). One output
[1, N, 4 + classes]: centre, size (0 to 1) and a score per class and anchor, which the decoder `yolov8` reads. Without
EXP and TRANSPOSE, so that all of it fits an Edge TPU. `--backbone` takes the weights of layers of the same name and
shape from another file, such as a detector that was trained before. Needs TensorFlow and Pillow: `edgeai model
environments tensorflow --create` prints an interpreter that has both.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers, ops
from PIL import Image

Array = npt.NDArray[Any]
#: Side of the anchors of each map as a share of the picture, and their width by their height.
SCALES = (0.14, 0.28, 0.56, 0.9)
RATIOS = (1.0, 2.0, 0.5)
BATCH = 16


@dataclass(slots=True)
class Annotated:
    """A picture and what is in it: boxes [n,4] of centre and size, 0 to 1, and class numbers [n]."""

    file: str
    pixels: Array
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def load(directory: Path, side: int) -> tuple[list[Annotated], list[str]]:
    """All pictures, stretched to `side`, and the labels in alphabetical order."""
    with (directory / "boxes.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and row[0] != "file"]
    labels = sorted({row[1] for row in rows if len(row) > 1 and row[1]})
    pictures: dict[str, Annotated] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for name, *rest in rows:
        if name not in pictures:
            with Image.open(directory / name) as image:
                sizes[name] = image.size
                pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
            pictures[name] = Annotated(name, pixels)
        if len(rest) == 5 and rest[0]:
            width, height = sizes[name]
            x0, y0, x1, y1 = (float(v) for v in rest[1:])
            box = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            pictures[name].boxes.append(box)
            pictures[name].classes.append(labels.index(rest[0]))
        pictures[name].rows.append([name, *rest])
    return list(pictures.values()), labels


def anchors(maps: list[int]) -> Array:
    """[N,4] centre and size, 0 to 1: per cell one box for each ratio, and a larger square."""
    result = []
    for number, cells in enumerate(maps):
        scale, larger = SCALES[number], (SCALES[number] * SCALES[number + 1]) ** 0.5
        sizes = [(scale * r**0.5, scale / r**0.5) for r in RATIOS] + [(larger, larger)]
        centres = (np.arange(cells) + 0.5) / cells
        for y in centres:
            for x in centres:
                result += [(x, y, w, h) for w, h in sizes]
    return np.array(result, np.float32)


def separable(x: Any, filters: int, stride: int, name: str) -> Any:
    """Depthwise and pointwise convolution, each normalised."""
    x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"{name}_dw")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9, name=f"{name}_dw_bn")(x))
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_pw")(x)
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9, name=f"{name}_pw_bn")(x))


def network(side: int, classes: int) -> tuple[keras.Model, Array]:
    """A small MobileNet with an SSD head on its maps of 1/8, 1/16 and 1/32; and the anchors."""
    start = keras.Input((side, side, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="first")(start)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9, name="first_bn")(x))
    ends = []
    for number, (filters, stride) in enumerate(((32, 2), (32, 1), (64, 2), (64, 1), (96, 2), (96, 1), (128, 2))):
        x = separable(x, filters, stride, f"block{number}")
        if number in (3, 5, 6):
            ends.append(x)
    grid = anchors([end.shape[1] for end in ends])
    each, places, scores = len(RATIOS) + 1, [], []
    for number, end in enumerate(ends):
        count = end.shape[1] * end.shape[2] * each
        box = layers.Conv2D(each * 4, 3, padding="same", name=f"boxes{number}")(end)
        places.append(layers.Reshape((count, 4))(box))
        rare = keras.initializers.Constant(-4.0)
        score = layers.Conv2D(each * classes, 3, padding="same", bias_initializer=rare, name=f"scores{number}")(end)
        scores.append(layers.Reshape((count, classes))(score))
    moved = layers.Concatenate(axis=1)(places)
    # Centre: the anchor's, moved by a tenth of its size per unit. Size: the anchor's, times up to four.
    centre = ops.add(ops.multiply(moved[..., :2], 0.1 * grid[:, 2:]), grid[:, :2])
    root = ops.sigmoid(moved[..., 2:])
    size = ops.multiply(ops.multiply(root, root), 4 * grid[:, 2:])
    chances = layers.Activation("sigmoid")(layers.Concatenate(axis=1)(scores))
    boxes = layers.ReLU(1.0)(layers.Concatenate(axis=-1)([centre, size]))
    return keras.Model(start, layers.Concatenate(axis=-1, name="objects")([boxes, chances])), grid


def overlaps(boxes: Array, grid: Array) -> Array:
    """[n,N] intersection over union of boxes and anchors, both centre and size."""
    low = np.maximum((boxes[:, :2] - boxes[:, 2:] / 2)[:, None], (grid[:, :2] - grid[:, 2:] / 2)[None])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:] / 2)[:, None], (grid[:, :2] + grid[:, 2:] / 2)[None])
    both = np.clip(high - low, 0, None).prod(-1)
    return np.asarray(both / (boxes[:, 2:].prod(-1)[:, None] + grid[:, 2:].prod(-1)[None] - both))


def target(picture: Annotated, grid: Array, classes: int) -> Array:
    """[N,5+classes]: box, state (1 = object, 0 = none, -1 = either), class scores that are right."""
    made = np.zeros((len(grid), 5 + classes), np.float32)
    if not picture.boxes:
        return made
    boxes = np.array(picture.boxes, np.float32)
    shared = overlaps(boxes, grid)
    shared[np.arange(len(boxes)), shared.argmax(1)] = 1.0  # every object has an anchor
    best = shared.argmax(0)
    degree = shared.max(0)
    made[:, 4] = np.where(degree >= 0.5, 1, np.where(degree >= 0.4, -1, 0))
    made[:, :4] = boxes[best]
    positive = np.flatnonzero(degree >= 0.5)
    made[positive, 5 + np.array(picture.classes)[best[positive]]] = 1
    return made


def loss_of(grid: Array) -> Any:
    """Focal cross entropy of the scores, smooth L1 of the boxes that belong to an object."""
    sides = tf.constant(grid[:, 2:])

    def huber(x: Any) -> Any:
        x = tf.abs(x)
        return tf.reduce_sum(tf.where(x < 1, x * x / 2, x - 0.5), -1)

    def loss(wanted: Any, made: Any) -> Any:
        state = wanted[..., 4]
        positive = tf.cast(state > 0.5, tf.float32)
        counted = tf.cast(state > -0.5, tf.float32)[..., None]
        chances = tf.clip_by_value(made[..., 4:], 1e-6, 1 - 1e-6)
        right = wanted[..., 5:]
        hit = tf.where(right > 0.5, chances, 1 - chances)
        weight = tf.where(right > 0.5, 0.6, 0.4) * (1 - hit) ** 2
        scores = -tf.reduce_sum(counted * weight * tf.math.log(hit))
        centres = huber(5 * (made[..., :2] - wanted[..., :2]) / sides)
        sizes = huber(5 * tf.math.log((made[..., 2:4] + 1e-3) / (wanted[..., 2:4] + 1e-3)))
        return (4 * scores + tf.reduce_sum(positive * (centres + sizes))) / (tf.reduce_sum(positive) + 1)

    return loss


def train(model: keras.Model, pictures: list[Annotated], grid: Array, classes: int, epochs: int) -> None:
    """Adam with a cosine schedule; brightness and mirroring vary."""
    pixels = np.stack([p.pixels for p in pictures])
    targets = np.stack([target(p, grid, classes) for p in pictures])
    mirrored = []
    for p in pictures:
        boxes = [(1 - x, y, w, h) for x, y, w, h in p.boxes]
        mirrored.append(target(Annotated(p.file, p.pixels, boxes, p.classes), grid, classes))
    both = np.stack([targets, np.stack(mirrored)])
    steps = max(1, len(pictures) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(2e-4, epochs * steps, 0.02, warmup_target=3e-3, warmup_steps=steps)
    optimiser = keras.optimizers.Adam(rate)
    compare = loss_of(grid)
    generator = np.random.default_rng(1)

    @tf.function
    def step(values: Any, wanted: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = compare(wanted, model(values, training=True))
        optimiser.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for epoch in range(epochs):
        order, total = generator.permutation(len(pictures)), 0.0
        for start in range(0, max(1, len(pictures) - BATCH + 1), BATCH):
            part = order[start : start + BATCH]
            turned = generator.integers(0, 2, len(part))
            values = pixels[part].astype(np.float32) / 255
            values = np.where(turned[:, None, None, None] == 1, values[:, :, ::-1], values)
            values = np.clip(values * generator.uniform(0.7, 1.3, (len(part), 1, 1, 1)), 0, 1).astype(np.float32)
            total += float(step(tf.constant(values), tf.constant(both[turned, part])))
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}", flush=True)


def taken(model: keras.Model, path: Path) -> int:
    """Take weights of layers of the same name and shape from another file; how many were taken."""
    count = 0
    for layer in keras.models.load_model(path, compile=False).layers:
        own = next((each for each in model.layers if each.name == layer.name and each.weights), None)
        if own is not None and [w.shape for w in own.weights] == [w.shape for w in layer.weights]:
            own.set_weights(layer.get_weights())
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--backbone", type=Path)
    options = parser.parse_args()
    keras.utils.set_random_seed(1)
    pictures, labels = load(options.pictures, options.side)
    kept, aside = [p for n, p in enumerate(pictures) if n % 5], pictures[::5]
    model, grid = network(options.side, len(labels))
    if options.backbone:
        print(f"{taken(model, options.backbone)} layers start from {options.backbone}")
    print(f"{len(kept)} pictures to train with, {len(aside)} kept aside, {len(grid)} anchors, labels {labels}")
    train(model, kept, grid, len(labels), options.epochs)
    (options.out / "train").mkdir(parents=True, exist_ok=True)
    (options.out / "test").mkdir(parents=True, exist_ok=True)
    model.save(options.out / "detector.keras")
    (options.out / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    for number, picture in enumerate(kept[:200]):
        Image.fromarray(picture.pixels).save(options.out / "train" / f"{number:04}.png")
    with (options.out / "test" / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(row for p in aside for row in p.rows)
    for picture in aside:
        (options.out / "test" / Path(picture.file).name).write_bytes((options.pictures / picture.file).read_bytes())


if __name__ == "__main__":
    main()
