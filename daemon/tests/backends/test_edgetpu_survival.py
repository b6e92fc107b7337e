"""What happens to an Edge TPU backend's process when its stick misbehaves, and that the next process starts clean."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Child, Standin

MODEL = "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite"


@pytest.fixture
def worker(edgetpu: Standin, shared_data: Path, child: Callable[[str], Child]) -> Callable[[], Child]:
    """Start a process that has the stick open and a model loaded."""

    def start() -> Child:
        process = child("edgetpu")
        assert "error" not in process.open(edgetpu.library)
        answer = process.load("m", shared_data / MODEL)
        assert "error" not in answer, answer
        return process

    return start


def serves(process: Child) -> bool:
    """Two inputs get two different answers."""
    answers = [process.ask(do="infer", key="m", seed=seed)["sum"] for seed in (1, 2)]
    return bool(answers[0] != answers[1])


def test_an_abort_kills_its_process_only_and_the_next_one_serves(edgetpu: Standin, worker: Callable[[], Child]) -> None:
    first = worker()
    assert serves(first)
    edgetpu.control("once abort")
    first.send(do="infer", key="m", seed=1)
    assert first.answer(30) is None
    assert first.process.wait(30) == -signal.SIGABRT
    assert serves(worker())


def test_a_hung_process_dies_by_sigkill_and_leaves_the_stick_free(
    edgetpu: Standin, worker: Callable[[], Child]
) -> None:
    first = worker()
    edgetpu.control("once hang")
    first.send(do="infer", key="m", seed=1)
    assert first.answer(1) is None
    assert first.process.poll() is None
    first.kill()
    assert serves(worker())


def test_a_stick_pulled_in_the_middle_of_an_inference_ends_the_process_as_the_driver_does(
    edgetpu: Standin, worker: Callable[[], Child], shared_data: Path, child: Callable[[str], Child]
) -> None:
    first = worker()
    edgetpu.control("time 1", "compute 60000")
    first.send(do="infer", key="m", seed=1)
    assert first.answer(0.3) is None
    edgetpu.control("vanish")
    assert first.answer(30) is None
    assert first.process.wait(30) == -signal.SIGABRT
    absent = child("edgetpu").open(edgetpu.library)
    assert absent["error"] == "DeviceError"
    assert "no Edge TPU is present" in absent["text"]
    edgetpu.control()
    assert serves(worker())


def test_a_stick_that_comes_back_gets_its_firmware_again(edgetpu: Standin, worker: Callable[[], Child]) -> None:
    first = worker()
    assert len(edgetpu.events("firmware")) == 1
    edgetpu.control("vanish")
    first.send(do="infer", key="m", seed=1)
    assert first.process.wait(30) == -signal.SIGABRT
    edgetpu.control()
    assert serves(worker())
    assert len(edgetpu.events("firmware")) == 2


def test_a_usb_error_that_the_driver_reports_is_a_device_error_and_not_a_crash(
    edgetpu: Standin, worker: Callable[[], Child]
) -> None:
    process = worker()
    edgetpu.control("vanish", "vanish-mode error")
    answer = process.ask(do="infer", key="m", seed=1)
    assert answer["error"] == "DeviceError"
    edgetpu.control()
    assert serves(process)


def test_the_second_process_on_one_stick_says_that_another_has_it(
    edgetpu: Standin, worker: Callable[[], Child], child: Callable[[str], Child]
) -> None:
    first = worker()
    second = child("edgetpu").open(edgetpu.library)
    assert second["error"] == "DeviceError"
    assert "another process may have it" in second["text"]
    assert serves(first)


def test_two_processes_share_two_sticks(edgetpu: Standin, worker: Callable[[], Child]) -> None:
    edgetpu.control("devices usb:/sys/bus/usb/devices/1-1 usb:/sys/bus/usb/devices/1-2")
    first, second = worker(), worker()
    assert serves(first)
    assert serves(second)
    assert {line.split()[1] for line in edgetpu.events("invoke")} == {
        "/sys/bus/usb/devices/1-1",
        "/sys/bus/usb/devices/1-2",
    }


def test_a_first_trial_that_hangs_is_given_up(
    edgetpu: Standin, child: Callable[[str], Child], shared_data: Path
) -> None:
    process = child("edgetpu")
    options = {"library": str(edgetpu.library), "probe_timeout": 1}
    assert "error" not in process.ask(do="open", device="", options=options)
    edgetpu.control("hang")
    answer = process.load("m", shared_data / MODEL)
    assert answer["error"] == "DeviceError"
    assert "first trial" in answer["text"]
    edgetpu.control()
    process.open(edgetpu.library)  # with the usual patience
    assert "error" not in process.load("m", shared_data / MODEL)


def test_a_device_that_aborts_in_its_first_trial_is_not_called_an_abi_problem(
    edgetpu: Standin, child: Callable[[str], Child], shared_data: Path
) -> None:
    process = child("edgetpu")
    process.open(edgetpu.library)
    edgetpu.control("once abort")
    answer = process.load("m", shared_data / MODEL)
    assert answer["error"] == "DeviceError"
    assert "ABI" not in answer["text"]
    assert "error" not in process.load("m", shared_data / MODEL)


def test_a_process_killed_during_the_first_trial_takes_the_trial_with_it(
    edgetpu: Standin, worker: Callable[[], Child], child: Callable[[str], Child], shared_data: Path
) -> None:
    first = child("edgetpu")
    first.open(edgetpu.library)
    edgetpu.control("once hang")
    first.send(do="load", key="m", artifact=str(shared_data / MODEL), options={})
    until = time.monotonic() + 30
    while not edgetpu.events("hang") and time.monotonic() < until:
        time.sleep(0.02)
    first.kill()
    assert serves(worker())


@pytest.mark.slow
def test_five_hundred_openings_leak_neither_descriptors_nor_memory(
    edgetpu: Standin, shared_data: Path, child: Callable[[str], Child]
) -> None:
    process = child("edgetpu")
    pid = process.process.pid

    def cycle() -> None:
        process.open(edgetpu.library)
        process.load("m", shared_data / MODEL)
        process.ask(do="infer", key="m", seed=1)
        process.ask(do="close")

    def kilobytes() -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    for _ in range(50):
        cycle()
    descriptors, memory = len(os.listdir(f"/proc/{pid}/fd")), kilobytes()
    for _ in range(450):
        cycle()
    assert len(os.listdir(f"/proc/{pid}/fd")) == descriptors
    assert kilobytes() - memory < 20_000
