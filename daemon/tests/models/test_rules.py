"""The [input] and [output] tables are checked before anything relies on them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid.errors import InvalidModel
from edgeaid.formats.labels import parse
from edgeaid.models.rules import OutputRules, PictureRules


def test_an_empty_input_table_means_raw_rgb_stretched() -> None:
    assert PictureRules.from_table({}) == PictureRules()
    assert PictureRules().channels == 3


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"resize": "squash"}, "resize: 'squash' is not one of stretch, letterbox, crop"),
        ({"colour": "RGB"}, "colour: unknown key"),
        ({"mean": [1.0]}, "only one of mean and std"),
        ({"mean": [1.0], "std": [0.0]}, "std: must be above 0"),
        ({"mean": [1.0, 2.0], "std": [1.0]}, "mean: has 2 values"),
        ({"mean": [math.nan], "std": [1.0]}, "not a list of numbers"),
        ({"mean": "x", "std": [1.0]}, "not a list of numbers"),
        ({"invert": 1}, "invert: must be true or false"),
        ({"fill": 300}, "an integer from 0 to 255"),
        ({"fill": True}, "an integer from 0 to 255"),
        ({"color": "GRAY", "mean": [1, 2, 3], "std": [1]}, "give 1, or 1"),
    ],
)
def test_a_wrong_input_table_is_refused_with_its_reason(table: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidModel) as error:
        PictureRules.from_table(table)
    assert text in str(error.value)
    assert "input" in str(error.value)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "decoder: is missing"),
        ({"decoder": "yolov9"}, "is not one of classification, ssd, yolov2, segmentation, yolov5"),
        ({"decoder": "yolov2"}, "needs anchors"),
        ({"decoder": "yolov2", "anchors": [[1, 0]]}, "both above 0"),
        ({"decoder": "yolov2", "anchors": [[1]]}, "is not [width, height]"),
        ({"decoder": "yolov2", "anchors": 3}, "not a list"),
        ({"decoder": "yolov2", "anchors": [[1, 1]] * 65}, "at most 64"),
        ({"decoder": "none", "threshold": 1.5}, "number from 0 to 1"),
        ({"decoder": "none", "threshold": math.nan}, "number from 0 to 1"),
        ({"decoder": "none", "iou": "a"}, "number from 0 to 1"),
        ({"decoder": "none", "max_results": 0}, "an integer from 1 to 1000"),
        ({"decoder": "ssd", "order": ["boxes", "scores"]}, "does not name each"),
        ({"decoder": "none", "top": 3}, "top: unknown key"),
    ],
)
def test_a_wrong_output_table_is_refused_with_its_reason(table: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidModel) as error:
        OutputRules.from_table(table)
    assert text in str(error.value)
    assert "output" in str(error.value)


def test_a_whole_output_table_is_read() -> None:
    rules = OutputRules.from_table(
        {"decoder": "yolov2", "anchors": [[1, 2], [3.5, 4]], "threshold": 0, "iou": 1, "cells_activated": True}
    )
    assert rules.anchors == ((1.0, 2.0), (3.5, 4.0))
    assert rules.cells_activated


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["resize", "mean", "std", "fill", "decoder", "anchors", "order", "threshold", "iou", "max_results"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_no_table_raises_anything_but_invalid_model(table: dict[str, object]) -> None:
    for rules in (PictureRules, OutputRules):
        with contextlib.suppress(InvalidModel):
            rules.from_table({"decoder": "none"} | table if rules is OutputRules else table)


def test_labels_stop_at_the_first_empty_line() -> None:
    assert parse("background\ncat \r\n\nremark about 255\n").names == ("background", "cat")
