"""Workers die, hang and come back; models load, fail, roll back; the daemon reloads, drains and ends."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeaid import errors
from edgeaid.client import Client
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.waiting import eventually

DIGITS = EMBEDDED / "digits" / "1"
IMAGE = np.load(DIGITS / "golden" / "0.in.npy")


def metric(daemon: Running, name: Any) -> Any:
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in daemon.http("GET", "/metrics")[2].decode().splitlines()
        if line.startswith(name)
    )


def test_a_killed_worker_is_replaced_and_requests_get_503_or_an_answer(start: Callable[..., Running]) -> None:
    daemon = start()
    failures, answers, stop = [], [], threading.Event()

    def ask() -> None:
        with daemon.client() as client:
            while not stop.is_set():
                try:
                    answers.append(client.infer("digits", IMAGE)["scores"].argmax())
                except errors.Unavailable as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        pid = daemon.worker()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: daemon.replaced(pid))
        before = len(answers)
        eventually(lambda before=before: len(answers) > before + 3)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert all(f.retry_after for f in failures)
    with daemon.client() as client:
        device = client.devices()[0]
        assert device["restarts"] >= 3  # more where a busy machine starves a worker
        assert device["last_recovery_ms"] > 0
    kinds = [e["kind"] for e, _ in zip(daemon.client().events(), range(12), strict=False)]
    assert {"worker-died", "recovery", "device-state"} <= set(kinds)


def test_a_hung_worker_is_killed_within_the_invoke_limit_and_replaced(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\ninvoke_seconds = 0.5\n")
    pid = daemon.worker()
    os.kill(pid, signal.SIGSTOP)
    with daemon.client() as client:
        started = time.monotonic()
        with pytest.raises(errors.Unavailable, match="hung for"):
            client.infer("digits", IMAGE)
        assert time.monotonic() - started < 5
        eventually(lambda: client.devices()[0]["state"] == "ready")
        assert client.infer("digits", IMAGE)["scores"].size == 10


def test_a_model_that_kills_its_worker_three_times_is_quarantined_and_others_serve_on(
    start: Callable[..., Running],
) -> None:
    daemon = start(models={"other": DIGITS / "model.tflite"})
    for _ in range(3):
        pid = daemon.worker()
        os.kill(pid, signal.SIGSTOP)
        failed: list[str] = []

        def ask(failed: list[str] = failed) -> None:
            with daemon.client(fast=False) as client:
                try:
                    client.infer("other", IMAGE)
                except errors.Unavailable as error:
                    failed.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: daemon.json("GET", "/edgeai/v1/devices")[1]["devices"][0]["in_flight"] == 1)
        os.kill(pid, signal.SIGKILL)
        thread.join()
        assert failed
        eventually(lambda pid=pid: daemon.replaced(pid))
    with daemon.client() as client:
        with pytest.raises(errors.Unavailable, match="quarantined"):
            client.infer("other", IMAGE)
        assert client.infer("digits", IMAGE)["scores"].size == 10
        row = next(m for m in client.models() if m["name"] == "other")
        assert (row["state"], "died 3 times" in row["reason"]) == ("UNAVAILABLE", True)
        client.load("other")
        assert client.infer("other", IMAGE)["scores"].size == 10


def test_the_queue_is_bounded_and_deadlines_pass_in_it(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nqueue = 4\nqueue_per_client = 10\ninvoke_seconds = 60\n")
    pid = daemon.worker()
    results: list[type[Exception] | None] = []

    def ask(timeout: float) -> None:
        with daemon.client(fast=False) as client:
            try:
                client.infer("digits", IMAGE, timeout=timeout)
                results.append(None)
            except errors.EdgeaiError as error:
                results.append(type(error))

    def fill(timeout: float) -> list[threading.Thread]:
        """Stop the worker and ask six times: it has two in its hands, four wait."""
        os.kill(pid, signal.SIGSTOP)
        threads = [threading.Thread(target=ask, args=(timeout,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        return threads

    waiting = fill(60.0)
    eventually(lambda: metric(daemon, 'edgeai_slots_in_use{model="digits"') == 6)
    ask(60.0)
    assert results == [errors.QueueFull], "there is no room for a seventh"
    os.kill(pid, signal.SIGCONT)
    for thread in waiting:
        thread.join()
    assert results[1:] == [None] * 6, "all that waited are answered"
    results.clear()
    late = fill(0.4)
    eventually(lambda: len(results) >= 4)
    os.kill(pid, signal.SIGCONT)
    for thread in late:
        thread.join()
    assert results == [errors.DeadlineExceeded] * 6
    with daemon.client() as client:
        assert client.infer("digits", IMAGE)["scores"].size == 10


def test_a_client_that_hangs_up_takes_its_request_out_of_the_queue(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\ninvoke_seconds = 20\n")
    pid = daemon.worker()
    os.kill(pid, signal.SIGSTOP)
    body = IMAGE.tobytes()
    sockets = []
    for _ in range(6):
        sock = daemon.raw()
        sock.sendall(
            b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\n"
            b"Inference-Header-Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        sockets.append(sock)
    eventually(lambda: metric(daemon, 'edgeai_slots_in_use{model="digits"') == 6)
    for sock in sockets:
        sock.close()
    eventually(lambda: metric(daemon, 'edgeai_slots_in_use{model="digits"') == 2)  # those that the worker has
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: metric(daemon, 'edgeai_slots_in_use{model="digits"') == 0)


def test_push_stores_self_tests_and_serves_and_rollback_goes_back(start: Callable[..., Running]) -> None:
    daemon = start()
    with daemon.client() as client:
        pushed = client.push("mine", DIGITS / "model.tflite")
        assert (pushed["version"], pushed["serving"]) == ("1", True)
        assert client.push("mine", DIGITS / "model.tflite")["version"] == "2"
        assert next(m for m in client.models() if m["name"] == "mine" and m.get("default"))["version"] == "2"
        assert client.rollback("mine") == "1"
        with pytest.raises(errors.NotFound, match="older"):
            client.rollback("mine")
        assert client.infer("mine", IMAGE).outputs
        with pytest.raises(errors.InvalidRequest, match="already"):
            client.push("mine", DIGITS / "model.tflite", version="2")
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        assert next(m for m in client.models() if m["name"] == "mine" and m.get("default"))["version"] == "1"
        client.load("mine")
        assert next(m for m in client.models() if m["name"] == "mine" and m.get("default"))["version"] == "2"
        client.remove("mine", "1")
        assert not (daemon.repository / "mine" / "1").exists()


def test_damaged_models_are_refused_and_leave_nothing(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()
    good = (DIGITS / "model.tflite").read_bytes()
    with daemon.client() as client:
        for number, data in enumerate(
            (good[: len(good) // 2], good[:100], b"TFL3" * 10, b"\0\0\0\0TFL3" + b"\xff" * 64, b"PK\x03\x04junk", b"x")
        ):
            file = tmp_path / f"bad{number}"
            file.write_bytes(data)
            with pytest.raises(errors.InvalidRequest):
                client.push("bad", file)
        with pytest.raises(errors.InvalidRequest):
            client.push("../evil", DIGITS / "model.tflite")
        empty = tmp_path / "empty"
        empty.touch()
        with pytest.raises(errors.InvalidRequest, match="empty"):
            client.push("bad", empty)
        assert not (daemon.repository / "bad").exists()
        assert os.listdir(daemon.repository / ".staging") == []
        assert client.infer("digits", IMAGE)["scores"].size == 10
        assert client.devices()[0]["restarts"] == 0


def test_a_failed_load_keeps_the_old_version_serving(start: Callable[..., Running]) -> None:
    daemon = start(models={"m": DIGITS / "model.tflite"})
    with daemon.client() as client:
        client.infer("m", IMAGE)
        broken = daemon.store("m", DIGITS / "model.tflite", "2")
        (broken / "model.tflite").write_bytes(b"damaged")
        with pytest.raises(errors.InvalidRequest, match="failed to load"):
            client.load("m")
        assert client.infer("m", IMAGE).outputs
        rows = {m["version"]: m for m in client.models() if m["name"] == "m"}
        assert rows["1"]["default"]
        assert (rows["2"]["state"], bool(rows["2"]["reason"])) == ("UNAVAILABLE", True)


def test_a_model_whose_golden_outputs_differ_is_refused(start: Callable[..., Running]) -> None:
    daemon = start()
    directory = daemon.repository / "digits" / "2"
    shutil.copytree(DIGITS, directory)
    wrong = np.load(directory / "golden" / "0.out.npy")
    np.save(directory / "golden" / "0.out.npy", np.roll(wrong, 3))
    with daemon.client() as client:
        with pytest.raises(errors.InvalidRequest, match="self-test failed"):
            client.load("digits")
        assert client.infer("digits", IMAGE)["scores"].size == 10


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a path that leads out", lambda d: _edit(d, 'file = "model.tflite"', 'file = "../../x.tflite"')),
        (
            "a symbolic link",
            lambda d: ((d / "model.tflite").unlink(), (d / "model.tflite").symlink_to(DIGITS / "model.tflite")),
        ),
        ("an unknown schema", lambda d: _edit(d, "schema = 1", "schema = 9")),
        ("a wrong digest", lambda d: _edit(d, 'sha256 = "', 'sha256 = "' + "0" * 64 + '" #')),
        ("another name", lambda d: _edit(d, 'name = "m"', 'name = "n"')),
        ("no TOML", lambda d: (d / "model.toml").write_bytes(b"\xff\xfe[[[")),
        ("an unknown key", lambda d: _edit(d, "schema = 1", "schema = 1\nfoo = 3")),
    ],
)
def test_bad_model_directories_are_refused_with_a_reason(
    start: Callable[..., Running], name: str, change: Callable[..., Any]
) -> None:
    daemon = start(models={"m": DIGITS / "model.tflite"})
    directory = daemon.store("m", DIGITS / "model.tflite", "2")
    change(directory)
    with daemon.client() as client, pytest.raises(errors.InvalidRequest, match="failed to load"):
        client.load("m")


def _edit(directory: Any, old: Any, new: Any) -> None:
    file = directory / "model.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_sighup_takes_a_new_configuration_and_keeps_the_old_when_it_is_bad(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nbody_bytes = 1000\n")
    assert daemon.json("POST", "/v2/models/digits/infer", b"x" * 2000)[0] == 413
    daemon.config.write_text("[limits]\nbody_bytes = 3000\n")
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: daemon.json("POST", "/v2/models/digits/infer", b"x" * 2000)[0] == 400)
    daemon.config.write_text("[limits]\nbody_bytes = -1\n")
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the old one stays" in daemon.log.read_text())
    assert daemon.json("POST", "/v2/models/digits/infer", b"x" * 2000)[0] == 400


def test_a_request_under_way_is_answered_after_a_reload(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nbody_bytes = 10000\ninvoke_seconds = 60\n")
    pid = daemon.worker()
    os.kill(pid, signal.SIGSTOP)
    got = []

    def ask() -> None:
        with daemon.client(fast=False) as client:
            got.append(client.infer("digits", IMAGE))

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: metric(daemon, 'edgeai_slots_in_use{model="digits"') == 1)
    daemon.config.write_text("[limits]\nbody_bytes = 20000\ninvoke_seconds = 60\n")
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: daemon.json("POST", "/v2/models/absent/infer", b"x" * 15000)[0] != 413)
    os.kill(pid, signal.SIGCONT)
    thread.join(30)
    assert got


def test_a_change_made_while_the_configuration_is_being_read_is_read_too(start: Callable[..., Running]) -> None:
    daemon = start("[limits]\nbody_bytes = 1000\n")
    for number in range(300):  # reading again tries to load them all
        (daemon.directory / "models" / f"broken-{number}" / "1").mkdir(parents=True)
    for size in (2000, 3000):
        daemon.config.write_text(f"[limits]\nbody_bytes = {size}\n")
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda size=size: daemon.json("POST", "/v2/models/digits/infer", b"x" * size)[0] == 400)


def _takes_connections(daemon: Running) -> bool:
    try:
        with daemon.raw():
            return True
    except OSError:
        return False


def test_sigterm_lets_requests_under_way_finish(start: Callable[..., Running]) -> None:
    daemon = start()
    pid = daemon.worker()
    os.kill(pid, signal.SIGSTOP)
    got = []

    def ask() -> None:
        with daemon.client() as client:
            got.append(client.infer("digits", IMAGE))

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: metric(daemon, 'edgeai_slots_in_use{model="digits"') == 1)
    daemon.process.send_signal(signal.SIGTERM)
    eventually(lambda: not _takes_connections(daemon))
    os.kill(pid, signal.SIGCONT)
    thread.join()
    assert got
    assert daemon.process.wait(20) == 0
    assert not daemon.socket.exists()


def test_a_stale_socket_is_replaced_and_a_served_one_is_not(start: Callable[..., Running]) -> None:
    daemon = start()
    import subprocess
    import sys

    second = subprocess.run(
        [sys.executable, "-m", "edgeaid", "--socket", daemon.socket],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 78
    assert "served already" in second.stderr
    daemon.stop(signal.SIGKILL)
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.json("GET", "/v2/health/live")[0] == 200


def test_workers_end_with_a_daemon_that_is_killed(start: Callable[..., Running], three: bytes) -> None:
    daemon = start()
    with daemon.client() as client:
        client.classify("digits", three)  # by the worker for pictures
    children = psutil.Process(daemon.process.pid).children()
    assert {"edgeai-cpu0", "edgeai-media0"} <= {child.name() for child in children}
    ended = select.poll()
    for child in children:
        ended.register(os.pidfd_open(child.pid), select.POLLIN)
    daemon.stop(signal.SIGKILL)
    until = time.monotonic() + 5
    left = len(children)
    # A descriptor of a process is readable as soon as it has ended, whoever its new parent is and whenever that asks.
    while left and time.monotonic() < until:
        for fd, _ in ended.poll(100):
            ended.unregister(fd)
            os.close(fd)
            left -= 1
    assert left == 0


def test_the_daemon_imports_no_runtime_and_no_numpy(start: Callable[..., Running]) -> None:
    daemon = start()
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "numpy" not in maps
    assert "litert" not in maps.lower()
    assert "_imaging" not in maps


def test_a_client_without_a_daemon_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="is it running"), Client(tmp_path / "none.sock") as client:
        client.models()


@pytest.mark.parametrize("stderr", ["a file", "the journal"])
def test_records_go_where_stderr_goes(tmp_path: Path, stderr: str) -> None:
    """systemd names its stream in JOURNAL_STREAM, and whatever a service starts inherits the name."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}" if stderr == "the journal" else "8:1234"
        done = subprocess.run(
            [sys.executable, "-c", "from edgeaid import systemd; print(systemd.stderr_is_the_journal())"],
            stderr=file, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "JOURNAL_STREAM": stream},
        )  # fmt: skip
    assert done.stdout.strip() == str(stderr == "the journal")


def test_a_killed_fork_server_disturbs_nobody_and_the_next_worker_gets_a_new_one(
    start: Callable[..., Running], three: bytes
) -> None:
    daemon = start()
    first = daemon.worker()
    with daemon.client() as client:
        digit = client.classify("digits", three).label
    children = psutil.Process(daemon.process.pid).children()
    (server,) = [child for child in children if not child.name().startswith("edgeai-")]
    server.kill()
    with daemon.client() as client:
        assert client.classify("digits", three).label == digit
    assert daemon.worker() == first
    os.kill(first, signal.SIGKILL)
    eventually(lambda: daemon.replaced(first))
    with daemon.client() as client:
        assert client.classify("digits", three).label == digit


def test_the_fork_server_is_not_told_what_the_service_manager_tells_the_daemon(start: Callable[..., Running]) -> None:
    daemon = start(env={"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"})
    children = psutil.Process(daemon.process.pid).children()
    (server,) = [child for child in children if not child.name().startswith("edgeai-")]
    assert not [name for name in server.environ() if name.startswith("LISTEN_")]


def test_a_daemon_that_serves_a_model_has_no_openssl_in_memory(daemon: Running) -> None:
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "libpython" in maps or "python3" in maps
    assert "libssl" not in maps
    assert "libcrypto" not in maps
    assert "/_ssl." not in maps
