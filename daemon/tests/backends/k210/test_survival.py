"""What the line and the board may do to us. Each test prints how long recovery took (pytest -rP shows it)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.backends.k210.backend import K210Backend
from edgeaid.backends.k210.boot import connect
from edgeaid.backends.k210.port import Port
from edgeaid.errors import DeviceError

from .conftest import AGENT, Client


def timed(what: str, client: Client) -> None:
    """One right answer; print how long it took."""
    begin = time.monotonic()
    client.ask()
    health = client.backend.health()
    print(
        f"{what}: right answer after {time.monotonic() - begin:.2f} s, recoveries {health['recoveries']} "
        f"(last {health['recovery_s']} s), rate {health['baud']}, damaged {health['bad_frames']}, "
        f"resent {health['resent']}"
    )


def answer_at_last(what: str, client: Client, limit: float) -> None:
    """Ask again after every retryable error, as a client would; print when an answer came."""
    begin = time.monotonic()
    failures = 0
    while True:
        try:
            client.ask()
            break
        except DeviceError:  # 503, retry after a second
            failures += 1
            if time.monotonic() - begin > limit:
                raise
    print(f"{what}: right answer {time.monotonic() - begin:.2f} s later, after {failures} retryable errors")


@pytest.mark.parametrize("ber", [1e-5, 1e-4, 1e-3])
def test_bit_errors_cost_time_never_a_wrong_answer(ber: float, client: Client, board: Any) -> None:
    board.set(ber=ber)
    for _ in range(3):
        timed(f"bit errors {ber}", client)
    assert board.do("stats")["flipped"] > 0 or ber < 1e-4
    board.set(ber=0.0)
    for _ in range(3):
        timed("clean again", client)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_one_bit_in_a_hundred_wrong_still_gets_through(runtime: str, start: Callable[..., Any], model: Path) -> None:
    board = start(runtime=runtime)
    backend = K210Backend()
    backend.open(board.port, {"recover_s": 60.0})
    client = Client(backend)
    client.load(model)
    board.set(ber=0.01)
    timed("1 % bit errors", client)
    stats = board.do("stats")
    print(f"1 % bit errors: {stats['flipped']} bits turned in {stats['to_board'] + stats['to_host']} bytes")
    board.set(ber=0.0)
    for _ in range(3):
        timed("clean again", client)
    backend.close()


def test_lost_bytes_are_sent_again(client: Client, board: Any) -> None:
    before = client.backend.health()["resent"]
    board.set(drop=0.001)
    for _ in range(3):
        timed("1 byte in 1000 lost", client)
    health = client.backend.health()
    assert health["resent"] > before
    assert health["recoveries"] == 0, "the session went on"


def garbage(client: Client, board: Any, seconds: float) -> None:
    board.do("garbage", seconds=seconds)
    begin = time.monotonic()
    answer_at_last(f"{seconds:.0f} s of garbage on both directions", client, seconds + 40)
    print(f"recovery after the garbage ended: {time.monotonic() - begin - seconds:.2f} s")
    timed("next", client)


def test_seconds_of_garbage_are_waited_out(client: Client, board: Any) -> None:
    garbage(client, board, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_thirty_seconds_of_garbage_are_waited_out(runtime: str, start: Callable[..., Any], model: Path) -> None:
    board = start(runtime=runtime)
    backend = K210Backend()
    backend.open(board.port, {})
    client = Client(backend)
    client.load(model)
    garbage(client, board, 30.0)
    backend.close()


@pytest.mark.parametrize("runtime", ["cpython", "node"])
def test_a_board_reset_between_inferences_gets_agent_and_models_back(
    runtime: str, start: Callable[..., Any], model: Path
) -> None:
    board = start(runtime=runtime)
    backend = K210Backend()
    backend.open(board.port, {})
    client = Client(backend)
    client.load(model)
    client.ask()
    board.do("reset")
    timed(f"reset ({runtime})", client)
    assert backend.recoveries == 1
    backend.close()


def test_a_board_reset_in_the_middle_of_a_transfer(client: Client, board: Any) -> None:
    import threading

    board.set(forward_ms=300)
    timer = threading.Timer(0.15, lambda: board.do("reset"))
    timer.start()
    timed("reset during RUN", client)
    timer.join()
    board.set(forward_ms=0)
    board.set(ber=0.001)  # a transfer that lasts about a second
    timer = threading.Timer(0.4, lambda: (board.do("reset"), board.set(ber=0.0)))
    timer.start()
    timed("reset during transfer", client)
    timer.join()


def _prompt(port: Port) -> None:
    """Wait until the board has started."""
    said = b""
    until = time.monotonic() + 60
    while b">>> " not in said:
        assert time.monotonic() < until, said
        said += port.read(1.0)


@pytest.mark.parametrize("state", ["raw REPL", "friendly REPL with half a line", "paste mode", "soft reset on the way"])
def test_a_board_in_any_repl_is_found(state: str, board: Any) -> None:
    port = Port(board.port)
    _prompt(port)
    port.write({"r": b"\x01", "f": b"import sy", "p": b"\x05half", "s": b"\x04"}[state[0]])
    begin = time.monotonic()
    link = connect(port, timeout=20)
    print(f"{state}: session after {time.monotonic() - begin:.2f} s at {link.port.baud} baud")
    link.bye()
    port.close()


@pytest.mark.parametrize("rate", [1500000, 460800])
def test_an_agent_left_running_at_another_rate_is_found(rate: int, board: Any, model: Path) -> None:
    link = connect(Port(board.port), baud=rate)
    assert board.do("stats")["baud"] == rate
    link.port.close()  # a host that died: no BYE
    backend = K210Backend()
    begin = time.monotonic()
    backend.open(board.port, {})
    print(f"agent at {rate}: session after {time.monotonic() - begin:.2f} s")
    assert board.do("stats")["boots"] == 1
    client = Client(backend)
    client.load(model)
    client.ask()
    backend.close()


def test_a_repl_left_at_another_rate_is_found(board: Any) -> None:
    port = Port(board.port)
    _prompt(port)
    board.set(baud=1500000)
    begin = time.monotonic()
    link = connect(port)
    print(f"REPL at 1.5 Mbaud: session after {time.monotonic() - begin:.2f} s")
    link.bye()
    link.port.close()


@pytest.mark.parametrize(("limit", "expected"), [(921600, 921600), (115200, 115200)])
def test_a_rate_that_one_end_cannot_do_is_given_up(limit: int, expected: int, board: Any, model: Path) -> None:
    board.set(max_baud=limit)
    backend = K210Backend()
    begin = time.monotonic()
    assert backend.open(board.port, {}).facts["baud"] == expected
    print(f"line good for {limit}: session at {expected} after {time.monotonic() - begin:.2f} s")
    client = Client(backend)
    client.load(model)
    client.ask()
    backend.close()


def test_an_agent_in_flash_is_used_from_the_start_even_on_a_bad_line(
    start: Callable[..., Any], tmp_path: Path, model: Path
) -> None:
    (tmp_path / "flash").mkdir()
    (tmp_path / "flash" / "main.py").write_bytes(AGENT.read_bytes())
    board = start(state=tmp_path)
    board.set(ber=0.001)
    backend = K210Backend()
    begin = time.monotonic()
    backend.open(board.port, {})
    print(f"agent in main.py, bit errors 1e-3: session after {time.monotonic() - begin:.2f} s")
    client = Client(backend)
    client.load(model)
    client.ask()
    backend.close()


def test_the_agent_gets_through_a_line_with_errors(board: Any) -> None:
    board.set(ber=1e-4)
    begin = time.monotonic()
    link = connect(Port(board.port), timeout=40)
    print(f"agent sent with bit errors 1e-4: session after {time.monotonic() - begin:.2f} s")
    link.port.close()


def test_a_pulled_and_plugged_board_comes_back_within_the_call(client: Client, board: Any) -> None:
    import threading

    board.do("unplug")
    timer = threading.Timer(1.0, lambda: board.do("plug"))
    timer.start()
    timed("unplugged for 1 s", client)
    timer.join()


def test_a_board_that_stays_away_is_a_retryable_error_within_the_limit(board: Any, model: Path) -> None:
    backend = K210Backend()
    backend.open(board.port, {"recover_s": 6.0})
    client = Client(backend)
    client.load(model, timeout_s=1.0)
    board.do("unplug")
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"no serial port|port is gone|cannot send"):
        client.ask()
    print(f"board away: error after {time.monotonic() - begin:.2f} s (limit 6 s)")
    board.do("plug")
    answer_at_last("plugged again", client, 30)
    backend.close()


def test_a_hung_kpu_is_noticed_at_the_deadline_and_the_watchdog_brings_the_board_back(board: Any, model: Path) -> None:
    backend = K210Backend()
    backend.open(board.port, {"recover_s": 8.0})
    client = Client(backend)
    client.load(model, timeout_s=1.0)
    board.set(hang=True)
    begin = time.monotonic()
    with pytest.raises(DeviceError):
        client.ask()
    print(f"hung KPU: retryable error after {time.monotonic() - begin:.2f} s (deadline 1 s, recovery limit 8 s)")
    board.set(hang=False)
    board.do("reset")
    answer_at_last("reset by hand", client, 30)
    client.load(model, timeout_s=5.0, watchdog_ms=500)
    board.set(hang=True)
    import threading

    timer = threading.Timer(0.4, lambda: board.set(hang=False))
    timer.start()
    answer_at_last("hung KPU with a watchdog of 500 ms", client, 40)
    timer.join()
    backend.close()


def test_a_silent_port_is_given_up_with_what_was_tried(board: Any) -> None:
    board.set(mute=True)
    begin = time.monotonic()
    with pytest.raises(DeviceError, match="nothing answers; is it a K210 board"):
        K210Backend().open(board.port, {"connect_s": 3.0})
    assert time.monotonic() - begin < 10


def test_two_processes_that_want_one_board(client: Client, board: Any) -> None:
    code = "import sys; from edgeaid.backends import create; create('k210').open(sys.argv[1], {})"
    done = subprocess.run([sys.executable, "-c", code, board.port], capture_output=True, text=True, check=False)
    assert "in use by another program" in done.stderr
    timed("after the other's try", client)


def test_a_stream_survives_errors_and_only_gives_whole_results(backend: K210Backend, board: Any, model: Path) -> None:
    backend.load("camera", model, {"camera": True})
    out = np.zeros((1, 3072), np.float32)
    backend.infer("camera", [], [out])
    board.set(ber=2e-5)
    begin = time.monotonic()
    for _ in range(10):
        out[:] = -1
        backend.infer("camera", [], [out])
        assert out.min() >= 0
    print(f"10 results of 12 kB with bit errors 2e-5 in {time.monotonic() - begin:.2f} s")


@pytest.mark.slow
def test_many_resets_leak_neither_descriptors_nor_memory(client: Client, board: Any) -> None:
    import os
    import resource

    board.set(paced=False)

    def measure() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    client.ask()
    before = measure()
    begin = time.monotonic()
    for i in range(30):
        board.do("reset") if i % 2 else (board.do("unplug"), board.do("plug"))
        client.ask()
    after = measure()
    print(f"30 resets and replugs in {time.monotonic() - begin:.0f} s; descriptors {before[0]} -> {after[0]}, "
          f"peak memory {before[1]} -> {after[1]} KiB")  # fmt: skip
    assert after[0] == before[0]
    assert after[1] - before[1] < 20_000
