"""Output tensors become labelled results, in units of the original picture."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeaid.errors import InvalidModel
from edgeaid.models.rules import OutputRules
from edgeaid.tensors import FROM_NUMPY, Quantization, TensorSpec
from edgeaid.vision.decoders.suppression import suppress
from edgeaid.vision.placement import Placement
from edgeaid.vision.postprocess import results
from edgeaid.vision.results import Classification, Detections, Segmentation
from edgeaid.vision.scores import dequantized, softmax

from ..support.examples import examples

WHOLE = Placement(100, 50)


def described(values: np.ndarray, quantization: Quantization | None = None) -> TensorSpec:
    return TensorSpec("out", FROM_NUMPY[values.dtype.name], values.shape, quantization)


def answer(
    table: dict[str, object],
    *outputs: np.ndarray,
    labels: tuple[str, ...] = (),
    placement: Placement = WHOLE,
    quantization: Quantization | None = None,
    **options: float,
) -> Classification | Detections | Segmentation:
    specs = [described(o, quantization) for o in outputs]
    result = results(OutputRules.from_table(table), specs, outputs, labels, placement, **options)  # type: ignore[arg-type]  # floats and ints by name
    json.dumps(result.to_json(), allow_nan=False)
    return result


# --- classification ---


def test_classes_come_best_first_with_dequantised_scores_and_names() -> None:
    values = np.array([[3, 93, 12, 93]], np.uint8)
    result = answer(
        {"decoder": "classification", "max_results": 3},
        values,
        labels=("a", "b", "c"),
        quantization=Quantization((1 / 256,), (0,)),
    )
    assert isinstance(result, Classification)
    assert [(c.index, c.label) for c in result.classes] == [(1, "b"), (3, "3"), (2, "c")]
    assert result.classes[0].score == pytest.approx(0.363281)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 40))
def test_of_equal_scores_the_first_classes_come_first_however_many_are_asked_for(scores: list[int], count: int) -> None:
    result = answer({"decoder": "classification"}, np.array([scores], np.float32), max_results=count)
    assert isinstance(result, Classification)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]
    assert [c.index for c in result.classes] == expected


@given(
    st.sampled_from([np.uint8, np.int8, np.int32, np.int64]),
    st.sampled_from([None, 0.1, 0.0]),
    st.lists(st.integers(0, 100), min_size=1, max_size=30),
    st.integers(0, 40),
)
def test_the_best_of_stored_scores_are_the_best_of_real_ones(
    dtype: type[Any], scale: float | None, scores: list[int], count: int
) -> None:
    values = np.array([scores], dtype)
    quantization = None if scale is None else Quantization((scale,), (3,))
    result = answer({"decoder": "classification"}, values, quantization=quantization, max_results=count)
    assert isinstance(result, Classification)
    real = [score if not scale else scale * (score - 3) for score in scores]
    expected = sorted(range(len(real)), key=lambda i: (-real[i], i))[:count]
    assert [c.index for c in result.classes] == expected
    assert [c.score for c in result.classes] == pytest.approx([real[i] for i in expected], abs=1e-6)


def test_softmax_and_sigmoid_are_applied_to_real_values() -> None:
    values = np.array([[-20, 0, 20]], np.int8)
    quantization = Quantization((0.1,), (0,))
    soft = answer({"decoder": "classification", "activation": "softmax"}, values, quantization=quantization)
    assert isinstance(soft, Classification)
    assert soft.classes[0].score == pytest.approx(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)), abs=1e-6)
    single = answer({"decoder": "classification", "activation": "sigmoid"}, values, quantization=quantization)
    assert isinstance(single, Classification)
    assert single.classes[0].score == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)


def test_scores_that_are_not_finite_are_left_out() -> None:
    result = answer({"decoder": "classification"}, np.array([[math.nan, 0.5, math.inf, -math.inf]], np.float32))
    assert isinstance(result, Classification)
    assert [c.index for c in result.classes] == [1]


def test_shapes_with_ones_in_them_are_flattened_and_the_number_of_results_can_be_asked_for() -> None:
    result = answer({"decoder": "classification"}, np.arange(40, dtype=np.float32).reshape(1, 1, 1, 40), max_results=2)
    assert isinstance(result, Classification)
    assert [c.index for c in result.classes] == [39, 38]


def test_per_channel_scales_run_along_their_axis() -> None:
    spec = TensorSpec("x", "INT8", (1, 2, 2), Quantization((1.0, 10.0), (0, 1), axis=2))
    assert dequantized(spec, np.array([[[1, 1], [2, 2]]], np.int8)).tolist() == [[[1, 0], [2, 10]]]


def test_softmax_survives_large_values() -> None:
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]


# --- ssd ---


def ssd_outputs(boxes: list[list[float]], classes: list[float], scores: list[float], count: float) -> list[np.ndarray]:
    return [
        np.array([boxes], np.float32),
        np.array([classes], np.float32),
        np.array([scores], np.float32),
        np.array([count], np.float32),
    ]


def test_ssd_takes_count_threshold_offset_and_order_into_account() -> None:
    outputs = ssd_outputs([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0, 0, 1, 1]], [0, 1, 2], [0.9, 0.2, 0.99], 2)
    result = answer({"decoder": "ssd", "class_offset": 1}, *outputs, labels=("bg", "person", "car"))
    assert isinstance(result, Detections)
    assert [o.label for o in result.objects] == ["person"]
    assert result.objects[0].score == pytest.approx(0.9)
    assert result.objects[0].box == pytest.approx((0.2, 0.1, 0.6, 0.5))
    assert result.objects[0].pixels == (20, 5, 60, 25)
    shuffled = {"decoder": "ssd", "order": ["count", "scores", "classes", "boxes"], "class_offset": 1}
    assert answer(shuffled, *outputs[::-1], labels=("bg", "person", "car")) == result


def test_ssd_clips_to_the_picture_and_drops_what_is_outside_or_not_finite() -> None:
    boxes = [[-0.5, -0.5, 0.5, 0.5], [1.1, 1.1, 1.2, 1.2], [0, 0, math.nan, 1], [0.5, 0.5, 0.2, 0.2]]
    result = answer({"decoder": "ssd"}, *ssd_outputs(boxes, [0] * 4, [0.9] * 4, 4))
    assert isinstance(result, Detections)
    assert [o.box for o in result.objects] == [(0, 0, 0.5, 0.5)]


@pytest.mark.parametrize("count", [math.nan, math.inf, -1, 1e9])
def test_ssd_survives_a_count_that_lies(count: float) -> None:
    assert isinstance(answer({"decoder": "ssd"}, *ssd_outputs([[0, 0, 1, 1]], [0], [0.9], count)), Detections)


def test_ssd_with_the_wrong_number_of_tensors_is_refused() -> None:
    with pytest.raises(InvalidModel, match="needs 4 output tensors, the model has 1"):
        answer({"decoder": "ssd"}, np.zeros((1, 4), np.float32))


# --- yolov2 ---

YOLO = {"decoder": "yolov2", "anchors": [[1.0, 1.0], [2.0, 3.0]], "threshold": 0.5}


def empty_cells(rows: int = 4, columns: int = 5, classes: int = 3) -> np.ndarray:
    cells = np.zeros((1, rows, columns, 2, 5 + classes), np.float32)
    cells[..., 4] = -20
    return cells


def put(cells: np.ndarray, row: int, column: int, anchor: int, digit: int) -> None:
    cells[0, row, column, anchor, 4] = 20
    cells[0, row, column, anchor, 5 + digit] = 20


def test_yolo_boxes_follow_cell_anchor_and_size() -> None:
    cells = empty_cells()
    put(cells, 2, 1, 1, 2)
    cells[0, 2, 1, 1, 2:4] = math.log(0.5), math.log(0.25)
    result = answer(YOLO, cells.reshape(1, 4, 5, 16), labels=("a", "b", "c"))
    assert isinstance(result, Detections)
    (only,) = result.objects
    assert only.label == "c"
    assert only.score == pytest.approx(1, abs=1e-6)
    centre_x, centre_y, width, height = 1.5 / 5, 2.5 / 4, 2 * 0.5 / 5, 3 * 0.25 / 4
    expected = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
    assert only.box == pytest.approx(expected, abs=1e-5)


def test_yolo_reads_channels_first_when_the_labels_say_so() -> None:
    cells = empty_cells()
    put(cells, 2, 1, 1, 2)
    flat = cells.reshape(1, 4, 5, 16)
    labels = ("a", "b", "c")
    assert answer(YOLO, np.ascontiguousarray(flat.transpose(0, 3, 1, 2)), labels=labels) == answer(
        YOLO, flat, labels=labels
    )


def test_yolo_with_activated_cells_applies_nothing_twice() -> None:
    cells = empty_cells()
    cells[...] = 0
    cells[0, 0, 0, 0] = (0.25, 0.75, 0, 0, 0.8, 0.1, 0.9, 0)
    result = answer(YOLO | {"cells_activated": True}, cells.reshape(1, 4, 5, 16), labels=("a", "b", "c"))
    assert isinstance(result, Detections)
    assert result.objects[0].score == pytest.approx(0.72)
    assert result.objects[0].box == pytest.approx((0, 0.25 / 4, 0.75 / 5, 1.25 / 4), abs=1e-6)


def test_overlapping_boxes_of_one_class_are_one_object_and_of_two_classes_two() -> None:
    cells = empty_cells()
    put(cells, 2, 2, 1, 0)
    put(cells, 2, 3, 1, 0)
    cells[0, 2, 3, 1, 0:2] = -20, 0
    cells[0, 2, 2, 1, 0:2] = 20, 0
    same = answer(YOLO, cells.reshape(1, 4, 5, 16), labels=("a", "b", "c"))
    assert isinstance(same, Detections)
    assert len(same.objects) == 1
    cells[0, 2, 3, 1, 5:] = 0, 20, 0
    other = answer(YOLO, cells.reshape(1, 4, 5, 16), labels=("a", "b", "c"))
    assert isinstance(other, Detections)
    assert sorted(o.label for o in other.objects) == ["a", "b"]


def test_yolo_shapes_that_do_not_fit_anchors_and_labels_are_refused() -> None:
    with pytest.raises(InvalidModel, match="2 anchors of 5 \\+ 3 values"):
        answer(YOLO, np.zeros((1, 4, 5, 17), np.float32), labels=("a", "b", "c"))
    with pytest.raises(InvalidModel, match="one tensor"):
        answer(YOLO, np.zeros((1, 16), np.float32))


def test_a_letterboxed_answer_is_given_in_units_of_the_picture() -> None:
    cells = empty_cells()
    put(cells, 2, 2, 0, 0)
    placement = Placement(200, 100, top=-0.5, bottom=1.5)
    result = answer(YOLO, cells.reshape(1, 4, 5, 16), labels=("a", "b", "c"), placement=placement)
    assert isinstance(result, Detections)
    box = result.objects[0].box
    assert (box[1] + box[3]) / 2 == pytest.approx(-0.5 + 2 * 2.5 / 4, abs=1e-5)
    assert box[3] - box[1] == pytest.approx(2 / 4, abs=1e-5)
    assert result.objects[0].pixels[3] - result.objects[0].pixels[1] == 50


def naive_suppression(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        good = True
        for j in kept:
            wide = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0])
            high = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1])
            both = max(0.0, wide) * max(0.0, high)
            union = sum((boxes[k][2] - boxes[k][0]) * (boxes[k][3] - boxes[k][1]) for k in (i, j)) - both
            good &= classes[i] != classes[j] or both <= iou * union
        if good:
            kept.append(i)
    return kept


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 100), st.floats(0, 1))
def test_suppression_agrees_with_the_plain_definition(seed: int, count: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 10, (count, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 10, (count, 2))], axis=1).astype(np.float32)
    scores, classes = (rng.integers(0, 5, count) / 5).astype(np.float32), rng.integers(0, 2, count)
    expected = naive_suppression(boxes, scores, classes, iou)
    assert suppress(boxes, scores, classes, iou, 1000).tolist() == expected


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["ssd", "yolov2", "segmentation", "classification"]))
def test_any_bits_in_float_outputs_give_json_without_nan(seed: int, decoder: str) -> None:
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)

    scores = rng.random((1, 9)).astype(np.float32)  # others are refused, see below
    outputs = {"ssd": [noise(1, 9, 4), noise(1, 9), scores, noise(1)], "yolov2": [noise(1, 4, 5, 16)]}
    table: dict[str, object] = {"decoder": decoder}
    if decoder == "yolov2":
        table["anchors"] = [[1, 1], [2, 2]]
    with np.errstate(all="ignore"):
        answer(table, *outputs.get(decoder, [noise(1, 4, 5, 7)]))


def test_scores_that_cannot_be_scores_are_refused_with_what_to_set() -> None:
    boxes, classes = np.zeros((1, 2, 4), np.float32), np.array([[83.0, 1.0]], np.float32)
    scores, count = np.array([[0.9, 0.1]], np.float32), np.array([2.0], np.float32)
    with pytest.raises(InvalidModel, match=r"holds 83.*order"):
        answer({"decoder": "ssd"}, boxes, scores, classes, count)


# --- segmentation ---


def test_class_numbers_give_areas_and_a_mask_that_can_be_read_back() -> None:
    values = np.zeros((1, 4, 10), np.int64)
    values[0, :, 7:] = 2
    result = answer({"decoder": "segmentation"}, values, labels=("background", "cat", "dog"))
    assert isinstance(result, Segmentation)
    assert [(c.label, c.fraction) for c in result.classes] == [("background", 0.7), ("dog", 0.3)]
    data = result.to_json()["mask"]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["png"]))))
    assert (mask == values[0]).all()
    assert "mask" not in result.to_json(with_mask=False)


def test_scores_are_turned_into_their_best_class() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 6, 6, 4)).astype(np.float32)
    result = answer({"decoder": "segmentation"}, values)
    assert isinstance(result, Segmentation)
    assert (result.mask == values[0].argmax(axis=-1)).all()


def test_a_single_score_is_foreground_above_the_threshold() -> None:
    values = np.array([[[[0.2], [0.9]], [[0.5], [0.1]]]], np.float32)
    result = answer({"decoder": "segmentation", "threshold": 0.5}, values)
    assert isinstance(result, Segmentation)
    assert result.mask.tolist() == [[0, 1], [1, 0]]


def test_letterbox_borders_are_cut_from_the_mask_and_not_counted() -> None:
    values = np.full((1, 8, 8), 5, np.uint8)
    values[0, 2:6] = 1
    result = answer({"decoder": "segmentation"}, values, placement=Placement(200, 100, top=-0.5, bottom=1.5))
    assert isinstance(result, Segmentation)
    assert result.mask.shape == (4, 8)
    assert [c.index for c in result.classes] == [1]
    assert result.box == (0, 0, 1, 1)


def test_the_mask_of_a_cropped_picture_says_which_part_it_covers() -> None:
    result = answer(
        {"decoder": "segmentation"}, np.ones((1, 8, 8), np.uint8), placement=Placement(200, 100, left=0.25, right=0.75)
    )
    assert isinstance(result, Segmentation)
    assert result.mask.shape == (8, 8)
    assert result.box == (0.25, 0, 0.75, 1)


def test_a_model_without_a_decoder_says_what_to_set() -> None:
    with pytest.raises(InvalidModel, match="set \\[output\\] decoder"):
        answer({"decoder": "none"}, np.zeros((1, 3), np.float32))
