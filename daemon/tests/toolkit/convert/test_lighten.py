"""What sharing and single bits would give is computed from a file's weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgeaid.toolkit.convert.lighten import packed, zeros

from ..float_networks import Net

#: Weights of the only convolution: 16 channels of 3 x 3 x 8.
COUNT = 16 * 9 * 8


def network(weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    net = Net(8, 8, 8)
    made = net.conv(net.input, 16)
    kernel = next(t for t in net.tensors if tuple(t.shape) == (16, 3, 3, 8))
    kernel.data = weights
    return net.file(made)


@pytest.mark.parametrize(("values", "bits"), [(2, 1), (16, 4), (17, 5), (256, 8)])
def test_weights_that_share_values_would_take_an_index_each_and_a_table(values: int, bits: int) -> None:
    table = np.linspace(-1, 1, values, dtype=np.float32)
    weights = np.resize(table, COUNT).reshape(16, 3, 3, 8)
    content = network(weights)
    assert len(content) - packed(content) == 4 * COUNT - (COUNT * bits // 8 + 4 * values)


def test_weights_of_two_values_per_channel_would_take_one_bit() -> None:
    signs = np.where(np.random.default_rng(0).random((16, 3, 3, 8)) < 0.5, -1, 1)
    weights = (signs * np.arange(1, 17).reshape(16, 1, 1, 1)).astype(np.float32)
    content = network(weights)
    assert len(content) - packed(content) == 4 * COUNT - (COUNT // 8 + 2 * 16 * 4)


def test_weights_that_share_nothing_stay_as_they_are() -> None:
    content = network(np.random.default_rng(0).normal(0, 1, (16, 3, 3, 8)).astype(np.float32))
    assert packed(content) == len(content)
    assert zeros(content) == 0
