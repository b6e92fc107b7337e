"""What programs pass to the client and get back, against a real daemon."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeaid import errors
from edgeaid.client import AsyncClient, Client
from edgeaid.client.results import Classification, Detection, Segmentation
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..toolkit.tflite_builder import Graph, Op, T, build

DIGITS = EMBEDDED / "digits" / "1"
PICTURE = sorted((DIGITS / "samples").glob("*.png"))[0]
LABEL = PICTURE.stem.rsplit("-", 1)[1]
SCENE = sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))[0]
IMAGE = np.zeros((1, 32, 32, 1), np.int8)


def as_rgb() -> Image.Image:
    return Image.open(PICTURE).convert("RGB")


WAYS: dict[str, Callable[[], Any]] = {
    "a path": lambda: PICTURE,
    "a path as text": lambda: str(PICTURE),
    "bytes": PICTURE.read_bytes,
    "a bytearray": lambda: bytearray(PICTURE.read_bytes()),
    "a memoryview": lambda: memoryview(PICTURE.read_bytes()),
    "an open file": lambda: io.BytesIO(PICTURE.read_bytes()),
    "a PIL image": lambda: Image.open(PICTURE),
    "an RGB array": lambda: np.asarray(as_rgb()),
    "a grey array": lambda: np.asarray(as_rgb().convert("L")),
    "a grey array with a channel": lambda: np.asarray(as_rgb().convert("L"))[:, :, None],
    "an RGBA array": lambda: np.asarray(as_rgb().convert("RGBA")),
    "an array that is not contiguous": lambda: np.asarray(as_rgb())[:, :, ::-1],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_may_be_given_in_any_usual_form(daemon: Running, way: str) -> None:
    with daemon.client() as client:
        answer = client.classify("digits", WAYS[way]())
    assert answer.label == LABEL
    assert answer.score == answer.classes[0].score > 0.5


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        (7, "not int"),
        (None, "not NoneType"),
        ({"a": 1}, "not dict"),
        (io.StringIO("text"), "open it with open"),
        (io.TextIOWrapper(io.BytesIO(b"\x89PNG"), "utf-8"), "open it with open"),
        (np.zeros((4, 4), np.float32), "uint8"),
        (np.zeros((4, 4, 5), np.uint8), r"\[4, 4, 5\]"),
        (b"", "no bytes"),
        ("/nowhere/x.png", "No such file"),
        ("https://example.org/x.png", "is an address"),
        (Path(__file__).parent, "is a directory"),
    ],
)
def test_what_is_not_a_picture_is_refused_by_name_and_the_client_goes_on(
    daemon: Running, picture: Any, text: str
) -> None:
    with daemon.client() as client:
        with pytest.raises((errors.InvalidRequest, errors.NotFound), match=text) as caught:
            client.classify("digits", picture)
        assert len(str(caught.value)) < 400
        assert client.classify("digits", PICTURE).label == LABEL


def test_a_wrong_type_is_a_type_error_and_an_edgeai_error(daemon: Running) -> None:
    with daemon.client() as client:
        for call in (
            lambda: client.classify("digits", 3),
            lambda: client.push("x", 5),  # type: ignore[arg-type]  # what is tried
            lambda: client.remove("x", 1.5),  # type: ignore[arg-type]
            lambda: client.infer(3, IMAGE),  # type: ignore[arg-type]
            lambda: client.infer("digits", IMAGE, timeout="1"),  # type: ignore[arg-type]
            lambda: client.infer("digits", IMAGE, version=[1]),  # type: ignore[arg-type]
            lambda: client.infer("digits", IMAGE, priority="high"),  # type: ignore[arg-type]
            lambda: client.infer("digits", "text"),
            lambda: client.draw("name", "digits", PICTURE),
            lambda: Client(daemon.socket, timeout="1"),  # type: ignore[arg-type]
            lambda: AsyncClient(daemon.socket, timeout="1"),  # type: ignore[arg-type]
        ):
            with pytest.raises(errors.InvalidArgument) as caught:
                call()
            assert isinstance(caught.value, TypeError)
        assert client.is_ready()
    for seconds in (0, -1, float("nan"), 1e7):
        with pytest.raises(errors.InvalidRequest, match="above 0"):
            Client(daemon.socket, timeout=seconds)


def test_lists_and_numbers_take_the_models_dtype_when_they_fit(daemon: Running) -> None:
    with daemon.client() as client:
        want = client.infer("digits", IMAGE)["scores"]
        assert np.array_equal(client.infer("digits", IMAGE.tolist())["scores"], want)
        assert np.array_equal(client.infer("digits", IMAGE[0])["scores"], want), "the batch dimension is added"
        with pytest.raises(errors.InvalidRequest, match="cannot hold"):
            client.infer("digits", np.full((32, 32, 1), 300).tolist())
        with pytest.raises(errors.InvalidRequest, match=r"astype\('int8'\)"):
            client.infer("digits", IMAGE.astype(np.float32))
        with pytest.raises(errors.InvalidRequest, match=r"int64\[1, 2\].*int8\[1, 32, 32, 1\]|INT8\[1, 32, 32, 1\]"):
            client.infer("digits", [[1, 2]])


def test_an_answer_says_model_version_and_device_on_every_transport(daemon: Running) -> None:
    async def asynchronous(fast: bool) -> Any:
        async with AsyncClient(daemon.socket, fast=fast) as client:
            return await client.infer("digits", IMAGE, version=1)

    for fast in (True, False):
        with daemon.client(fast=fast) as client:
            answers = [client.infer("digits", IMAGE, version=1), asyncio.run(asynchronous(fast))]
        for answer in answers:
            assert (answer.model, answer.version, answer.device) == ("digits", "1", "cpu0")
            assert set(answer.timing) == ({"queue_ms", "input_ms", "compute_ms", "output_ms"} if fast else set())
            assert answer.to_dict()["outputs"]["scores"] == answer["scores"].tolist()
            with pytest.raises(KeyError, match="it has scores"):
                answer["nothing"]


def test_answers_about_pictures_are_dataclasses_with_a_json_form(daemon: Running) -> None:
    mask = sorted((EMBEDDED / "digit-mask" / "1" / "samples").glob("*.png"))[0]
    with daemon.client() as client:
        classes = client.classify("digits", PICTURE, max_results=2)
        objects = client.detect("digit-scenes", SCENE, max_results=1)
        areas = client.segment("digit-mask", mask)
    assert isinstance(classes, Classification)
    assert len(classes.classes) == 2
    assert classes.to_dict()["classes"][0] == {"index": int(LABEL), "label": LABEL, "score": classes.score}
    assert classes["classes"][0]["label"] == LABEL
    assert isinstance(objects, Detection)
    (best,) = objects
    assert 0 <= best.box.xmin < best.box.xmax <= 1
    assert best.pixels.xmax > 1
    assert isinstance(areas, Segmentation)
    numbers = areas.mask()
    assert numbers.dtype == np.uint8
    assert areas.classes[0].fraction == pytest.approx(np.mean(numbers == areas.classes[0].index), abs=1e-3)


def test_models_and_devices_are_dataclasses_with_the_json_form_inside(daemon: Running) -> None:
    with daemon.client() as client:
        model = next(m for m in client.models() if m.name == "digits")
        assert (model.version, model.state, model.task, model.labels) == ("1", "READY", "classify", 10)
        assert model.default
        (device,) = [d for d in client.devices() if d.id in model.devices]
        assert device.target == "cpu"
        assert device.runtime.startswith("ai-edge-litert")
        assert "digits/1" in device.models
        assert device.waiting == device["queue"]["length"] == 0
        assert json.loads(json.dumps(device.to_dict())) == client.get("/edgeai/v1/devices")["devices"][0]
        assert dict(model) == model.to_dict()
        assert model.get("license") == model["license"]
        assert "not there" not in model


def test_a_version_that_is_stored_only_is_a_model_too(start: Callable[..., Running]) -> None:
    daemon = start()
    with daemon.client() as client:
        client.unload("digits")
        (model,) = [m for m in client.models() if m.name == "digits"]
        assert (model.state, model.devices, model.default, model.task) == ("UNAVAILABLE", (), False, "")
        assert model.reason


def test_one_client_serves_any_number_of_models(start: Callable[..., Running]) -> None:
    daemon = start(models={f"m{i}": DIGITS / "model.tflite" for i in range(72)})
    golden = np.load(DIGITS / "golden" / "0.in.npy")
    with daemon.client() as client:
        want = client.infer("digits", golden)["scores"]
        for _ in range(2):
            for number in range(72):
                answer = client.infer(f"m{number}", golden)
                assert answer.model == f"m{number}"
                assert answer.timing, "over the fast socket"
                assert np.array_equal(next(iter(answer.outputs.values())), want)


def test_a_model_that_needs_more_memory_is_served_too(start: Callable[..., Running], tmp_path: Path) -> None:
    sizes = (64, 1 << 19, 1 << 21)
    files = {f"m{size}": adder(tmp_path / f"{size}.tflite", (1, size)) for size in sizes}
    daemon = start(models=files)
    with daemon.client() as client:
        for size in (*sizes, *sizes):
            value = np.arange(size, dtype=np.float32)[None]
            answer = client.infer(f"m{size}", value)
            assert answer.timing
            assert np.array_equal(next(iter(answer.outputs.values())), value + value)


def test_a_scalar_goes_through(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start(models={"scalar": adder(tmp_path / "scalar.tflite", ())})
    for fast in (True, False):
        with daemon.client(fast=fast) as client:
            for value in (2.5, np.float32(2.5), np.array(2.5, np.float32)):
                output = next(iter(client.infer("scalar", value).outputs.values()))
                assert output.shape == ()
                assert float(output) == 5.0


def test_the_version_that_answers_is_told_after_another_client_pushed_a_new_one(start: Callable[..., Running]) -> None:
    daemon = start()
    async_versions: list[str] = []

    async def ask_twice(pusher: Client) -> None:
        async with AsyncClient(daemon.socket) as client:
            async_versions.append((await client.infer("mine", IMAGE)).version)
            pusher.push("mine", DIGITS / "model.tflite", 7)
            async_versions.append((await client.infer("mine", IMAGE)).version)

    with daemon.client() as pusher, daemon.client() as client:
        pusher.push("mine", str(DIGITS / "model.tflite"))
        assert client.infer("mine", IMAGE).version == "1"
        asyncio.run(ask_twice(pusher))
        assert async_versions == ["1", "7"]
        assert client.infer("mine", IMAGE).version == "7"


def test_a_model_pushed_anew_is_asked_with_its_new_tensors(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()
    with daemon.client() as pusher, daemon.client() as client:
        pusher.push("mine", adder(tmp_path / "a.tflite", (1, 8)))
        assert client.infer("mine", np.ones((1, 8), np.float32)).timing
        pusher.push("mine", adder(tmp_path / "b.tflite", (1, 16)))
        assert client.infer("mine", np.ones((1, 16), np.float32)).version == "2"
        with pytest.raises(errors.InvalidRequest, match=r"\[1, 16\]"):
            client.infer("mine", np.ones((1, 8), np.float32))


def test_the_asynchronous_client_has_every_method_of_the_blocking_one() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if name.startswith("_"):
            continue
        other = getattr(AsyncClient, name)
        assert inspect.iscoroutinefunction(other) or inspect.isasyncgenfunction(other), name
        assert list(inspect.signature(method).parameters) == list(inspect.signature(other).parameters), name


def test_asynchronous_requests_overlap_without_threads(daemon: Running) -> None:
    import threading

    async def many() -> list[str]:
        async with AsyncClient(daemon.socket, connections=4) as client:
            before = threading.active_count()
            answers = await asyncio.gather(*(client.classify("digits", PICTURE) for _ in range(20)))
            assert threading.active_count() == before
            return [a.label for a in answers]

    assert asyncio.run(many()) == [LABEL] * 20


def test_a_cancelled_request_leaves_its_client_usable(daemon: Running) -> None:
    async def cancelled(fast: bool) -> None:
        async with AsyncClient(daemon.socket, connections=1, fast=fast) as client:
            for delay in (0.0, 0.0005, 0.001, 0.002, 0.005):
                task = asyncio.create_task(client.infer("digits", IMAGE))
                await asyncio.sleep(delay)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert (await client.classify("digits", PICTURE)).label == LABEL
                assert (await client.infer("digits", IMAGE)).model == "digits"

    asyncio.run(cancelled(True))
    asyncio.run(cancelled(False))


def test_the_asynchronous_client_steers_models(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()
    file = tmp_path / "m.tflite"
    shutil.copy(DIGITS / "model.tflite", file)

    async def steer() -> None:
        async with AsyncClient(daemon.socket) as client:
            await client.wait(30)
            seen: list[int] = []
            stored = await client.push("mine", str(file), progress=lambda done, total: seen.append(done))
            assert (stored["version"], stored["serving"], seen[-1]) == ("1", True, file.stat().st_size)
            await client.push("mine", file)
            assert await client.rollback("mine") == "1"
            await client.remove("mine", 2)
            await client.unload("mine")
            with pytest.raises(errors.EdgeaiError):
                await client.infer("mine", IMAGE)
            await client.load("mine")
            assert (await client.infer("mine", IMAGE)).version == "1"
            assert {s["name"] for s in await client.stats()} >= {"mine"}
            assert (await client.draw("classify", "digits", PICTURE, max_results=1))[:4] == b"\x89PNG"
            assert (await client.devices())[0].id == "cpu0"
            assert "mine" in {m.name for m in await client.models()}
            async for event in client.events(1):
                assert event["kind"]
                break

    asyncio.run(steer())


def test_who_may_not_use_the_socket_is_told_how_to(tmp_path: Path) -> None:
    from edgeaid.client import http

    denied = PermissionError(13, "Permission denied")
    error = http.unreachable(str(tmp_path / "not to be seen"), denied)
    assert isinstance(error, errors.PermissionDenied)
    assert error.exit_code == 77
    assert "sudo usermod -aG edgeai $USER" in str(error)
    tmp_path.chmod(0o700)
    assert "usermod" not in str(http.unreachable(str(tmp_path), denied)), "no group may use it"


def adder(file: Path, shape: tuple[int, ...]) -> Path:
    """A float model that adds its input to itself."""
    tensors = [T("x", shape), T("y", shape)]
    file.write_bytes(build(Graph(tensors, [Op("ADD", ["x", "x"], ["y"])], ["x"], ["y"])))
    return file


def test_files_that_cannot_be_read_uneven_lists_and_odd_waits_are_refused_in_a_sentence(
    daemon: Running, tmp_path: Path
) -> None:
    closed = open(PICTURE, "rb")  # noqa: SIM115  it is the closing that is tried
    closed.close()
    with daemon.client() as client, open(tmp_path / "written", "wb") as written:
        for file in (closed, written):
            with pytest.raises(errors.InvalidArgument, match="open it with 'rb'"):
                client.classify("digits", file)
        with pytest.raises(errors.InvalidRequest, match="do not all have the same length"):
            client.infer("digits", [[1], [1, 2]])
        for wrong in ("3", True, 1.5):
            with pytest.raises(errors.InvalidArgument, match="max_results must be a whole number"):
                client.classify("digits", PICTURE, max_results=wrong)  # type: ignore[arg-type]  # what is tried
            with pytest.raises(errors.InvalidArgument, match="after must be a whole number"):
                next(client.events(wrong))  # type: ignore[arg-type]  # what is tried
        assert client.classify("digits", PICTURE, max_results=np.int64(1)).label  # type: ignore[arg-type]  # as they come
        for method in (client.classify, client.push):
            with pytest.raises(errors.InvalidRequest, match="zero byte"):
                method("digits", "a\0b")
        with pytest.raises(errors.InvalidArgument, match="timeout must be seconds"):
            client.wait("soon")  # type: ignore[arg-type]  # the wrong type is what is tried
        client.wait(0)
