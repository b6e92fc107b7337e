"""The Edge TPU backend on a stand-in for libedgetpu that claims the operators of real compiled files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeaid.backends.edgetpu.backend import EdgeTpuBackend
from edgeaid.backends.edgetpu.library import Accelerator, choose, performance_for
from edgeaid.backends.tflite.backend import CpuBackend
from edgeaid.errors import (
    DeviceError,
    InvalidConfig,
    InvalidModel,
    InvalidRequest,
    NotFound,
    Unsupported,
)

from .conftest import Standin, infer

SMALL = "coral/mobilenet_v1_0.25_128_quant"
OTHER = "coral/mobilenet_v1_0.5_160_quant"
PAIR_A = "coral/cocompilation/mobilenet_v1_0.25_128_quant_cocompiled_with_mobilenet_v1_0.5_160_quant"
PAIR_B = "coral/cocompilation/mobilenet_v1_0.5_160_quant_cocompiled_with_mobilenet_v1_0.25_128_quant"
GROUP = "coral/cocompilation/mobilenet_v1_0.25_128_quant_cocompiled_with_3quant"


@pytest.fixture
def tpu(edgetpu: Standin) -> EdgeTpuBackend:
    backend = EdgeTpuBackend()
    backend.open("", {"library": str(edgetpu.library), "threads": 1})
    return backend


def compiled(shared_data: Path, name: str) -> Path:
    return shared_data / f"{name}_edgetpu.tflite"


def moved(edgetpu: Standin) -> list[int]:
    """Bytes of parameters that travelled before each inference."""
    return [int(re.findall(r"moved=(\d+)", line)[0]) for line in edgetpu.events("invoke")]


def test_a_compiled_model_gives_what_its_uncompiled_twin_gives_on_the_cpu(
    tpu: EdgeTpuBackend, shared_data: Path
) -> None:
    cpu = CpuBackend()
    cpu.open("", {"threads": 1})
    for name in (SMALL, OTHER, "coral/mobilenet_v1_1.0_224_quant_embedding_extractor"):
        on_tpu = tpu.load(name, compiled(shared_data, name), {})
        on_cpu = cpu.load(name, shared_data / f"{name}.tflite", {"threads": 1})
        assert [(s.name, s.datatype, s.shape) for s in on_tpu.inputs] == [
            (s.name, s.datatype, s.shape) for s in on_cpu.inputs
        ]
        assert np.array_equal(infer(tpu, name, on_tpu)[1][0], infer(cpu, name, on_cpu)[1][0])


def test_a_model_without_twin_gives_answers_that_depend_on_the_input_only(
    tpu: EdgeTpuBackend, shared_data: Path
) -> None:
    name = "coral/pipeline/ssd_mobilenet_v1_coco_quant_postprocess_segment_0_of_2"
    io = tpu.load("m", compiled(shared_data, name), {})
    assert [s.shape for s in io.outputs] == [(1, 19, 19, 512), (1, 10, 10, 1024)]
    first, again, other = (infer(tpu, "m", io, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_the_scheduler_is_told_token_and_parameter_sizes(tpu: EdgeTpuBackend, shared_data: Path) -> None:
    facts = tpu.load("m", compiled(shared_data, GROUP), {}).facts
    told = {name: facts[name] for name in ("token", "cached_bytes", "streamed_bytes", "cpu_operators")}
    assert told == {"token": "99b484be30458cde", "cached_bytes": 315840, "streamed_bytes": 251072, "cpu_operators": 0}


def test_models_of_different_tokens_evict_each_other(tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path) -> None:
    a = tpu.load("a", compiled(shared_data, SMALL), {})
    b = tpu.load("b", compiled(shared_data, OTHER), {})
    for key, io in (("a", a), ("a", a), ("b", b), ("a", a), ("b", b)):
        infer(tpu, key, io)
    assert moved(edgetpu) == [566912, 0, 1473280, 566912, 1473280]


def test_models_that_share_a_token_stay_cached_together(
    tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path
) -> None:
    a = tpu.load("a", compiled(shared_data, PAIR_A), {})
    b = tpu.load("b", compiled(shared_data, PAIR_B), {})
    for key, io in (("a", a), ("b", b), ("a", a), ("b", b)):
        infer(tpu, key, io)
    assert moved(edgetpu) == [566912, 1473280, 0, 0]


def test_one_file_loaded_twice_is_sent_twice_and_then_cached_twice(
    tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path
) -> None:
    a = tpu.load("a", compiled(shared_data, SMALL), {})
    b = tpu.load("b", compiled(shared_data, SMALL), {})
    for key, io in (("a", a), ("b", b), ("a", a), ("b", b)):
        infer(tpu, key, io)
    assert moved(edgetpu) == [566912, 566912, 0, 0]


def test_streamed_parameters_travel_with_every_inference(
    tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path
) -> None:
    io = tpu.load("m", compiled(shared_data, GROUP), {})
    for _ in range(3):
        infer(tpu, "m", io)
    assert moved(edgetpu) == [315840 + 251072, 251072, 251072]


def test_the_stand_in_keeps_the_published_timing(edgetpu: Standin, shared_data: Path) -> None:
    """t = compute + MiB moved / 33.5 MiB/s, as the RPi 3B+ benchmark shows at the highest clock."""
    backend = EdgeTpuBackend()
    backend.open("", {"library": str(edgetpu.library), "performance": "max"})
    for name in (SMALL, OTHER, GROUP):
        io = backend.load(name, compiled(shared_data, name), {})
        for _ in range(2):
            infer(backend, name, io)
            told = float(re.findall(r"ms=([\d.]+)", edgetpu.log[-1])[0])
            assert told == pytest.approx(10.33 + 1000 * moved(edgetpu)[-1] / 2**20 / 33.5, abs=0.01)
    backend.close()


def test_all_models_of_a_backend_share_one_opened_stick(
    tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path
) -> None:
    for key in ("a", "b", "c"):
        tpu.load(key, compiled(shared_data, SMALL), {})
    assert len(edgetpu.events("open")) == 2  # the trial in a child, and ours
    tpu.close()
    assert len(edgetpu.events("close")) == 2


def test_closing_gives_the_stick_back(edgetpu: Standin, shared_data: Path) -> None:
    for _ in range(3):
        backend = EdgeTpuBackend()
        backend.open("", {"library": str(edgetpu.library)})
        io = backend.load("m", compiled(shared_data, SMALL), {})
        infer(backend, "m", io)
        backend.close()
    assert len(edgetpu.events("open")) == len(edgetpu.events("close"))


def test_once_a_pair_is_known_to_fit_the_stick_opens_at_once_and_needs_no_trial(
    tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path
) -> None:
    tpu.load("m", compiled(shared_data, SMALL), {})
    tpu.close()
    before = len(edgetpu.events("open"))
    again = EdgeTpuBackend()
    facts = again.open("usb", {"library": str(edgetpu.library)}).facts
    assert facts["delegate_abi"] == "fits"
    assert len(edgetpu.events("open")) == before + 1
    again.load("m", compiled(shared_data, SMALL), {})
    assert len(edgetpu.events("open")) == before + 1
    again.close()


def test_a_library_of_the_old_delegate_abi_is_refused_naming_both_instead_of_crashing(
    edgetpu: Standin, build_standin: Callable[[str], Path], shared_data: Path
) -> None:
    backend = EdgeTpuBackend()
    backend.open("", {"library": str(build_standin("edgetpu_standin_old"))})
    with pytest.raises(Unsupported, match=r"OLD-ABI.*crashes (ai-edge-litert|tflite-runtime) .*different.*ABI"):
        backend.load("m", compiled(shared_data, SMALL), {})
    with pytest.raises(Unsupported, match="crashes"):  # bad news is not remembered: the library may be replaced
        backend.load("m", compiled(shared_data, SMALL), {})


def test_bad_files_are_refused_before_the_runtime_sees_them(
    tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidModel, match="edgetpu_compiler"):
        tpu.load("m", shared_data / f"{SMALL}.tflite", {})
    whole = compiled(shared_data, SMALL).read_bytes()
    cut = tmp_path / "cut.tflite"
    for keep in (0, 100, 5000, 400_000):
        cut.write_bytes(whole[:keep])
        with pytest.raises(InvalidModel, match=r"cut\.tflite"):
            tpu.load("m", cut, {})
    assert edgetpu.events("open") == []


def test_a_stick_is_found_by_pycorals_names_and_by_its_port(edgetpu: Standin) -> None:
    edgetpu.control("devices usb:/sys/bus/usb/devices/1-1.3 pci:/dev/apex_0 usb:/sys/bus/usb/devices/2-2")
    options = {"library": str(edgetpu.library)}
    paths = {
        "": "1-1.3", "usb": "1-1.3", "usb:0": "1-1.3", "usb:1": "2-2", "pci": "apex_0", "pci:0": "apex_0",
        ":0": "1-1.3", ":1": "apex_0", ":2": "2-2", "usb:2-2": "2-2", "1-1.3": "1-1.3", "/dev/apex_0": "apex_0",
        "/sys/bus/usb/devices/2-2": "2-2",
    }  # fmt: skip
    for name, path in paths.items():
        assert EdgeTpuBackend().open(name, options).facts["path"].endswith(f"/{path}"), name
    for name in ("usb:2", "pci:1", ":3", "usb:3-1"):
        with pytest.raises(DeviceError, match=r"seen: usb:1-1\.3, pci:apex_0, usb:2-2"):
            EdgeTpuBackend().open(name, options)
    for name in ("gpu", "usb:", "usb:x", "usb:-1"):
        with pytest.raises((InvalidRequest, DeviceError)):
            next(iter(choose(name, ())))


def test_no_stick_says_so(edgetpu: Standin) -> None:
    edgetpu.control("vanish")
    with pytest.raises(DeviceError, match=r"no Edge TPU is present \(seen: none\).*cpu artifact"):
        EdgeTpuBackend().open("", {"library": str(edgetpu.library)})


def test_performance_is_always_told_to_the_driver(edgetpu: Standin, shared_data: Path) -> None:
    for word, expected in (("std", "High"), ("max", "Max"), ("low", "Low")):
        backend = EdgeTpuBackend()
        backend.open("", {"library": str(edgetpu.library), "performance": word})
        backend.load("m", compiled(shared_data, SMALL), {})
        backend.close()
        assert edgetpu.events("open")[-1].endswith(f"performance={expected}")
    assert performance_for("std", "pci") == "Max"
    with pytest.raises(InvalidConfig, match="turbo"):
        EdgeTpuBackend().open("", {"library": str(edgetpu.library), "performance": "turbo"})


def test_a_pcie_device_tells_temperature_and_throttling(
    edgetpu: Standin, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apex = tmp_path / "sys/class/apex/apex_0"
    apex.mkdir(parents=True)
    for i, trip in enumerate((85000, 90000, 95000)):
        (apex / f"trip_point{i}_temp").write_text(f"{trip}\n")
    monkeypatch.setenv("EDGETPU_STANDIN_SYSFS", str(tmp_path / "sys"))
    edgetpu.control("devices pci:/dev/apex_0")
    backend = EdgeTpuBackend()
    backend.open("", {"library": str(edgetpu.library), "sysfs": str(tmp_path / "sys")})
    io = backend.load("m", compiled(shared_data, SMALL), {})
    infer(backend, "m", io)
    assert backend.health() == {"temperature_c": 41.0, "throttled": False, "clock_divider_steps": 0}
    cold = float(re.findall(r"ms=([\d.]+)", edgetpu.log[-1])[0])
    edgetpu.control("devices pci:/dev/apex_0", "heat 91000")
    infer(backend, "m", io)
    assert backend.health() == {"temperature_c": 91.0, "throttled": True, "clock_divider_steps": 2}
    hot = float(re.findall(r"ms=([\d.]+)", edgetpu.log[-1])[0])
    assert hot > cold
    backend.close()


def test_a_usb_stick_cannot_tell_its_temperature(tpu: EdgeTpuBackend) -> None:
    assert tpu.health() == {}


def test_a_failed_inference_is_the_devices_fault(tpu: EdgeTpuBackend, edgetpu: Standin, shared_data: Path) -> None:
    io = tpu.load("m", compiled(shared_data, SMALL), {})
    edgetpu.control("fail")
    with pytest.raises(DeviceError, match="USB transfer error"):
        infer(tpu, "m", io)
    edgetpu.control()
    infer(tpu, "m", io)


def test_a_missing_or_wrong_library_is_named() -> None:
    with pytest.raises(Unsupported, match=r"libedgetpu-nowhere\.so.*libedgetpu1-std.*EDGEAI_EDGETPU_LIBRARY"):
        EdgeTpuBackend().open("", {"library": "libedgetpu-nowhere.so"})
    with pytest.raises(Unsupported, match="is not libedgetpu"):
        EdgeTpuBackend().open("", {"library": "libm.so.6"})


def test_versions_are_told(edgetpu: Standin) -> None:
    facts = EdgeTpuBackend().open("", {"library": str(edgetpu.library)})
    assert facts.facts["runtime_version"] == 14
    assert "RuntimeVersion(14)" in facts.runtime
    assert facts.description == "Coral USB Accelerator at usb:1-1"
    json.dumps(dict(facts.facts))


def test_using_a_backend_that_is_not_open_or_a_model_that_is_not_loaded_is_told(
    tpu: EdgeTpuBackend, shared_data: Path
) -> None:
    with pytest.raises(InvalidRequest, match="open the edgetpu backend"):
        EdgeTpuBackend().load("m", compiled(shared_data, SMALL), {})
    with pytest.raises(NotFound):
        tpu.infer("nobody", [], [])


def test_a_name_can_mean_several_sticks_best_first() -> None:
    sticks = (
        Accelerator("usb", "/sys/bus/usb/devices/1-1", 0, 0),
        Accelerator("pci", "/dev/apex_0", 1, 0),
        Accelerator("usb", "/sys/bus/usb/devices/1-2", 2, 1),
    )
    assert [d.index for d in choose("", sticks)] == [0, 1, 2]
    assert [d.index for d in choose("usb", sticks)] == [0, 2]
