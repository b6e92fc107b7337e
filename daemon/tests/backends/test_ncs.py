"""The Neural Compute Stick backend on stand-ins for both libmvnc generations and real graph files."""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeaid.backends.ncs.backend import NcsBackend
from edgeaid.errors import DeviceError, InvalidModel, InvalidRequest, NotFound, Unsupported

from .conftest import Child, Standin, infer, make_ncs

#: API -> (graph, input shape, output shape) as clients see them.
GRAPHS = {
    1: ("ncs/p.graph", (1, 38, 28, 3), (1, 14, 9, 6)),
    2: ("ncs/graph.facedetect80", (1, 80, 80, 3), (1, 50)),
}


@pytest.fixture
def backend(ncs: Standin) -> NcsBackend:
    opened = NcsBackend()
    opened.open("", {"library": str(ncs.library)})
    return opened


def api_of(standin: Standin) -> int:
    """Which of the two stand-ins this is."""
    return 1 if b"mvncOpenDevice" in standin.library.read_bytes() else 2


def graph_of(ncs: Standin, shared_data: Path) -> Path:
    return shared_data / GRAPHS[api_of(ncs)][0]


def network(values: np.ndarray, outputs: int) -> np.ndarray:
    """The stand-in's network: output i is input 7 i mod n, in FP16."""
    halves = values.reshape(-1).astype(np.float16)
    return halves[(7 * np.arange(outputs)) % halves.size]


def test_a_real_graph_runs_in_fp16_between_fp32_tensors(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    _, shape_in, shape_out = GRAPHS[api_of(ncs)]
    io = backend.load("m", graph_of(ncs, shared_data), {})
    assert [(s.name, s.datatype, s.shape) for s in io.inputs] == [("input", "FP32", shape_in)]
    assert [(s.name, s.datatype, s.shape) for s in io.outputs] == [("output", "FP32", shape_out)]
    values = np.random.default_rng(3).normal(size=shape_in).astype(np.float32)
    result = np.zeros(shape_out, np.float32)
    phases = backend.infer("m", [values], [result])
    assert np.array_equal(result.reshape(-1), network(values, result.size).astype(np.float32))
    assert all(ns > 0 for ns in phases)


def test_names_shapes_and_fp16_can_be_chosen(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    _, shape_in, _ = GRAPHS[api_of(ncs)]
    flat = [1, int(np.prod(shape_in))]
    options = {"datatype": "FP16", "input": "data", "output": "prob", "shapes": {"data": flat}}
    io = backend.load("m", graph_of(ncs, shared_data), options)
    assert (io.inputs[0].name, io.inputs[0].datatype, list(io.inputs[0].shape)) == ("data", "FP16", flat)
    assert (io.outputs[0].name, io.outputs[0].datatype) == ("prob", "FP16")
    inputs, outputs, _ = infer(backend, "m", io)
    assert np.array_equal(outputs[0].reshape(-1), network(inputs[0], outputs[0].size))


def test_options_that_cannot_be_are_refused(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    graph = graph_of(ncs, shared_data)
    with pytest.raises(InvalidModel, match="FP32 or FP16"):
        backend.load("m", graph, {"datatype": "UINT8"})
    with pytest.raises(InvalidModel, match="but the graph has"):
        backend.load("m", graph, {"shapes": {"input": [1, 5]}})


def test_values_beyond_fp16_become_infinite_without_a_warning(
    backend: NcsBackend, ncs: Standin, shared_data: Path
) -> None:
    io = backend.load("m", graph_of(ncs, shared_data), {})
    result = np.zeros(io.outputs[0].shape, np.float32)
    backend.infer("m", [np.full(io.inputs[0].shape, 1e6, np.float32)], [result])
    assert np.isinf(result).all()


def test_several_models_take_turns_on_one_stick(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    graph = graph_of(ncs, shared_data)
    one, two = backend.load("one", graph, {}), backend.load("two", graph, {"datatype": "FP16"})
    for _ in range(2):
        for key, io in (("one", one), ("two", two)):
            inputs, outputs, _ = infer(backend, key, io, seed=7)
            assert np.array_equal(outputs[0].reshape(-1), network(inputs[0], outputs[0].size))
    switches = len(ncs.events("graph"))
    # API 1 holds one graph: two loads, then a change before each inference. API 2 holds both.
    assert switches == (2 + 4 if api_of(ncs) == 1 else 2)
    backend.unload("one")
    with pytest.raises(NotFound):
        infer(backend, "one", one)
    infer(backend, "two", two)


def test_a_graph_of_the_other_generation_is_refused(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    other = shared_data / GRAPHS[3 - api_of(ncs)][0]
    with pytest.raises(InvalidModel, match=r"compiled by NCSDK \d, the library here is of NCSDK \d"):
        backend.load("m", other, {})


def test_damaged_graphs_never_reach_the_library(
    backend: NcsBackend, ncs: Standin, shared_data: Path, tmp_path: Path
) -> None:
    whole = bytearray(graph_of(ncs, shared_data).read_bytes())
    damaged = tmp_path / "damaged.graph"
    for keep in (0, 40, 300, len(whole) - 1):
        damaged.write_bytes(whole[:keep])
        with pytest.raises(InvalidModel, match=r"damaged\.graph"):
            backend.load("m", damaged, {})
    for stages in (0, 60_000):  # with the stage count wrong, the real API 1 library reads out of bounds
        if api_of(ncs) == 1:
            struct.pack_into("<H", whole, 240, stages)
        else:
            struct.pack_into("<I", whole, 0x50, stages * 1000)
        damaged.write_bytes(whole)
        with pytest.raises(InvalidModel, match=r"damaged\.graph"):
            backend.load("m", damaged, {})
    assert ncs.events("graph") == []


def test_heat_is_told_and_shows_in_the_latency(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    io = backend.load("m", graph_of(ncs, shared_data), {})
    infer(backend, "m", io)
    assert backend.health() == {"throttled": False, "throttling_level": 0, "temperature_c": 41.0}
    for degrees, level in ((88, 1), (97, 2)):
        ncs.control(f"heat {degrees}")
        infer(backend, "m", io)
        assert backend.health() == {"throttled": True, "throttling_level": level, "temperature_c": float(degrees)}
    waits = [float(line.split("ms=")[1].split()[0]) for line in ncs.events("invoke")]
    assert waits == sorted(waits)
    assert waits[-1] > 10_000


def test_an_error_of_the_stick_is_told_with_its_own_words(backend: NcsBackend, ncs: Standin, shared_data: Path) -> None:
    io = backend.load("m", graph_of(ncs, shared_data), {})
    ncs.control("myriad-error Error 25: Matmul scratch memory")
    with pytest.raises(DeviceError, match=r"MYRIAD_ERROR \(Error 25: Matmul scratch memory\)"):
        infer(backend, "m", io)
    ncs.control()
    with pytest.raises(DeviceError, match="new process"):
        infer(backend, "m", io)
    backend.close()


def test_after_a_failed_transfer_the_library_is_not_touched_again(
    backend: NcsBackend, ncs: Standin, shared_data: Path
) -> None:
    """API 1 keeps its lock then: any further call, even closing, would never return."""
    io = backend.load("m", graph_of(ncs, shared_data), {})
    ncs.control("write-error")
    with pytest.raises(DeviceError, match="ERROR at step"):
        infer(backend, "m", io)
    ncs.control()
    with pytest.raises(DeviceError, match="new process"):
        infer(backend, "m", io)
    with pytest.raises(DeviceError, match="new process"):
        backend.load("n", graph_of(ncs, shared_data), {})
    assert backend.health() == {}
    backend.unload("m")
    backend.close()


def test_missing_firmware_is_named_with_place_origin_and_licence(ncs: Standin) -> None:
    for file in (ncs.directory / "mvnc").iterdir():
        file.unlink()
    with pytest.raises(Unsupported, match=r"MvNCAPI.*\.mvcmd is missing; expected at .*mvnc/MvNCAPI") as caught:
        NcsBackend().open("", {"library": str(ncs.library)})
    for word in ("NCSDK-", "Software Tools License Agreement", "mvnc-firmware"):
        assert word in str(caught.value)


def test_no_stick_says_so(ncs: Standin) -> None:
    ncs.control("vanish")
    with pytest.raises(DeviceError, match=r"no Neural Compute Stick is present \(seen: none\)"):
        NcsBackend().open("", {"library": str(ncs.library)})


def test_sticks_are_found_by_number_and_name(ncs: Standin) -> None:
    ncs.control("sticks 2")
    for name in ("1", "1.2-ma2450"):
        backend = NcsBackend()
        assert backend.open(name, {"library": str(ncs.library)}).facts["stick"] == "1.2-ma2450"
        backend.close()
    with pytest.raises(DeviceError, match=r"seen: 1\.1-ma2450, 1\.2-ma2450"):
        NcsBackend().open("1.7-ma2450", {"library": str(ncs.library)})


def test_a_missing_or_wrong_library_is_named() -> None:
    with pytest.raises(Unsupported, match="EDGEAI_MVNC_LIBRARY"):
        NcsBackend().open("", {"library": "libmvnc-nowhere.so"})
    with pytest.raises(Unsupported, match="is not libmvnc"):
        NcsBackend().open("", {"library": "libm.so.6"})


def test_a_model_needs_an_open_backend(shared_data: Path) -> None:
    with pytest.raises(InvalidRequest, match="open the ncs backend"):
        NcsBackend().load("m", shared_data / "ncs/p.graph", {})


def test_a_graph_too_large_for_the_stick_is_the_models_fault(
    build_standin: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    ncs = make_ncs(2, build_standin, tmp_path, monkeypatch)
    backend = NcsBackend()
    backend.open("", {"library": str(ncs.library)})
    ncs.control("memory 100000")
    with pytest.raises(InvalidModel, match="does not fit in the stick's memory"):
        backend.load("big", shared_data / "ncs/graph.facedetect80", {})
    io = backend.load("small", shared_data / "ncs/12net.graph", {})
    infer(backend, "small", io)
    backend.close()


def test_a_result_that_never_comes_is_a_timeout_in_api_1_and_a_hang_in_api_2(
    ncs: Standin, shared_data: Path, child: Callable[[str], Child]
) -> None:
    process = child("ncs")
    process.open(ncs.library)
    assert "error" not in process.load("m", graph_of(ncs, shared_data))
    ncs.control("once stall")
    process.send(do="infer", key="m", seed=1)
    answer = process.answer(10 if api_of(ncs) == 1 else 1)
    if api_of(ncs) == 1:
        assert answer is not None
        assert answer["error"] == "DeviceError"
        assert "TIMEOUT" in answer["text"]
    else:
        assert answer is None
    process.kill()
    again = child("ncs")
    again.open(ncs.library)
    assert "error" not in again.load("m", graph_of(ncs, shared_data))
    assert "sum" in again.ask(do="infer", key="m", seed=1)


@pytest.mark.parametrize("order", ["abort", "hang"])
def test_a_process_that_dies_or_hangs_is_replaced(
    ncs: Standin, shared_data: Path, child: Callable[[str], Child], order: str
) -> None:
    process = child("ncs")
    process.open(ncs.library)
    process.load("m", graph_of(ncs, shared_data))
    ncs.control(f"once {order}")
    process.send(do="infer", key="m", seed=1)
    assert process.answer(1) is None
    if order == "abort":
        assert process.process.wait(10) == -signal.SIGABRT
    process.kill()
    again = child("ncs")
    again.open(ncs.library)
    again.load("m", graph_of(ncs, shared_data))
    assert "sum" in again.ask(do="infer", key="m", seed=1)


def test_a_stick_pulled_in_the_middle_of_an_inference_is_a_device_error(
    ncs: Standin, shared_data: Path, child: Callable[[str], Child]
) -> None:
    process = child("ncs")
    process.open(ncs.library)
    process.load("m", graph_of(ncs, shared_data))
    ncs.control("time 0.01", "compute 10000")
    process.send(do="infer", key="m", seed=1)
    ncs.control("vanish")
    answer = process.answer(20)
    assert answer is not None
    assert answer["error"] == "DeviceError"
    assert process.ask(do="close") == {}


def test_the_second_process_on_one_stick_says_that_another_has_it(ncs: Standin, child: Callable[[str], Child]) -> None:
    first = child("ncs")
    assert "error" not in first.open(ncs.library)
    second = child("ncs").open(ncs.library)
    assert second["error"] == "DeviceError"
    assert "another process has it" in second["text"]
