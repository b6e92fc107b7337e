"""A private daemon for `edgeai run`, where no other answers: started once, kept running, ended when it is not used.

`python -m edgeaid.cli.private DIRECTORY` is the process that looks after it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from .. import errors
from ..client import Client

#: Seconds without a request after which it ends.
IDLE_SECONDS: Final = 900.0
START_SECONDS: Final = 60.0
_LOOK: Final = 5.0


def _directory() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # After `su` or `sudo` it often names a directory that is not there, or another user's.
    usable = bool(runtime) and os.access(runtime, os.W_OK | os.X_OK) and os.stat(runtime).st_uid == os.getuid()
    return Path(runtime) / "edgeai" if usable else Path(tempfile.gettempdir()) / f"edgeai-{os.getuid()}"


def place() -> Path:
    """The directory of this user's private daemon, which nobody else can write to."""
    directory = _directory()
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        facts = directory.lstat()
    except OSError as error:
        raise errors.Unavailable(
            f"no place for a private daemon: {directory}: {error.strerror}; set TMPDIR to a directory of yours"
        ) from error
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or directory.is_symlink():
        raise errors.PermissionDenied(f"{directory} is not this user's alone; remove it and run again")
    return directory


def answering() -> Path | None:
    """The socket of this user's private daemon where one runs; nothing is made or started."""
    socket = _directory() / "edgeaid.sock"
    try:
        if socket.lstat().st_uid != os.getuid():
            return None
        with Client(socket, fast=False, timeout=1.0) as client:
            return socket if client.is_ready() else None
    except (OSError, errors.EdgeaiError):
        return None


def start(directory: Path) -> Path:
    """The socket of a private daemon in `directory`, started unless it answers already. Unavailable with its log."""
    socket = directory / "edgeaid.sock"
    with Client(socket, fast=False, timeout=5.0) as client:
        if client.is_ready():
            return socket
        with open(directory / "log", "ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "edgeaid.cli.private", directory],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if client.is_ready():
                return socket
            if keeper.poll() is not None and keeper.returncode:
                break
            time.sleep(0.05)
    tail = (directory / "log").read_text(errors="replace").splitlines()[-3:]
    raise errors.Unavailable(f"the private daemon did not start; {directory / 'log'} ends with: {' | '.join(tail)}")


def keep(directory: Path, idle_seconds: float) -> int:
    """Run a daemon until it was not used for so long; its exit status."""
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # another one starts it at this moment
        environment = {**os.environ, "STATE_DIRECTORY": str(directory / "state")}
        socket = directory / "edgeaid.sock"
        daemon = subprocess.Popen(
            [sys.executable, "-m", "edgeaid", "--socket", socket, "--model-repository", directory / "models",
             "--log-level", "warning"],
            env=environment,
        )  # fmt: skip
        signal.signal(signal.SIGTERM, lambda *_: daemon.terminate())
        asked, since = -1, time.monotonic()
        while daemon.poll() is None:
            time.sleep(min(_LOOK, idle_seconds))
            now = _requests(socket, asked)
            if now != asked or now < 0:  # not up yet, or in use
                asked, since = now, time.monotonic()
            elif time.monotonic() - since > idle_seconds:
                daemon.terminate()
                break
        return daemon.wait()


def _requests(socket: Path, before: int) -> int:
    """Requests so far, of all models; `before` when it does not answer."""
    try:
        with Client(socket, fast=False, timeout=_LOOK) as client:
            if before < 0 and not client.is_ready():
                return before
            rows = client.stats()
    except errors.EdgeaiError:
        return before
    return sum(s["inference_stats"][kind]["count"] for s in rows for kind in ("success", "fail"))


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), float(os.environ.get("EDGEAI_PRIVATE_IDLE_SECONDS", IDLE_SECONDS))))
