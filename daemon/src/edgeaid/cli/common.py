"""What every verb needs: a connection (here or through ssh), tables, JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .. import errors

if TYPE_CHECKING:
    from ..client import Client

DEFAULT_SOCKET: Final = "/run/edgeai/edgeaid.sock"
#: ssh may ask for a password or a host key.
SSH_SECONDS: Final = 60.0


class Session:
    """Options of the command line, and the client made from them at first use."""

    def __init__(self, socket: str | None, host: str | None, timeout: float, as_json: bool) -> None:
        self.socket = socket or DEFAULT_SOCKET
        self.host = host
        self.timeout = timeout
        self.as_json = as_json
        self._client: Client | None = None
        self._ssh: subprocess.Popen[bytes] | None = None
        self._folder = ""

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
        return self._client

    def _tunnel(self, host: str) -> str:
        if host.startswith("-"):
            raise errors.InvalidRequest(f"--host {host!r} is not a host name")
        self._folder = tempfile.mkdtemp(prefix="edgeai-")
        local = os.path.join(self._folder, "s")
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

    def close(self) -> None:
        """Close the client and the tunnel."""
        if self._client is not None:
            self._client.close()
        if self._ssh is not None:
            self._ssh.terminate()
            self._ssh.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def show(self, value: Any, human: Any = None) -> None:
        """Print JSON when asked for it, else `human` (a text or something rich can print)."""
        if self.as_json or human is None:
            click.echo(json.dumps(value, indent=None if self.as_json else 2))
        elif isinstance(human, str):
            click.echo(human)
        else:
            console().print(human)


pass_session = click.make_pass_decorator(Session)


def console() -> Any:
    """A rich console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Any:
    """A plain table; columns whose name ends in '>' are right-aligned."""
    from rich.table import Table

    found = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        found.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    for row in rows:
        found.add_row(*("" if cell is None else str(cell) for cell in row))
    return found


def complete_model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the daemon's models, for the shell."""
    from ..client import Client

    root = ctx.find_root()
    try:
        with Client(
            root.params.get("socket") or os.environ.get("EDGEAI_SOCKET", DEFAULT_SOCKET), timeout=1.0
        ) as client:
            names = {m["name"] for m in client.models()}
    except errors.EdgeaiError:
        return []
    return sorted(n for n in names if n.startswith(incomplete))


def read_picture(file: Path) -> bytes:
    """Bytes of a file, or of standard input for '-'."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise errors.NotFound(f"{file}: {error.strerror}") from error


model_argument = click.argument("model", shell_complete=complete_model)
