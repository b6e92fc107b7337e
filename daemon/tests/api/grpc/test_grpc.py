"""gRPC over a Unix socket, asked by Triton's own client library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED

from ...support.daemon import Running

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("hpack", reason="needs edgeaid[grpc]")

GOLDEN = EMBEDDED / "digits" / "1" / "golden"
IMAGE = np.load(GOLDEN / "0.in.npy")
SCORES = np.load(GOLDEN / "0.out.npy")
DATATYPE = {"int8": "INT8", "uint8": "UINT8"}[IMAGE.dtype.name]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, launch: type[Running]) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("grpc")
    running = launch(
        directory, f'[server]\ngrpc_socket = "{directory}/run/grpc.sock"\n[shared_memory]\nenabled = true\n'
    )
    yield running
    assert running.stop() == 0
    assert not (directory / "run" / "grpc.sock").exists()


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(f"unix:{server.directory}/run/grpc.sock") as opened:
        yield opened


def given(array: Any = IMAGE) -> Any:
    tensor = triton.InferInput("image", list(array.shape), DATATYPE)
    tensor.set_data_from_numpy(array)
    return tensor


def close(array: Any) -> Any:
    return np.abs(array.astype(int) - SCORES.astype(int)).max() <= 2


def test_the_library_sees_a_live_ready_server_and_its_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.get_server_metadata().name == "edgeaid"
    metadata = client.get_model_metadata("digits")
    assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("image", list(IMAGE.shape))
    assert client.get_model_config("digits").config.name == "digits"
    assert {m.name for m in client.get_model_repository_index().models} >= {"digits"}
    assert client.get_inference_statistics("digits").model_stats[0].name == "digits"
    assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
    assert client.get_log_settings().settings["log_info"].bool_param is True
    assert len(client.get_cuda_shared_memory_status().regions) == 0
    client.unregister_cuda_shared_memory()


def test_inference_gives_the_golden_answer_and_echoes_the_id(client: Any) -> None:
    answer = client.infer("digits", [given()], request_id="x1", priority=1, timeout=5_000_000)
    assert answer.get_response().id == "x1"
    assert close(answer.as_numpy("scores"))


def test_classification_comes_back_as_bytes(client: Any) -> None:
    answer = client.infer("digits", [given()], outputs=[triton.InferRequestedOutput("scores", class_count=2)])
    value, index, label = answer.as_numpy("scores")[0, 0].decode().split(":")
    assert (index, label) == (str(SCORES.argmax()), str(SCORES.argmax()))
    assert abs(int(value) - int(SCORES.max())) <= 2


def test_a_client_that_asks_again_is_answered_by_what_it_asks_now(client: Any) -> None:
    blank = np.zeros_like(IMAGE)
    first = client.infer("digits", [given(blank)]).as_numpy("scores")
    assert not close(first)
    for _ in range(2):
        assert close(client.infer("digits", [given()]).as_numpy("scores"))
        assert np.array_equal(client.infer("digits", [given(blank)]).as_numpy("scores"), first)
        assert client.infer("digits", [given()], request_id="other").get_response().id == "other"
        wanted = [triton.InferRequestedOutput("scores", class_count=1)]
        assert client.infer("digits", [given()], outputs=wanted).as_numpy("scores").shape[-1] == 1
        with pytest.raises(triton.InferenceServerException, match="shape"):
            client.infer("digits", [given(IMAGE[:, :1])])


def test_typed_contents_are_taken_as_well_as_raw_ones(server: Any) -> None:
    import grpc

    from edgeaid.api.grpc.schema import MESSAGES

    with grpc.insecure_channel(f"unix:{server.directory}/run/grpc.sock") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=MESSAGES["ModelInferResponse"].FromString,
        )
        request = MESSAGES["ModelInferRequest"](model_name="digits")
        tensor = request.inputs.add(name="image", datatype=DATATYPE, shape=IMAGE.shape)
        getattr(tensor.contents, "int_contents" if DATATYPE == "INT8" else "uint_contents").extend(
            IMAGE.ravel().tolist()
        )
        answer = call(request)
        assert close(np.frombuffer(answer.raw_output_contents[0], SCORES.dtype))
        request.raw_input_contents.append(IMAGE.tobytes())
        with pytest.raises(grpc.RpcError, match="do not go together"):
            call(request)


def test_streams_answer_each_request_and_survive_a_bad_one(client: Any) -> None:
    import queue

    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("digits", [given()], enable_empty_final_response=True)
    client.async_stream_infer("nosuch", [given()])
    client.async_stream_infer("digits", [given()])
    got = [answers.get(timeout=20) for _ in range(3)]
    client.stop_stream()
    assert [e is None for _, e in got] == [True, False, True]
    assert "unknown model" in str(got[1][1])
    assert close(got[2][0].as_numpy("scores"))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_may_be_packed(client: Any, algorithm: str) -> None:
    assert close(client.infer("digits", [given()], compression_algorithm=algorithm).as_numpy("scores"))


def test_the_asynchronous_client_has_many_calls_under_way(server: Any) -> None:
    import asyncio

    import tritonclient.grpc.aio as asynchronous

    async def ask() -> list[Any]:
        async with asynchronous.InferenceServerClient(f"unix:{server.directory}/run/grpc.sock") as opened:
            return await asyncio.gather(
                *(opened.infer("digits", [given()], request_id=str(i), client_timeout=60) for i in range(100))
            )

    answers = asyncio.run(ask())
    assert [answer.get_response().id for answer in answers] == [str(i) for i in range(100)]
    assert all(close(answer.as_numpy("scores")) for answer in answers)


def test_errors_have_their_status_codes(client: Any) -> None:
    from tritonclient.utils import InferenceServerException

    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: client.infer("nosuch", [given()]), "NOT_FOUND"),
        (lambda: client.get_model_metadata("nosuch"), "NOT_FOUND"),
        (lambda: client.infer("digits", [given(IMAGE[:, :1])]), "INVALID_ARGUMENT"),
        (lambda: client.load_model("digits"), "PERMISSION_DENIED"),
        (lambda: client.unload_model("digits"), "PERMISSION_DENIED"),
        (lambda: client.register_system_shared_memory("r", "/nosuch", 10), "NOT_FOUND"),
        (lambda: client.register_cuda_shared_memory("r", b"", 0, 1), "UNIMPLEMENTED"),
    ]
    for call, code in cases:
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert code in caught.value.status()


def test_the_health_service_answers(server: Any) -> None:
    import grpc

    from edgeaid.api.grpc.schema import HEALTH_MESSAGES

    with grpc.insecure_channel(f"unix:{server.directory}/run/grpc.sock") as channel:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=HEALTH_MESSAGES["HealthCheckResponse"].FromString,
        )
        assert call(HEALTH_MESSAGES["HealthCheckRequest"]()).status == 1


def test_with_the_role_observe_nothing_is_inferred(start: Callable[..., Running], tmp_path: Path) -> None:
    server = start(f'[server]\ngrpc_socket = "{tmp_path}/g.sock"\ngrpc_role = "observe"\n')
    with triton.InferenceServerClient(f"unix:{tmp_path}/g.sock") as client:
        assert client.get_model_metadata("digits").name == "digits"
        calls: list[Callable[[], Any]] = [
            lambda: client.infer("digits", [given()]),
            lambda: client.register_system_shared_memory("r", "/nosuch", 10),
        ]
        for call in calls:
            with pytest.raises(triton.InferenceServerException, match="PERMISSION_DENIED"):
                call()
    assert server.stop() == 0


def test_with_the_role_control_models_are_loaded_and_settings_changed(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    server = start(f'[server]\ngrpc_socket = "{tmp_path}/g.sock"\ngrpc_role = "control"\n')
    with triton.InferenceServerClient(f"unix:{tmp_path}/g.sock") as client:
        client.unload_model("digits")
        ready = [m.name for m in client.get_model_repository_index().models if m.state == "READY"]
        assert "digits" not in ready
        client.load_model("digits", config='{"max_batch_size": 3}')
        assert client.get_model_config("digits").config.max_batch_size == 3
        model = (EMBEDDED / "digits" / "1" / "model.tflite").read_bytes()
        client.load_model("given", config="{}", files={"file:1/model.tflite": model})
        name = client.get_model_metadata("given").outputs[0].name
        assert client.infer("given", [given()]).as_numpy(name).size == 10
        assert client.update_log_settings({"log_verbose_level": 1}).settings["log_verbose_level"].uint32_param == 1
        changed = client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
        assert changed.settings["trace_level"].value == ["TIMESTAMPS"]
    assert server.stop() == 0
