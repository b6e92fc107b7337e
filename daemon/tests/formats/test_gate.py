"""The reader as a gate: what it lets through does not kill a runtime."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from edgeaid import models
from edgeaid.errors import EdgeaiError
from edgeaid.formats.tflite import reader as tflite

from .damage import damaged

CASES = int(os.environ.get("EDGEAI_GATE_CASES", "1000"))
MODEL = Path(models.__file__).parent / "defaults/digits/1/model.tflite"


def _run(interpreter: object, data: bytes) -> int:
    """Load and run in a child; returns the signal that killed it, 0 for none."""
    pid = os.fork()
    if pid == 0:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(60)
            runtime = interpreter.Interpreter(model_content=data, num_threads=1)  # type: ignore[attr-defined]  # untyped
            runtime.allocate_tensors()
            runtime.invoke()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


@pytest.mark.slow
@pytest.mark.parametrize("package", ["ai_edge_litert", "tflite_runtime"])
def test_no_accepted_file_kills_the_runtime(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    interpreter = pytest.importorskip(f"{package}.interpreter")
    seed = MODEL.read_bytes()
    accepted, killed = 0, []
    for number in range(CASES):
        data = damaged(seed, number)
        try:
            tflite.read(data)
        except EdgeaiError:
            continue
        accepted += 1
        if end := _run(interpreter, data):
            killed.append((number, signal.Signals(end).name))
    with capsys.disabled():
        print(f"\n{package}: {CASES} damaged files, {accepted} accepted and run, killed {killed}")
    assert not killed
