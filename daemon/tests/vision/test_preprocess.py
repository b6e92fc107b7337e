"""A picture becomes exactly the tensor that the manifest's rules say."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeaid.errors import EdgeaiError, InvalidModel, InvalidRequest, TooLarge
from edgeaid.models.rules import PictureRules
from edgeaid.tensors import NUMPY, Quantization, TensorSpec
from edgeaid.vision.preprocess import decode, to_tensor

from ..support.examples import examples


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(width: int = 8, height: int = 4) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([columns * 255 // max(1, width - 1), rows * 255 // max(1, height - 1), columns * 0 + 7], -1).astype(
            np.uint8
        )
    )


def tensor(picture: bytes, spec: TensorSpec, **table: object) -> np.ndarray:
    out = np.zeros(spec.shape, NUMPY[spec.datatype])
    to_tensor(picture, spec, PictureRules.from_table(table), out)
    return out


def spec(
    datatype: str = "UINT8", shape: tuple[int, ...] = (1, 4, 8, 3), quantization: Quantization | None = None
) -> TensorSpec:
    return TensorSpec("image", datatype, shape, quantization)


def test_raw_pixels_of_the_right_size_arrive_unchanged() -> None:
    assert (tensor(encoded(gradient()), spec())[0] == np.asarray(gradient())).all()


def test_raw_pixels_for_int8_are_shifted_by_128() -> None:
    expected = np.asarray(gradient()).astype(int) - 128
    assert (tensor(encoded(gradient()), spec("INT8"))[0] == expected).all()


def test_bgr_swaps_the_outer_channels() -> None:
    assert (tensor(encoded(gradient()), spec(), color="BGR")[0] == np.asarray(gradient())[:, :, ::-1]).all()


def test_grey_has_one_channel_of_luma() -> None:
    got = tensor(encoded(gradient()), spec(shape=(1, 4, 8, 1)), color="GRAY")[0, :, :, 0]
    assert (got == np.asarray(gradient().convert("L"))).all()


def test_channels_first_is_written_where_only_that_fits() -> None:
    got = tensor(encoded(gradient()), spec(shape=(1, 3, 4, 8)))
    assert (got[0].transpose(1, 2, 0) == np.asarray(gradient())).all()


def test_invert_turns_dark_on_light_into_light_on_dark() -> None:
    assert (tensor(encoded(gradient()), spec(), invert=True)[0] == 255 - np.asarray(gradient())).all()


def test_floats_are_pixel_minus_mean_over_std_per_channel_in_tensor_order() -> None:
    mean, std = [1.0, 2.0, 3.0], [10.0, 20.0, 40.0]
    got = tensor(encoded(gradient()), spec("FP32"), mean=mean, std=std, color="BGR")[0]
    expected = (np.asarray(gradient())[:, :, ::-1].astype(np.float64) - mean) / std
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_quantised_inputs_use_the_tensors_own_scale_and_zero_point_and_saturate() -> None:
    quantization = Quantization((0.5,), (10,))
    got = tensor(encoded(gradient()), spec("INT8", quantization=quantization), mean=[100], std=[1])[0]
    expected = np.clip(np.rint((np.asarray(gradient()) - 100.0) / 0.5) + 10, -128, 127)
    assert (got == expected).all()
    assert got.max() == 127
    assert got.min() == -128


def test_mean_and_std_without_a_scale_are_refused_for_integers() -> None:
    with pytest.raises(InvalidModel, match="without one scale"):
        tensor(encoded(gradient()), spec("INT8"), mean=[1], std=[1])


def test_stretch_fills_the_tensor_and_covers_the_whole_picture() -> None:
    out = np.zeros((1, 10, 10, 3), np.uint8)
    placement = to_tensor(
        encoded(Image.new("RGB", (30, 6), (9, 9, 9))), spec(shape=(1, 10, 10, 3)), PictureRules(), out
    )
    assert (out == 9).all()
    assert (placement.left, placement.top, placement.right, placement.bottom) == (0, 0, 1, 1)
    assert (placement.width, placement.height) == (30, 6)


def test_letterbox_keeps_the_shape_and_maps_the_border_outside_the_picture() -> None:
    rules = PictureRules.from_table({"resize": "letterbox", "fill": 77})
    out = np.zeros((1, 10, 10, 3), np.uint8)
    placement = to_tensor(encoded(Image.new("RGB", (40, 20), (9, 9, 9))), spec(shape=(1, 10, 10, 3)), rules, out)
    assert (out[0, 2:7] == 9).all()
    assert (out[0, :2] == 77).all()
    assert (out[0, 7:] == 77).all()
    assert placement.top == pytest.approx(-0.4)
    assert placement.bottom == pytest.approx(1.6)
    assert placement.y(0.2) == pytest.approx(0.0)
    assert placement.y(0.45) == pytest.approx(0.5)
    assert placement.y(0.0) == 0.0
    assert placement.x(0.25) == 0.25


def test_letterbox_borders_stay_as_given_when_the_picture_is_inverted() -> None:
    rules = PictureRules.from_table({"resize": "letterbox", "fill": 0, "invert": True})
    out = np.ones((1, 10, 10, 3), np.uint8)
    to_tensor(encoded(Image.new("RGB", (40, 20), (255, 255, 255))), spec(shape=(1, 10, 10, 3)), rules, out)
    assert (out == 0).all()


def test_crop_takes_the_centre_and_maps_back_to_it() -> None:
    picture = Image.new("RGB", (40, 20), (200, 0, 0))
    picture.paste((0, 200, 0), (10, 0, 30, 20))
    rules = PictureRules.from_table({"resize": "crop", "filter": "nearest"})
    out = np.zeros((1, 10, 10, 3), np.uint8)
    placement = to_tensor(encoded(picture), spec(shape=(1, 10, 10, 3)), rules, out)
    assert (out[0] == (0, 200, 0)).all()
    assert placement.x(0.0) == pytest.approx(0.25)
    assert placement.x(1.0) == pytest.approx(0.75)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif))
    assert (np.asarray(image) == upright).all()


def test_alpha_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (8, 4), (10, 20, 30, 0))
    assert (tensor(encoded(image), spec())[0] == (10, 20, 30)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_is_read(mode: str) -> None:
    image = gradient().convert("RGBA").convert(mode) if mode != "LA" else gradient().convert("L").convert("LA")
    assert tensor(encoded(image), spec()).shape == (1, 4, 8, 3)


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    values = (np.arange(32, dtype=np.uint16) * 2000).reshape(4, 8)
    got = np.asarray(decode(encoded(Image.fromarray(values))))
    assert (got == values >> 8).all()


def test_cmyk_jpeg_and_grey_bmp_are_read() -> None:
    assert decode(encoded(gradient().convert("CMYK"), "JPEG")).mode == "RGB"
    assert decode(encoded(gradient().convert("L"), "BMP")).mode == "L"


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "ICO", "PPM"])
def test_other_formats_are_refused_even_though_the_library_reads_them(form: str) -> None:
    with pytest.raises(InvalidRequest, match="JPEG, PNG, BMP"):
        decode(encoded(gradient(), form))


def test_nothing_and_noise_are_no_pictures() -> None:
    for noise in (b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM" + bytes(60)):
        with pytest.raises(InvalidRequest):
            decode(noise)


def png(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_small_file_that_claims_a_huge_picture_is_refused_by_its_header() -> None:
    bomb = png(20_000, 20_000, zlib.compress(bytes(1 << 20)))
    assert len(bomb) < 5_000
    with pytest.raises(TooLarge, match="pixels"):
        decode(bomb)


def test_a_picture_of_more_pixels_than_asked_for_is_refused() -> None:
    with pytest.raises(TooLarge, match="8 x 4"):
        decode(encoded(gradient()), max_pixels=31)
    assert decode(encoded(gradient()), max_pixels=32).size == (8, 4)


def test_a_compressed_text_chunk_cannot_fill_the_memory() -> None:
    whole = encoded(gradient())
    data = b"comment\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    with pytest.raises(InvalidRequest):
        decode(whole[:33] + chunk + whole[33:])


def test_damaged_exif_does_not_cost_the_picture() -> None:
    whole = encoded(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\0\0")
    assert decode(whole).size == (8, 4)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_every_truncation_is_refused_or_read_but_never_anything_else(form: str) -> None:
    whole = encoded(gradient(16, 16), form)
    for length in range(len(whole)):
        with contextlib.suppress(InvalidRequest):
            decode(whole[:length])


@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "BMP"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
)
def test_flipped_bytes_never_raise_anything_but_our_own_errors(form: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(gradient(16, 16), form))
    for position, value in changes:
        data[position % len(data)] = value
    with contextlib.suppress(EdgeaiError):
        tensor(bytes(data), spec())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["stretch", "letterbox", "crop"]),
)
def test_any_picture_fits_any_tensor_and_the_middle_stays_the_middle(
    width: int, height: int, wide: int, high: int, resize: str
) -> None:
    out = np.zeros((1, high, wide, 3), np.uint8)
    rules = PictureRules.from_table({"resize": resize})
    picture = encoded(Image.new("RGB", (width, height), (50, 60, 70)))
    placement = to_tensor(picture, spec(shape=(1, high, wide, 3)), rules, out)
    assert abs(placement.x(0.5) - 0.5) <= 0.5
    assert (out == (50, 60, 70)).all(axis=-1).any()
    assert placement.left < placement.right
    assert placement.top < placement.bottom


@pytest.mark.parametrize("shape", [(1, 4, 8), (2, 4, 8, 3), (1, 4, 8, 4), (24,)])
def test_a_tensor_that_holds_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidModel, match="needs \\[1, height, width, 3\\]"):
        tensor(encoded(gradient()), spec(shape=shape))


def test_a_datatype_that_holds_no_picture_is_refused() -> None:
    with pytest.raises(InvalidModel, match="INT16"):
        tensor(encoded(gradient()), spec("INT16"))
