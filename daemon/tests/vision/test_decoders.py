"""Decoders of detection and pose models: each against its family's definition, written out box by box."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.errors import InvalidModel
from edgeaid.models.rules import OBJECT_DECODERS, OutputRules
from edgeaid.tensors import FROM_NUMPY, Quantization, TensorSpec
from edgeaid.vision.decoders import DECODERS, decode
from edgeaid.vision.decoders.anchored import blaze_anchors, efficientdet_anchors, face_priors
from edgeaid.vision.placement import Placement
from edgeaid.vision.postprocess import results
from edgeaid.vision.results import Detections, Masked

SIZE = (320, 256)


def spec(values: np.ndarray, quantization: Quantization | None = None) -> TensorSpec:
    return TensorSpec("out", FROM_NUMPY[values.dtype.name], values.shape, quantization)


def decoded(decoder: str, *outputs: np.ndarray, size: tuple[int, int] = SIZE, **table: Any) -> Any:
    rules = OutputRules.from_table({"decoder": decoder, "max_results": 1000, "iou": 1.0, **table})
    return decode(rules, [spec(o) for o in outputs], outputs, size)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def cells(size: tuple[int, int], strides: tuple[int, ...]) -> list[tuple[int, int, int]]:
    return [
        (column, row, stride)
        for stride in strides
        for row in range(math.ceil(size[1] / stride))
        for column in range(math.ceil(size[0] / stride))
    ]


def same(objects: Any, expected: Sequence[tuple[tuple[float, ...], float, int]], tolerance: float = 1e-5) -> None:
    expected = sorted(expected, key=lambda e: -e[1])
    assert len(objects.scores) == len(expected) > 5
    for row, (box, score, label) in enumerate(expected):
        assert objects.scores[row] == pytest.approx(score, abs=1e-5)
        assert objects.classes[row] == label
        assert objects.boxes[row] == pytest.approx(box, abs=tolerance)


def test_every_decoder_that_a_manifest_may_name_is_there() -> None:
    assert set(DECODERS) == set(OBJECT_DECODERS)


@pytest.mark.parametrize("pixels", [False, True])
def test_yolov5_multiplies_objectness_and_class(pixels: bool) -> None:
    table = rng().random((1, 500, 5 + 7)).astype(np.float32)
    scale = np.array([*SIZE, *SIZE]) if pixels else np.ones(4)
    stored = table.copy()
    stored[..., :4] *= scale
    expected = []
    for x, y, w, h, sure, *classes in table[0].tolist():
        label = int(np.argmax(classes))
        if sure * classes[label] >= 0.9:
            expected.append(((x - w / 2, y - h / 2, x + w / 2, y + h / 2), sure * classes[label], label))
    same(decoded("yolov5", stored.astype(np.float32), threshold=0.9), expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_yolov8_takes_the_best_class_of_each_column(transposed: bool) -> None:
    table = rng().random((1, 4 + 6, 420)).astype(np.float32)
    expected = []
    for x, y, w, h, *classes in table[0].T.tolist():
        label = int(np.argmax(classes))
        if classes[label] >= 0.97:
            expected.append(((x - w / 2, y - h / 2, x + w / 2, y + h / 2), classes[label], label))
    stored = np.ascontiguousarray(table.transpose(0, 2, 1)) if transposed else table
    same(decoded("yolov8", stored, threshold=0.97), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantised_outputs_give_what_their_real_values_give(dtype: Any) -> None:
    zero_point = -128 if dtype is np.int8 else 0
    stored = (rng().integers(0, 256, (1, 84, 1680)) + zero_point).astype(dtype)
    quantization = Quantization((1 / 255,), (zero_point,))
    real = ((stored.astype(np.float32) - zero_point) / 255).astype(np.float32)
    rules = OutputRules.from_table({"decoder": "yolov8", "threshold": 0.999, "max_results": 300})
    one = decode(rules, [spec(stored, quantization)], [stored], SIZE)
    other = decode(rules, [spec(real)], [real], SIZE)
    assert len(one.scores) > 5
    assert np.allclose(one.boxes, other.boxes, atol=1e-5)
    assert (one.classes == other.classes).all()


def test_yolox_undoes_grid_and_stride() -> None:
    places = cells(SIZE, (8, 16, 32))
    table = rng().normal(0, 1, (1, len(places), 5 + 3)).astype(np.float32)
    table[..., 4:] = rng(4).random((len(places), 4))
    expected = []
    for (column, row, stride), (x, y, w, h, sure, *classes) in zip(places, table[0].tolist(), strict=True):
        label = int(np.argmax(classes))
        if sure * classes[label] >= 0.85:
            cx, cy, wide, high = (x + column) * stride, (y + row) * stride, math.exp(w) * stride, math.exp(h) * stride
            box = ((cx - wide / 2) / 320, (cy - high / 2) / 256, (cx + wide / 2) / 320, (cy + high / 2) / 256)
            expected.append((box, sure * classes[label], label))
    same(decoded("yolox", table, threshold=0.85), expected, 1e-4)


def test_nanodet_takes_the_mean_of_each_sides_distribution() -> None:
    places = cells(SIZE, (8, 16, 32, 64))
    table = rng().normal(0, 2, (1, len(places), 3 + 4 * 8)).astype(np.float32)
    table[..., :3] = rng(4).random((len(places), 3))
    expected = []
    for (column, row, stride), values in zip(places, table[0].tolist(), strict=True):
        label = int(np.argmax(values[:3]))
        if values[label] < 0.99:
            continue
        sides = []
        for side in range(4):
            weights = [math.exp(v) for v in values[3 + 8 * side : 11 + 8 * side]]
            sides.append(stride * sum(i * w for i, w in enumerate(weights)) / sum(weights))
        x, y = column * stride, row * stride
        box = ((x - sides[0]) / 320, (y - sides[1]) / 256, (x + sides[2]) / 320, (y + sides[3]) / 256)
        expected.append((tuple(min(1.0, max(0.0, v)) for v in box), values[label], label))
    same(decoded("nanodet", table, threshold=0.99), expected, 1e-4)


def test_yolo_nas_has_corners_in_pixels_and_scores_apart() -> None:
    boxes = (rng().random((1, 300, 4)) * 100).astype(np.float32)
    boxes[..., 2:] += boxes[..., :2]
    scores = rng(4).random((1, 300, 5)).astype(np.float32)
    expected = [
        (tuple(b / s for b, s in zip(box, (320, 256, 320, 256), strict=True)), max(row), int(np.argmax(row)))
        for box, row in zip(boxes[0].tolist(), scores[0].tolist(), strict=True)
        if max(row) >= 0.98
    ]
    same(decoded("yolo-nas", boxes, scores, threshold=0.98), expected)
    same(decoded("yolo-nas", scores, boxes, threshold=0.98), expected)


def test_end_to_end_rows_are_taken_as_they_are() -> None:
    table = rng().random((1, 300, 6)).astype(np.float32)
    table[..., :4] *= 250
    table[..., 5] = rng(4).integers(0, 80, (1, 300))
    expected = [
        ((r[0] / 320, r[1] / 256, r[2] / 320, r[3] / 256), r[4], round(r[5])) for r in table[0].tolist() if r[4] >= 0.9
    ]
    same(decoded("yolo-end2end", table, threshold=0.9), expected)


def test_efficientdet_boxes_are_relative_to_nine_anchors_a_cell() -> None:
    anchors = efficientdet_anchors(SIZE, 4.0)
    assert len(anchors) == 9 * sum(math.ceil(320 / 2**k) * math.ceil(256 / 2**k) for k in range(3, 8))
    # The first cell's first anchor: a square of 4 strides around the cell's middle.
    assert anchors[0] == pytest.approx([4 / 320, 4 / 256, 32 / 320, 32 / 256], abs=1e-6)
    offsets = rng().normal(0, 0.3, (1, len(anchors), 4)).astype(np.float32)
    logits = rng(4).normal(-4, 2, (1, len(anchors), 2)).astype(np.float32)
    expected = []
    for (ax, ay, aw, ah), (ty, tx, th, tw), row in zip(
        anchors.tolist(), offsets[0].tolist(), logits[0].tolist(), strict=True
    ):
        label = int(np.argmax(row))
        if sigmoid(row[label]) >= 0.8:
            cx, cy, wide, high = tx * aw + ax, ty * ah + ay, math.exp(tw) * aw, math.exp(th) * ah
            expected.append(((cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2), sigmoid(row[label]), label))
    same(decoded("efficientdet", offsets, logits, threshold=0.8), expected, 1e-4)


def test_blazeface_adds_its_anchors_and_gives_keypoints() -> None:
    anchors = blaze_anchors((128, 128), (8, 16, 16, 16))
    assert len(anchors) == 896
    assert anchors[0] == pytest.approx([0.5 / 16, 0.5 / 16])
    assert anchors[512] == pytest.approx([0.5 / 8, 0.5 / 8])
    raw = rng().normal(0, 20, (1, 896, 16)).astype(np.float32)
    raw[..., 2:4] = np.abs(raw[..., 2:4]) + 5
    logits = rng(4).normal(-3, 2, (1, 896, 1)).astype(np.float32)
    objects = decoded("blazeface", raw, logits, size=(128, 128), threshold=0.7)
    expected, points = [], []
    for (ax, ay), values, (logit,) in zip(anchors.tolist(), raw[0].tolist(), logits[0].tolist(), strict=True):
        if sigmoid(logit) >= 0.7:
            cx, cy, w, h = values[0] / 128 + ax, values[1] / 128 + ay, values[2] / 128, values[3] / 128
            expected.append(((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), sigmoid(logit), 0))
            points.append((sigmoid(logit), values[4] / 128 + ax, values[5] / 128 + ay))
    same(objects, expected)
    best = max(points)
    assert objects.keypoints.shape[1:] == (6, 3)
    assert objects.keypoints[0, 0, :2] == pytest.approx(best[1:], abs=1e-5)


def test_efficientdets_cells_share_an_input_that_is_no_multiple_of_their_stride() -> None:
    anchors = efficientdet_anchors((320, 320), 3.0)
    coarsest = anchors[-81:].reshape(3, 3, 9, 4)
    thirds = np.array([1, 3, 5]) / 6
    assert coarsest[0, :, 0, 0] == pytest.approx(thirds)
    assert coarsest[:, 0, 0, 1] == pytest.approx(thirds)
    assert coarsest[0, 0, 0, 2:] == pytest.approx([1.0, 1.0])  # three strides of a third


def test_a_face_detector_with_one_anchor_a_cell_is_told_by_their_number() -> None:
    anchors = blaze_anchors((192, 192), (4,), 1)
    assert len(anchors) == 48 * 48
    raw = np.zeros((1, 2304, 16), dtype=np.float32)
    raw[..., 2:4] = 19.2
    logits = np.full((1, 2304, 1), -9, dtype=np.float32)
    logits[0, 100] = 3
    objects = decoded("blazeface", raw, logits, size=(192, 192), threshold=0.5)
    x, y = anchors[100]
    assert objects.boxes[0] == pytest.approx([x - 0.05, y - 0.05, x + 0.05, y + 0.05], abs=1e-6)
    with pytest.raises(InvalidModel, match=r"192 x 192 has 2016 or 1008 or 4608 or 2304 anchors"):
        decoded("blazeface", raw[:, :100], logits[:, :100], size=(192, 192))


def test_faces_of_the_k210_have_five_landmarks() -> None:
    priors = face_priors((320, 240))
    assert len(priors) == 4420  # of the detector's paper, at 320 x 240
    count = len(priors)
    logits = rng().normal(0, 2, (1, count, 2)).astype(np.float32)
    logits[..., 0] += 4
    boxes, marks = rng(4).normal(0, 1, (1, count, 4)), rng(5).normal(0, 1, (1, count, 10))
    objects = decoded(
        "faces", logits, boxes.astype(np.float32), marks.astype(np.float32), size=(320, 240), threshold=0.9
    )
    expected = []
    for (px, py, pw, ph), row, (x, y, w, h) in zip(priors.tolist(), logits[0].tolist(), boxes[0].tolist(), strict=True):
        score = math.exp(row[1]) / (math.exp(row[0]) + math.exp(row[1]))
        if score >= 0.9:
            cx, cy, wide, high = px + x * 0.1 * pw, py + y * 0.1 * ph, pw * math.exp(w * 0.2), ph * math.exp(h * 0.2)
            expected.append(((cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2), score, 0))
    same(objects, expected, 1e-4)
    assert objects.keypoints.shape[1:] == (5, 3)


def test_movenet_answers_one_person_with_a_box_around_what_is_seen() -> None:
    points = np.zeros((1, 1, 17, 3), dtype=np.float32)
    points[0, 0, :, 0] = np.linspace(0.2, 0.6, 17)
    points[0, 0, :, 1] = np.linspace(0.3, 0.9, 17)
    points[0, 0, :, 2] = 0.9
    points[0, 0, 16, 2] = 0.0
    objects = decoded("movenet", points, threshold=0.3)
    assert objects.keypoints[0, 0] == pytest.approx([0.3, 0.2, 0.9])
    assert objects.boxes[0] == pytest.approx([0.3, 0.2, 0.3 + 0.6 * 15 / 16, 0.2 + 0.4 * 15 / 16], abs=1e-5)
    points[0, 0, 8:, 2] = 0.1  # the other half is hidden
    assert decoded("movenet", points, threshold=0.3).scores == pytest.approx([0.9])
    six = np.zeros((1, 6, 56), dtype=np.float32)
    six[0, 2, 51:] = [0.1, 0.2, 0.5, 0.6, 0.8]
    objects = decoded("movenet", six, threshold=0.3)
    assert len(objects.scores) == 1
    assert objects.boxes[0] == pytest.approx([0.2, 0.1, 0.6, 0.5])


def test_posenet_reads_its_operators_tensors_and_its_heat_maps() -> None:
    poses = rng().random((1, 10, 17, 2)).astype(np.float32) * 256
    sure = np.full((1, 10, 17), 0.9, dtype=np.float32)
    scores = np.array([[0.9, 0.8, *[0.0] * 8]], dtype=np.float32)
    objects = decoded("posenet", poses, sure, scores, np.array([2.0], dtype=np.float32))
    assert len(objects.scores) == 2
    assert objects.keypoints[0, 3, :2] == pytest.approx([poses[0, 0, 3, 1] / 320, poses[0, 0, 3, 0] / 256], abs=1e-5)
    maps = np.full((1, 9, 9, 17), -5, dtype=np.float32)
    offsets = np.zeros((1, 9, 9, 34), dtype=np.float32)
    for point in range(17):
        maps[0, 4, 2, point] = 3
        offsets[0, 4, 2, point], offsets[0, 4, 2, 17 + point] = 1.5, -2.0
    objects = decoded("posenet", maps, offsets, size=(257, 257))
    assert objects.keypoints[0, 0] == pytest.approx([(2 * 32 - 2) / 257, (4 * 32 + 1.5) / 257, sigmoid(3)], abs=1e-5)


def detections(
    rules: OutputRules, tensors: list[Any], placement: Placement, labels: tuple[str, ...] = (), size: Any = SIZE
) -> Detections:
    answer = results(rules, [spec(t) for t in tensors], tensors, labels, placement, size=size)
    assert isinstance(answer, Detections)
    return answer


def test_objects_carry_keypoints_polygons_and_masks_in_units_of_the_picture() -> None:
    letterboxed = Placement(320, 160, left=0.0, top=-0.3, right=1.0, bottom=1.3)
    pose = np.zeros((1, 4 + 1 + 6, 100), dtype=np.float32)
    pose[0, :, 0] = [0.5, 0.5, 0.2, 0.2, 0.9, 0.5, 0.5, 0.8, 0.6, 0.6, 0.7]
    rules = OutputRules.from_table({"decoder": "yolov8-pose", "keypoints": 2})
    (person,) = detections(rules, [pose], letterboxed, ("person",)).objects
    assert person.label == "person"
    assert person.keypoints[1] == pytest.approx((0.6, 0.6 * 1.6 - 0.3, 0.7))
    box = np.zeros((1, 4 + 2 + 1, 100), dtype=np.float32)
    box[0, :, 0] = [0.5, 0.5, 0.2, 0.1, 0.0, 0.9, math.pi / 2]
    rules = OutputRules.from_table({"decoder": "yolov8-obb"})
    (ship,) = detections(rules, [box], Placement(256, 256), size=(256, 256)).objects
    assert ship.index == 1
    assert ship.box == pytest.approx((0.45, 0.4, 0.55, 0.6), abs=1e-5)
    assert len(ship.polygon) == 4
    masks = np.zeros((1, 4 + 1 + 32, 100), dtype=np.float32)
    masks[0, :6, 0] = [0.5, 0.5, 0.5, 0.5, 0.9, 1.0]
    prototypes = np.full((1, 64, 80, 32), -1.0, dtype=np.float32)
    prototypes[0, :32, :, 0] = 1.0
    rules = OutputRules.from_table({"decoder": "yolov8-seg"})
    answer = detections(rules, [masks, prototypes], Placement(320, 256))
    first = answer.objects[0]
    assert isinstance(first, Masked)
    mask = first.mask
    assert mask is not None
    assert mask.shape == (32, 40)
    assert mask[:16].all()
    assert not mask[16:].any()
    assert set(answer.to_json()["objects"][0]["mask"]) == {"rows", "columns", "png"}


@pytest.mark.parametrize("decoder", OBJECT_DECODERS)
def test_outputs_that_do_not_fit_are_refused_and_not_misread(decoder: Any) -> None:
    for shapes in ([(1, 3)], [(1, 7, 7, 7)], [(1, 100, 4), (1, 99, 3)]):
        outputs = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        rules = OutputRules.from_table({"decoder": decoder, "threshold": 0.5})
        with contextlib.suppress(InvalidModel):
            assert not len(decode(rules, [spec(o) for o in outputs], outputs, SIZE).scores)


@pytest.mark.slow
def test_ultralytics_own_decoding_gives_the_same(tmp_path: Path) -> None:
    python = os.environ.get("EDGEAI_ULTRALYTICS_PYTHON")
    if not python:
        pytest.skip("no interpreter with ultralytics (set EDGEAI_ULTRALYTICS_PYTHON)")
    script = Path(__file__).with_name("ultralytics_reference.py")
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)}
    subprocess.run([python, script, tmp_path], check=True, timeout=1800, env=environment)
    files = sorted(tmp_path.glob("*.npz"))
    assert {str(np.load(f)["decoder"]) for f in files} == {
        "yolov8", "yolov8-pose", "yolov8-seg", "yolov8-obb", "yolo-end2end"
    }  # fmt: skip
    for file in files:
        compare_with_ultralytics(file)


def compare_with_ultralytics(file: Path) -> None:
    saved = np.load(file)
    decoder = str(saved["decoder"])
    outputs = [saved[f"output{i}"] for i in range(2) if f"output{i}" in saved]
    if decoder != "yolov8-seg":
        outputs = outputs[:1]
    table: dict[str, Any] = {"decoder": decoder, "threshold": float(saved["conf"]), "iou": 0.5}
    posed = "-pose" in file.name
    if posed:
        table["keypoints"] = 17  # with more than one class the tensor's shape does not say it
    rules = OutputRules.from_table({**table, "max_results": len(saved["found"])})
    size = (int(saved["size"][0]), int(saved["size"][1]))
    objects = decode(rules, [spec(o) for o in outputs], outputs, size)
    expected = saved["found"]
    expected = expected[np.argsort(-expected[:, 4], kind="stable")]
    assert len(objects.scores) == len(expected), file.name
    assert np.allclose(objects.scores, expected[:, 4], atol=1e-4), file.name
    scale = np.array([*size, *size], dtype=np.float32)
    unit = 1.0 if outputs[0].size and np.abs(outputs[0][0, :2]).max() <= 2 else scale
    if decoder == "yolov8-obb":
        assert objects.angles is not None
        centre = objects.angles[:, :4] * size[0]
        assert np.allclose(centre, expected[:, :4] * (1 if unit is scale else scale), atol=0.05), file.name
        return
    assert np.allclose(objects.boxes * scale, expected[:, :4] * (scale / unit), atol=0.05), file.name
    assert (objects.classes == expected[:, 5]).all(), file.name
    if posed:
        assert objects.keypoints is not None
        points = expected[:, 6:].reshape(len(expected), -1, 3)
        assert np.allclose(objects.keypoints[..., 2], points[..., 2], atol=1e-4), file.name
        assert np.allclose(objects.keypoints[..., :2] * scale[:2], points[..., :2] * (scale / unit)[:2], atol=0.05)


@pytest.mark.slow
def test_8400_boxes_of_80_classes_take_few_milliseconds() -> None:
    values = rng().random((1, 84, 8400)).astype(np.float32) ** 12
    rules = OutputRules.from_table({"decoder": "yolov8", "threshold": 0.25, "max_results": 300})
    times = []
    for _ in range(20):
        started = time.perf_counter()
        decode(rules, [spec(values)], [values], (640, 640))
        times.append(time.perf_counter() - started)
    assert sorted(times)[5] < 0.1
