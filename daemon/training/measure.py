"""From an int8 model file to a model directory: accuracy on held-out digits, goldens, samples, manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import numpy.typing as npt
import synth
from PIL import Image

from edgeaid.models import manifest as manifests
from edgeaid.vision.results import Classification, Detections, Segmentation

Array = npt.NDArray[Any]

LABELS = tuple(str(d) for d in range(10))
#: Scenes to measure with, and the seeds that make them and the samples; far from the training's by their digits.
SCENES, SCENE_SEED, SAMPLE_SEED = 1000, 20240503, 20240504
#: Width and height of the boxes that the detector starts from, in cells of 8 pixels.
ANCHORS = ((1.8, 2.4), (3.3, 4.4))
LICENSE = "CC-BY-4.0"
SOURCE = (
    "Trained by daemon/training/train.py on 'Optical Recognition of Handwritten Digits' by E. Alpaydin and C. Kaynak, "
    "UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0, as scikit-learn's load_digits "
    "ships it"
)
INPUT = """[input]
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


@dataclass(frozen=True, slots=True)
class Kind:
    """What a default model is, as far as its manifest says so."""

    name: str
    task: str
    description: str
    #: The [output] table.
    output: str
    metric: str
    dataset: str
    labels: tuple[str, ...] = LABELS
    #: Largest difference between goldens and a sound processor, in LSB.
    tolerance: int = 2


_SCENE_DATA = "synthesised scenes of held-out digits (daemon/training/synth.py)"
DIGITS = Kind(
    "digits",
    "classify",
    "Handwritten digits 0 to 9, one per picture, light on dark or dark on light",
    'decoder = "classification"\nactivation = "softmax"\nmax_results = 5\n',
    "top-1",
    "UCI Optical Recognition of Handwritten Digits as in scikit-learn, held-out part, as 128 x 128 pictures",
)
DIGIT_SCENES = Kind(
    "digit-scenes",
    "detect",
    "Finds handwritten digits in cluttered grey pictures: 12 x 12 cells, two anchors, ten classes",
    f'decoder = "yolov2"\nanchors = {json.dumps(ANCHORS)}\nthreshold = 0.4\niou = 0.45\nmax_results = 20\n',
    "mAP@0.5",
    _SCENE_DATA,
)
DIGIT_MASK = Kind(
    "digit-mask",
    "segment",
    "Marks the ink of handwritten digits in cluttered grey pictures, one class per digit",
    'decoder = "segmentation"\nmax_results = 11\n',
    "mIoU",
    _SCENE_DATA,
    ("background", *LABELS),
    tolerance=4,
)


def scene_set(digits: Split, count: int, seed: int, side: int = 96) -> list[synth.Scene]:
    """`count` scenes; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    return [synth.scene(digits.images, digits.labels, rng, side) for _ in range(count)]


def half_mask(scene: synth.Scene) -> Array:
    """[48,48] uint8: every second point of the truth, as the mask network answers."""
    return scene.mask[1::2, 1::2]


def digits(model: bytes, out: Path, held_out: Split) -> float:
    """Measure and write the classifier; returns its accuracy."""
    directory = _directory(out, DIGITS, model)
    value = top_1(directory, held_out)
    inverted = top_1(directory, held_out, lambda image: image.point(lambda grey: 255 - grey))
    print(f"digits: int8 top-1 {value:.4f} ({inverted:.4f} dark on light) on {len(held_out.labels)} held-out digits")
    examples = [synth.render(held_out.images[np.flatnonzero(held_out.labels == d)[0]]) for d in range(10)]
    samples = {f"digit-{d}": examples[d] for d in (2, 5, 7)}
    _write(
        directory,
        DIGITS,
        value,
        len(held_out.labels),
        candidates=[np.asarray(example.resize((32, 32), Image.Resampling.BILINEAR)) for example in examples],
        samples=samples,
        truth={f"{name}.png": {"label": name[-1]} for name in samples},
    )
    return value


def scenes(model: bytes, out: Path, held_out: Split) -> float:
    """Measure and write the detector; returns its mean average precision."""
    directory = _directory(out, DIGIT_SCENES, model)
    truth = scene_set(held_out, SCENES, SCENE_SEED)
    value = mean_average_precision(directory, truth)
    print(f"digit-scenes: int8 mAP@0.5 {value:.4f} on {len(truth)} scenes of held-out digits")
    _write_scenes(directory, DIGIT_SCENES, value, truth, held_out)
    return value


def mask(model: bytes, out: Path, held_out: Split) -> float:
    """Measure and write the segmenter; returns its mean intersection over union."""
    directory = _directory(out, DIGIT_MASK, model)
    truth = scene_set(held_out, SCENES, SCENE_SEED)
    value = mean_intersection_over_union(directory, truth)
    print(f"digit-mask: int8 mIoU {value:.4f} on {len(truth)} scenes of held-out digits")
    _write_scenes(directory, DIGIT_MASK, value, truth, held_out)
    return value


def _load(directory: Path) -> tuple[manifests.Manifest, evaluate.Runner, tuple[str, ...]]:
    manifest = manifests.parse((directory / "model.toml").read_bytes())
    labels = tuple((directory / "labels.txt").read_text().splitlines())
    return manifest, evaluate.Runner(directory / "model.tflite"), labels


def top_1(
    directory: Path, held_out: Split, change: Callable[[Image.Image], Image.Image] = lambda image: image
) -> float:
    """Share of digits whose best class is right, of a model directory."""
    manifest, runner, labels = _load(directory)
    assert manifest.picture is not None
    assert manifest.output is not None
    hits = 0
    for digit, label in zip(held_out.images, held_out.labels, strict=True):
        result = runner.ask(change(synth.render(digit)), manifest.picture, manifest.output, labels)
        assert isinstance(result, Classification)
        hits += result.classes[0].index == label
    return hits / len(held_out.labels)


def mean_average_precision(directory: Path, truth: Sequence[synth.Scene]) -> float:
    """mAP at an overlap of 0.5, of a model directory; the threshold is lowered so that the whole curve is seen."""
    manifest, runner, labels = _load(directory)
    assert manifest.picture is not None
    assert manifest.output is not None
    answers = []
    for scene in truth:
        result = runner.ask(Image.fromarray(scene.picture), manifest.picture, manifest.output, labels, threshold=0.02)
        assert isinstance(result, Detections)
        answers.append(result)
    return evaluate.mean_average_precision(answers, truth)


def mean_intersection_over_union(directory: Path, truth: Sequence[synth.Scene]) -> float:
    """mIoU over background and digits, of a model directory."""
    manifest, runner, labels = _load(directory)
    assert manifest.picture is not None
    assert manifest.output is not None
    answers = []
    for scene in truth:
        result = runner.ask(Image.fromarray(scene.picture), manifest.picture, manifest.output, labels)
        assert isinstance(result, Segmentation)
        answers.append(result.mask)
    return evaluate.mean_intersection_over_union(answers, [half_mask(s) for s in truth], len(labels))


def _directory(out: Path, kind: Kind, model: bytes) -> Path:
    """The model directory with what can be said before anything was measured."""
    directory = out / kind.name / "1"
    (directory / "golden").mkdir(parents=True, exist_ok=True)
    (directory / "samples").mkdir(exist_ok=True)
    (directory / "model.tflite").write_bytes(model)
    (directory / "labels.txt").write_text("".join(f"{label}\n" for label in kind.labels))
    _store(directory / "model.toml", _manifest(kind, hashlib.sha256(model).hexdigest()))
    return directory


def _manifest(kind: Kind, digest: str, accuracy: str = "", goldens: str = "") -> str:
    return f"""# Written by daemon/training/train.py; see docs/models.md for the schema.
schema = 1
name = "{kind.name}"
task = "{kind.task}"
description = "{kind.description}"
license = "{LICENSE}"
source = "{SOURCE}"

[artifacts.cpu]
file = "model.tflite"
sha256 = "{digest}"
threads = 1

[labels]
file = "labels.txt"

{INPUT}
[output]
{kind.output}
[tolerance]
default = {kind.tolerance}
"cortex-a53" = 12
{accuracy}{goldens}"""


def _store(file: Path, text: str) -> None:
    partial = file.with_suffix(".part")
    partial.write_text(text)
    os.replace(partial, file)


def _stored(picture: Array) -> Array:
    """[1,H,W,1] int8 of a grey picture: what [input] makes of it, for a scale of 1/255."""
    return (picture.astype(np.int16) - 128).astype(np.int8)[None, :, :, None]


def _agreeing(directory: Path, candidates: Sequence[Array], count: int) -> list[Array]:
    """The inputs whose outputs differ least between the fast and the reference kernels: those will differ least
    between processors, too, and a golden comparison should find broken models, not rounding."""
    fast = evaluate.Runner(directory / "model.tflite")
    reference = evaluate.Runner(directory / "model.tflite", reference=True)
    inputs = [_stored(picture) for picture in candidates]
    differences = [np.abs(fast.run(i).astype(int) - reference.run(i).astype(int)) for i in inputs]
    order = sorted(range(len(inputs)), key=lambda n: (int(differences[n].max()), float(differences[n].mean())))
    chosen = order[:count]
    print(f"goldens differ by at most {max(int(differences[n].max()) for n in chosen)} LSB from the reference kernels")
    return [inputs[n] for n in chosen]


def _write(
    directory: Path,
    kind: Kind,
    value: float,
    count: int,
    *,
    candidates: Sequence[Array],
    samples: Mapping[str, Image.Image],
    truth: Mapping[str, Any],
) -> None:
    """Goldens, samples and the whole manifest. `candidates` [H,W] uint8: pictures that may become goldens."""
    runner = evaluate.Runner(directory / "model.tflite")
    goldens = ""
    for number, tensor in enumerate(_agreeing(directory, candidates, 4)):
        np.save(directory / "golden" / f"{number}.in.npy", tensor)
        np.save(directory / "golden" / f"{number}.out.npy", runner.run(tensor))
        goldens += (
            f'\n[[golden]]\ninputs = {{ "{runner.input.name}" = "golden/{number}.in.npy" }}\n'
            f'outputs = {{ "{runner.output.name}" = "golden/{number}.out.npy" }}\nruntime = "litert"\n'
        )
    for name, image in samples.items():
        image.save(directory / "samples" / f"{name}.png", optimize=True)
    (directory / "samples" / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    accuracy = (
        f'\n[accuracy]\nmetric = "{kind.metric}"\nvalue = {value:.4f}\nsamples = {count}\ndataset = "{kind.dataset}"\n'
    )
    digest = hashlib.sha256((directory / "model.tflite").read_bytes()).hexdigest()
    _store(directory / "model.toml", _manifest(kind, digest, accuracy, goldens))


def _write_scenes(directory: Path, kind: Kind, value: float, truth: Sequence[synth.Scene], held_out: Split) -> None:
    samples, names = scene_samples(held_out)
    candidates = [scene.picture for scene in truth if len(scene.boxes) >= 2][:100]
    _write(directory, kind, value, len(truth), candidates=candidates, samples=samples, truth=names)


def scene_samples(held_out: Split) -> tuple[dict[str, Image.Image], dict[str, Any]]:
    """Three pictures with known truth: legible scenes of held-out digits, four times as large; the last one 4:3."""
    rng = np.random.default_rng(SAMPLE_SEED)
    samples: dict[str, Image.Image] = {}
    truth: dict[str, Any] = {}
    while len(samples) < 3:
        scene = synth.scene(held_out.images, held_out.labels, rng)
        cut = 12 if len(samples) == 2 else 0
        heights = scene.boxes[:, 3] - scene.boxes[:, 1]
        bordered = not scene.picture[[0, -1]].any() or not scene.picture[:, [0, -1]].any()
        if not 3 <= len(scene.boxes) <= 5 or bordered or heights.min() < 20:
            continue
        if scene.boxes[:, 1].min() < cut or scene.boxes[:, 3].max() > 96 - cut:
            continue
        name = f"scene-{len(samples) + 1}"
        image = Image.fromarray(scene.picture[cut : 96 - cut])
        samples[name] = image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)
        boxes = (scene.boxes - [0, cut, 0, cut]) * 4
        truth[f"{name}.png"] = {
            "objects": [
                {"label": str(digit), "pixels": [round(float(v)) for v in box]}
                for digit, box in zip(scene.digits, boxes, strict=True)
            ]
        }
    return samples, truth
