"""What a kmodel and its manifest options mean for the board, without a board."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid.backends.k210.plan import (
    FLOATS,
    JPEG,
    RAW,
    ZLIB,
    decode_outputs,
    encode_input,
    flat,
    input_head,
    plan,
)
from edgeaid.errors import InvalidModel

from ...standins.k210 import facts


def small(w: int = 32, h: int = 32, c: int = 3, outputs: int = 1) -> bytes:
    data: bytes = facts.small_kmodel(w, h, c, outputs)
    return data


def test_shapes_come_from_the_file_and_from_the_manifest() -> None:
    made = plan("m", small(32, 16, 3, 2), {"outputs": [[4, 2, 192], [32, 16, 3]]})
    assert made.inputs[0].shape == (1, 3, 16, 32)
    assert [o.shape for o in made.outputs] == [(1, 192, 2, 4), (1, 3, 16, 32)]
    assert made.set_outputs == ((0, 4, 2, 192), (1, 32, 16, 3))
    assert made.mask == 3


def test_without_shapes_outputs_are_flat() -> None:
    made = plan("m", small(), {})
    assert made.outputs[0].shape == (1, 3072)
    assert made.set_outputs == ((0, 3072, 1, 1),)


@given(st.integers(1, 3_000_000))
def test_a_flat_shape_fits_the_boards_16_bit_numbers_or_is_refused(count: int) -> None:
    try:
        w, h, c = flat(count)
    except InvalidModel:
        assert count > 65535
    else:
        assert w * h * c == count
        assert max(w, h, c) <= 65535


def test_nhwc_turns_pictures_and_outputs() -> None:
    made = plan("m", small(8, 4, 3), {"layout": "nhwc", "outputs": [[8, 4, 3]], "encoding": "raw"})
    picture = np.arange(96, dtype=np.uint8).reshape(1, 4, 8, 3)
    assert encode_input(made, picture) == (RAW, picture[0].transpose(2, 0, 1).tobytes())
    out = np.zeros((1, 4, 8, 3), np.float32)
    values = np.arange(96, dtype="<f4")
    decode_outputs(made, values.tobytes(), [out])
    assert (out[0] == values.reshape(3, 4, 8).transpose(1, 2, 0)).all()


def test_a_picture_is_compressed_only_when_that_pays() -> None:
    made = plan("m", small(), {})
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    assert encode_input(made, noise)[0] == RAW
    kind, packed = encode_input(made, np.zeros_like(noise))
    assert kind == ZLIB
    assert zlib.decompress(packed) == bytes(3072)
    assert encode_input(plan("m", small(), {"encoding": "jpeg"}), noise)[0] == JPEG


def test_the_head_of_an_input_tells_size_checksum_and_shape() -> None:
    made = plan("m", small(8, 4, 3), {})
    assert struct.unpack("<IIBHHB", input_head(made, 0, b"abc")) == (3, zlib.crc32(b"abc"), 0, 8, 4, 3)


def test_a_v3_model_of_floats_takes_a_list(shared_data: Path) -> None:
    made = plan("iris", (shared_data / "k210" / "iris_v3.kmodel").read_bytes(), {})
    assert (made.inputs[0].datatype, made.inputs[0].shape) == ("FP32", (1, 4))
    assert made.set_outputs == ()
    assert encode_input(made, np.ones((1, 4), np.float32)) == (FLOATS, np.ones(4, "<f4").tobytes())


def test_real_v4_models_are_planned_with_all_their_outputs(shared_data: Path) -> None:
    made = plan("face", (shared_data / "k210" / "ulffd_landmark_v4.kmodel").read_bytes(), {})
    assert made.inputs[0].shape == (1, 3, 240, 320)
    assert [o.shape for o in made.outputs] == [(1, 12640), (1, 31600), (1, 6320)]
    assert made.need == 879520 + 320 * 240 * 5


def test_v5_is_refused_with_the_reason_and_the_way_out(shared_data: Path) -> None:
    data = (shared_data / "k210" / "yolox_nano_224_v5.kmodel").read_bytes()
    with pytest.raises(InvalidModel, match=r"kmodel v5, MaixPy runs v3 and v4; compile it with ncc of nncase 0\.2"):
        plan("yolox", data, {})


def test_a_model_over_the_boards_free_memory_is_refused_with_the_numbers(shared_data: Path) -> None:
    data = (shared_data / "k210" / "slim-320_v4.kmodel").read_bytes()
    with pytest.raises(InvalidModel, match=r"needs 928404 bytes of the board's memory .* 600000 are free"):
        plan("slim", data, {}, free=600_000)
    with pytest.raises(InvalidModel, match="544404 bytes of RAM"):
        plan("slim", data, {}, free=300_000)


def test_a_firmware_without_v4_is_named() -> None:
    with pytest.raises(InvalidModel, match="takes v3 only"):
        plan("m", small(), {}, v4=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputs": [[32, 32, 4]]}, "3072 elements, not 32 x 32 x 4"),
        ({"outputs": [[32, 32]]}, "one .width, height, channels. for each of 1"),
        ({"layout": "hwc"}, "layout 'hwc'"),
        ({"encoding": "png"}, "encoding 'png'"),
        ({"address": 1 << 24}, "16 MiB of flash"),
        ({"address": "zero"}, "16 MiB of flash"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"watchdog_ms": 70000}, "watchdog_ms"),
        ({"camera": {"zoom": 2}}, "unknown camera option 'zoom'"),
        ({"output_names": ["a", "b"]}, "2 output_names for 1 outputs"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidModel, match=words):
        plan("m", small(), options)


def test_channels_that_no_camera_has_are_refused() -> None:
    with pytest.raises(InvalidModel, match="1 or 3 channels"):
        plan("m", small(8, 8, 4), {})


def test_a_picture_too_large_for_the_camera_is_refused() -> None:
    with pytest.raises(InvalidModel, match="up to 320x240"):
        plan("m", small(320, 256, 1), {"camera": True})
