"""The CPU backend on real models."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeaid.backends import create
from edgeaid.backends.tflite.backend import CpuBackend
from edgeaid.backends.tflite.interpreter import explain, find_runtime
from edgeaid.errors import InvalidModel, InvalidRequest, NotFound, Unsupported

from ..toolkit.tflite_builder import Graph, Op, T, build
from .conftest import arrays, infer


@pytest.fixture
def cpu() -> CpuBackend:
    backend = CpuBackend()
    backend.open("", {"threads": 1})
    return backend


@pytest.mark.parametrize(
    ("model", "size", "picture", "label", "score"),
    [
        ("mobilenet_v1_0.25_128_quant", 128, "bird.bmp", 20, 0.410),
        ("mobilenet_v1_0.5_160_quant", 160, "parrot.jpg", 89, 0.965),
        ("mobilenet_v2_1.0_224_quant", 224, "grace_hopper.bmp", 653, 0.922),
        ("mobilenet_v2_1.0_224_inat_bird_quant", 224, "bird.bmp", 659, 0.719),
    ],
)
def test_real_pictures_get_the_reference_answers(
    cpu: CpuBackend, shared_data: Path, model: str, size: int, picture: str, label: int, score: float
) -> None:
    io = cpu.load("m", shared_data / f"coral/{model}.tflite", {})
    with Image.open(shared_data / "coral" / picture) as image:
        pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))[None]
    _, outputs = arrays(io)
    cpu.infer("m", [np.ascontiguousarray(pixels)], outputs)
    assert io.outputs[0].quantization is not None
    assert int(outputs[0].argmax()) == label
    assert float(outputs[0].max()) * io.outputs[0].quantization.scale[0] == pytest.approx(
        score, abs=12 / 256
    )  # runtimes and processors round differently: 9 LSB between x86-64 and Cortex-A72


def test_what_a_model_takes_and_gives_is_told_in_protocol_words(cpu: CpuBackend, shared_data: Path) -> None:
    io = cpu.load("m", shared_data / "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite", {})
    assert [(s.datatype, s.shape) for s in io.inputs] == [("UINT8", (1, 513, 513, 3))]
    assert [(s.datatype, s.shape) for s in io.outputs] == [("INT64", (1, 513, 513))]
    assert io.inputs[0].quantization is not None
    assert io.inputs[0].quantization.zero_point == (128,)
    assert io.facts["family"] in {"litert", "tflite-runtime", "tensorflow"}
    assert io.facts["threads"] == 1


def test_two_models_do_not_disturb_each_other(cpu: CpuBackend, shared_data: Path) -> None:
    one = cpu.load("one", shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite", {})
    alone = infer(cpu, "one", one)[1][0]
    two = cpu.load("two", shared_data / "coral/mobilenet_v1_0.5_160_quant.tflite", {})
    infer(cpu, "two", two, seed=5)
    assert np.array_equal(infer(cpu, "one", one)[1][0], alone)


def test_phases_are_measured(cpu: CpuBackend, shared_data: Path) -> None:
    io = cpu.load("m", shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite", {})
    phases = infer(cpu, "m", io)[2]
    assert all(ns > 0 for ns in phases)
    assert phases.infer_ns > phases.input_ns


def test_without_xnnpack_the_reference_kernels_run(shared_data: Path) -> None:
    artifact = shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite"
    backend = CpuBackend()
    backend.open("cpu", {"threads": 1, "xnnpack": False})
    assert backend.load("m", artifact, {}).facts["delegated_parts"] == 0


def test_an_edge_tpu_model_is_refused_with_the_way_out(cpu: CpuBackend, shared_data: Path) -> None:
    with pytest.raises(InvalidModel, match=r"compiled for an Edge TPU.*artifact `cpu`"):
        cpu.load("m", shared_data / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite", {})


def test_an_unknown_custom_operator_is_named(cpu: CpuBackend, shared_data: Path) -> None:
    with pytest.raises(InvalidModel, match="custom operator 'fake-op-double'"):
        cpu.load("m", shared_data / "coral/invalid_models/model_invoking_error.tflite", {})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Encountered unresolved custom op: DISPATCH_OP. See: x Node number 0 (DISPATCH_OP) failed to prepare.",
         "neural processor of a phone"),
        ("Encountered unresolved custom op: ethos-u.\nSee x Node number 0 (ethos-u) failed to prepare.", "Ethos-U"),
        ("Encountered unresolved custom op: PosenetDecoderOp.\nSee x", "without it"),
        ("Encountered unresolved custom op: tftext:WhitespaceTokenizer.\nSee x", "TensorFlow Text"),
        ("Encountered unresolved custom op: Normalize.\nSee x", "custom operator 'Normalize'"),
        ("Select TensorFlow op(s), included in the given model, is(are) not supported by this interpreter. "
         "Node number 0 (FlexSentencepieceOp) failed to prepare.", "Select TF ops"),
        ("squeeze.cc:70 current >= 0 was not true.Node number 3 (SQUEEZE) failed to prepare.", "SQUEEZE (number 3"),
        ("Didn't find op for builtin opcode 'ADD' version '99'.", "newer runtime"),
    ],
)  # fmt: skip
def test_a_refusal_of_the_runtime_says_whose_the_model_is_and_what_to_do(said: str, words: str) -> None:
    assert words in explain(said)
    assert " ".join(said.split()) in explain(said)


def test_a_model_that_only_xnnpack_refuses_runs_with_the_runtimes_own_kernels(cpu: CpuBackend, tmp_path: Path) -> None:
    tensors = [
        T("in", [1, 1, 1, 2], "UINT8", q=(0.5, 0)),
        T("size", [2], "INT32", [3, 3]),
        T("out", [1, 3, 3, 2], "UINT8", q=(1.0, 0)),  # XNNPACK takes no other scale than the input's
    ]
    resize = Op("RESIZE_BILINEAR", ["in", "size"], ["out"], [(2, "?", True)])
    file = tmp_path / "resize.tflite"
    file.write_bytes(build(Graph(tensors, [resize], ["in"], ["out"])))
    assert cpu.load("m", file, {}).facts["delegated_parts"] == 0
    inputs, outputs = arrays(cpu.load("m", file, {}))
    inputs[0][...] = 7
    cpu.infer("m", inputs, outputs)
    assert (outputs[0] == 7).all()


@pytest.mark.parametrize("keep", [0, 7, 100, 4096, 200_000])
def test_a_file_cut_short_is_refused_and_the_backend_lives_on(
    cpu: CpuBackend, shared_data: Path, tmp_path: Path, keep: int
) -> None:
    whole = shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite"
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(InvalidModel, match=r"cut\.tflite|damaged|cannot"):
        cpu.load("m", cut, {})
    io = cpu.load("m", whole, {})
    assert infer(cpu, "m", io)[1][0].any()


def test_a_missing_file_is_an_invalid_model(cpu: CpuBackend, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"cannot be (loaded|read)"):
        cpu.load("m", tmp_path / "nothing.tflite", {})


def test_a_wrong_shape_is_the_callers_mistake(cpu: CpuBackend, shared_data: Path) -> None:
    io = cpu.load("m", shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite", {})
    _, outputs = arrays(io)
    with pytest.raises(InvalidRequest, match="does not fit"):
        cpu.infer("m", [np.zeros((1, 64, 64, 3), np.uint8)], outputs)
    with pytest.raises(InvalidRequest, match="was expected"):
        cpu.infer("m", arrays(io)[0], [np.zeros((5, 1001), np.uint8)])
    assert infer(cpu, "m", io)[1][0].any()  # no view of the runtime's memory was left behind


@pytest.mark.parametrize("threads", [0, 65, "two", True])
def test_a_nonsense_thread_count_is_refused(cpu: CpuBackend, shared_data: Path, threads: object) -> None:
    with pytest.raises(InvalidModel, match="threads"):
        cpu.load("m", shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite", {"threads": threads})


def test_inputs_of_variable_size_take_the_shape_of_the_option(cpu: CpuBackend, shared_data: Path) -> None:
    artifact = shared_data / "coral/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    name = cpu.load("m", artifact, {}).inputs[0].name
    with pytest.raises(InvalidModel, match="inputs are"):
        cpu.load("m", artifact, {"shapes": {"other": [1, 224, 224, 3]}})
    with pytest.raises(InvalidModel, match="positive"):
        cpu.load("m", artifact, {"shapes": {name: [1, 0, 224, 3]}})
    with pytest.raises(InvalidModel, match="table"):
        cpu.load("m", artifact, {"shapes": [1, 224, 224, 3]})
    assert cpu.load("m", artifact, {"shapes": {name: [1, 224, 224, 3]}}).inputs[0].shape == (1, 224, 224, 3)


def test_a_model_that_is_not_loaded_is_not_found(cpu: CpuBackend) -> None:
    with pytest.raises(NotFound):
        cpu.infer("nobody", [], [])
    cpu.unload("nobody")


def test_a_closed_backend_has_forgotten_its_models(cpu: CpuBackend, shared_data: Path) -> None:
    io = cpu.load("m", shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite", {})
    cpu.close()
    with pytest.raises(NotFound):
        infer(cpu, "m", io)


def test_there_is_one_cpu_only() -> None:
    with pytest.raises(InvalidRequest, match="no device"):
        create("cpu").open("cpu1", {})


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unsupported, match="litert, tflite-runtime"):
        find_runtime("pytorch")


def test_a_runtime_that_is_not_installed_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tflite_runtime", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)  # what Python itself does for "there is no such module"
    with pytest.raises(Unsupported, match=r"tflite-runtime.*pip install ai-edge-litert"):
        find_runtime("tflite-runtime")


def test_a_savedmodel_without_tensorflow_says_what_to_do(cpu: CpuBackend, tmp_path: Path) -> None:
    directory = tmp_path / "saved"
    directory.mkdir()
    with pytest.raises(InvalidModel, match=r"no saved_model\.pb"):
        cpu.load("m", directory, {})
    (directory / "saved_model.pb").write_bytes(b"not a model")
    with pytest.raises((Unsupported, InvalidModel), match=r"TensorFlow|SavedModel"):
        cpu.load("m", directory / "saved_model.pb", {})
    shutil.rmtree(directory)


def test_a_savedmodel_runs_through_full_tensorflow(cpu: CpuBackend, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="full TensorFlow is optional and large")

    def double(x: Any) -> dict[str, Any]:
        return {"y": 2 * x, "total": tf.reduce_sum(x, axis=1)}

    module = tf.Module()
    module.double = tf.function(double, input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.double})
    io = cpu.load("m", tmp_path / "saved", {"shapes": {"x": [2, 3]}})
    assert [(s.name, s.datatype, s.shape) for s in io.inputs] == [("x", "FP32", (2, 3))]
    assert [(s.name, s.datatype, s.shape) for s in io.outputs] == [("total", "FP32", (2,)), ("y", "FP32", (2, 3))]
    _, outputs = arrays(io)
    phases = cpu.infer("m", [np.array([[1, 2, 3], [4, 5, 6]], np.float32)], outputs)
    assert outputs[0].tolist() == [6, 15]
    assert outputs[1].tolist() == [[2, 4, 6], [8, 10, 12]]
    assert all(ns > 0 for ns in phases)
    assert cpu.load("m", tmp_path / "saved" / "saved_model.pb", {}).inputs[0].shape == (1, 3)
    with pytest.raises(InvalidModel, match="cannot become"):
        cpu.load("m", tmp_path / "saved", {"shapes": {"x": [2, 5]}})
