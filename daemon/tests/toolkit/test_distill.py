"""A small network learns from a large one: a classifier from Keras, a detector from the embedded .tflite file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.models import manifest as manifests
from edgeaid.toolkit.run import child

pytest.importorskip("ai_edge_litert", reason="the CPU runtime is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))

import measure

from ..support.toolkit import need, run

DETECTOR = Path(manifests.__file__).parent / "defaults" / "digit-scenes" / "1"
DIGITS = Path(__file__).resolve().parents[1] / "models" / "data" / "held-out-digits.npz"

#: A third of the teacher's channels.
_STUDENT = """
import sys, keras
from keras import layers

def conv(x, n, stride=1):
    x = layers.Conv2D(n, 3, strides=stride, padding="same", use_bias=False)(x)
    return layers.ReLU(max_value=6.0)(layers.BatchNormalization(momentum=0.95)(x))

keras.utils.set_random_seed(7)
x = start = keras.Input((96, 96, 1))
for n, stride in ((8, 2), (12, 2), (16, 1), (24, 2), (24, 1)):
    x = conv(x, n, stride)
keras.Model(start, layers.Conv2D(30, 1)(x)).save(sys.argv[1])
"""


def test_a_teacher_that_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    import zipfile

    for name in ("student", "teacher"):
        with zipfile.ZipFile(tmp_path / f"{name}.keras", "w") as archive:
            archive.writestr("config.json", "{}")
    (tmp_path / "teacher.pb").write_bytes(b"graph")
    more = ["--train", str(tmp_path), "--test", str(tmp_path)]
    result = CliRunner().invoke(
        model, ["distill", str(tmp_path / "student.keras"), "--teacher", str(tmp_path / "teacher.pb"), *more]
    )
    assert result.exit_code != 0
    assert "a teacher is a model to be asked" in result.output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_detector_is_distilled_from_pictures_without_labels(tmp_path: Path) -> None:
    python = need("tensorflow")
    with np.load(DIGITS, allow_pickle=False) as data:
        order = np.random.default_rng(0).permutation(len(data["labels"]))
        known, new = (measure.Split(data["images"][part], data["labels"][part]) for part in (order[140:], order[:140]))
    scenes = measure.scene_set(known, 4000, seed=11)
    np.save(tmp_path / "train.npy", np.stack([s.picture for s in scenes])[..., None])
    truth = measure.scene_set(new, 200, seed=12)
    np.save(tmp_path / "test.npy", np.stack([s.picture for s in truth])[..., None])
    done = child([python, "-c", _STUDENT, tmp_path / "small.keras"], timeout=300)
    assert done.status == 0, done.error[-2000:]
    report = json.loads(
        run("distill", tmp_path / "small.keras", "--teacher", DETECTOR / "model.tflite", "--train",
            tmp_path / "train.npy", "--test", tmp_path / "test.npy", "--epochs", "16", "--layout", "cells",
            "--anchors", "2", "--json")
    )  # fmt: skip
    print({name: report[name] for name in ("teacher", "before", "after")})
    assert report["before"]["error"] > 0.9
    small = tmp_path / "small_distilled.keras"
    run("quantize", small, "--representative", tmp_path / "train.npy", "-o", tmp_path / "made" / "model.tflite")
    for name in ("model.toml", "labels.txt"):
        (tmp_path / "made" / name).write_bytes((DETECTOR / name).read_bytes())
    teacher, student = (measure.mean_average_precision(d, truth) for d in (DETECTOR, tmp_path / "made"))
    sizes = [(d / "model.tflite").stat().st_size for d in (DETECTOR, tmp_path / "made")]
    print(f"mAP@0.5 of the teacher {teacher:.3f}, of the student {student:.3f}; bytes {sizes}")
    assert student > 0.7 * teacher
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_classifier_is_distilled_from_a_larger_one(tmp_path: Path) -> None:
    python = need("tensorflow")
    done = child([python, Path(__file__).parent / "train_digits.py", tmp_path / "work"], timeout=600)
    assert done.status == 0, done.error[-2000:]
    code = (
        "import sys, keras\nfrom keras import layers as l\nkeras.utils.set_random_seed(2)\n"
        "keras.Sequential([l.Input((24, 24, 1)), l.Conv2D(4, 3, activation='relu'), l.MaxPooling2D(),"
        " l.Conv2D(8, 3, activation='relu'), l.MaxPooling2D(), l.Flatten(),"
        " l.Dense(10, activation='softmax')]).save(sys.argv[1])\n"
    )
    assert child([python, "-c", code, tmp_path / "tiny.keras"], timeout=300).status == 0
    work = tmp_path / "work"
    report = json.loads(
        run("distill", tmp_path / "tiny.keras", "--teacher", work / "digits.keras", "--train", work / "labelled",
            "--test", work / "test", "--epochs", "60", "--json")
    )  # fmt: skip
    print({name: report[name] for name in ("teacher", "before", "after")})
    assert report["before"]["agreement"] < 0.3
    assert report["after"]["agreement"] > 0.75
    assert report["after"]["size"] < report["teacher"]["size"]
