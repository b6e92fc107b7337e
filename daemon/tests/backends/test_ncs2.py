"""The NCS2 backend on a real OpenVINO: its CPU device, which today's wheel has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeaid.backends.openvino.backend import Ncs2Backend
from edgeaid.backends.openvino.runtime import OpenVino
from edgeaid.errors import InvalidModel, InvalidRequest, NotFound, Unsupported

from .conftest import arrays, infer

openvino = pytest.importorskip("openvino", reason="the openvino package brings the library under test")


@pytest.fixture
def cpu() -> Ncs2Backend:
    backend = Ncs2Backend()
    backend.open("CPU", {})
    return backend


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IR with a variable batch: [N, 3] FP32 -> ([N, 3] doubled as FP32, [N] row sums as INT32)."""
    from openvino import opset13 as ops

    x = ops.parameter(openvino.PartialShape([-1, 3]), np.float32, name="x")
    x.output(0).tensor.set_names({"x"})
    doubled = ops.multiply(x, ops.constant(np.float32(2)))
    doubled.output(0).tensor.set_names({"doubled"})
    total = ops.convert(ops.reduce_sum(x, ops.constant(np.array([1])), False), "i32")
    total.output(0).tensor.set_names({"total"})
    path = tmp_path_factory.mktemp("ir") / "network.xml"
    openvino.save_model(openvino.Model([doubled, total], [x]), path, compress_to_fp16=False)
    return path


def test_an_ir_with_two_outputs_computes(cpu: Ncs2Backend, network: Path) -> None:
    io = cpu.load("m", network, {"shapes": {"x": [2, 3]}, "threads": 1})
    assert [(s.name, s.datatype, s.shape) for s in io.inputs] == [("x", "FP32", (2, 3))]
    assert [(s.name, s.datatype, s.shape) for s in io.outputs] == [
        ("doubled", "FP32", (2, 3)),
        ("total", "INT32", (2,)),
    ]
    _, outputs = arrays(io)
    phases = cpu.infer("m", [np.array([[1, 2, 3], [4, 5, 6]], np.float32)], outputs)
    assert outputs[0].tolist() == [[2, 4, 6], [8, 10, 12]]
    assert outputs[1].tolist() == [6, 15]
    assert all(ns > 0 for ns in phases)


def test_a_real_classifier_gives_what_openvinos_own_binding_gives(
    cpu: Ncs2Backend, shared_data: Path, tmp_path: Path
) -> None:
    model = openvino.convert_model(shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite")
    openvino.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    compiled = openvino.Core().compile_model(model, "CPU")
    io = cpu.load("m", tmp_path / "m.xml", {})
    assert [(s.datatype, s.shape) for s in (*io.inputs, *io.outputs)] == [
        ("UINT8", (1, 128, 128, 3)),
        ("UINT8", (1, 1001)),
    ]
    for seed in range(3):
        inputs, outputs, _ = infer(cpu, "m", io, seed)
        assert np.array_equal(outputs[0], compiled(inputs[0])[0])


def test_a_variable_shape_without_the_option_is_refused(cpu: Ncs2Backend, network: Path) -> None:
    with pytest.raises(InvalidModel, match="no fixed shape, set option shapes"):
        cpu.load("m", network, {})
    with pytest.raises(InvalidModel, match="cannot become"):
        cpu.load("m", network, {"shapes": {"other": [1, 3]}})


def test_this_openvino_without_the_sticks_plugin_says_which_one_has_it() -> None:
    with pytest.raises(Unsupported, match=r"cannot drive MYRIAD \(it has: .*CPU.*2022\.3.*ENABLE_INTEL_MYRIAD"):
        Ncs2Backend().open("", {})


def test_bad_files_are_refused_with_their_names(
    cpu: Ncs2Backend, network: Path, tmp_path: Path, shared_data: Path
) -> None:
    with pytest.raises(InvalidModel, match="no such file"):
        cpu.load("m", tmp_path / "nothing.xml", {})
    alone = tmp_path / "alone.xml"
    alone.write_bytes(network.read_bytes())
    with pytest.raises(InvalidModel, match=r"alone\.bin is missing"):
        cpu.load("m", alone, {})
    alone.with_suffix(".bin").write_bytes(b"")
    alone.write_text("<net")
    with pytest.raises(InvalidModel, match=r"alone\.xml cannot be read by OpenVINO"):
        cpu.load("m", alone, {})
    blob = tmp_path / "m.blob"
    blob.write_bytes(b"\0" * 300)
    with pytest.raises(InvalidModel, match=r"m\.blob.*Myriad blob"):
        cpu.load("m", blob, {})
    with pytest.raises(InvalidModel, match="nothing OpenVINO runs here"):
        cpu.load("m", shared_data / "ncs/p.graph", {})


def test_models_come_and_go(cpu: Ncs2Backend, network: Path) -> None:
    options = {"shapes": {"x": [1, 3]}}
    for _ in range(20):
        io = cpu.load("m", network, options)
        infer(cpu, "m", io)
    cpu.unload("m")
    cpu.unload("m")
    with pytest.raises(NotFound):
        infer(cpu, "m", io)
    cpu.close()
    with pytest.raises(InvalidRequest, match="open the ncs2 backend"):
        cpu.load("m", network, options)


def test_a_missing_library_is_named() -> None:
    with pytest.raises(Unsupported, match=r"libopenvino_nowhere\.so.*EDGEAI_OPENVINO_LIBRARY"):
        Ncs2Backend().open("CPU", {"library": "libopenvino_nowhere.so"})


#: Bits of eight elements per element type number. UNDEFINED, DYNAMIC, BOOLEAN, BF16, F16, F32, F64, I4 ... U64.
RELEASE_2022 = [0, 0, 8, 16, 16, 32, 64, 4, 8, 16, 32, 64, 1, 4, 8, 16, 32, 64]


def test_element_types_are_understood_in_the_numbering_of_2022_and_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    ov = OpenVino()
    today = {ov.element_type(n): n for n in range(32) if ov.element_type(n)}
    sizes = {name: ov._bytes_of_eight(number) // 8 for name, number in today.items()}
    assert sizes == {
        "BOOL": 1, "BF16": 2, "FP16": 2, "FP32": 4, "FP64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
        "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    }  # fmt: skip
    old = OpenVino()
    monkeypatch.setattr(old, "_bytes_of_eight", lambda n: RELEASE_2022[n] if n < len(RELEASE_2022) else 0)
    assert {old.element_type(n): n for n in range(32) if old.element_type(n)} == {
        "BOOL": 2, "BF16": 3, "FP16": 4, "FP32": 5, "FP64": 6, "INT8": 8, "INT16": 9, "INT32": 10, "INT64": 11,
        "UINT8": 14, "UINT16": 15, "UINT32": 16, "UINT64": 17,
    }  # fmt: skip
