"""Addresses of a daemon for programs that know no Unix sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .daemon import Running


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a daemon is reached: a loopback port for HTTP, and gRPC's socket."""

    http: str
    grpc: str


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()


def _forward(listener: socket.socket, path: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(str(path))
        for pair in ((client, upstream), (upstream, client)):
            threading.Thread(target=_pump, args=pair, daemon=True).start()


@contextmanager
def forwarded(running: Running) -> Iterator[str]:
    """Address of a loopback port that leads to the daemon's socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_forward, args=(listener, running.socket), daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@contextmanager
def serving(
    launch: type[Running],
    directory: Path,
    models: Mapping[str, bytes],
    config: str = "",
    options: Mapping[str, str] | None = None,
) -> Iterator[Addresses]:
    """A daemon with these models by name, files of TFLite; it must end well. `config` comes after [server], `options`
    of a model into its artifact's table.
    """
    files = {name: directory / f"{name}.tflite" for name in models}
    for name, file in files.items():
        file.write_bytes(models[name])
    config = f'[server]\ngrpc_socket = "{directory}/run/g.sock"\n{config}'
    running = launch(directory, config, models=files, options=options)
    with forwarded(running) as address:
        yield Addresses(address, f"unix:{directory}/run/g.sock")
    assert running.stop() == 0, running.log.read_text()
