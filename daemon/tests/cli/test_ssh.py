"""`edgeai --host`: a real ssh to a real sshd on loopback, with keys made for the test."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running

SAMPLE = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))[0]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(
    not SSHD or not shutil.which("ssh"), reason="no OpenSSH server and client here (openssh-server, openssh-client)"
)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The directory with an `ssh` that knows the host "pi": an sshd of this user on loopback."""
    directory = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's empty directory for its unprivileged half
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\n"
        f"StrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n"
    )
    public = (directory / "host.pub").read_text().split()
    (directory / "known").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    (directory / "config").write_text(
        f"Host pi\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {directory}/user\n"
        f"UserKnownHostsFile {directory}/known\nIdentitiesOnly yes\nBatchMode yes\n"
    )
    wrapper = directory / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/config "$@"\n')
    wrapper.chmod(0o755)
    server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", directory / "sshd_config"], stderr=subprocess.PIPE)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert server.poll() is None, server.communicate()[1]
            time.sleep(0.05)
    yield wrapper.parent
    server.terminate()
    server.communicate(timeout=10)


def edgeai(ssh: Path, *words: object, code: int = 0) -> str:
    environment = {**os.environ, "PATH": f"{ssh}:{os.environ['PATH']}", "COLUMNS": "200"}
    command = [sys.executable, "-c", "from edgeaid.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_picture_is_classified_on_another_machine(daemon: Running, ssh: Any) -> None:
    answer = json.loads(edgeai(ssh, "--host", "pi", "--socket", daemon.socket, "--json", "classify", "digits", SAMPLE))
    assert answer["classes"][0]["label"] == SAMPLE.stem.rsplit("-", 1)[1]


def test_a_model_is_pushed_through_the_tunnel(daemon: Running, ssh: Any) -> None:
    model = EMBEDDED / "digits" / "1" / "model.tflite"
    edgeai(ssh, "--host", "pi", "--socket", daemon.socket, "push", "through-ssh", model)
    assert "through-ssh" in edgeai(ssh, "--host", "pi", "--socket", daemon.socket, "models")
    edgeai(ssh, "--host", "pi", "--socket", daemon.socket, "unload", "through-ssh")


def test_a_host_without_a_daemon_and_one_that_does_not_exist(ssh: Any, tmp_path: Path) -> None:
    text = edgeai(ssh, "--host", "pi", "--socket", tmp_path / "nobody.sock", "models", code=75)
    assert f"edgeaid at pi:{tmp_path}/nobody.sock closed the connection" in text
    text = edgeai(ssh, "--host", "elsewhere.invalid", "models", code=75)
    assert "ssh to elsewhere.invalid ended with status 255" in text
