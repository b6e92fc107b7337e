"""Options of nncase 1.x, given by name to the real compiler: what it makes still computes what the float model does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.formats.k210 import kmodel

from ...support.toolkit import need
from ..float_networks import Net

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BYTES = {"preprocess": "true", "input_type": "uint8", "input_range": "0,1"}


def compiled(directory: Path, options: dict[str, str]) -> tuple[int, str]:
    """Exit status and output of `compile` of a network of two convolutions."""
    need("nncase")
    net = Net(16, 16, 3)
    (directory / "net.tflite").write_bytes(net.file(net.conv(net.conv(net.input, 8), 8)))
    np.save(directory / "data.npy", np.random.default_rng(0).uniform(0, 1, (8, 16, 16, 3)).astype(np.float32))
    given = [part for name, value in options.items() for part in ("--compiler-option", f"{name}={value}")]
    result = CliRunner().invoke(
        model,
        ["compile", str(directory / "net.tflite"), "--target", "k210", "--calibration", str(directory / "data.npy"),
         "-o", str(directory), "--json", *given],
    )  # fmt: skip
    return result.exit_code, result.stdout if result.exit_code == 0 else result.output


@pytest.mark.parametrize(
    "options",
    [
        BYTES | {"input_shape": "1,16,16,3"},
        BYTES | {"input_shape": "1,3,16,16", "input_layout": "NCHW", "output_layout": "NCHW"},
        BYTES | {"input_shape": "1,16,16,3", "mean": "0.5,0.5,0.5", "std": "0.5,0.25,0.5", "swapRB": "true"},
        {"calibrate_method": "l2", "use_mse_quant_w": "true", "split_w_to_act": "true"},
    ],
    ids=["bytes", "channels first", "mean and std", "calibration"],
)
def test_options_by_name_give_a_model_that_computes_the_same(options: dict[str, str], tmp_path: Path) -> None:
    status, text = compiled(tmp_path, options)
    assert status == 0, text
    (facts,) = json.loads(text)["facts"].values()
    assert facts["correlation"] > 0.99
    made = kmodel.read((tmp_path / "net.kmodel").read_bytes())
    assert made.inputs[0].datatype == ("UINT8" if "input_type" in options else "FP32")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"calibrate_method": "best"}, "no_clip"), ({"speed": "high"}, "calibrate_method"), ({"mean": "x"}, "float")],
)
def test_an_option_that_nncase_does_not_know_is_refused_with_the_list(
    options: dict[str, str], said: str, tmp_path: Path
) -> None:
    status, text = compiled(tmp_path, options)
    assert status != 0
    assert said in text
