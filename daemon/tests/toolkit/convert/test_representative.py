"""Representative data and the figures of a comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from edgeaid.errors import InvalidModel, InvalidRequest, NotFound
from edgeaid.tensors import Quantization
from edgeaid.toolkit.convert import compare, representative
from edgeaid.toolkit.convert.representative import PIXELS, Normalisation

from ..check_cases import FP, bias_only, relu
from ..tflite_builder import Graph, Op, T, build


def picture(directory: Path, name: str, color: tuple[int, int, int]) -> None:
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 6), color).save(directory / name)


def test_pictures_are_stretched_and_normalised_as_the_manifest_says(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", (255, 0, 51))
    rules = Normalisation((127.5,), (127.5,))
    data = representative.read(str(tmp_path), (4, 5, 3), rules, 10)
    assert data.shape == (1, 4, 5, 3)
    assert data.dtype == np.float32
    np.testing.assert_allclose(data[0, 0, 0], [1, -1, -0.6], atol=1e-6)
    blue_first = representative.read(str(tmp_path), (4, 5, 3), Normalisation((0,), (255,), "BGR", True), 10)
    np.testing.assert_allclose(blue_first[0, 0, 0], [0.8, 1, 0], atol=1e-6)


def test_normalisation_may_differ_per_channel(tmp_path: Path) -> None:
    picture(tmp_path, "a.png", (100, 100, 100))
    data = representative.read(str(tmp_path), (2, 2, 3), Normalisation((100, 90, 80), (1, 2, 4)), 1)
    np.testing.assert_allclose(data[0, 0, 0], [0, 5, 5])


def test_of_too_many_pictures_the_same_ones_are_drawn_every_time(tmp_path: Path) -> None:
    for i in range(30):
        picture(tmp_path, f"{i:02}.png", (i, 0, 0))
    one, two = (representative.read(str(tmp_path), (2, 2, 3), PIXELS, 5) for _ in range(2))
    assert len(one) == 5
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("shape", [(7, 1, 4, 4, 1), (7, 4, 4), (7, 4, 4, 1)])
def test_an_array_with_a_batch_or_without_a_channel_dimension_fits(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    assert representative.read(str(tmp_path / "a.npy"), (4, 4, 1), PIXELS, 100).shape == (7, 4, 4, 1)


def test_pixels_in_an_array_are_normalised_and_real_values_are_not(tmp_path: Path) -> None:
    np.save(tmp_path / "u8.npy", np.full((1, 2, 2, 3), 255, np.uint8))
    np.save(tmp_path / "f32.npy", np.full((1, 2, 2, 3), 7.0))
    assert representative.read(str(tmp_path / "u8.npy"), (2, 2, 3), PIXELS, 1).max() == 1
    assert representative.read(str(tmp_path / "f32.npy"), (2, 2, 3), PIXELS, 1).max() == 7


def test_a_generator_is_run_until_there_is_enough(tmp_path: Path) -> None:
    (tmp_path / "gen.py").write_text(
        "import itertools\nimport numpy as np\ndef data():\n"
        "    for i in itertools.count():\n        yield [np.full((1, 3), i, np.float32)]\n"
    )
    data = representative.read(f"{tmp_path / 'gen.py'}:data", (3,), PIXELS, 4)
    np.testing.assert_array_equal(data[:, 0], [0, 1, 2, 3])


def test_a_generator_that_fails_is_reported_with_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "gen.py").write_text("def data():\n    raise ValueError('no camera')\n")
    with pytest.raises(InvalidModel, match="no camera"):
        representative.read(f"{tmp_path / 'gen.py'}:data", (3,), PIXELS, 4)


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((1, 3), np.nan))
    np.save(tmp_path / "other.npy", np.zeros((1, 5)))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "pickle.npy").write_bytes(b"")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("nan", "other", "text", "pickle"):
        with pytest.raises(InvalidModel):
            representative.read(str(tmp_path / f"{name}.npy"), (3,), PIXELS, 4)
    with pytest.raises(NotFound, match=r"file\.py:function"):
        representative.read("nothing", (3,), PIXELS, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no pictures"):
        representative.read(str(tmp_path / "empty"), (2, 2, 3), PIXELS, 4)
    with pytest.raises(InvalidRequest):
        representative.read(str(tmp_path), (3,), PIXELS, 4)
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InvalidModel, match="not a readable picture"):
        representative.read(str(tmp_path / "pics"), (2, 2, 3), PIXELS, 4)


def test_data_that_do_not_vary_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "zeros.npy", np.zeros((9, 3)))
    with pytest.raises(InvalidModel, match="nothing but the value 0"):
        representative.load(str(tmp_path / "zeros.npy"), (3,), PIXELS, 9)


def test_a_labelled_directory_goes_by_number_or_by_label(tmp_path: Path) -> None:
    picture(tmp_path, "1/a.png", (0, 0, 0))
    picture(tmp_path, "cat/b.png", (0, 0, 0))
    assert [n for _, n in representative.labelled(tmp_path, ["dog", "bird", "cat"])] == [1, 2]
    with pytest.raises(InvalidModel, match="cat"):
        list(representative.labelled(tmp_path, []))


# --- comparison -------------------------------------------------------------------------------------------------------


def test_equal_outputs_have_no_difference_and_others_are_measured() -> None:
    a = np.array([[0.0, 1.0], [1.0, 0.0]])
    same = compare.difference(a, a)
    assert (same.max_error, same.top1_agreement) == (0, 1)
    assert same.correlation == pytest.approx(1)
    other = compare.difference(a, a[::-1])
    assert (other.max_error, other.top1_agreement) == (1, 0)
    assert other.correlation == pytest.approx(-1)
    with pytest.raises(InvalidModel):
        compare.difference(a, np.zeros((2, 3)))


@given(
    arrays(np.float32, st.integers(1, 20), elements=st.floats(-10, 10, width=32)),
    st.floats(0.001, 1),
    st.integers(-128, 127),
)
def test_quantising_and_back_is_off_by_half_a_step_within_the_range(
    values: np.ndarray, scale: float, zero: int
) -> None:
    q = Quantization((scale,), (zero,))
    back = compare.dequantise(compare.quantise(values, "INT8", q), q)
    inside = (values > scale * (-128 - zero)) & (values < scale * (127 - zero))
    assert np.all(np.abs(back - values)[inside] <= scale * 0.5001 + 1e-4)


def test_layers_of_a_float_and_an_integer_model_are_compared_by_name(tmp_path: Path) -> None:
    q = (1 / 127, 0)
    (tmp_path / "f.tflite").write_bytes(relu(type=FP))
    quantised = build(
        Graph([T("x", (1, 8), "INT8", q=q), T("y", (1, 8), "INT8", q=q)], [Op("RELU", ["x"], ["y"])], ["x"], ["y"])
    )
    (tmp_path / "q.tflite").write_bytes(quantised)
    values = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    (layer,) = compare.layers(tmp_path / "f.tflite", tmp_path / "q.tflite", values)
    assert layer.name == "y"
    assert layer.rmse < 0.005
    assert layer.sqnr > 40


def test_accuracy_counts_the_largest_output(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bias_only(1.0))
    samples = [(np.eye(8, dtype=np.float32)[i], i if i else 3) for i in range(8)]
    assert compare.accuracy(tmp_path / "m.tflite", samples) == pytest.approx(7 / 8)
