"""A drawn answer is a PNG of the picture with what was found on it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgeaid.errors import InvalidRequest
from edgeaid.scores import Area, Box, ClassScore, Detected
from edgeaid.vision.draw import color, render
from edgeaid.vision.results import Classification, Detections, Segmentation


def picture(width: int = 400, height: int = 320) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image)


def one(box: tuple[float, float, float, float], label: str = "cat") -> Detections:
    return Detections((Detected(3, label, 0.9, Box(*box), Box(0, 0, 0, 0)),), 400, 320)


def test_a_box_is_drawn_in_its_class_colour_where_it_belongs() -> None:
    image = drawn(render(picture(), one((0.25, 0.5, 0.75, 0.9))))
    assert image.shape == (320, 400, 3)
    assert tuple(image[200, 100]) == color(3)
    assert tuple(image[288, 200]) == color(3)
    assert tuple(image[240, 200]) == (128, 128, 128)


@pytest.mark.parametrize("label", ["", "Größe", "猫", "x" * 500, "a\nb"])
def test_no_label_can_break_the_drawing(label: str) -> None:
    assert drawn(render(picture(), one((0, 0, 1, 1), label))).shape == (320, 400, 3)


def test_small_and_large_pictures_come_out_at_a_readable_size() -> None:
    assert drawn(render(picture(8, 4), one((0, 0, 1, 1)))).shape == (160, 320, 3)
    assert drawn(render(picture(4000, 1000), one((0, 0, 1, 1)))).shape == (480, 1920, 3)


def test_a_mask_colours_its_area_and_leaves_the_background_clear() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 2:] = 7
    result = Segmentation((Area(0, "background", 0.5), Area(7, "cup", 0.5)), mask, Box(0.0, 0.0, 1.0, 1.0), 400, 320)
    image = drawn(render(picture(), result))
    assert tuple(image[300, 100]) == (128, 128, 128)
    assert tuple(image[300, 300]) != (128, 128, 128)


def test_a_classification_is_written_into_the_corner() -> None:
    result = Classification((ClassScore(1, "bird", 0.5),), 400, 320)
    image = drawn(render(picture(), result))
    assert (image[:16, :60] != 128).any()
    assert (image[100:] == 128).all()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        render(b"nothing", one((0, 0, 1, 1)))
