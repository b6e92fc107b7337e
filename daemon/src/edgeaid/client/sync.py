"""The blocking client."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self, TypeVar

from .. import errors
from ..paths import HTTP_SOCKET
from . import codec, http, results
from .codec import Inference, Inputs
from .core import Core, Progress, upload_of
from .inventory import Device, Model

DEFAULT_SOCKET = os.environ.get("EDGEAI_SOCKET", HTTP_SOCKET)
DEFAULT_TIMEOUT = 60.0
T = TypeVar("T")


class BlockingTransport:
    """Blocking sockets behind the coroutines of `Transport`: none of them ever suspends."""

    def __init__(self, path: str, fast_path: str, timeout: float, name: str) -> None:
        self.name = name
        self.timeout = timeout
        self._http = http.Connection(path, timeout)
        self._fast_path = fast_path
        self._fast: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._http.is_open

    async def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        return self._http.exchange(method, target, headers, body)

    async def open_fast(self) -> None:
        self._fast = http.connect(self._fast_path, self.timeout, socket.SOCK_SEQPACKET)

    async def exchange_fast(self, message: bytes, fd: int) -> bytes:
        if self._fast is None:
            raise http.Closed("not connected")
        try:
            if fd >= 0:
                socket.send_fds(self._fast, [message], [fd])
            else:
                self._fast.send(message)
            reply = self._fast.recv(65536)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise http.Closed(str(error)) from error
        except BlockingIOError as error:
            raise http.Late from error
        if not reply:
            raise http.Closed("no answer")
        return reply

    def close_fast(self) -> None:
        if self._fast is not None:
            self._fast.close()
            self._fast = None

    def close(self) -> None:
        self.close_fast()
        self._http.close()


class Client:
    """One daemon. Threads may share a client; their requests then go one after the other.

    `infer` takes the fast socket when the daemon has one beside its HTTP socket (or `fast_path` says where); everything
    else goes over HTTP. Errors of the daemon come back as the classes of `edgeaid.errors`; an argument of a wrong type
    is `errors.InvalidArgument`, which is a TypeError too.
    """

    def __init__(
        self,
        path: str | Path = DEFAULT_SOCKET,
        *,
        fast_path: str | Path | None = None,
        fast: bool = True,
        timeout: float | None = None,
        name: str = "",
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise errors.InvalidArgument(f"the daemon's socket must be named by a path, not {type(path).__name__}")
        self.path = str(path)
        #: How errors call the daemon; its socket's path says little at the end of a tunnel.
        self.name = name or self.path
        self.timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        place = str(fast_path or Path(self.path).parent / "fast.sock")
        self._core = Core(BlockingTransport(self.path, place, self.timeout, self.name), fast_socket=fast)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections; the next request opens them again."""
        self._core.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            return run(work)

    # --- plain HTTP -------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: bytes | list[codec.Buffer] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """(body, headers by lower-case name) of one exchange.

        A connection that the daemon closed meanwhile is opened again once.
        """
        return self._run(self._core.request(method, path, body, headers))

    def get(self, path: str) -> Any:
        """GET, JSON."""
        return self._run(self._core.get(path))

    def post(self, path: str, value: Any = None) -> Any:
        """POST of a JSON value, JSON back."""
        return self._run(self._core.post(path, value))

    # --- what there is ----------------------------------------------------------------------------------------------

    def server(self) -> dict[str, Any]:
        """Server metadata: name, version, extensions."""
        metadata: dict[str, Any] = self.get("/v2")
        return metadata

    def is_ready(self) -> bool:
        """True when every model is ready; False too when no daemon answers."""
        return self._run(self._core.is_ready())

    def wait(self, timeout: float | None = None) -> None:
        """Return as soon as every model is ready. DeadlineExceeded after `timeout` seconds (default: the client's)."""
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        pause = 0.02
        while not self.is_ready():
            if time.monotonic() > until:
                raise errors.DeadlineExceeded(f"edgeaid at {self.name} is not ready; see: edgeai models")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def models(self) -> list[Model]:
        """Every version on disk or loaded, with state and manifest facts."""
        return [Model.from_json(row) for row in self.get("/edgeai/v1/models")["models"]]

    def devices(self) -> list[Device]:
        """Devices with state, queue and recovery counts."""
        return [Device.from_json(row) for row in self.get("/edgeai/v1/devices")["devices"]]

    def stats(self, model: str = "") -> list[dict[str, Any]]:
        """Statistics of one or all models."""
        return self._run(self._core.stats(model))

    def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Names, datatypes and shapes of a model's tensors."""
        return self._run(self._core.metadata(model, version))

    # --- inference --------------------------------------------------------------------------------------------------

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        timeout: float | None = None,
        priority: int = 0,
        parameters: Mapping[str, Any] | None = None,
    ) -> Inference:
        """Run a model on tensors: numpy arrays of the model's dtype, or lists and numbers that fit it.

        `inputs` is the only input of a model with one, or a dict by name; a batch dimension of 1 may be left out.
        `timeout` in seconds, None = the daemon's default. `priority` from 1 (highest), 0 = the daemon's default.
        `parameters` of the protocol, such as `sequence_id`.
        """
        return self._run(
            self._core.infer(model, inputs, version=version, timeout=timeout, priority=priority, parameters=parameters)
        )

    def classify(
        self, model: str, picture: Any, *, max_results: int | None = None, timeout: float | None = None
    ) -> results.Classification:
        """Classes of a picture, best first.

        `picture`: a path, bytes of a JPEG, PNG or BMP file, a file opened with "rb", a uint8 array [height, width] or
        [height, width, 1, 3 or 4] (RGB), or a PIL image.
        """
        return self._run(
            self._core.answer(
                results.Classification, "classify", model, picture, max_results=max_results, timeout=timeout
            )
        )

    def detect(
        self,
        model: str,
        picture: Any,
        *,
        threshold: float | None = None,
        max_results: int | None = None,
        timeout: float | None = None,
    ) -> results.Detection:
        """Objects in a picture (see classify), best first. `threshold`: least score, None = the model's own."""
        options = {"threshold": threshold, "max_results": max_results, "timeout": timeout}
        return self._run(self._core.answer(results.Detection, "detect", model, picture, **options))

    def pose(
        self,
        model: str,
        picture: Any,
        *,
        threshold: float | None = None,
        max_results: int | None = None,
        timeout: float | None = None,
    ) -> results.Detection:
        """Objects in a picture (see classify), best first, each with its `keypoints`."""
        options = {"threshold": threshold, "max_results": max_results, "timeout": timeout}
        return self._run(self._core.answer(results.Detection, "pose", model, picture, **options))

    def segment(self, model: str, picture: Any, *, timeout: float | None = None) -> results.Segmentation:
        """Areas of a picture (see classify), largest first, and the mask."""
        return self._run(self._core.answer(results.Segmentation, "segment", model, picture, timeout=timeout))

    def detect_tensor(self, model: str, tensor: bytes, *, threshold: float | None = None) -> results.Detection:
        """Objects in a picture that is the model's input tensor already: its bytes, row-major."""
        return self._run(self._core.detect_tensor(model, tensor, threshold))

    def draw(
        self,
        task: str,
        model: str,
        picture: Any,
        *,
        threshold: float | None = None,
        max_results: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """A PNG file: the picture (see classify) with the answer of `task` (classify, detect, segment, pose) on it."""
        options = {"threshold": threshold, "max_results": max_results, "timeout": timeout}
        return self._run(self._core.picture(task, model, picture, options, "image/png"))

    # --- control ----------------------------------------------------------------------------------------------------

    def load(self, model: str) -> None:
        """Load or reload a model."""
        self._run(self._core.load(model))

    def unload(self, model: str) -> None:
        """Stop serving a model."""
        self._run(self._core.unload(model))

    def rollback(self, model: str) -> str:
        """Serve the next older version; returns its number."""
        return self._run(self._core.rollback(model))

    def remove(self, model: str, version: str | int) -> None:
        """Delete a stored version that is not being served."""
        self._run(self._core.remove(model, version))

    def push(
        self,
        model: str,
        file: str | Path,
        version: str | int = "",
        progress: Progress | None = None,
        *,
        unless_same: bool = False,
        allow_older: bool = False,
    ) -> dict[str, Any]:
        """Upload a bundle or a bare .tflite and serve it; `progress(sent, total)` is called as it goes.

        `unless_same`: a model that is stored already, byte for byte, gets no new version; it serves.
        `allow_older`: take it also when its `serial` is below that of a version that is stored.
        Returns `name`, `version`, `devices`, whether it is `serving` and, with `unless_same`, if it is `unchanged`.
        """
        upload = upload_of(file, progress)
        return self._run(self._core.push(model, upload, version, unless_same=unless_same, allow_older=allow_older))

    def events(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Events as they happen, on a connection of their own; `after` a number: those since then too."""
        connection = HTTPConnection("localhost")
        connection.sock = http.connect(self.path, DEFAULT_TIMEOUT)
        try:
            connection.request("GET", "/edgeai/v1/events", headers={"Last-Event-ID": str(after)})
            response = connection.getresponse()
            if response.status != 200:
                raise codec.error_of(response.status, response.read(1 << 16).decode(errors="replace"))
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a BlockingTransport, which never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("a blocking transport suspended")
