#!/usr/bin/env python3
"""Make the embedded default models from scikit-learn's digits: train, quantise to int8, measure, write.

    python daemon/training/train.py digits --out /tmp/models     # also: scenes, mask

Writes DIR/<name>/1/ and prints what the int8 file scores on digits that it never saw. Needs requirements.lock and the
`edgeaid` package; minutes on two cores. All seeds are fixed; another TensorFlow or processor still
gives other last digits.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its summation order depends on the number of threads

import evaluate
import export
import keras
import networks
import numpy as np
import numpy.typing as npt
import synth
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from edgeaid.models.rules import OutputRules, PictureRules
from edgeaid.streams import postprocess

Array = npt.NDArray[Any]

SEED = 20240501
#: Every third digit or so is held out, the same number of each class; no model here ever sees one of them.
HELD_OUT = 540
LABELS = tuple(str(d) for d in range(10))
PICTURE = PictureRules.from_table({"resize": "letterbox", "color": "GRAY", "mean": [0.0], "std": [255.0]})
INPUT = """
[input]
resize = "letterbox"
filter = "bilinear"
color = "GRAY"
mean = [0.0]
std = [255.0]
"""


@dataclass(frozen=True, slots=True)
class Split:
    """Digits [n,8,8] of ink 0 to 16 and their classes [n]."""

    images: Array
    labels: Array


def split() -> tuple[Split, Split]:
    """Digits to train with, and digits held out."""
    bunch = load_digits()
    parts = train_test_split(
        bunch.images, bunch.target, test_size=HELD_OUT, random_state=SEED, stratify=bunch.target, shuffle=True
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def manifest(
    *, name: str, task: str, description: str, output: str, metric: str, value: float, samples: int, data: str
) -> str:
    """The manifest's head; export.write adds digest and goldens."""
    return f"""# Written by daemon/training/train.py; see docs/models.md for the schema.
schema = 1
name = "{name}"
task = "{task}"
description = "{description}"
license = "{export.LICENSE}"
source = "{export.SOURCE}"

[artifacts.cpu]
file = "model.tflite"
sha256 = "@SHA256@"
threads = 1

[labels]
file = "labels.txt"
{INPUT}
[output]
{output}
[tolerance]
default = 2
"cortex-a53" = 12

[accuracy]
metric = "{metric}"
value = {value:.4f}
samples = {samples}
dataset = "{data}"
"""


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


def scene_set(digits: Split, count: int, seed: int) -> list[synth.Scene]:
    """`count` scenes; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    return [synth.scene(digits.images, digits.labels, rng, networks.SCENE_SIDE) for _ in range(count)]


# --- digits ----------------------------------------------------------------------------------------------------------


def train_digits(out: Path, epochs: int) -> None:
    """The classifier."""
    training, held_out = split()
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
    content = export.renamed(export.convert(fixed(model, networks.digits), pictures), "scores")
    folder = out / "digits" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)
    runner = evaluate.Runner(folder / "model.tflite")
    output = OutputRules.from_table({"decoder": "classification", "activation": "softmax", "max_results": 5})

    def right(change: Callable[[Image.Image], Image.Image]) -> float:
        hits = 0
        for digit, label in zip(held_out.images, held_out.labels, strict=True):
            result = runner.ask(change(synth.render(digit)), PICTURE, output, LABELS)
            assert isinstance(result, postprocess.Classification)
            hits += result.classes[0].index == label
        return hits / len(held_out.labels)

    accuracy, inverted = right(lambda image: image), right(lambda image: image.point(lambda grey: 255 - grey))
    examples = {int(d): synth.render(held_out.images[np.flatnonzero(held_out.labels == d)[0]]) for d in range(10)}
    samples = {f"digit-{d}": examples[d] for d in (2, 5, 7)}
    goldens = [np.asarray(examples[d].resize((side, side), Image.Resampling.BILINEAR)) for d in (0, 3, 8, 9)]
    export.write(
        folder,
        content=content,
        manifest=manifest(
            name="digits",
            task="classify",
            description="Handwritten digits 0 to 9, one per picture, light on dark or dark on light",
            output='decoder = "classification"\nactivation = "softmax"\nmax_results = 5\n',
            metric="top-1",
            value=accuracy,
            samples=len(held_out.labels),
            data="UCI Optical Recognition of Handwritten Digits as in scikit-learn, held-out part, 128 x 128 pictures",
        ),
        labels=LABELS,
        goldens=goldens,
        samples=samples,
        truth={f"{name}.png": {"label": name[-1]} for name in samples},
    )
    print(f"digits: int8 top-1 {accuracy:.4f} ({inverted:.4f} dark on light) on {len(held_out.labels)} held-out digits")
    summary(content, model)


# --- scenes ----------------------------------------------------------------------------------------------------------


def cell_targets(scenes: list[synth.Scene]) -> Array:
    """[n,12,12,A,6] float32: x, y in the cell, log of width, height over the anchor, state, class.

    The state is 1 for an object, 0 for none, -1 where a second anchor fits one as well and may say either.
    """
    cells, anchors = networks.CELLS, np.array(networks.ANCHORS)
    targets = np.zeros((len(scenes), cells, cells, len(anchors), 6), np.float32)
    scale = cells / networks.SCENE_SIDE
    for number, scene in enumerate(scenes):
        for box, digit in zip(scene.boxes * scale, scene.digits, strict=True):
            x, y, size = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2:] - box[:2]
            column, row = min(cells - 1, int(x)), min(cells - 1, int(y))
            both = np.minimum(size, anchors).prod(axis=1)
            overlaps = both / (size.prod() + anchors.prod(axis=1) - both)
            best = int(overlaps.argmax())
            for anchor in range(len(anchors)):
                if anchor != best and overlaps[anchor] > 0.5 and targets[number, row, column, anchor, 4] == 0:
                    targets[number, row, column, anchor, 4] = -1
            logs = np.log(size / anchors[best])
            targets[number, row, column, best] = (x - column, y - row, logs[0], logs[1], 1, digit)
    return targets


def cell_loss(targets: Any, cells: Any) -> Any:
    """YOLO v2's loss, cross entropies instead of squares, focal for the many empty cells."""
    cells = tf.reshape(cells, tf.concat([tf.shape(targets)[:-1], [5 + networks.CLASSES]], axis=0))
    state = targets[..., 4]
    positive = tf.cast(state > 0.5, tf.float32)
    counted = tf.cast(state > -0.5, tf.float32)
    objects = tf.maximum(tf.reduce_sum(positive), 1.0)
    centre = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets[..., 0:2], cells[..., 0:2]), axis=-1)
    difference = tf.abs(targets[..., 2:4] - cells[..., 2:4])
    size = tf.reduce_sum(tf.where(difference < 0.1, difference**2 / 0.2, difference - 0.05), axis=-1)
    chance = tf.sigmoid(cells[..., 4])
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(positive, cells[..., 4])
    focus = tf.abs(positive - chance) ** 1.5
    classes = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets[..., 5], tf.int32), cells[..., 5:])
    sums = tf.reduce_sum(positive * (centre + 2 * size + classes)) + 4 * tf.reduce_sum(counted * focus * entropy)
    # Raw scores beyond 12 mean nothing more, but would stretch the one scale that all values of a cell share in int8.
    return sums / objects + tf.reduce_mean(tf.nn.relu(tf.abs(cells) - 12.0))


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


def scene_samples(held_out: Split, seed: int) -> tuple[dict[str, Image.Image], dict[str, Any]]:
    """Three pictures with known truth: scenes of held-out digits, four times as large; the last one 4:3."""
    rng = np.random.default_rng(seed)
    samples: dict[str, Image.Image] = {}
    truth: dict[str, Any] = {}
    while len(samples) < 3:
        scene = synth.scene(held_out.images, held_out.labels, rng, networks.SCENE_SIDE)
        wide = len(samples) == 2
        inside = not len(scene.boxes) or (scene.boxes[:, 1].min() >= 12 and scene.boxes[:, 3].max() <= 84)
        if not 3 <= len(scene.boxes) <= 5 or not scene.picture[[0, -1]].any() or not scene.picture[:, [0, -1]].any():
            continue
        if wide and not inside:
            continue
        cut = 12 if wide else 0
        picture = scene.picture[cut : networks.SCENE_SIDE - cut]
        name = f"scene-{len(samples) + 1}"
        image = Image.fromarray(picture)
        samples[name] = image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)
        boxes = (scene.boxes - [0, cut, 0, cut]) * 4
        truth[f"{name}.png"] = {
            "objects": [
                {"label": str(digit), "pixels": [round(float(v)) for v in box]}
                for digit, box in zip(scene.digits, boxes, strict=True)
            ]
        }
    return samples, truth


def train_scenes(out: Path, epochs: int, count: int) -> None:
    """The detector."""
    training, held_out = split()
    scenes = scene_set(training, count, SEED + 1)
    model = networks.scenes()
    size = 32
    rng = np.random.default_rng(SEED)
    fit(model, scene_batches(scenes, cell_targets(scenes), rng, size), cell_loss, epochs=epochs, steps=count // size)
    content = export.renamed(export.convert(fixed(model, networks.scenes), [s.picture for s in scenes[:300]]), "cells")
    folder = out / "digit-scenes" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)
    runner = evaluate.Runner(folder / "model.tflite")
    table = {"decoder": "yolov2", "anchors": [list(a) for a in networks.ANCHORS], "threshold": 0.02, "iou": 0.45}
    output = OutputRules.from_table(table)
    truth_scenes = scene_set(held_out, 1000, SEED + 2)
    found = [runner.ask(Image.fromarray(s.picture), PICTURE, output, LABELS) for s in truth_scenes]
    value = evaluate.mean_average_precision([f for f in found if isinstance(f, postprocess.Detections)], truth_scenes)
    samples, truth = scene_samples(held_out, SEED + 3)
    anchors = ", ".join(f"[{w}, {h}]" for w, h in networks.ANCHORS)
    export.write(
        folder,
        content=content,
        manifest=manifest(
            name="digit-scenes",
            task="detect",
            description="Finds handwritten digits in cluttered grey pictures: 12 x 12 cells, two anchors, ten classes",
            output=f'decoder = "yolov2"\nanchors = [{anchors}]\nthreshold = 0.4\niou = 0.45\nmax_results = 20\n',
            metric="mAP@0.5",
            value=value,
            samples=len(truth_scenes),
            data="synthesised scenes of held-out digits (daemon/training/synth.py)",
        ),
        labels=LABELS,
        goldens=[s.picture for s in truth_scenes if len(s.boxes) >= 2][:3],
        samples=samples,
        truth=truth,
    )
    print(f"digit-scenes: int8 mAP@0.5 {value:.4f} on {len(truth_scenes)} scenes of held-out digits")
    summary(content, model)


# --- mask ------------------------------------------------------------------------------------------------------------


def half_mask(scene: synth.Scene) -> Array:
    """[48,48] uint8: every second point of the truth, as the mask network answers."""
    return scene.mask[1::2, 1::2]


def train_mask(out: Path, epochs: int, count: int) -> None:
    """The segmenter."""
    training, held_out = split()
    scenes = scene_set(training, count, SEED + 1)
    model = networks.mask()
    size = 32
    targets = np.stack([half_mask(s) for s in scenes]).astype(np.int32)
    weights = tf.constant([1.0] + [3.0] * networks.CLASSES)

    def loss(truth: Any, points: Any) -> Any:
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, points)
        return tf.reduce_mean(entropy * tf.gather(weights, truth)) + tf.reduce_mean(tf.nn.relu(tf.abs(points) - 12.0))

    fit(
        model,
        scene_batches(scenes, targets, np.random.default_rng(SEED), size),
        loss,
        epochs=epochs,
        steps=count // size,
    )
    content = export.renamed(export.convert(fixed(model, networks.mask), [s.picture for s in scenes[:300]]), "points")
    folder = out / "digit-mask" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(content)
    runner = evaluate.Runner(folder / "model.tflite")
    labels = ("background", *LABELS)
    output = OutputRules.from_table({"decoder": "segmentation"})
    truth_scenes = scene_set(held_out, 1000, SEED + 2)
    found = [runner.ask(Image.fromarray(s.picture), PICTURE, output, labels) for s in truth_scenes]
    masks = [f.mask for f in found if isinstance(f, postprocess.Segmentation)]
    value = evaluate.mean_intersection_over_union(masks, [half_mask(s) for s in truth_scenes], len(labels))
    samples, truth = scene_samples(held_out, SEED + 3)
    export.write(
        folder,
        content=content,
        manifest=manifest(
            name="digit-mask",
            task="segment",
            description="Marks the ink of handwritten digits in cluttered grey pictures, one class per digit",
            output='decoder = "segmentation"\nmax_results = 11\n',
            metric="mIoU",
            value=value,
            samples=len(truth_scenes),
            data="synthesised scenes of held-out digits (daemon/training/synth.py)",
        ),
        labels=labels,
        goldens=[s.picture for s in truth_scenes if len(s.boxes) >= 2][:3],
        samples=samples,
        truth=truth,
    )
    print(f"digit-mask: int8 mIoU {value:.4f} on {len(truth_scenes)} scenes of held-out digits")
    summary(content, model)


def summary(content: bytes, model: keras.Model) -> None:
    """Size and operators of what was written."""
    print(f"{len(content)} bytes, {model.count_params()} parameters, operators: {export.described(content)}")


def write_held_out(file: Path) -> None:
    """The held-out digits for tests that have no scikit-learn."""
    _, held_out = split()
    np.savez_compressed(file, images=held_out.images.astype(np.uint8), labels=held_out.labels.astype(np.uint8))
    print(f"{file}: {len(held_out.labels)} digits, {file.stat().st_size} bytes")


def main() -> int:
    """Parse the command line and do one job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("digits", "scenes", "mask", "held-out"), help="held-out: write those digits as .npz"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for <name>/1/, or the .npz file")
    parser.add_argument("--epochs", type=int, help="fewer for a quick look")
    parser.add_argument("--scenes", type=int, default=20000, help="scenes to train with (default 20000)")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    began = time.monotonic()
    if arguments.what == "digits":
        train_digits(arguments.out, arguments.epochs or 40)
    elif arguments.what == "scenes":
        train_scenes(arguments.out, arguments.epochs or 24, arguments.scenes)
    elif arguments.what == "mask":
        train_mask(arguments.out, arguments.epochs or 12, arguments.scenes)
    else:
        write_held_out(arguments.out)
    print(f"took {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
