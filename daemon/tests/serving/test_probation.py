"""A model that is new here runs in a worker of its own first: what it breaks is its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.waiting import eventually
from ..toolkit.tflite_builder import Graph, Op, T, build

DIGITS = EMBEDDED / "digits" / "1"
IMAGE = np.load(DIGITS / "golden" / "0.in.npy")


@contextmanager
def asking(daemon: Running, model: str = "digits") -> Iterator[list[float | str]]:
    """Somebody who asks all the time: seconds of each answer, or what went wrong."""
    seen: list[float | str] = []
    stop = threading.Event()

    def ask() -> None:
        with daemon.client() as client:
            while not stop.is_set():
                started = time.monotonic()
                try:
                    assert client.infer(model, IMAGE)["scores"].argmax() == 3
                    seen.append(time.monotonic() - started)
                except Exception as error:
                    seen.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def slow(size: int = 3000, rounds: int = 400) -> bytes:
    """A small file whose one inference multiplies large matrices again and again."""
    side = (1, size, size, 1)
    square = (1, size, size)
    tensors = [
        T("in", (1, 8, 8, 1)),
        T("size", (2,), "INT32", np.array([size, size], np.int32)),
        T("large", side),
        T("shape", (3,), "INT32", np.array(square, np.int32)),
        *(T(f"m{number}", square) for number in range(rounds + 1)),
    ]
    operators = [
        Op("RESIZE_BILINEAR", ["in", "size"], ["large"]),
        Op("RESHAPE", ["large", "shape"], ["m0"]),
        *(Op("BATCH_MATMUL", [f"m{n}", f"m{n}"], [f"m{n + 1}"]) for n in range(rounds)),
    ]
    return build(Graph(tensors, operators, ["in"], [f"m{rounds}"]))


#: A runtime that does what the bytes after a model file tell it to: our stand-in for what crafted files and bugs do.
RUNTIME = """
import ctypes, os, signal, time
from ai_edge_litert import interpreter as real
from ai_edge_litert.interpreter import *
from ai_edge_litert.interpreter import OpResolverType

class Interpreter(real.Interpreter):
    def __init__(self, model_path=None, **options):
        with open(model_path, "rb") as stream:
            self.todo = stream.read().rpartition(b"DO:")[2].decode("latin-1")
        super().__init__(model_path=model_path, **options)

    def invoke(self):
        if self.todo == "loop":
            while True:
                time.sleep(0.01)
        if self.todo in ("SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"):
            os.kill(os.getpid(), getattr(signal, self.todo))
        if self.todo == "memory":
            held = [bytearray(os.urandom(1 << 20)) for _ in range(4096)]
        if self.todo == "heap":
            libc = ctypes.CDLL(None)
            libc.malloc.restype = ctypes.c_void_p
            blocks = [libc.malloc(40) for _ in range(50)]
            for block in blocks:
                ctypes.memset(block, 0xA5, 200)
        super().invoke()
        if self.todo.startswith("later ") and os.path.exists(self.todo[6:]):
            libc = ctypes.CDLL(None)
            libc.malloc.restype = ctypes.c_void_p
            for block in [libc.malloc(40) for _ in range(50)]:
                ctypes.memset(block, 0xA5, 200)
"""


@pytest.fixture
def misbehaving(start: Callable[..., Running], tmp_path: Path) -> Callable[..., Running]:
    """Start a daemon whose runtime does what a model file tells it."""
    package = tmp_path / "runtime" / "tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(RUNTIME)

    def make(limits: str = "") -> Running:
        return start(
            f'{limits}\n[[device]]\nid = "cpu0"\ntarget = "cpu"\noptions = {{ runtime = "tflite-runtime" }}\n',
            env={"PYTHONPATH": f"{package.parent}:{os.environ.get('PYTHONPATH', '')}"},
        )

    return make


def telling(what: str, directory: Path) -> Path:
    """A model that serves digits, and tells the runtime above what to do."""
    file = directory / (what.partition(" ")[0] + ".tflite")
    file.write_bytes((DIGITS / "model.tflite").read_bytes() + b"DO:" + what.encode())
    return file


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("loop", r"limits\.load_seconds"),
        ("SIGSEGV", "ran its self-test.*SIGSEGV"),
        ("SIGABRT", "ran its self-test.*SIGABRT"),
        ("SIGBUS", "ran its self-test.*SIGBUS"),
        ("SIGKILL", "ran its self-test.*SIGKILL"),
        ("heap", "heap|SIG"),
    ],
)
def test_a_model_that_breaks_its_worker_is_refused_by_name_of_the_signal_and_others_lose_nothing(
    misbehaving: Callable[..., Running], tmp_path: Path, what: str, reason: str
) -> None:
    daemon = misbehaving("[limits]\nload_seconds = 5\n")
    pid = daemon.worker()
    with asking(daemon) as seen:
        for _ in range(3):
            with daemon.client() as client, pytest.raises(errors.InvalidRequest, match=reason):
                client.push("bad", telling(what, tmp_path))
    assert seen
    assert [s for s in seen if isinstance(s, str)] == []
    with daemon.client() as client:
        device = client.devices()[0]
        assert (device["pid"], device["restarts"]) == (pid, 0)
        assert next(m for m in client.models() if m["name"] == "digits")["state"] == "READY"
    assert not (daemon.repository / "bad").exists()


def test_damage_that_a_model_does_later_is_its_own_and_not_that_of_the_models_beside_it(
    misbehaving: Callable[..., Running], tmp_path: Path
) -> None:
    daemon = misbehaving()
    trigger = tmp_path / "now"
    failures = []
    with daemon.client() as client:
        client.push("bad", telling(f"later {trigger}", tmp_path))
        assert client.infer("bad", IMAGE)["scores"].argmax() == 3
        trigger.touch()
        first = daemon.worker()
        os.kill(first, signal.SIGKILL)  # as the first crash, which may be met by any model
        eventually(lambda: daemon.replaced(first))
        for _ in range(3):
            assert client.infer("digits", IMAGE)["scores"].argmax() == 3
            with pytest.raises(errors.Unavailable, match="while it ran model 'bad/1'") as failure:
                client.infer("bad", IMAGE)
            failures.append(str(failure.value))
            for _ in range(3):
                assert client.infer("digits", IMAGE)["scores"].argmax() == 3
        # A damaged heap may also keep the allocator busy for ever.
        assert all("killed by SIG" in text or "hung for" in text for text in failures), failures
        rows = {m["name"]: m for m in client.models()}
    assert "died 3 times" in rows["bad"]["reason"]
    assert rows["digits"]["state"] == "READY"


def test_a_model_whose_worker_is_killed_from_outside_is_forgiven_with_its_next_answer(
    start: Callable[..., Running],
) -> None:
    daemon = start()
    with daemon.client() as client, daemon.client() as killer:
        for _ in range(4):
            assert client.infer("digits", IMAGE)["scores"].argmax() == 3
            pid = next(d["pid"] for d in killer.devices())
            os.kill(pid, signal.SIGSTOP)
            asking = threading.Thread(target=_ask_and_fail, args=(daemon,))
            asking.start()
            until = time.monotonic() + 20
            while not killer.devices()[0]["in_flight"]:
                assert time.monotonic() < until
            os.kill(pid, signal.SIGKILL)
            asking.join()
        assert client.infer("digits", IMAGE)["scores"].argmax() == 3
        assert killer.devices()[0]["restarts"] == 4


def _ask_and_fail(daemon: Running) -> None:
    with daemon.client() as client, pytest.raises(errors.Unavailable, match="while it ran model"):
        client.infer("digits", IMAGE)


def test_a_model_that_is_slow_in_its_self_test_hurts_nobody_and_its_pusher_gets_the_reason(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    daemon = start("[limits]\nload_seconds = 4\ninvoke_seconds = 2\n")
    file = tmp_path / "slow.tflite"
    file.write_bytes(slow())
    pid = daemon.worker()
    with asking(daemon) as seen:
        for _ in range(3):
            with (
                daemon.client() as client,
                pytest.raises(errors.InvalidRequest, match=r"limits\.(load|invoke)_seconds"),
            ):
                client.push("slow", file)
    assert seen
    assert [s for s in seen if isinstance(s, str)] == []
    assert daemon.worker() == pid
    with daemon.client() as client:
        assert client.devices()[0]["restarts"] == 0
        assert next(m for m in client.models() if m["name"] == "digits")["state"] == "READY"
    assert not (daemon.repository / "slow").exists()


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A cgroup whose memory can be limited."""
    top = next((p for p in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if os.access(p, os.W_OK)), None)
    if top is None or os.geteuid() != 0:
        pytest.skip("limiting memory needs root and a writable cgroup")
    path = top / f"edgeai-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error.strerror}")
    if _limit_of(path) is None:
        path.rmdir()
        pytest.skip("the memory controller is not enabled here")
    yield path
    until = time.monotonic() + 10
    while (path / "cgroup.procs").read_text() and time.monotonic() < until:
        time.sleep(0.1)
    path.rmdir()


def _limit_of(group: Path) -> Path | None:
    names = ("memory.max", "memory.limit_in_bytes")
    return next((group / name for name in names if (group / name).exists()), None)


def test_a_model_that_takes_all_memory_is_killed_before_the_daemon_and_named_for_it(
    memory_group: Path, misbehaving: Callable[..., Running], tmp_path: Path
) -> None:
    daemon = misbehaving()
    pids = [daemon.process.pid]
    for task in Path(f"/proc/{daemon.process.pid}/task").glob("*/children"):
        pids += [int(pid) for pid in task.read_text().split()]
    for pid in pids:
        (memory_group / "cgroup.procs").write_text(str(pid))
    limit = _limit_of(memory_group)
    assert limit is not None
    limit.write_text(str(256 << 20))
    greedy = telling("memory", tmp_path)
    with asking(daemon) as seen, daemon.client() as client, pytest.raises(errors.InvalidRequest, match="out of memory"):
        client.push("greedy", greedy)
    assert seen
    assert daemon.process.poll() is None
    with daemon.client() as client:
        assert client.infer("digits", IMAGE)["scores"].argmax() == 3
