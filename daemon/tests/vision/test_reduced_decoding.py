"""A JPEG that is much larger than the tensor is decoded at reduced scale, and nobody can tell from the answer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeaid.models.rules import PictureRules
from edgeaid.tensors import TensorSpec
from edgeaid.vision import preprocess
from edgeaid.vision.placement import Placement

SPEC = TensorSpec("pixels", "UINT8", (1, 128, 96, 3))


def tensor(picture: bytes, rules: PictureRules) -> tuple[np.ndarray[Any, Any], Placement]:
    out = np.zeros(SPEC.shape, np.uint8)
    return out, preprocess.to_tensor(picture, SPEC, rules, out)


def whole(picture: bytes, rules: PictureRules) -> tuple[np.ndarray[Any, Any], Placement]:
    """The same from the picture decoded at its full size."""
    out = np.zeros(SPEC.shape, np.uint8)
    return out, preprocess.place(preprocess.decode(picture), SPEC, rules, out)


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    made = io.BytesIO()
    image.save(made, "JPEG", quality=92, exif=exif)
    return made.getvalue()


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("width", [640, 1280, 1920, 4056])
def test_real_pictures_differ_by_less_than_half_a_step_on_average(shared_data: Path, resize: str, width: int) -> None:
    pictures = sorted((shared_data / "coral").glob("*.jpg"))
    assert pictures
    for path in pictures:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        data = jpeg(image.resize((width, round(width * image.height / image.width))))
        rules = PictureRules(resize=resize)
        reduced, placement = tensor(data, rules)
        full, expected = whole(data, rules)
        assert placement == expected
        difference = np.abs(reduced.astype(int) - full)
        assert difference.mean() < 0.4
        assert difference.max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_placed_as_if_decoded_whole(orientation: int) -> None:
    gradient = np.add.outer(np.arange(1200) / 8, np.arange(1600) / 16)
    image = Image.fromarray(np.stack([gradient, 255 - gradient, gradient / 2], -1).clip(0, 255).astype(np.uint8))
    data = jpeg(image, orientation)
    reduced, placement = tensor(data, PictureRules(resize="crop"))
    full, expected = whole(data, PictureRules(resize="crop"))
    assert placement == expected
    assert np.abs(reduced.astype(int) - full).max() <= 4


def test_a_large_picture_is_decoded_small() -> None:
    data = jpeg(Image.new("RGB", (2048, 1536), (200, 30, 90)))
    image, full = preprocess._decode(data, 1 << 24, lambda size: preprocess._reduced(size, (96, 128), PictureRules()))
    assert full == (2048, 1536)
    assert image.width * image.height <= 2048 * 1536 / 15


def test_nearest_neighbour_sees_every_pixel() -> None:
    assert preprocess._reduced((4000, 3000), (100, 100), PictureRules(filter="nearest")) is None


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("width", [320, 640, 1920])
def test_a_frame_that_is_averaged_first_differs_by_less_than_half_a_step(
    shared_data: Path, resize: str, width: int
) -> None:
    for path in sorted((shared_data / "coral").glob("*.jpg"))[:4]:
        with Image.open(path) as opened:
            image = opened.convert("RGB").resize((width, round(width * opened.height / opened.width)))
        rules = PictureRules(resize=resize)
        exact, averaged = np.zeros(SPEC.shape, np.uint8), np.zeros(SPEC.shape, np.uint8)
        expected = preprocess.place(image, SPEC, rules, exact)
        assert preprocess.place(image, SPEC, rules, averaged, averaged=True) == expected
        difference = np.abs(averaged.astype(int) - exact)
        assert difference.mean() < 0.4
        assert difference.max() <= 8
