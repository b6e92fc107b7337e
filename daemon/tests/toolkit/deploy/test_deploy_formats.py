"""`edgeai model deploy` from ONNX, PyTorch and a float .tflite to an answer of a running daemon (Keras: end to end)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgeaid.cli import main as edgeai
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.run import child

from ...support.daemon import Running
from ...support.toolkit import need as interpreter
from ..check.test_check_k210 import onnx_file
from ..float_networks import NETWORKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_TORCH = """
import sys, torch
torch.manual_seed(1)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                              torch.nn.Flatten(), torch.nn.Linear(2048, 10), torch.nn.Softmax(1)).eval()
torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 32, 32),)), sys.argv[1])
"""


def need(*names: str) -> None:
    for name in names:
        if name == "torch" and environments.ready(name) is None:
            pytest.skip("the torch environment (6 GB) is not there: edgeai model environments torch --create")
        interpreter(name)


def onnx(path: Path) -> None:
    need("onnx2tf", "quantizer")
    onnx_file(path, shaped=True)


def pt2(path: Path) -> None:
    need("torch", "quantizer")
    done = child([environments.python("torch"), "-c", _TORCH, path], timeout=300)
    assert done.status == 0, done.error


def tflite(path: Path) -> None:
    need("quantizer")
    path.write_bytes(NETWORKS["digits 28"]())


@pytest.mark.parametrize("make", [onnx, pt2, tflite], ids=lambda make: make.__name__)
def test_one_command_takes_a_file_to_an_answer(
    make: Callable[[Path], None], tmp_path: Path, start: Callable[..., Running]
) -> None:
    make(source := tmp_path / f"net.{make.__name__}")
    (tmp_path / "pictures").mkdir()
    generator = np.random.default_rng(1)
    for number in range(24):
        pixels = generator.integers(0, 256, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    result = CliRunner().invoke(
        edgeai,
        ["--socket", str(start().socket), "model", "deploy", str(source), "--name", "mine", "--target", "edgetpu,cpu",
         "--representative", str(tmp_path / "pictures"), "--task", "classify", "--try",
         str(tmp_path / "pictures" / "1.png"), "-o", str(tmp_path / "work")],
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    steps = json.loads((tmp_path / "work" / "deploy.json").read_text())["steps"]
    states = {f"{s['name']} {s['target']}".strip(): s["state"] for s in steps}
    print({s["name"]: s["text"] for s in steps})
    converted = ["convert"] if make is not tflite else []
    assert list(states) == [
        *converted, "quantise", "check edgetpu", "compile edgetpu", "check cpu", "bundle", "push", "ask",
    ]  # fmt: skip
    assert [key for key, state in states.items() if state != "done"] == ["compile edgetpu"]
    assert next(s for s in steps if s["name"] == "quantise")["report"]["difference"]["correlation"] > 0.9
