"""Clients that speak only TCP, through socat with the commands of the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..support import tflite
from ..support.daemon import Running

SOCAT = shutil.which("socat") or ""
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
TOKEN = {"authorization": "Bearer a-token-that-nobody-asked-for"}
#: Places of the sockets on a device -> those of a daemon of the tests.
PLACES = {"/run/edgeai/edgeaid.sock": "run/edgeaid.sock", "/run/edgeai/grpc/edgeaid.sock": "run/g.sock"}


@pytest.fixture(scope="module")
def server(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("tcp")
    file = directory / "simple.tflite"
    file.write_bytes(tflite.sum_and_difference())
    running = launch(directory, f'[server]\ngrpc_socket = "{directory}/run/g.sock"\n', models={"simple": file})
    yield running
    assert running.stop() == 0, running.log.read_text()


@contextmanager
def through_socat(server: Running, place: str) -> Iterator[str]:
    """Address of a free port that the documented command for a socket connects with it."""
    if not SOCAT:
        pytest.skip("socat is not installed")
    command = re.search(rf"^ *(socat TCP-LISTEN:\d+,.* UNIX-CONNECT:{place})$", PAGE.read_text(), re.MULTILINE)
    assert command is not None, f"{PAGE} has no command for {place}"
    _, listen, connect = command.group(1).split()
    listen = re.sub(r":\d+", ":0", listen)
    connect = connect.replace(place, str(server.directory / PLACES[place]))
    with subprocess.Popen([SOCAT, "-d", "-d", listen, connect], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "listening on" in line)
        try:
            yield f"127.0.0.1:{said.strip().rpartition(':')[2]}"
        finally:
            process.terminate()


def ask(library: Any, address: str) -> None:
    """Infer through one of Triton's clients, which shows a token that nobody looks at."""
    numbers = np.arange(16, dtype=np.int32).reshape(1, 16)
    inputs = [library.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for tensor in inputs:
        tensor.set_data_from_numpy(numbers)
    client = library.InferenceServerClient(address)
    assert client.is_server_ready(headers=dict(TOKEN))
    for _ in range(3):
        answer = client.infer("simple", inputs, headers=dict(TOKEN))
        assert np.array_equal(answer.as_numpy("OUTPUT0"), numbers * 2)
    client.close()


def test_tritons_http_client_reaches_the_socket_with_the_documented_command(server: Running) -> None:
    library = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    with through_socat(server, "/run/edgeai/edgeaid.sock") as address:
        ask(library, address)


def test_tritons_grpc_client_reaches_the_socket_with_the_documented_command(server: Running) -> None:
    library = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    with through_socat(server, "/run/edgeai/grpc/edgeaid.sock") as address:
        ask(library, address)
        client = library.InferenceServerClient(address)
        with pytest.raises(Exception, match="PERMISSION_DENIED"):  # not the role of the user who runs socat
            client.unload_model("simple")
        client.close()
