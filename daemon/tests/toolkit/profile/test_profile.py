"""Time per operator: a model's beginnings compute what the whole model computes there, and the sum is the whole."""

from __future__ import annotations

import json
import os
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.errors import Unsupported
from edgeaid.formats.tflite import reader as tflite
from edgeaid.toolkit.profile.prefix import prefix
from edgeaid.toolkit.profile.profile import page, profile
from edgeaid.toolkit.run import have_litert, litert

from ..tflite_builder import Graph, Op, T, build

DIGITS = Path(str(files("edgeaid.models") / "defaults/digits/1/model.tflite"))
needs_runtime = pytest.mark.skipif(not have_litert(), reason="no TFLite runtime is installed")


@needs_runtime
def test_a_beginning_of_a_model_computes_what_the_whole_computes_there(tmp_path: Path) -> None:
    content = DIGITS.read_bytes()
    graph = tflite.read(content).subgraphs[0]
    count = len(graph.operators) // 2
    wanted = graph.operators[count - 1].outputs[0]
    whole = litert(DIGITS, {"runs": 1, "seed": 3, "keep": np.array([wanted])})
    (tmp_path / "part.tflite").write_bytes(prefix(content, graph, count))
    # Kept tensors come without delegates, which round differently, on both sides.
    part = litert(tmp_path / "part.tflite", {"runs": 1, "seed": 3, "keep": np.array([wanted])})
    np.testing.assert_array_equal(part["input_0_0"], whole["input_0_0"])
    np.testing.assert_array_equal(part[f"kept_0_{wanted}"], whole[f"kept_0_{wanted}"])


@needs_runtime
def test_a_model_that_only_xnnpack_refuses_is_run_and_timed_with_the_runtimes_own_kernels(tmp_path: Path) -> None:
    tensors = [
        T("in", [1, 1, 1, 2], "UINT8", q=(0.5, 0)),
        T("size", [2], "INT32", [3, 3]),
        T("out", [1, 3, 3, 2], "UINT8", q=(1.0, 0)),  # XNNPACK takes no other scale than the input's
    ]
    file = tmp_path / "resize.tflite"
    file.write_bytes(
        build(Graph(tensors, [Op("RESIZE_BILINEAR", ["in", "size"], ["out"], [(2, "?", True)])], ["in"], ["out"]))
    )
    answer = litert(file, {"runs": 1, "input_0_0": np.full((1, 1, 1, 2), 7, np.uint8)})
    assert (answer["output_0_0"] == 7).all()
    assert len(profile(file, runs=2, seconds=0.05).operators) == 1


def test_every_beginning_is_a_sound_model_with_one_operator_more() -> None:
    content = DIGITS.read_bytes()
    graph = tflite.read(content).subgraphs[0]
    for count in range(1, len(graph.operators) + 1):
        made = tflite.read(prefix(content, graph, count))
        assert len(made.subgraphs[0].operators) == count
        assert len(made.outputs) >= 1
        assert made.inputs == tflite.read(content).inputs


def test_what_later_operators_read_is_an_output_of_the_beginning(shared_findings: Path) -> None:
    path = shared_findings / "toolkit/movenet_single_pose_lightning_ptq.tflite"
    content = path.read_bytes()
    graph = tflite.read(content).subgraphs[0]
    for count in (1, 40, 80, 120, len(graph.operators)):
        made = tflite.read(prefix(content, graph, count)).subgraphs[0]
        produced = {i for o in graph.operators[:count] for i in o.outputs}
        read = {i for o in graph.operators[count:] for i in o.inputs}
        assert set(made.outputs) == produced & (read | set(graph.outputs))


@needs_runtime
def test_the_operators_share_the_time_of_the_whole_model() -> None:
    measured = profile(DIGITS, runs=2, seconds=0.01)
    graph = tflite.read(DIGITS.read_bytes()).subgraphs[0]
    assert [(c.index, c.type) for c in measured.operators] == [(o.index, o.label) for o in graph.operators]
    assert sum(c.share for c in measured.operators) == pytest.approx(1)
    assert 0 < measured.best_us <= measured.median_us <= measured.p99_us
    assert sum(count for _, count, _ in measured.types()) == len(graph.operators)
    assert all(c.type in page(measured) for c in measured.operators)


def test_a_compiled_file_is_refused_with_what_to_do(shared_data: Path) -> None:
    with pytest.raises(Unsupported, match="edgeai bench"):
        profile(shared_data / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite")


@needs_runtime
def test_a_device_is_measured_through_ssh_without_a_copy_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The boundary is the ssh program: this one takes the same arguments and runs the command here.
    for name, text in (
        ("ssh", '#!/bin/sh\nshift 2\nexec sh -c "$*"\n'),
        ("edgeai", f'#!/bin/sh\nexec "{sys.executable}" -m edgeaid.cli "$@"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    result = CliRunner().invoke(model, ["profile", str(DIGITS), "--host", "root@pi", "--runs", "1", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["model"] == "model.tflite"
    assert len(told["operators"]) == len(tflite.read(DIGITS.read_bytes()).subgraphs[0].operators)
    assert list((tmp_path / "tmp").iterdir()) == []
