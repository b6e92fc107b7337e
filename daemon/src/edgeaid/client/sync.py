"""The blocking client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self, TypeVar

from .. import errors
from . import codec, http, questions, results
from .arguments import DEFAULT_SOCKET, DEFAULT_TIMEOUT, Address, Progress, check_number, check_timeout, upload_of
from .blocking import BlockingTransport, run
from .codec import Inference, Inputs
from .core import Core
from .inventory import Device, Model
from .questions import Options

T = TypeVar("T")


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
        address = Address.of(path, fast_path, timeout, name)
        self.path, self.name, self.timeout = address.path, address.name, address.timeout
        self._transport = BlockingTransport(address)
        self._core = Core(self._transport, fast_socket=fast)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections; the next request opens them again."""
        self._core.close()

    def is_fast(self, model: str, version: str | int = "") -> bool:
        """Whether requests to a model that was asked go over the fast socket; the others go over HTTP."""
        return self._core.is_fast(model, str(version))

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
        return self._run(self._core.server())

    def is_ready(self) -> bool:
        """True when every model is ready; False too when no daemon answers."""
        return self._run(self._core.is_ready())

    def wait(self, timeout: float | None = None) -> None:
        """Return as soon as every model is ready. DeadlineExceeded after `timeout` seconds (default: the client's)."""
        check_timeout(timeout or None)  # 0 = look once
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        pause = 0.02
        while not self.is_ready():
            if time.monotonic() > until:
                raise errors.DeadlineExceeded(f"edgeaid at {self.name} is not ready; see: edgeai models")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def models(self) -> list[Model]:
        """Every version on disk or loaded, with state and manifest facts."""
        return self._run(self._core.models())

    def devices(self) -> list[Device]:
        """Devices with state, queue and recovery counts."""
        return self._run(self._core.devices())

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
        with self._lock:
            answer = None
            if not parameters:
                answer = self._core.repeat(self._transport, model, inputs, version, timeout, priority)
            return answer or run(
                self._core.infer(
                    model, inputs, version=version, timeout=timeout, priority=priority, parameters=parameters
                )
            )

    def classify(
        self, model: str, picture: Any, *, max_results: int | None = None, timeout: float | None = None
    ) -> results.Classification:
        """Classes of a picture, best first.

        `picture`: a path, bytes of a JPEG, PNG or BMP file, a file opened with "rb", a uint8 array [height, width] or
        [height, width, 1, 3 or 4] (RGB), or a PIL image.
        """
        return self._run(questions.classify(self._core, model, picture, Options(None, max_results, timeout)))

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
        return self._run(
            questions.objects(self._core, "detect", model, picture, Options(threshold, max_results, timeout))
        )

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
        return self._run(
            questions.objects(self._core, "pose", model, picture, Options(threshold, max_results, timeout))
        )

    def segment(self, model: str, picture: Any, *, timeout: float | None = None) -> results.Segmentation:
        """Areas of a picture (see classify), largest first, and the mask."""
        return self._run(questions.segment(self._core, model, picture, Options(None, None, timeout)))

    def detect_tensor(self, model: str, tensor: bytes, *, threshold: float | None = None) -> results.Detection:
        """Objects in a picture that is the model's input tensor already: its bytes, row-major."""
        return self._run(questions.detect_tensor(self._core, model, tensor, threshold))

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
        return self._run(questions.draw(self._core, task, model, picture, Options(threshold, max_results, timeout)))

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
        check_number(after, "after", whole=True)
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
