"""HTTP asked by libraries that are not ours: Triton's over the Unix socket and TCP with a token, and httpx."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED

from ...support.daemon import Running

httpx = pytest.importorskip("httpx", reason="httpx is not installed")

GOLDEN = EMBEDDED / "digits" / "1" / "golden"
IMAGE = np.load(GOLDEN / "0.in.npy")
SCORES = np.load(GOLDEN / "0.out.npy")
DATATYPE = {"int8": "INT8", "uint8": "UINT8"}[IMAGE.dtype.name]


def close(array: Any) -> Any:
    return np.abs(np.asarray(array).astype(int).ravel() - SCORES.astype(int).ravel()).max() <= 2


def test_tritons_asyncio_client_over_the_unix_socket(daemon: Running) -> None:
    triton = pytest.importorskip("tritonclient.http.aio", reason="tritonclient[http] is not installed")
    import aiohttp

    async def talk() -> None:
        client = triton.InferenceServerClient("localhost")
        await client._stub.close()
        client._stub = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket)), auto_decompress=False)
        try:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits")
            assert (await client.get_server_metadata())["name"] == "edgeaid"
            assert (await client.get_model_metadata("digits"))["inputs"][0]["name"] == "image"
            assert (await client.get_model_config("digits"))["max_batch_size"] == 0
            assert any(m["name"] == "digits" for m in await client.get_model_repository_index())
            await client.unload_model("digits")
            assert not await client.is_model_ready("digits")
            await client.load_model("digits")
            assert (await client.get_inference_statistics("digits"))["model_stats"][0]["name"] == "digits"
            assert await client.get_system_shared_memory_status() == []
            await client.unregister_system_shared_memory()
            await client.unregister_cuda_shared_memory()
            tensor = triton.InferInput("image", list(IMAGE.shape), DATATYPE)
            for binary_in in (True, False):
                tensor.set_data_from_numpy(IMAGE, binary_data=binary_in)
                for binary_out in (True, False):
                    wanted = triton.InferRequestedOutput("scores", binary_data=binary_out)
                    answer = await client.infer(
                        "digits", [tensor], outputs=[wanted], request_id="7", priority=1, timeout=9_000_000
                    )
                    assert close(answer.as_numpy("scores"))
                    assert answer.get_response()["id"] == "7"
            for algorithm in ("gzip", "deflate"):
                answer = await client.infer(
                    "digits",
                    [tensor],
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                assert close(answer.as_numpy("scores"))
            wanted = triton.InferRequestedOutput("scores", class_count=1)
            answer = await client.infer("digits", [tensor], outputs=[wanted])
            assert answer.as_numpy("scores").ravel()[0].decode().split(":")[1] == str(SCORES.argmax())
            with pytest.raises(Exception, match="unknown model"):
                await client.infer("nosuch", [tensor])
        finally:
            await client.close()

    asyncio.run(talk())


def test_httpx_over_the_unix_socket(daemon: Running) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.socket)), base_url="http://edgeaid") as client:
        assert client.get("/v2/health/ready").json()["ready"]
        request = {
            "inputs": [{"name": "image", "shape": list(IMAGE.shape), "datatype": DATATYPE, "data": IMAGE.tolist()}]
        }
        answer = client.post("/v2/models/digits/infer", json=request)
        assert close(answer.json()["outputs"][0]["data"])
        assert client.get("/v2/models/nosuch").status_code == 404


def with_tcp(start: Callable[..., Running], tmp_path: Path) -> tuple[Running, int]:
    """A daemon that listens on TCP too, with a token; and its port."""
    token = tmp_path / "token"
    token.write_text("a-token-of-enough-length")
    token.chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = start(f'[tcp]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{token}"\n')
    return daemon, port


def test_tcp_needs_loopback_a_token_and_gives_only_its_role(start: Callable[..., Running], tmp_path: Path) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    _, port = with_tcp(start, tmp_path)
    headers = {"Authorization": "Bearer a-token-of-enough-length"}
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live(headers=headers)
        assert not client.is_server_live(headers={"Authorization": "Bearer wrong"})
        assert not client.is_server_live()
        tensor = triton.InferInput("image", list(IMAGE.shape), DATATYPE)
        tensor.set_data_from_numpy(IMAGE)
        assert close(client.infer("digits", [tensor], headers=headers).as_numpy("scores"))
        with pytest.raises(Exception, match="role"):
            client.unload_model("digits", headers=headers)


def test_whatever_is_shown_instead_of_the_token_is_refused_and_written_down(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    daemon, port = with_tcp(start, tmp_path)

    def status(shown: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n" + shown + b"\r\n")
            return sock.recv(65536).split(b" ")[1]

    assert status(b"Authorization: Bearer a-token-of-enough-length\r\n") == b"200"
    wrong = [b"Bearer \xff", b"Bearer wrong", b"Bearer \xc3\xbc", b"\xff" * 300, b"Basic eDp5", b"Bearer"]
    for shown in (*(b"Authorization: " + value + b"\r\n" for value in wrong), b""):
        assert status(shown) == b"403", shown
    for value in (b"\xff", b"wrong"):
        assert status(b"doods-auth-key: " + value + b"\r\n") == b"403"
    log = daemon.log.read_text()
    assert "TCP connection with a wrong token refused" in log
    assert "Traceback" not in log
    denied = [e for e in _events(daemon) if e["kind"] == "access-denied"]
    assert denied
    assert "token refused" in denied[0]["message"]


def _events(daemon: Running) -> Any:
    with daemon.raw() as sock:
        sock.sendall(b"GET /edgeai/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while b"access-denied" not in data:
            data += sock.recv(65536)
    lines = [line for line in data.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ('listen = "0.0.0.0:80"\ntoken_file = "/x"', "loopback"),
        ('listen = "127.0.0.1:8700"', "token_file"),
        ('listen = "127.0.0.1:8700"\ntoken_file = "/nonexistent"', "token_file"),
    ],
)
def test_tcp_that_is_not_safe_is_refused_at_start(tmp_path: Path, table: str, word: str) -> None:
    import subprocess
    import sys

    config = tmp_path / "c.toml"
    config.write_text(f"[tcp]\n{table}\n")
    command = [
        sys.executable,
        "-m",
        "edgeaid",
        "--config",
        str(config),
        "--socket",
        str(tmp_path / "s"),
        "--model-repository",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert word in done.stderr
