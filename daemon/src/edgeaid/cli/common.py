"""What every verb needs: a connection (here or through ssh), JSON, completion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .. import errors
from ..paths import HTTP_SOCKET

if TYPE_CHECKING:
    from ..client import Client

#: How long a socket that is not there yet is waited for: `edgeaid &` and the next line of a pasted block.
START_SECONDS: Final = 3.0
#: ssh may ask for a password or a host key.
SSH_SECONDS: Final = 60.0


class Session:
    """Options of the command line, and the client made from them at first use."""

    def __init__(self, socket: str | None, host: str | None, timeout: float, as_json: bool) -> None:
        self.socket = socket or HTTP_SOCKET
        #: True when the caller says which daemon is meant.
        self.named = socket is not None or host is not None
        self.host = host
        self.timeout = timeout
        self.as_json = as_json
        #: Wait a moment for a daemon that is just being started.
        self.patient = True
        self._client: Client | None = None
        self._ssh: subprocess.Popen[bytes] | None = None
        self._directory = ""

    @property
    def client(self) -> Client:
        """The client; opens the ssh tunnel when --host was given."""
        if self._client is None:
            from ..client import Client

            if self.host:
                name = f"{self.host}:{self.socket}"
                self._client = Client(self._tunnel(self.host), timeout=self.timeout, fast=False, name=name)
            else:
                self._client = Client(self.socket, timeout=self.timeout)
                self._reach(self._client)
        return self._client

    def _reach(self, client: Client) -> None:
        """Give a daemon that has just been started a moment to open its socket."""
        until = time.monotonic() + min(START_SECONDS, self.timeout)
        while True:
            try:
                client.get("/v2/health/live")
                return
            except errors.Unavailable:
                if time.monotonic() > until or not self.patient:
                    return  # the request itself says why
                time.sleep(0.1)

    def _tunnel(self, host: str) -> str:
        if host.startswith("-"):
            raise errors.InvalidRequest(f"--host {host!r} is not a host name")
        self._directory = tempfile.mkdtemp(prefix="edgeai-")
        local = os.path.join(self._directory, "s")
        command = [
            "ssh",
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-o",
            "ServerAliveInterval=15",
            "-L",
            f"{local}:{self.socket}",
            "--",
            host,
        ]
        try:
            self._ssh = subprocess.Popen(command)
        except FileNotFoundError as error:
            raise errors.Unsupported("--host needs the OpenSSH client (ssh)") from error
        until = time.monotonic() + max(SSH_SECONDS, self.timeout)
        while not os.path.exists(local):
            if self._ssh.poll() is not None:
                raise errors.Unavailable(
                    f"ssh to {host} ended with status {self._ssh.returncode}; try: ssh {host} edgeai devices"
                )
            if time.monotonic() > until:
                raise errors.DeadlineExceeded(f"ssh to {host} did not come up in time")
            time.sleep(0.05)
        return local

    def use(self, socket: str) -> None:
        """Turn to another daemon of this machine."""
        self.close()
        self.socket = socket

    def close(self) -> None:
        """Close the client and the tunnel."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._ssh is not None:
            self._ssh.terminate()
            self._ssh.wait()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def show(self, value: Any, human: str | None = None) -> None:
        """Print JSON when asked for it, else `human`."""
        if self.as_json or human is None:
            click.echo(json.dumps(value, indent=None if self.as_json else 2, default=dict))
        else:
            click.echo(human)


pass_session = click.make_pass_decorator(Session)


def complete_model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the daemon's models that fit the verb, for the shell."""
    fitting = {"classify", "detect", "segment", "pose"} & {ctx.info_name or ""}
    return _complete(ctx, lambda m: m["name"] if not fitting or m.get("task") in fitting else "", incomplete)


def complete_version(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Stored versions of the model that the command line names already."""
    wanted = ctx.params.get("model")
    return _complete(ctx, lambda m: m["version"] if m["name"] == wanted else "", incomplete)


def _complete(ctx: click.Context, value: Callable[[Mapping[str, Any]], str], incomplete: str) -> list[str]:
    from ..client import Client

    socket = ctx.find_root().params.get("socket") or os.environ.get("EDGEAI_SOCKET", HTTP_SOCKET)
    try:
        with Client(socket, timeout=1.0) as client:
            names = {value(m) for m in client.models()}
    except errors.EdgeaiError:
        return []
    return sorted(n for n in names if n and n.startswith(incomplete))


def read_picture(file: Path) -> bytes:
    """Bytes of a file, or of standard input for '-'. Addresses are not fetched."""
    if str(file) == "-":
        return sys.stdin.buffer.read()
    from ..client.pictures import read_file

    return read_file(file)


def write_text(file: Path, text: str) -> None:
    """Write a page or a report that was asked for. CannotWrite."""
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise errors.CannotWrite(f"{file} cannot be written: {error.strerror}") from error


model_argument = click.argument("model", shell_complete=complete_model)
