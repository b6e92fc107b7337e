"""Running things that may crash, hang or be absent: child processes with a time limit."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidModel, Unsupported

_MAX_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Finished:
    """A child that ended."""

    #: Exit status; negative = killed by that signal, None = time limit.
    status: int | None
    #: stdout and stderr as they came, cut to 1 MiB each.
    output: str
    error: str
    #: Bytes of data that it might have, 0 = as many as it liked.
    memory: int = 0

    @property
    def ran_out(self) -> bool:
        """Whether it looks as if memory was refused: its own words, or an abort as C++ ends after that."""
        words = ("MemoryError", "bad_alloc", "Cannot allocate memory", "Unable to allocate", "out of memory")
        return self.status not in (0, None) and any(w in self.error for w in words)

    @property
    def reason(self) -> str:
        """Why it failed, in words; "" if it did not."""
        if self.status == 0:
            return ""
        if self.status is None:
            return "did not end within the time limit"
        limit = f" (it may take {self.memory >> 20} MiB)" if self.memory and self.ran_out else ""
        if self.status < 0:
            return f"died of {signal.Signals(-self.status).name}{limit}"
        last = [line for line in self.error.splitlines() if line.strip()]
        return (last[-1][:500] if last else f"ended with status {self.status}") + limit


def _physical() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory() -> int:
    """Bytes that a child which runs a foreign file may take: half of the machine's, at most 4 GiB."""
    return max(512 << 20, min(4 << 30, _physical() // 2))


def _most_memory() -> int:
    """Bytes that any child may take, converters with whole frameworks among them: three quarters of the machine's."""
    return max(4 << 30, _physical() // 4 * 3)


def child(
    command: Sequence[str | Path],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    memory: int | None = None,
) -> Finished:
    """Run a command in a process group of its own; the whole group is killed when the time is over.

    `memory` = bytes of data that it may have (RLIMIT_DATA), None = three quarters of the machine's: nearly every child
    opens a file that somebody else made, and one that takes everything takes the machine.

    Raises Unsupported if the program does not exist.
    """
    environment = {**os.environ, **(env or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=cwd,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Unsupported(f"{command[0]} cannot be run: {error.strerror}") from error
        memory = memory or _most_memory()
        # It has just begun, and its own code is not read yet: there is no gap in which a model could be opened.
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
        try:
            status: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for stream in (out, err):
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _MAX_TEXT))
            texts.append(stream.read().decode("utf-8", "replace"))
    return Finished(status, texts[0], texts[1], memory)


def have_litert() -> bool:
    """Whether a TFLite runtime is installed beside this package."""
    return any(find_spec(name) is not None for name in ("ai_edge_litert", "tflite_runtime"))


def litert(
    model: Path, request: Mapping[str, Any], timeout: float = 120.0, memory: int | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Run a TFLite model in a child, see litert_run.py for request and answer. `memory` in bytes, None = the usual.

    Raises InvalidModel if the model cannot be run, Unsupported without a runtime.
    """
    if not have_litert():
        raise Unsupported("no TFLite runtime is installed: pip install './daemon[litert]'")
    with tempfile.TemporaryDirectory(prefix="edgeai-") as directory:
        ask, answer = Path(directory) / "ask.npz", Path(directory) / "answer.npz"
        np.savez(ask, **request)
        done = child(
            [sys.executable, "-m", f"{__package__}.litert_run", model, ask, answer],
            timeout=timeout,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            memory=memory or _memory(),
        )
        if done.status != 0 or not answer.is_file():
            raise InvalidModel(f"{model.name} cannot be run: the runtime {done.reason or 'gave no answer'}")
        with np.load(answer, allow_pickle=False) as loaded:
            return dict(loaded)
