"""Decoders against the post-processing of those who export the models, run unmodified on the same random tensors.

`EDGEAI_EXPORTERS` names a directory with checkouts or bare copies of github.com/Megvii-BaseDetection/YOLOX,
RangiLyu/nanodet, Deci-AI/super-gradients and google/automl, each under the repository's name; without it they are
cloned.
The first three run in an interpreter with torch, torchvision and OpenCV, which `EDGEAI_ULTRALYTICS_PYTHON` names.
MediaPipe's, MoveNet's and PoseNet's post-processing comes from npm.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeaid.models.rules import OutputRules
from edgeaid.tensors import TensorSpec
from edgeaid.vision.decoders import Candidates, decode

from ..support.environments import environment, node_packages

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
REPOSITORIES = {
    "yolox": "Megvii-BaseDetection/YOLOX",
    "nanodet": "RangiLyu/nanodet",
    "yolo-nas": "Deci-AI/super-gradients",
    "efficientdet": "google/automl",
}
NODE = ("pose-detection@2.1.3", "face-detection@1.0.3", "hand-pose-detection@2.0.1")
CLASSES = 7
THRESHOLD, IOU = 0.4, 0.5
#: Width and height; the coarsest stride divides no side of the first.
SIZES = ((320, 320), (416, 256))
#: Results that the exporter gives at most.
LIMITS = {"yolox": 1000, "nanodet": 100, "yolo-nas": 300, "efficientdet": 100}

Floats = npt.NDArray[np.float32]


def checkout(repository: str, directory: Path) -> Path:
    """The Python files of a public repository. Skips the test where it cannot be had."""
    name = repository.partition("/")[2]
    place = Path(os.environ.get("EDGEAI_EXPORTERS") or directory / "cloned") / name
    if not place.exists():
        clone = ["git", "clone", "--quiet", "--depth", "1", f"https://github.com/{repository}", str(place)]
        environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        done = subprocess.run(clone, capture_output=True, text=True, timeout=600, check=False, env=environ)
        if done.returncode:
            pytest.skip(f"no copy of {repository} (EDGEAI_EXPORTERS): {done.stderr.strip()[-200:]}")
    archive = ["git", "-C", str(place), "archive", "HEAD", "--", ":(glob)**/*.py"]
    packed = subprocess.run(archive, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(directory / name, filter="data")
    return directory / name


def python_for(name: str) -> str:
    """An interpreter that the exporter's code runs in."""
    if name == "efficientdet":
        return str(environment("tensorflow-cpu==2.18.1", "numpy<2.1") / "bin" / "python")
    python = os.environ.get("EDGEAI_ULTRALYTICS_PYTHON")
    if not python:
        pytest.skip("no interpreter with torch, torchvision and OpenCV (set EDGEAI_ULTRALYTICS_PYTHON)")
    return python


def scores(rng: np.random.Generator, count: int) -> Floats:
    """[1,count,CLASSES]: one class of each row stands out, as trained models have it; about one in six is sure."""
    table = rng.uniform(0.01, 0.3, (1, count, CLASSES))
    sure = rng.permutation(np.linspace(0.05, 0.99, count)) ** 2  # no two are equal
    table[0, np.arange(count), rng.integers(0, CLASSES, count)] = np.maximum(sure, 0.31)
    return table.astype(np.float32)


def logit(values: Floats) -> Floats:
    return np.asarray(np.log(values / (1 - values)), dtype=np.float32)


def cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    return sum(-(-size[0] // s) * -(-size[1] // s) for s in strides)


def tensors(name: str, size: tuple[int, int], rng: np.random.Generator) -> list[Floats]:
    """What a network of this family puts out."""
    if name == "yolox":
        count = cells(size, (8, 16, 32))
        places = rng.uniform(-0.5, 1.5, (1, count, 4))
        sure = rng.uniform(0.9, 1.0, (1, count, 1))
        return [np.concatenate([places, sure, scores(rng, count)], axis=2, dtype=np.float32)]
    if name == "nanodet":
        count = cells(size, (8, 16, 32, 64))
        return [np.concatenate([scores(rng, count), rng.normal(0, 2, (1, count, 32))], axis=2, dtype=np.float32)]
    if name == "yolo-nas":
        count = cells(size, (8, 16, 32))
        low = rng.uniform(0, 0.9, (1, count, 2)) * np.array(size)
        high = low + rng.uniform(4, 90, (1, count, 2))
        return [np.concatenate([low, high], axis=2, dtype=np.float32), scores(rng, count)]
    count = 9 * cells(size, (8, 16, 32, 64, 128))
    return [rng.normal(0, 0.4, (1, count, 4)).astype(np.float32), logit(scores(rng, count))]


def ours(name: str, outputs: list[Floats], size: tuple[int, int], **table: Any) -> Candidates:
    rules = OutputRules.from_table({"decoder": name, "threshold": THRESHOLD, "iou": IOU, **table})
    specs = [TensorSpec("out", "FP32", o.shape) for o in outputs]
    return decode(rules, specs, outputs, size)


def rules_of(name: str) -> dict[str, float]:
    """What the exporter is called with, or what it has fixed."""
    if name == "nanodet":
        return {"threshold": 0.05, "iou": 0.6, "bins": 8}
    rules = {"threshold": THRESHOLD, "iou": IOU}
    return rules | {"anchor_scale": 3.0} if name == "efficientdet" else rules


@pytest.mark.parametrize("name", list(REPOSITORIES))
def test_detectors_are_decoded_as_their_exporters_do(name: str, tmp_path: Path) -> None:
    python = python_for(name)
    files = checkout(REPOSITORIES[name], tmp_path)
    rules = rules_of(name)
    given: list[tuple[list[Floats], tuple[int, int]]] = []
    for number, size in enumerate(SIZES):
        outputs = tensors(name, size, np.random.default_rng(11))
        if name == "nanodet":  # one class a row above its threshold
            outputs[0][..., :CLASSES][outputs[0][..., :CLASSES] <= 0.31] *= 0.1
        named = {f"output{i}": tensor for i, tensor in enumerate(outputs)}
        values: dict[str, Any] = {"size": np.array(size), **rules, **named}
        np.savez(tmp_path / f"tensors{number}.npz", **values)
        given.append((outputs, size))
    command = [python, str(HERE / "exporters.py"), name, str(files), *(f"tensors{i}.npz" for i in range(len(SIZES)))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for number, (outputs, size) in enumerate(given):
        answer = np.load(tmp_path / f"tensors{number}.npz.answer.npz")
        order = np.argsort(-answer["scores"], kind="stable")
        objects = ours(name, outputs, size, max_results=LIMITS[name], **rules)
        assert len(order) == len(objects.scores) >= 40
        assert np.allclose(objects.scores, answer["scores"][order], atol=1e-5)
        assert (objects.classes == answer["classes"][order]).all()
        pixels = objects.boxes * np.array([*size, *size])
        assert np.abs(pixels - answer["boxes"][order]).max() < 0.02


def by_node(directory: Path, name: str, outputs: list[Floats], **task: Any) -> list[dict[str, Any]]:
    """What the authors' own code for browsers makes of the tensors, best first."""
    base = [f"tfjs-{part}@4.22.0" for part in ("core", "converter", "backend-cpu", "backend-webgpu")]
    modules = node_packages(*(f"@tensorflow-models/{p}" for p in NODE), *(f"@tensorflow/{p}" for p in base))
    task |= {"name": name, "outputs": [o.tolist() for o in outputs], "threshold": THRESHOLD, "iou": IOU}
    (directory / "task.json").write_text(json.dumps(task))
    done = subprocess.run(
        ["node", str(HERE / "exporters.js"), "task.json"],
        cwd=directory, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "NODE_PATH": str(modules)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return sorted(answer, key=lambda row: -row["score"])


def same(objects: Candidates, answer: list[dict[str, Any]], tolerance: float = 1e-4) -> None:
    assert len(objects.scores) == len(answer) > 0
    assert objects.keypoints is not None
    for row, theirs in enumerate(answer):
        assert objects.scores[row] == pytest.approx(theirs["score"], abs=1e-5)
        points = np.array(theirs["points"])
        assert np.abs(objects.keypoints[row, :, : points.shape[1]] - points).max() < tolerance
        if theirs.get("box"):
            assert objects.boxes[row] == pytest.approx(theirs["box"], abs=tolerance)


@pytest.mark.parametrize(
    ("name", "side", "count", "points"),
    [("face-short", 128, 896, 6), ("face-full", 192, 2304, 6), ("palm", 192, 2016, 7)],
)
def test_faces_and_palms_are_decoded_as_mediapipe_does(
    name: str, side: int, count: int, points: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    boxes = rng.normal(0, 12, (1, count, 4 + 2 * points)).astype(np.float32)
    boxes[..., 2:4] = rng.uniform(8, 60, (1, count, 2))
    sure = logit(scores(rng, count).max(axis=2, keepdims=True))
    answer = by_node(tmp_path, name, [boxes, sure])
    objects = ours("blazeface", [boxes, sure], (side, side), max_results=200)
    assert len(answer) > 20
    same(objects, answer)


@pytest.mark.parametrize("name", ["movenet", "movenet-multi"])
def test_people_are_decoded_as_movenet_does(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    shape = (1, 1, 17, 3) if name == "movenet" else (1, 6, 56)
    outputs = [rng.uniform(0.01, 0.99, shape).astype(np.float32)]
    answer = [row for row in by_node(tmp_path, name, outputs) if row["score"] >= THRESHOLD]
    same(ours("movenet", outputs, (192, 192)), answer)


@pytest.mark.parametrize(("size", "stride"), [((257, 257), 16), ((481, 353), 16), ((225, 193), 32)])
def test_a_person_is_decoded_as_posenet_does(size: tuple[int, int], stride: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    lines, columns = (size[1] - 1) // stride + 1, (size[0] - 1) // stride + 1
    maps = rng.normal(0, 2, (1, lines, columns, 17)).astype(np.float32)
    offsets = rng.normal(0, 10, (1, lines, columns, 34)).astype(np.float32)
    answer = by_node(tmp_path, "posenet", [maps, offsets], size=list(size), stride=stride)
    same(ours("posenet", [maps, offsets], size), answer)
