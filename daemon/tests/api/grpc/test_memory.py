"""Clients of gRPC that send much, or read nothing, make the daemon hold no more than the limits say."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ...support import http2, tflite
from ...support.daemon import Running
from ...support.memory import Peak
from ...support.users import STRANGER, connect_as

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("hpack", reason="needs edgeaid[grpc]")

from edgeaid.api.grpc.schema import MESSAGES  # noqa: E402  needs grpc

SERVICE = "inference.GRPCInferenceService"
MIB = 1 << 20


def load(path: Path, data: bytes) -> str:
    """Name of the status of a call of `load` with this message, on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"unix:{path}", options) as channel:
        try:
            channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")(data, timeout=120)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


@pytest.fixture
def control(launch: type[Running], tmp_path: Path, size: int, together: int) -> Iterator[Running]:
    """A daemon whose gRPC clients may load models, with limits for bodies."""
    limits = f"[limits]\nbuffer_bytes = {together}\nbody_bytes = {size + MIB}\n"
    running = launch(tmp_path, f'{limits}[server]\ngrpc_role = "control"\ngrpc_socket = "{tmp_path}/run/g.sock"\n')
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("size", "together"), [(6 * MIB, 16 * MIB), pytest.param(60 * MIB, 256 * MIB, marks=pytest.mark.slow)]
)
def test_bodies_of_all_clients_together_are_bounded(control: Running, size: int, together: int) -> None:
    path = control.directory / "run" / "g.sock"
    request = MESSAGES["RepositoryModelLoadRequest"](model_name="nothing")
    request.parameters["file:1/model.tflite"].bytes_param = bytes(size)
    data = request.SerializeToString()
    assert load(path, data) == "INVALID_ARGUMENT"
    with Peak(control) as peak, ThreadPoolExecutor(24) as pool:
        statuses = list(pool.map(lambda _: load(path, data), range(24)))
    print(f"{size >> 20} MiB x 24: grew by {peak.grown >> 20} MiB; {sorted(statuses)}")
    assert peak.grown < 3 * together + 32 * MIB  # a body, its message and what is read from it; connections
    assert set(statuses) <= {"INVALID_ARGUMENT", "UNAVAILABLE"}
    assert load(path, data) == "INVALID_ARGUMENT"
    assert control.json("GET", "/v2/health/ready")[0] == 200


@pytest.fixture
def wide(launch: type[Running], tmp_path: Path) -> Iterator[Running]:
    """A daemon where STRANGER may ask for answers of 2 MiB and hold 4."""
    model = tmp_path / "wide.tflite"
    tensors = [tflite.T("x", "FP32", [1, 1]), tflite.T("times", "INT32", [2], [1, 2 * MIB // 4]),
               tflite.T("y", "FP32", [1, 2 * MIB // 4])]  # fmt: skip
    model.write_bytes(tflite.build(tflite.Graph(tensors, [tflite.Op("TILE", [0, 1], [2])], [0], [2])))
    config = f'[limits]\nbuffer_bytes_per_user = {4 * MIB}\n[server]\ngrpc_socket = "{tmp_path}/run/g.sock"\n'
    running = launch(tmp_path, config, models={"wide": model})
    yield running
    assert running.stop() == 0


def test_answers_that_nobody_reads_are_bounded_per_user(wide: Running) -> None:
    request = MESSAGES["ModelInferRequest"](model_name="wide")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(bytes(4))
    data = http2.call(f"/{SERVICE}/ModelInfer")
    data += http2.frame(http2.DATA, http2.END_STREAM, 1, http2.message(request.SerializeToString()))
    held, last = [], b""
    try:
        with Peak(wide) as peak:
            for _ in range(24):
                sock = connect_as(STRANGER, wide.directory / "run" / "g.sock")
                held.append(sock)
                sock.sendall(data)
                last = http2.answer(sock)
        assert peak.grown < 24 * MIB
        assert b"would hold more than 4194304" in last
        with grpc.insecure_channel(f"unix:{wide.directory}/run/g.sock") as channel:
            answer = channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString(), timeout=60)
        assert len(MESSAGES["ModelInferResponse"].FromString(answer).raw_output_contents[0]) == 2 * MIB
    finally:
        for sock in held:
            sock.close()
