"""The recipe page "Your own model in an afternoon": its scripts and its model.toml, from pictures to a daemon's answer.

MNIST itself is not in the checkout: files of its format are made from drawn digits, and the detector's own pictures are
drawn shapes.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from edgeaid.cli import main as edgeai
from edgeaid.cli.model import model
from edgeaid.models import manifest as manifests
from edgeaid.toolkit.run import child

from ..support.daemon import Running
from ..support.toolkit import need
from .train_digits import draw

TOP = Path(__file__).resolve().parents[2]
RECIPES = TOP / "examples" / "own_model"
PAGE = TOP / "docs" / "own-model.md"


def output_table() -> str:
    """The [output] table that the page shows."""
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return str(block)


def test_the_page_names_its_scripts_and_shows_how_answers_are_read() -> None:
    text = PAGE.read_text("utf-8")
    for script in ("mnist.py", "ssd.py"):
        assert (RECIPES / script).is_file()
        assert f"examples/own_model/{script}" in text
    artifact = f'[artifacts.cpu]\nfile = "model.tflite"\nsha256 = "{"0" * 64}"\n'
    text = f'schema = 1\nname = "mugs"\ntask = "detect"\n{artifact}[labels]\nfile = "labels.txt"\n{output_table()}'
    manifest = manifests.parse(text.encode(), "mugs")
    assert manifest.output is not None
    assert manifest.output.decoder == "yolov8"


def train(script: str, *arguments: object) -> None:
    done = child([need("tensorflow"), RECIPES / script, *map(str, arguments)], timeout=1500)
    assert done.status == 0, done.error[-3000:]
    print(done.output[-400:])


def run(*arguments: object) -> str:
    result = CliRunner().invoke(model, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def idx(path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Write an array in MNIST's format, as the files are shipped: compressed."""
    head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(head + values.tobytes(), 1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_mnists_files_become_a_classifier_that_a_daemon_serves(tmp_path: Path, start: Callable[..., Running]) -> None:
    generator = np.random.default_rng(3)
    (tmp_path / "mnist").mkdir()
    for part, count in (("train", 3000), ("t10k", 400)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        pictures = np.stack([np.asarray(draw(int(n), generator).resize((28, 28))) for n in labels])
        idx(tmp_path / "mnist" / f"{part}-images-idx3-ubyte", pictures)
        idx(tmp_path / "mnist" / f"{part}-labels-idx1-ubyte", labels)
    work = tmp_path / "work"
    train("mnist.py", tmp_path / "mnist", work, "--epochs", "10")
    daemon = start()
    picture = next((work / "test" / "7").glob("*.png"))
    result = CliRunner().invoke(
        edgeai,
        ["--socket", str(daemon.socket), "model", "deploy", str(work / "mnist.keras"), "--target", "cpu,edgetpu",
         "--representative", str(work / "train"), "--accuracy", str(work / "test"), "--name", "mnist", "--try",
         str(picture), "-o", str(tmp_path / "deployed")],
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads((tmp_path / "deployed" / "deploy.json").read_text())
    accuracy = next(s["report"]["accuracy"] for s in report["steps"] if s["name"] == "quantise")
    print(accuracy)
    assert accuracy["quantised"] > max(0.9, accuracy["float"] - 0.02)
    assert "7" in result.output


SHAPES = ("circle", "square", "triangle")


def shapes(directory: Path, count: int) -> None:
    """Pictures of coloured shapes on noise, with boxes.csv."""
    generator = np.random.default_rng(9)
    directory.mkdir()
    rows: list[list[object]] = []
    for number in range(count):
        ground = generator.uniform(0, 110, (1, 1, 3)) + generator.normal(0, 18, (120, 160, 3))
        image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
        pen, name = ImageDraw.Draw(image), f"{number:04}.png"
        boxes: list[tuple[int, int, int]] = []
        for _ in range(int(generator.integers(0, 4))):
            side = int(generator.integers(22, 60))
            x, y = int(generator.integers(0, 160 - side)), int(generator.integers(0, 120 - side))
            if any(abs(x - a) < max(side, c) and abs(y - b) < max(side, c) for a, b, c in boxes):
                continue
            boxes.append((x, y, side))
            kind, ink = SHAPES[int(generator.integers(3))], tuple(int(v) for v in generator.integers(120, 256, 3))
            frame = (x, y, x + side, y + side)
            if kind == "circle":
                pen.ellipse(frame, fill=ink)
            elif kind == "square":
                pen.rectangle(frame, fill=ink)
            else:
                pen.polygon([(x, y + side), (x + side, y + side), (x + side // 2, y)], fill=ink)
            rows.append([name, kind, *frame])
        if not boxes:
            rows.append([name])
        image.save(directory / name)
    with (directory / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "xmin", "ymin", "xmax", "ymax"], *rows])


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of xmin, ymin, xmax, ymax."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_own_pictures_become_a_detector_that_a_daemon_serves(tmp_path: Path, start: Callable[..., Running]) -> None:
    shapes(tmp_path / "pictures", 500)
    work = tmp_path / "work"
    train("ssd.py", tmp_path / "pictures", work, "--epochs", "40")
    run("quantize", work / "detector.keras", "--representative", work / "train", "-o", work / "model.tflite")
    (mapped,) = json.loads(run("check", work / "model.tflite", "--target", "edgetpu", "--json", "--fail-on", "never"))
    assert mapped["facts"]["cpu_operators"] == 0, mapped
    run(
        "init", work / "model.tflite", "--name", "mugs", "--task", "detect", "--labels", work / "labels.txt",
        "--mean", "0", "--std", "255", "-o", tmp_path,
    )  # fmt: skip
    made = tmp_path / "mugs" / "1"
    manifest = made / "model.toml"
    manifest.write_text(manifest.read_text().split("[output]")[0] + output_table())
    daemon = start()

    def ask(*arguments: object) -> object:
        result = CliRunner().invoke(edgeai, ["--socket", str(daemon.socket), "--json", *map(str, arguments)])
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    ask("push", "mugs", made)
    with (work / "test" / "boxes.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    names = sorted({row[0] for row in rows})
    answers = ask("detect", "mugs", *(work / "test" / name for name in names))
    assert isinstance(answers, list)
    right = wrong = 0
    wanted = {name: [(r[1], [float(v) for v in r[2:]]) for r in rows if r[0] == name and len(r) == 6] for name in names}
    for name, answer in zip(names, answers, strict=True):
        left = list(wanted[name])
        for seen in answer["objects"]:
            box = [seen["pixels"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
            hit = next((w for w in left if w[0] == seen["label"] and overlap(w[1], box) > 0.5), None)
            right, wrong = right + (hit is not None), wrong + (hit is None)
            if hit is not None:
                left.remove(hit)
    total = sum(len(w) for w in wanted.values())
    print(f"{len(names)} pictures kept aside: {right} of {total} objects, {wrong} false")
    assert right > 0.8 * total
    assert wrong < 0.2 * total
