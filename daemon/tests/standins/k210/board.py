"""Starts and commands the stand-in of a K210 board."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = "@micropython/micropython-webassembly-pyscript@1.27.0"


@functools.cache
def micropython() -> Path | str:
    """micropython.mjs, installed by npm into a cache directory on first use; or why it cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "node and npm are not installed"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgeai-tests" / PACKAGE.replace("/", "_")
    module = cache / "node_modules" / PACKAGE.rpartition("@")[0] / "micropython.mjs"
    if not module.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(cache), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if not module.is_file():
            return f"npm could not install {PACKAGE}: {done.stderr.strip()[-200:]}"
    return module


class Board:
    """A running stand-in. `port` is a symbolic link that a serial port name may be."""

    def __init__(self, runtime: str = "cpython", *arguments: str, state: Path | None = None) -> None:
        self._own = None if state else tempfile.TemporaryDirectory(prefix="k210-")
        self.state = state or Path(self._own.name if self._own else "")
        command = [sys.executable, str(HERE / "line.py"), "--runtime", runtime, "--state", str(self.state), *arguments]
        if runtime == "node":
            command += ["--micropython", str(micropython())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = str(self._read()["port"])
        self.flash = self.state / "flash"

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        text = self.process.stdout.readline()
        if not text:
            raise RuntimeError(f"the stand-in died with status {self.process.wait()}")
        message: dict[str, Any] = json.loads(text)
        return message

    def do(self, what: str, **order: Any) -> dict[str, Any]:
        """Give an order (README.md); its answer, which always holds the counters."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": what, **order}) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        assert "error" not in answer, answer
        return answer

    def set(self, **values: Any) -> None:
        """ber, drop, paced, forward_ms, camera, camera_ms, hang, mute, baud."""
        self.do("set", **values)

    def stop(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
        if self._own:
            self._own.cleanup()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
