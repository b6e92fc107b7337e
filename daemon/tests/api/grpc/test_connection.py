"""Clients of gRPC: who they are, what they hold, what they send along."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED
from edgeaid.serving.metrics import rss_bytes

from ...support import http2
from ...support.daemon import Running
from ...support.users import STRANGER, connect_as
from ..test_descriptors import KEPT, give_up, lingering

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("hpack", reason="needs edgeaid[grpc]")

from edgeaid.api.grpc.schema import HEALTH_MESSAGES, MESSAGES, REFLECTION_MESSAGES  # noqa: E402

SERVICE = "inference.GRPCInferenceService"
IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("connection")
    limits = "[limits]\nconnections_per_user = 5\nbuffer_bytes_per_user = 3000000\n"
    running = launch(directory, f'{limits}[server]\ngrpc_socket = "{directory}/run/grpc.sock"\n')
    yield running
    assert running.stop() == 0


@pytest.fixture
def channel(server: Any) -> Iterator[Any]:
    with grpc.insecure_channel(f"unix:{server.directory}/run/grpc.sock") as opened:
        yield opened


def ask(channel: Any, path: Any, message: bytes = b"") -> Any:
    return channel.unary_unary(path)(message if isinstance(message, bytes) else message.SerializeToString(), timeout=20)


def test_broken_messages_are_invalid_arguments(channel: Any) -> None:
    for method in ("ModelInfer", "ModelMetadata", "RepositoryIndex"):
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, f"/{SERVICE}/{method}", b"\xff\xff\xff")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_model_that_is_not_there_is_not_ready_and_that_is_no_error(channel: Any) -> None:
    for name, version, ready in (("nothing", "", False), ("digits", "7", False), ("digits", "", True)):
        request = MESSAGES["ModelReadyRequest"](name=name, version=version)
        answer = MESSAGES["ModelReadyResponse"].FromString(ask(channel, f"/{SERVICE}/ModelReady", request))
        assert answer.ready is ready


def test_health_is_checked_listed_and_watched(channel: Any) -> None:
    request = HEALTH_MESSAGES["HealthCheckRequest"](service=SERVICE).SerializeToString()
    path = "/grpc.health.v1.Health"
    assert HEALTH_MESSAGES["HealthCheckResponse"].FromString(ask(channel, f"{path}/Check", request)).status == 1
    listed = HEALTH_MESSAGES["HealthListResponse"].FromString(ask(channel, f"{path}/List"))
    assert {name: s.status for name, s in listed.statuses.items()}[SERVICE] == 1
    watching = channel.unary_stream(f"{path}/Watch")(request, timeout=20)
    assert HEALTH_MESSAGES["HealthCheckResponse"].FromString(next(watching)).status == 1
    watching.cancel()
    unknown = HEALTH_MESSAGES["HealthCheckRequest"](service="no.such").SerializeToString()
    watching = channel.unary_stream(f"{path}/Watch")(unknown, timeout=20)
    assert HEALTH_MESSAGES["HealthCheckResponse"].FromString(next(watching)).status == 3
    watching.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, f"{path}/Check", unknown)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_names_the_services_and_gives_files_that_a_pool_takes(channel: Any, version: str) -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    package = f"grpc.reflection.{version}"
    kinds = REFLECTION_MESSAGES[package]
    requests = [
        kinds["ServerReflectionRequest"](list_services="*"),
        kinds["ServerReflectionRequest"](file_containing_symbol=f"{SERVICE}.ModelInfer"),
        kinds["ServerReflectionRequest"](file_containing_symbol="no.such"),
    ]
    call = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo")
    raw = call(iter([r.SerializeToString() for r in requests]), timeout=20)
    services, described, missing = (kinds["ServerReflectionResponse"].FromString(m) for m in raw)
    assert {SERVICE, "grpc.health.v1.Health"} <= {s.name for s in services.list_services_response.service}
    pool = descriptor_pool.DescriptorPool()
    for data in described.file_descriptor_response.file_descriptor_proto:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
    assert "ModelStreamInfer" in {m.name for m in pool.FindServiceByName(SERVICE).methods}
    assert missing.error_response.error_code == 5


def test_messages_larger_than_any_model_takes_are_refused(channel: Any, server: Any) -> None:
    before = rss_bytes(server.process.pid)
    request = MESSAGES["ModelInferRequest"](model_name="digits", raw_input_contents=[bytes(20 << 20)])
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, f"/{SERVICE}/ModelInfer", request)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert rss_bytes(server.process.pid) - before < 16 << 20
    assert server.json("GET", "/v2/health/live")[0] == 200


def test_a_user_at_its_limit_of_connections_is_told_so(server: Any) -> None:
    path = server.directory / "run" / "grpc.sock"
    held = [connect_as(STRANGER, path) for _ in range(5)]
    try:
        with connect_as(STRANGER, path) as late:
            answer = b""
            while piece := late.recv(4096):
                answer += piece
            assert b"would hold more than 5 gRPC connections" in answer
    finally:
        for sock in held:
            sock.close()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert ask(channel, f"/{SERVICE}/ServerLive")


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer", "RepositoryIndex"])
@pytest.mark.parametrize("end", ["leaves", "takes it back", "is refused"])
def test_nothing_stays_counted_of_calls_that_come_to_nothing(server: Running, method: str, end: str) -> None:
    path = server.directory / "run" / "grpc.sock"
    whole = http2.message(bytes(900_000 if end != "is refused" else 2_000_000))[:900_000]
    half = [http2.frame(http2.DATA, 0, 1, whole[at : at + (1 << 14)]) for at in range(0, len(whole), 1 << 14)]
    for _ in range(6):  # twice what the user may hold
        with connect_as(STRANGER, path) as sock:
            sock.sendall(http2.call(f"/{SERVICE}/{method}") + b"".join(half))
            if end == "takes it back":
                sock.sendall(http2.frame(http2.RST_STREAM, 0, 1, b"\0\0\0\x08"))
            sock.sendall(http2.frame(http2.PING, 0, 0, b"everyone"))
            received = b""
            while b"everyone" not in received:
                piece = sock.recv(1 << 16)
                assert piece, received
                received += piece
            assert b"would hold more" not in received
            assert (b"larger than" in received) == (end == "is refused")
    with connect_as(STRANGER, path) as sock:
        sock.sendall(http2.call(f"/{SERVICE}/ServerLive") + http2.frame(http2.DATA, http2.END_STREAM, 1, bytes(5)))
        assert b"\x08\x01" in http2.answer(sock)


def test_a_descriptor_sent_along_holds_up_nobody(server: Any, channel: Any) -> None:
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(f"{server.directory}/run/grpc.sock")
        fd = lingering()
        with contextlib.suppress(PermissionError):  # the kernel keeps it out
            socket.send_fds(sender, [b"PRI"], [fd])
        give_up(fd)
        asked = time.monotonic()
        assert ask(channel, f"/{SERVICE}/ServerLive")
        assert server.json("GET", "/v2/health/live")[0] == 200
        assert time.monotonic() - asked < 5
    while KEPT:
        KEPT.pop().close()


@pytest.mark.parametrize(
    "config",
    [
        {"input": [{"name": "image"}]},
        {"max_batch_size": "4"},
        {"input": [{"name": "image", "format": "FORMAT_NHWC", "reshape": {"shape": [1024]}}]},
        {"version_policy": {"all": {}}},
        {"instance_group": [{"kind": "KIND_CPU"}]},
    ],
)
def test_the_configuration_can_be_asked_for_whatever_was_given_to_load(
    channel: Any, server: Any, config: dict[str, Any]
) -> None:
    body = {"parameters": {"config": json.dumps(config)}}
    try:
        assert server.json("POST", "/v2/repository/models/digits/load", body)[0] == 200
        request = MESSAGES["ModelConfigRequest"](name="digits")
        answer = MESSAGES["ModelConfigResponse"].FromString(ask(channel, f"/{SERVICE}/ModelConfig", request))
        assert answer.config.input[0].data_type == 6
    finally:
        assert server.json("POST", "/v2/repository/models/digits/load", b"{}")[0] == 200
