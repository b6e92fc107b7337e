"""scripts/emulate as a person uses it: a process, its terminal, and the programs beside it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rig.link import wait_for

from .card import serves
from .conftest import TOP

pytestmark = pytest.mark.slow

DEFAULTS = TOP / "daemon/src/edgeaid/models/defaults"
EDGEAI = [sys.executable, "-c", "from edgeaid.cli import main; main()"]


class Emulator:
    """A running scripts/emulate and what it said so far; `terminal` gives it a pseudo terminal."""

    def __init__(self, *words: object, terminal: bool = False) -> None:
        command = [sys.executable, "-u", str(TOP / "scripts/emulate"), *map(str, words)]
        self.begin = time.monotonic()
        self.said = b""
        if terminal:
            self.fd, theirs = pty.openpty()
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
            os.close(theirs)
        else:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert self.process.stdout is not None
            self.fd = os.dup(self.process.stdout.fileno())
            self.process.stdout.close()

    def until(self, pattern: str, seconds: float = 900) -> re.Match[str]:
        """Read on until it has said this."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.text)):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {pattern!r}:\n{self.text[-3000:]}"
            ready, _, _ = select.select([self.fd], [], [], 1)
            if ready:
                data = self._read()
                assert data, f"it ended without saying {pattern!r}:\n{self.text[-3000:]}"
        return match

    def _read(self) -> bytes:
        data = b""
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            data = os.read(self.fd, 4096)
        self.said += data
        return data

    @property
    def text(self) -> str:
        return self.said.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self, seconds: float = 180) -> int:
        """Its exit status, once it has ended by itself."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text[-3000:]}"
            ready, _, _ = select.select([self.fd], [], [], 1)
            if ready and not self._read():
                time.sleep(0.2)
        while select.select([self.fd], [], [], 0)[0] and self._read():
            pass
        return self.process.returncode

    def close(self) -> None:
        """Stop it whatever it does; it takes its QEMU with it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(180)
            except subprocess.TimeoutExpired:
                self.process.kill()
        os.close(self.fd)


#: Starts scripts/emulate with further words.
Start = Callable[..., Emulator]


@pytest.fixture
def emulate(image: Path) -> Iterator[Start]:
    """Start scripts/emulate on the image with further words."""
    started: list[Emulator] = []

    def call(*words: object, terminal: bool = False) -> Emulator:
        started.append(Emulator(image, *words, terminal=terminal))
        return started[-1]

    yield call
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private SSH key; the public one is beside it."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed: apt-get install openssh-client")
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def edgeai(socket: str, *words: object) -> str:
    done = subprocess.run(
        [*EDGEAI, "--socket", socket, *map(str, words)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(TOP / "daemon/src"), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ssh(line: str, key: Path, *words: str) -> str:
    """Log in by the command that the emulator printed."""
    command = [*line.split(), "-i", str(key), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_person_tries_the_product_and_the_next_start_continues(
    emulate: Start, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = emulate("--fresh", "--ssh-key", key.with_suffix(".pub"), "--socket-dir", tmp_path)
    first.until("Ctrl-C shuts down", 1500)
    booted = float(first.until(r"up after ([\d.]+) s")[1])
    socket = str(tmp_path / "edgeaid.sock")
    assert f"edgeai --socket {socket} models" in first.text
    assert "digits" in edgeai(socket, "models")
    wait_for(lambda: serves(Path(socket)), 900, "the default models to serve")
    sample = sorted((DEFAULTS / "digits/1/samples").glob("*.png"))[0]
    answer = edgeai(socket, "--json", "classify", "digits", sample)
    assert f'"label": "{sample.stem.split("-")[-1]}"' in answer.split("}")[0] + answer
    line = first.until(r"ssh:\s+(ssh .*root@127\.0\.0\.1)")[1]
    assert ssh(line, key, "uname -m && touch /var/lib/edgeai/seen && sync").strip() == "aarch64"
    first.process.send_signal(signal.SIGINT)
    assert first.end() == 0
    assert "shutting down" in first.text
    assert not Path(socket).exists()

    # The second one is not given a socket directory, another port, and is told to end by a service manager.
    second = emulate("--ssh-key", key.with_suffix(".pub"))
    second.until("Ctrl-C shuts down")
    assert "continuing" in second.text
    continued = float(second.until(r"up after ([\d.]+) s")[1])
    socket = second.until(r"--socket (\S+) models")[1]
    assert "digits" in edgeai(socket, "models")
    line = second.until(r"ssh:\s+(ssh .*root@127\.0\.0\.1)")[1]
    assert ssh(line, key, "ls /var/lib/edgeai/seen 2>&1 || true").strip().endswith("No such file or directory")
    second.process.terminate()
    assert second.end() == 0
    with capsys.disabled():
        print(f"\n[first start {booted:.0f} s, second start {continued:.1f} s]")
    assert continued < booted


def test_one_command_is_run_and_its_exit_status_is_told(emulate: Start) -> None:
    one = emulate("--run", "edgeai models; exit 3")
    assert one.end(1500) == 3
    assert "digits" in one.text


def test_the_shell_takes_lines_until_the_end_of_input(emulate: Start) -> None:
    one = emulate("--shell", terminal=True)
    one.until("root@emulated# ", 1500)
    one.type("echo $((6 * 7)) on $(uname -m)\n")
    one.until("42 on aarch64")
    one.type("\x04")
    assert one.end() == 0


def test_the_console_is_logged_in_and_is_left_by_its_key(emulate: Start) -> None:
    one = emulate("--console", terminal=True)
    one.until("serial console", 1500)
    one.until(r"root@\S+:~# ")
    one.type("echo $((6 * 7)) on $(tty)\r")
    one.until("42 on /dev/ttyAMA0")
    one.type("\x1d")
    assert one.end() == 0


def test_what_is_kept_is_there_at_the_next_start(emulate: Start) -> None:
    assert emulate("--keep", "--fresh", "--run", "echo old > /var/lib/edgeai/kept; sync").end(1500) == 0
    again = emulate("--keep", "--run", "cat /var/lib/edgeai/kept")
    assert again.end(1500) == 0
    assert "old" in again.text


def test_the_boards_own_machine_runs_the_same_image(emulate: Start) -> None:
    one = emulate("--machine", "raspi3b", "--run", "tr -d '\\0' < /proc/device-tree/model; echo; edgeai models")
    assert one.end(1800) == 0, one.text
    assert "Raspberry Pi 3 Model B" in one.text
    assert "digits" in one.text
