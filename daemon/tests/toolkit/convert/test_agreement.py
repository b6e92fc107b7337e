"""Which output belongs to which, and what happened to the axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeaid.errors import InvalidModel
from edgeaid.toolkit.convert import compare
from edgeaid.toolkit.convert.agreement import Reference, is_picture, judge, pair, read_runs, write_runs


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 4, 4), (2, 6), (2, 3, 4)])
def test_axes_are_put_back_whatever_the_converter_did(shape: tuple[int, ...]) -> None:
    wanted = np.random.default_rng(0).normal(0, 1, shape)
    for made in (wanted, np.moveaxis(wanted, 1, -1), np.moveaxis(wanted, -1, 1)):
        assert np.array_equal(compare.aligned(wanted, made), wanted)


def test_dimensions_of_one_do_not_hinder_a_comparison() -> None:
    wanted = np.arange(20.0).reshape(2, 10, 1, 1)
    assert np.array_equal(compare.aligned(wanted, wanted.reshape(2, 1, 1, 10)), wanted)
    assert np.array_equal(compare.aligned(wanted, wanted.reshape(2, 10)), wanted)


def test_outputs_of_other_sizes_are_refused() -> None:
    with pytest.raises(InvalidModel, match="cannot be compared"):
        compare.aligned(np.zeros((2, 3)), np.zeros((2, 4)))


def test_values_are_paired_by_name_though_signs_were_replaced_and_by_place_otherwise() -> None:
    assert pair(["b/y:0", "a:0"], ["a__0", "b_y_0"]) == [1, 0]
    assert pair(["x", "serving_default_state:0"], ["input", "state:0"]) == [0, 1]


def test_only_pictures_with_channels_first_change_their_layout() -> None:
    assert is_picture((1, 3, 48, 320))
    assert not any(map(is_picture, [(1, 48, 320, 3), (1, 2, 128, 2), (1, 16, 96), (1, 3, 3, 3), (1, 64, 20, 20)]))


def reference(outputs: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]], itself: float = 0.0) -> Reference:
    made = Reference.of([("x", [np.zeros((1, 2))] * 2)], [(f"y{i}", [a, a + 1]) for i, a in enumerate(outputs)])
    return Reference(made.inputs, made.outputs, made.input_specs, made.output_specs, (itself,) * len(outputs), ())


def test_the_output_that_differs_most_is_what_counts() -> None:
    wanted = reference([np.arange(6.0)[None], np.arange(6.0)[None]])
    made = [[a.copy() for a in run] for run in wanted.outputs]
    assert judge(wanted, made)[1] == ()
    made[1][1][0, 0] += 3
    worst, notes = judge(wanted, made)
    assert worst.max_error == 3
    assert notes == ("output y1 does not compute the same: do not use the result before you know why",)


def test_a_reference_that_disagrees_with_itself_is_said_so_and_excuses_that_much() -> None:
    wanted = reference([np.arange(6.0)[None]], itself=0.2)
    made = [[a + 1 for a in run] for run in wanted.outputs]
    worst, notes = judge(wanted, made)
    assert worst.reference_error == 0.2
    assert len(notes) == 1
    assert "disagrees with itself" in notes[0]


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [[np.arange(3), np.ones((2, 2))], [np.arange(3) + 1, np.zeros((2, 2))]]
    write_runs(tmp_path / "runs.npz", runs)
    again = read_runs(tmp_path / "runs.npz", 2)
    assert all(np.array_equal(a, b) for x, y in zip(runs, again, strict=True) for a, b in zip(x, y, strict=True))
