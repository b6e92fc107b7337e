"""Real models on real pictures give the published reference answers, through rules, tensor, runtime and decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.formats.labels import parse
from edgeaid.models.rules import OutputRules, PictureRules
from edgeaid.tensors import FROM_NUMPY, NUMPY, Quantization, TensorSpec
from edgeaid.vision.postprocess import results
from edgeaid.vision.preprocess import to_tensor
from edgeaid.vision.results import Classification, Result, Segmentation

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="the CPU runtime is not installed")

V1_SMALL, V1, V2 = (f"mobilenet_{n}_quant.tflite" for n in ("v1_0.25_128", "v1_0.5_160", "v2_1.0_224"))
BIRDS = "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
DEEPLAB = "deeplabv3_mnv2_dm05_pascal_quant.tflite"


def spec(detail: dict[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    shape = tuple(int(d) for d in detail["shape"])
    return TensorSpec(
        detail["name"],
        FROM_NUMPY[np.dtype(detail["dtype"]).name],
        shape,
        Quantization((float(scale),), (int(zero_point),)),
    )


def ask(directory: Path, model: str, picture: str, labels: str, decoder: str) -> Result:
    runtime = interpreter.Interpreter(model_path=str(directory / model), num_threads=1)
    runtime.allocate_tensors()
    source, target = runtime.get_input_details()[0], runtime.get_output_details()[0]
    tensor = np.zeros(spec(source).shape, NUMPY[spec(source).datatype])
    placement = to_tensor((directory / picture).read_bytes(), spec(source), PictureRules.from_table({}), tensor)
    runtime.set_tensor(source["index"], tensor)
    runtime.invoke()
    names = parse((directory / labels).read_text()).names
    rules = OutputRules.from_table({"decoder": decoder})
    return results(rules, [spec(target)], [runtime.get_tensor(target["index"])], names, placement)


@pytest.mark.parametrize(
    ("model", "picture", "expected"),
    [
        (V1_SMALL, "grace_hopper.bmp", (401, "academic gown", 0.363)),
        (V1_SMALL, "cat.bmp", (286, "Egyptian cat", 0.133)),
        (V1_SMALL, "cat_720p.jpg", (283, "tiger cat", 0.121)),
        (V1_SMALL, "bird.bmp", (20, "chickadee", 0.410)),
        (V1_SMALL, "parrot.jpg", (89, "macaw", 0.762)),
        (V1, "grace_hopper.bmp", (401, "academic gown", 0.230)),
        (V1, "cat.bmp", (286, "Egyptian cat", 0.613)),
        (V1, "cat_720p.jpg", (286, "Egyptian cat", 0.516)),
        (V1, "bird.bmp", (20, "chickadee", 0.922)),
        (V1, "parrot.jpg", (89, "macaw", 0.965)),
        (V2, "grace_hopper.bmp", (653, "military uniform", 0.922)),
        (V2, "cat.bmp", (286, "Egyptian cat", 0.789)),
        (V2, "cat_720p.jpg", (286, "Egyptian cat", 0.820)),
        (V2, "bird.bmp", (20, "chickadee", 0.988)),
        (V2, "parrot.jpg", (89, "macaw", 0.996)),
        (BIRDS, "bird.bmp", (659, "Black-capped Chickadee", 0.719)),
        (BIRDS, "parrot.jpg", (923, "Scarlet Macaw", 0.695)),
    ],
)
def test_a_picture_is_called_what_the_reference_calls_it(
    shared_data: Path, model: str, picture: str, expected: tuple[int, str, float]
) -> None:
    index, label, score = expected
    labels = "inat_bird_labels.txt" if model == BIRDS else "imagenet_labels.txt"
    result = ask(shared_data / "coral", model, picture, labels, "classification")
    assert isinstance(result, Classification)
    best = result.classes[0]
    assert best.index == index
    assert label in best.label
    # Another processor may differ by a few steps of 1/256 (cortex-a53 by up to 12).
    assert best.score == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize(
    ("picture", "label", "percent"),
    [("cat.bmp", "cat", 41.3), ("bird.bmp", "bird", 17.5), ("grace_hopper.bmp", "person", 65.6)],
)
def test_a_mask_covers_what_the_reference_covers(shared_data: Path, picture: str, label: str, percent: float) -> None:
    result = ask(shared_data / "coral", DEEPLAB, picture, "pascal_voc_segmentation_labels.txt", "segmentation")
    assert isinstance(result, Segmentation)
    areas = {area.label: area.fraction for area in result.classes}
    assert set(areas) == {"background", label}
    assert 100 * areas[label] == pytest.approx(percent, abs=1.0)
