"""An Edge TPU (its stand-in) and the CPU behind one model name, on a running daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid import errors

from ...support.daemon import Running
from ...support.waiting import eventually
from .conftest import Control

BOTH = ("m25", "mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1_0.25_128_quant_edgetpu.tflite")
EMBED = "mobilenet_v1_1.0_224_quant_embedding_extractor"
#: Large enough for the stand-in to be faster than the CPU, so that requests go to it first.
LARGE = ("embed", f"{EMBED}.tflite", f"{EMBED}_edgetpu.tflite")
TPU_ONLY = ("m50", "", "mobilenet_v1_0.5_160_quant_edgetpu.tflite")
IMAGE = (np.arange(128 * 128 * 3) * 31 % 256).astype(np.uint8).reshape(1, 128, 128, 3)

BIG = np.zeros((1, 224, 224, 3), np.uint8)


def device(daemon: Running, identity: Any) -> Any:
    with daemon.client() as client:
        return next(d for d in client.devices() if d["id"] == identity)


def served_on(daemon: Running, name: Any) -> Any:
    with daemon.client() as client:
        return set(next(m for m in client.models() if m["name"] == name).get("devices", {}))


def test_one_name_is_served_by_both_devices_and_both_compute_the_same(
    edge_daemon: Callable[..., tuple[Any, Control]],
) -> None:
    daemon, _ = edge_daemon([BOTH], twins=True)
    assert served_on(daemon, "m25") == {"tpu0", "cpu0"}
    assert device(daemon, "tpu0")["state"] == "ready"
    with daemon.client() as client:
        first = client.infer("m25", IMAGE).outputs
        for _ in range(20):
            again = client.infer("m25", IMAGE).outputs
            for name, array in again.items():
                assert np.array_equal(array, first[name])


def test_when_the_stick_aborts_the_cpu_answers_and_the_stick_comes_back(
    edge_daemon: Callable[..., tuple[Any, Control]],
) -> None:
    daemon, control = edge_daemon([LARGE])
    with daemon.client() as client:
        client.infer("embed", BIG)
        control("abort")
        for _ in range(30):
            assert client.infer("embed", BIG).outputs  # no request is lost: those that the stick had move to the CPU
        eventually(lambda: device(daemon, "tpu0")["restarts"] >= 1)
        control()
        eventually(lambda: device(daemon, "tpu0")["state"] == "ready")
        assert device(daemon, "cpu0")["restarts"] == 0
    metrics = daemon.http("GET", "/metrics")[2].decode()
    assert 'edgeai_recovery_steps_total{device="tpu0",step="reopen"}' in metrics
    assert 'edgeai_recovery_rungs_total{device="tpu0",rung="reopen"}' in metrics  # the name until 0.1


def test_a_failed_inference_is_tried_once_more_in_the_same_worker_and_the_worker_stays(
    edge_daemon: Callable[..., tuple[Any, Control]],
) -> None:
    daemon, control = edge_daemon([TPU_ONLY])
    picture = np.zeros((1, 160, 160, 3), np.uint8)
    with daemon.client() as client:
        assert client.infer("m50", picture).device == "tpu0"
        before = device(daemon, "tpu0")["pid"]
        control("once fail a hiccup")
        assert client.infer("m50", picture).device == "tpu0"
        after = device(daemon, "tpu0")
    assert (after["pid"], after["restarts"]) == (before, 0)
    assert after["ladder"]["steps"] == {"retry": {"tried": 1, "helped": 1}}


@pytest.mark.parametrize("way", ["fast", "http", "grpc"])
def test_with_all_accelerators_gone_the_cpu_answers_and_the_answer_says_so(
    edge_daemon: Callable[..., tuple[Any, Control]], tmp_path: Path, way: str
) -> None:
    if way == "grpc":
        pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    daemon, control = edge_daemon([LARGE], f'[server]\ngrpc_socket = "{tmp_path}/grpc.sock"\n' if way == "grpc" else "")
    with daemon.client(fast=way == "fast") as client:

        def answered() -> Any:
            if way == "grpc":
                return ask_by_grpc(f"unix:{tmp_path}/grpc.sock")
            return client.infer("embed", BIG).device

        seen = {answered() for _ in range(6)}
        control("devices", "vanish")
        seen |= {answered() for _ in range(10)}
        eventually(lambda: device(daemon, "tpu0")["state"] in ("failed", "recovering"))
        assert {answered() for _ in range(5)} == {"cpu0"}
        assert seen <= {"tpu0", "cpu0"}


def ask_by_grpc(target: Any) -> Any:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(target) as client:
        first = client.get_model_metadata("embed").inputs[0]
        tensor = triton.InferInput(first.name, list(BIG.shape), "UINT8")
        tensor.set_data_from_numpy(BIG)
        return client.infer("embed", [tensor]).get_response().parameters["device"].string_param


def test_a_stick_that_vanishes_fails_over_and_returns_when_it_is_plugged_in(
    edge_daemon: Callable[..., tuple[Any, Control]],
) -> None:
    daemon, control = edge_daemon([LARGE])
    with daemon.client() as client:
        client.infer("embed", BIG)
        control("devices", "vanish")
        for _ in range(30):
            client.infer("embed", BIG)
        eventually(lambda: device(daemon, "tpu0")["state"] in ("failed", "recovering"))
        control()
        eventually(lambda: device(daemon, "tpu0")["state"] == "ready")
        assert client.infer("embed", BIG).outputs


def test_a_hung_stick_is_noticed_and_the_request_moves(edge_daemon: Callable[..., tuple[Any, Control]]) -> None:
    daemon, control = edge_daemon([LARGE], "[limits]\ninvoke_seconds = 1.0\n")
    with daemon.client() as client:
        for _ in range(5):
            client.infer("embed", BIG)
        control("once hang")
        for _ in range(10):
            assert client.infer("embed", BIG).outputs
        eventually(lambda: device(daemon, "tpu0")["restarts"] >= 1)
        eventually(lambda: device(daemon, "tpu0")["state"] == "ready")


@pytest.mark.slow
def test_a_stick_that_hangs_in_opening_too_is_back_soon_after_it_recovers(
    edge_daemon: Callable[..., tuple[Any, Control]],
) -> None:
    daemon, control = edge_daemon([LARGE], "[limits]\ninvoke_seconds = 1.0\n")
    with daemon.client() as client:
        client.infer("embed", BIG)
        control("hang")
        for _ in range(10):
            assert client.infer("embed", BIG).outputs
        eventually(lambda: "did not answer OPEN within 10 s" in daemon.log.read_text())
        control()
        # The attempt under way may wait for twice that; the next one succeeds.
        eventually(lambda: device(daemon, "tpu0")["state"] == "ready", 40)


def test_a_model_only_for_the_stick_says_so_without_one_and_loads_when_it_comes(
    edge_daemon: Callable[..., tuple[Any, Control]],
) -> None:
    daemon, control = edge_daemon([TPU_ONLY, BOTH], commands=("devices",))
    with daemon.client() as client:
        assert served_on(daemon, "m25") == {"cpu0"}, device(daemon, "tpu0")
        with pytest.raises(errors.NotFound, match="no device"):
            client.metadata("m50")
        control("devices usb:/sys/bus/usb/devices/1-1")
        eventually(lambda: served_on(daemon, "m50") == {"tpu0"})
        eventually(lambda: served_on(daemon, "m25") == {"cpu0", "tpu0"})


@pytest.mark.slow
@pytest.mark.parametrize(("command", "reason"), [("once hang", "did not answer"), ("once abort", "SIGABRT")])
def test_a_new_model_that_breaks_the_stick_in_its_self_test_is_refused_and_what_serves_there_goes_on(
    edge_daemon: Callable[..., tuple[Any, Control]], shared_data: Path, command: str, reason: str
) -> None:
    daemon, control = edge_daemon([LARGE], "[limits]\ntrial_seconds = 1.0\n")
    with daemon.client() as client, daemon.client() as pusher:
        client.infer("embed", BIG)
        answers, stop = [], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(client.infer("embed", BIG).device)

        thread = threading.Thread(target=ask)
        control(command)
        with pytest.raises(errors.EdgeaiError, match=reason):
            pusher.push("m50", shared_data / "coral" / TPU_ONLY[2])
        thread.start()
        eventually(lambda: device(daemon, "tpu0")["state"] in ("ready", "busy"))
        eventually(lambda: "tpu0" in answers[-20:])
        stop.set()
        thread.join()
        assert served_on(daemon, "embed") == {"tpu0", "cpu0"}
        assert not (daemon.repository / "m50").exists()
        assert next(m for m in pusher.models() if m["name"] == "embed")["state"] == "READY"
        # The fault was the stick's, not the file's: it is taken when it behaves.
        assert pusher.push("m50", shared_data / "coral" / TPU_ONLY[2])["devices"] == ["tpu0"]
