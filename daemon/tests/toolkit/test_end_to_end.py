"""A model from training to answers of a running daemon, with the real converters, each in its pinned environment.

Environments are created on first use (TensorFlow: 2.1 GB), or given by EDGEAI_PYTHON_TENSORFLOW and the like.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli import main as edgeai
from edgeaid.cli.model import model
from edgeaid.formats.k210 import kmodel
from edgeaid.formats.tflite import reader as tflite
from edgeaid.models.bundle import extract
from edgeaid.models.manifest import parse
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.run import child

from ..support.toolkit import need, run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a trained digits classifier in three forms, and pictures."""
    directory = tmp_path_factory.mktemp("digits") / "work"
    done = child(
        [need("tensorflow"), HERE / "train_digits.py", directory], timeout=600, env={"CUDA_VISIBLE_DEVICES": "-1"}
    )
    assert done.status == 0, done.error[-2000:]
    return directory


@pytest.fixture(scope="module")
def quantised(trained: Path) -> Path:
    """Model directory digits/1 with the int8 model; float.tflite lies in the working directory."""
    directory = trained / "digits" / "1"
    text = run(
        "quantize", trained / "digits.keras", "--representative", trained / "train", "--accuracy", trained / "test",
        "-o", trained / "digits.tflite", "--float-output", trained / "float.tflite", "--model-dir", directory,
    )  # fmt: skip
    assert "accuracy on 200 pictures" in text
    return directory


def test_quantising_keeps_the_accuracy_and_reports_every_layer(trained: Path, quantised: Path) -> None:
    report = json.loads((trained / "digits.report.json").read_text())
    assert report["accuracy"]["float"] > 0.8
    assert report["accuracy"]["quantised"] > report["accuracy"]["float"] - 0.03
    assert report["quantised_bytes"] < report["float_bytes"] / 2
    assert len(report["layers"]) >= 5
    made = tflite.read((trained / "digits.tflite").read_bytes())
    assert [s.datatype for s in (*made.inputs, *made.outputs)] == ["INT8", "INT8"]
    assert not {o.name for o in made.operators} & {"SHAPE", "STRIDED_SLICE", "PACK", "TRANSPOSE"}


@pytest.mark.parametrize("source", ["saved_model", "frozen.pb"])
def test_a_saved_model_and_a_frozen_graph_give_the_same_quantised_network(source: str, trained: Path) -> None:
    first, last = (trained / "nodes.txt").read_text().split()
    nodes = ["--input-node", first, "--output-node", last] if source.endswith(".pb") else []
    out = trained / f"{source}.tflite"
    run("quantize", trained / source, *nodes, "--representative", trained / "train", "-o", out, "--io", "uint8")
    made = tflite.read(out.read_bytes())
    assert made.inputs[0].datatype == "UINT8"
    assert [o.name for o in made.operators if o.name in ("CONV_2D", "FULLY_CONNECTED")] == [
        "CONV_2D", "CONV_2D", "FULLY_CONNECTED",
    ]  # fmt: skip


def test_a_float_tflite_file_is_quantised_as_well_as_by_tensorflow(trained: Path, quantised: Path) -> None:
    need("quantizer")
    out = trained / "requantised.tflite"
    run(
        "quantize", trained / "float.tflite", "--representative", trained / "train", "--accuracy", trained / "test",
        "-o", out,
    )  # fmt: skip
    by_tensorflow = json.loads((trained / "digits.report.json").read_text())
    report = json.loads((trained / "requantised.report.json").read_text())
    assert report["accuracy"]["float"] == by_tensorflow["accuracy"]["float"]
    assert report["accuracy"]["quantised"] >= by_tensorflow["accuracy"]["quantised"] - 0.01
    assert report["difference"]["correlation"] > 0.995
    assert report["quantised_bytes"] < report["float_bytes"] / 2


@pytest.mark.parametrize("source", ["digits.keras", "float.tflite"])
def test_every_scheme_is_measured_beside_the_others(source: str, trained: Path, quantised: Path) -> None:
    need("quantizer")
    made = json.loads(
        run("quantize", trained / source, "--representative", trained / "train", "--accuracy", trained / "test",
            "--scheme", "all", "--json")
    )  # fmt: skip
    table = {m["scheme"]: m for m in made}
    assert list(table) == ["int8", "int16x8", "float16", "dynamic", "weights"]
    assert all(m["accuracy"]["quantised"] > m["accuracy"]["float"] - 0.03 for m in made)
    assert table["float16"]["difference"]["relative"] < 0.005
    assert table["float16"]["quantised_bytes"] < 0.65 * table["float16"]["float_bytes"]
    assert all(table[s]["quantised_bytes"] < 0.45 * table[s]["float_bytes"] for s in ("int8", "dynamic", "weights"))
    stem = Path(source).stem
    kinds = {s: tflite.read((trained / f"{stem}_{s}.tflite").read_bytes()).inputs[0].datatype for s in table}
    assert kinds == {"int8": "INT8", "int16x8": "INT16", "float16": "FP32", "dynamic": "FP32", "weights": "FP32"}


@contextmanager
def daemon(directory: Path) -> Iterator[Path]:
    """A running edgeaid without a model of ours; yields its socket."""
    (directory / "models").mkdir(parents=True)
    socket, log = directory / "s.sock", directory / "log"
    command = [
        sys.executable,
        "-m",
        "edgeaid",
        "--socket",
        str(socket),
        "--model-repository",
        str(directory / "models"),
    ]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stderr=errors, env={**os.environ, "STATE_DIRECTORY": str(directory / "state")}
        )
    try:
        until = time.monotonic() + 120
        while "ready after" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield socket
    finally:
        process.terminate()
        process.wait(30)


def test_from_training_to_answers_of_a_running_daemon(trained: Path, quantised: Path, tmp_path: Path) -> None:
    need("nncase")
    run("check", trained / "digits.tflite", "--target", "edgetpu", "--target", "cpu", "--fail-on", "warning")
    (foreseen,) = json.loads(
        run("check", trained / "float.tflite", "--target", "k210", "--fail-on", "warning", "--json")
    )
    text = run(
        "compile", trained / "float.tflite", "--target", "k210", "--calibration", trained / "train", "-o", tmp_path,
        "--model-dir", quantised,
    )  # fmt: skip
    assert "correlation 0.9" in text
    compiled = kmodel.read((tmp_path / "float.kmodel").read_bytes())
    assert (compiled.version, compiled.inputs[0].shape) == (5, (1, 24, 24, 1))
    assert compiled.kpu_peak == foreseen["facts"]["kpu_peak_bytes"]
    run("check", tmp_path / "float.kmodel", "--target", "k210", "--device-profile", "kendryte-sdk")
    run("keygen", tmp_path / "key")
    run("bundle", quantised, "-o", tmp_path, "--key", tmp_path / "key")
    assert "trusted key" in run("verify", tmp_path / "digits-1.edgeai", "--trust", tmp_path / "key.pub")
    extract(tmp_path / "digits-1.edgeai", tmp_path / "out")
    manifest = parse((tmp_path / "out/model.toml").read_bytes(), "digits")
    assert [a.target for a in manifest.artifacts] == ["cpu", "k210"]
    assert len(manifest.goldens) == 2
    assert manifest.accuracy["value"] > 0.8
    pictures = sorted((trained / "test").glob("*/*.png"))
    with daemon(tmp_path / "device") as socket:

        def ask(*arguments: object) -> object:
            result = CliRunner().invoke(edgeai, ["--socket", str(socket), "--json", *map(str, arguments)])
            assert result.exit_code == 0, (result.output, result.exception)
            return json.loads(result.stdout)

        pushed = ask("push", "digits", tmp_path / "digits-1.edgeai")
        assert isinstance(pushed, dict)
        assert (pushed["version"], pushed["serving"]) == ("2", True)  # 1 is the embedded model of that name
        answers = ask("classify", "digits", *pictures)
        assert isinstance(answers, list)
        right = sum(a["classes"][0]["index"] == int(p.parent.name) for a, p in zip(answers, pictures, strict=True))
        # The daemon prepares pictures as the toolkit did when it measured: the same share of right answers.
        assert right / len(pictures) == pytest.approx(manifest.accuracy["value"], abs=0.01)


def test_one_command_takes_a_keras_file_to_an_answer_of_a_daemon(trained: Path, tmp_path: Path) -> None:
    need("nncase")
    picture = next((trained / "test" / "3").glob("*.png"))
    run("keygen", tmp_path / "key")
    with daemon(tmp_path / "device") as socket:
        arguments = [
            "model", "deploy", trained / "digits.keras", "--name", "mine", "--target", "edgetpu,k210,cpu",
            "--representative", trained / "train", "--accuracy", trained / "test", "--key", tmp_path / "key",
            "--try", picture, "-o", tmp_path / "work",
        ]  # fmt: skip
        result = CliRunner().invoke(edgeai, ["--socket", str(socket), *map(str, arguments)])
        assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads((tmp_path / "work/deploy.json").read_text())
    states = {f"{s['name']} {s['target']}".strip(): s["state"] for s in report["steps"]}
    left_out = [key for key, state in states.items() if state != "done"]
    assert left_out == ["compile edgetpu"], states
    assert {"quantise", "check k210", "compile k210", "bundle", "push", "ask"} <= set(states)
    quantise = next(s for s in report["steps"] if s["name"] == "quantise")
    assert quantise["report"]["accuracy"]["quantised"] > 0.8
    assert "edgetpu_compiler" in result.output


def test_onnx_becomes_tflite_with_channels_last(tmp_path: Path) -> None:
    need("onnx2tf")
    from .compile.test_compilers import small_onnx

    small_onnx(tmp_path / "net.onnx")
    text = run("convert", tmp_path / "net.onnx", "--to", "tflite", "-o", tmp_path / "net.tflite")
    assert "pictures go in as NHWC now" in text
    report = json.loads((tmp_path / "net.report.json").read_text())
    assert report["difference"]["max_error"] < 1e-4
    assert tflite.read((tmp_path / "net.tflite").read_bytes()).inputs[0].shape == (1, 8, 8, 3)


def test_onnx_is_compiled_for_the_k210_and_compared(tmp_path: Path) -> None:
    need("nncase")
    need("openvino")
    from .compile.test_compilers import small_onnx

    small_onnx(tmp_path / "net.onnx")
    np.save(tmp_path / "data.npy", np.random.default_rng(1).uniform(0, 1, (20, 3, 8, 8)).astype(np.float32))
    text = run(
        "compile",
        tmp_path / "net.onnx",
        "--target",
        "k210",
        "--calibration",
        tmp_path / "data.npy",
        "-o",
        tmp_path,
        "--json",
    )
    (facts,) = json.loads(text)["facts"].values()
    assert facts["compared"] == 50
    assert facts["correlation"] > 0.95


def test_tflite_becomes_onnx_and_computes_the_same(trained: Path, quantised: Path, tmp_path: Path) -> None:
    need("tf2onnx")
    text = run("convert", trained / "float.tflite", "--to", "onnx", "-o", tmp_path / "net.onnx")
    assert "tflite -> onnx" in text
    assert json.loads((tmp_path / "net.report.json").read_text())["difference"]["max_error"] < 1e-3


@pytest.mark.parametrize("source", ["saved_model", "frozen.pb"])
def test_tensorflow_becomes_openvino_with_a_fixed_shape_and_computes_the_same(
    source: str, trained: Path, tmp_path: Path
) -> None:
    need("openvino")
    text = run("convert", trained / source, "--to", "openvino", "--fp32", "-o", tmp_path / "net.xml")
    assert "-> openvino by openvino" in text
    assert json.loads((tmp_path / "net.report.json").read_text())["difference"]["max_error"] < 1e-5
    report = json.loads(run("check", tmp_path / "net.xml", "--target", "ncs2", "--json", "--fail-on", "never"))
    # The only objections: made by a newer OpenVINO than reads sticks, and the weights asked for.
    assert {f["id"] for f in report[0]["findings"]} <= {"OVN005", "OVN006"}


def test_lightening_is_measured_before_and_after(trained: Path, quantised: Path) -> None:
    rows = json.loads(
        run("lighten", trained / "digits.keras", "--train", trained / "labelled", "--test", trained / "test",
            "--epochs", "3", "-o", trained / "light", "--json")
    )  # fmt: skip
    table = {r["name"]: r for r in rows}
    assert table["pruned_float"]["zeros"] > 0.5 > table["original_float"]["zeros"]
    assert table["pruned_float"]["compressed"] < table["original_float"]["compressed"] * 0.75
    assert table["clustered_float"]["compressed"] < table["original_float"]["compressed"] * 0.6
    assert all(r["accuracy"] > 0.5 and r["us"] > 0 for r in rows)
    # Training while it is rounded costs nothing, and fewer channels make the file smaller, not only its archive.
    assert table["aware_int8"]["accuracy"] >= table["original_int8"]["accuracy"] - 0.02
    assert table["slim_float"]["size"] < 0.6 * table["original_float"]["size"]
    # Sharing and one bit are a report: what the files would have if indices into tables were stored.
    assert table["clustered_float"]["shared"] < 0.4 * table["original_float"]["shared"]
    assert table["binary_float"]["shared"] < 0.95 * table["original_float"]["shared"]
    assert table["binary_float"]["size"] == pytest.approx(table["original_float"]["size"], rel=0.05)


#: The digits classifier as TensorFlow 1 froze networks that were trained with rounding; argv[3] leaves a range out.
_ROUNDED = """
import sys
import keras
import tensorflow as tf
model = keras.models.load_model(sys.argv[1], compile=False)
(w1, b1), (w2, b2), (w3, b3) = (layer.get_weights() for layer in model.layers if layer.get_weights())
fake = lambda x, low, high, name: tf.quantization.fake_quant_with_min_max_args(x, low, high, name=name)
kernel = lambda w, name: fake(tf.constant(w), -abs(w).max(), abs(w).max(), name)
graph = tf.Graph()
with graph.as_default():
    x = fake(tf.compat.v1.placeholder(tf.float32, [None, 24, 24, 1], "input"), 0.0, 1.0, "input/quant")
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel(w1, "conv1/weights_quant"), 1, "SAME", name="conv1"), b1))
    x = tf.nn.max_pool2d(fake(x, 0.0, 6.0, "conv1/act_quant"), 2, 2, "VALID")
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel(w2, "conv2/weights_quant"), 1, "SAME", name="conv2"), b2))
    x = x if sys.argv[3] == "gap" else fake(x, 0.0, 12.0, "conv2/act_quant")
    x = tf.reshape(tf.nn.max_pool2d(x, 2, 2, "VALID"), [-1, w3.shape[0]])
    x = tf.nn.bias_add(tf.matmul(x, kernel(w3, "fc/weights_quant"), name="fc"), b3)
    tf.nn.softmax(fake(x, -24.0, 24.0, "fc/act_quant"), name="scores")
open(sys.argv[2], "wb").write(graph.as_graph_def().SerializeToString())
"""


@pytest.mark.parametrize("ranges", ["whole", "gap"])
def test_a_frozen_graph_trained_with_rounding_keeps_its_ranges(ranges: str, trained: Path, tmp_path: Path) -> None:
    graph, out = tmp_path / "graph.pb", tmp_path / "out.tflite"
    done = child([need("tensorflow"), "-c", _ROUNDED, trained / "digits.keras", graph, ranges], timeout=300)
    assert done.status == 0, done.error[-2000:]
    report = json.loads(run("check", graph, "--target", "edgetpu", "--json", "--fail-on", "never"))
    missing = [f["layer"] for f in report[0]["findings"] if f["id"] == "TFL010"]
    assert missing == (["conv2"] if ranges == "gap" else [])
    run(
        "quantize", graph, "--input-node", "input", "--output-node", "scores", "--shape", "1,24,24,1",
        "--representative", trained / "train", "--accuracy", trained / "test", "-o", out,
    )  # fmt: skip
    accuracy = json.loads(out.with_suffix(".report.json").read_text())["accuracy"]
    print(accuracy)
    assert accuracy["quantised"] > accuracy["float"] - 0.02
    made = tflite.read(out.read_bytes())
    assert made.inputs[0].datatype == made.outputs[0].datatype == "INT8"
    first, second = (made.subgraphs[0].tensors[o.outputs[0]] for o in made.operators if o.name == "CONV_2D")
    scales = [t.quantization.scale[0] for t in (first, second) if t.quantization is not None]
    # With a gap no range of the graph is kept: between one of its own and a measured one a pooling has two scales.
    own = scales == pytest.approx([6 / 255, 12 / 255], rel=0.01)
    assert own == (ranges == "whole"), scales


_NETWORK = """
import sys, torch
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                              torch.nn.Flatten(), torch.nn.Linear(512, 10)).eval()
example = torch.zeros(1, 3, 16, 16)
torch.export.save(torch.export.export(network, (example,)), sys.argv[1])
torch.jit.trace(network, example).save(sys.argv[2])
"""


def test_pytorch_becomes_tflite_with_channels_last(tmp_path: Path) -> None:
    python = environments.ready("torch")
    if python is None:
        pytest.skip("the torch environment (6 GB) is not there: edgeai model environments torch --create")
    done = child([python, "-c", _NETWORK, tmp_path / "net.pt2", tmp_path / "net.pt"], timeout=300)
    assert done.status == 0, done.error
    text = run("convert", tmp_path / "net.pt2", "--to", "tflite", "--shape", "1,3,16,16", "-o", tmp_path / "net.tflite")
    assert "pictures go in as NHWC now" in text
    assert json.loads((tmp_path / "net.report.json").read_text())["difference"]["max_error"] < 1e-4
    result = CliRunner().invoke(model, ["convert", str(tmp_path / "net.pt"), "--to", "tflite", "--shape", "1,3,16,16"])
    assert "torch.export.save" in result.output
