"""The embedded models are whole, small, reproducible and as good as their manifests say."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.formats.labels import parse
from edgeaid.models import manifest as manifests
from edgeaid.vision.draw import render
from edgeaid.vision.preprocess import decode
from edgeaid.vision.results import Classification, Detections, Result, Segmentation

pytest.importorskip("ai_edge_litert", reason="the CPU runtime is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))

import evaluate
import measure
import synth

DEFAULTS = Path(manifests.__file__).parent / "defaults"
NAMES = sorted(p.name for p in DEFAULTS.iterdir())
SCENE_NAMES = [name for name in NAMES if name != "digits"]


def directory(name: str) -> Path:
    return DEFAULTS / name / "1"


def manifest(name: str) -> manifests.Manifest:
    return manifests.parse((directory(name) / "model.toml").read_bytes(), name)


def ask(name: str, picture: bytes) -> Result:
    described = manifest(name)
    assert described.picture is not None
    assert described.output is not None
    labels = parse((directory(name) / described.labels_file).read_text()).names
    runner = evaluate.Runner(directory(name) / "model.tflite")
    return runner.ask(decode(picture), described.picture, described.output, labels)


def truth(name: str) -> dict[str, Any]:
    return dict(json.loads((directory(name) / "samples" / "truth.json").read_text()))


@pytest.fixture(scope="module")
def held_out() -> measure.Split:
    with np.load(Path(__file__).parent / "data" / "held-out-digits.npz", allow_pickle=False) as data:
        return measure.Split(data["images"], data["labels"])


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return synth.intersection_over_union(a, b)


def test_there_is_a_classifier_and_a_model_with_spatial_output() -> None:
    tasks = {manifest(name).task for name in NAMES}
    assert "classify" in tasks
    assert tasks & {"detect", "segment"}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_there_small_and_has_its_digest(name: str) -> None:
    described = manifest(name)
    for file in described.files:
        assert (directory(name) / file).is_file()
    for artifact in described.artifacts:
        content = (directory(name) / artifact.file).read_bytes()
        assert len(content) < 100_000
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
    assert len(described.goldens) >= 3
    assert "CC BY 4.0" in described.source
    assert sum(p.stat().st_size for p in directory(name).rglob("*") if p.is_file()) < 400_000


@pytest.mark.parametrize("name", NAMES)
def test_goldens_hold_within_the_tolerance_on_fast_and_reference_kernels(name: str) -> None:
    described = manifest(name)
    outputs = []
    for golden in described.goldens:
        (source,), (target,) = golden.inputs.items(), golden.outputs.items()
        tensor = np.load(directory(name) / source[1], allow_pickle=False)
        expected = np.load(directory(name) / target[1], allow_pickle=False).astype(int)
        for reference in (False, True):
            runner = evaluate.Runner(directory(name) / "model.tflite", reference=reference)
            assert (runner.input.name, runner.output.name) == (source[0], target[0])
            assert np.abs(runner.run(tensor).astype(int) - expected).max() <= described.tolerance["default"]
        outputs.append(expected)
    assert all((outputs[0] != other).any() for other in outputs[1:])


def test_the_classifier_is_as_good_as_its_manifest_says(held_out: measure.Split) -> None:
    described = manifest("digits").accuracy
    assert described["samples"] == len(held_out.labels)
    # One digit of 540 may tip over on another processor.
    assert measure.top_1(directory("digits"), held_out) == pytest.approx(described["value"], abs=0.004)
    assert described["value"] > 0.98


def test_the_detector_is_as_good_on_fresh_scenes_as_its_manifest_says(held_out: measure.Split) -> None:
    fresh = measure.scene_set(held_out, 300, seed=7)
    value = measure.mean_average_precision(directory("digit-scenes"), fresh)
    assert value == pytest.approx(manifest("digit-scenes").accuracy["value"], abs=0.04)


@pytest.mark.skipif("digit-mask" not in NAMES, reason="no segmenter among the defaults")
def test_the_segmenter_is_as_good_on_fresh_scenes_as_its_manifest_says(held_out: measure.Split) -> None:
    fresh = measure.scene_set(held_out, 300, seed=7)
    value = measure.mean_intersection_over_union(directory("digit-mask"), fresh)
    assert value == pytest.approx(manifest("digit-mask").accuracy["value"], abs=0.04)


def test_sample_digits_are_recognised() -> None:
    for file, expected in truth("digits").items():
        result = ask("digits", (directory("digits") / "samples" / file).read_bytes())
        assert isinstance(result, Classification)
        assert result.classes[0].label == expected["label"]
        assert result.classes[0].score > 0.9


def test_most_digits_of_the_sample_scenes_are_found_where_they_are() -> None:
    objects = right = 0
    for file, expected in truth("digit-scenes").items():
        result = ask("digit-scenes", (directory("digit-scenes") / "samples" / file).read_bytes())
        assert isinstance(result, Detections)
        for wanted in expected["objects"]:
            objects += 1
            right += any(
                o.label == wanted["label"] and overlap(o.pixels, wanted["pixels"]) > 0.5 for o in result.objects
            )
    assert objects >= 9
    assert right >= 0.8 * objects


@pytest.mark.parametrize("name", SCENE_NAMES)
def test_a_sample_answer_can_be_drawn(name: str) -> None:
    for file in truth(name):
        picture = (directory(name) / "samples" / file).read_bytes()
        result = ask(name, picture)
        assert isinstance(result, Detections | Segmentation)
        assert render(picture, result).startswith(b"\x89PNG")


def test_average_precision_of_perfect_and_of_no_answers_is_one_and_zero(held_out: measure.Split) -> None:
    from edgeaid.scores import Box, Detected

    scenes = measure.scene_set(held_out, 40, seed=3)
    perfect = [
        Detections(
            tuple(
                Detected(int(d), str(d), 0.9, Box(0.0, 0.0, 0.0, 0.0), Box(*(int(v) for v in box)))
                for d, box in zip(scene.digits, scene.boxes, strict=True)
            ),
            96,
            96,
        )
        for scene in scenes
    ]
    assert evaluate.mean_average_precision(perfect, scenes) == pytest.approx(1.0)
    assert evaluate.mean_average_precision([Detections((), 96, 96)] * 40, scenes) == 0.0
