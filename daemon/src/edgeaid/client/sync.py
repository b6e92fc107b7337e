"""The blocking client."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from .. import errors
from . import codec, http
from .codec import Array, Inference, Inputs
from .fast import Binding, Fast

DEFAULT_SOCKET = os.environ.get("EDGEAI_SOCKET", "/run/edgeai/edgeaid.sock")
HEADER_LENGTH = "Inference-Header-Content-Length"


class Client:
    """One daemon. Not for several threads at once: make one client per thread.

    `infer` takes the fast socket when the daemon has one beside its HTTP socket (or `fast_path` says where); everything
    else goes over HTTP. Errors of the daemon come back as the classes of `edgeaid.errors`.
    """

    def __init__(
        self,
        path: str | Path = DEFAULT_SOCKET,
        *,
        fast_path: str | Path | None = None,
        fast: bool = True,
        timeout: float = 60.0,
        name: str = "",
    ) -> None:
        self.path = str(path)
        #: How errors call the daemon; its socket's path says little at the end of a tunnel.
        self.name = name or self.path
        self.timeout = timeout
        self._http = http.Connection(self.path, timeout)
        self._fast_path = str(fast_path or Path(self.path).parent / "fast.sock")
        self._want_fast = fast
        self._had_fast = False
        self._fast: Fast | None = None
        self._bindings: dict[tuple[str, str], Binding] = {}
        self._metadata: dict[tuple[str, str], dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections."""
        self._http.close()
        self._drop_fast()

    def _drop_fast(self) -> None:
        self._bindings.clear()
        if self._fast is not None:
            self._fast.close()
            self._fast = None

    # --- plain HTTP -------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: bytes | list[codec.Buffer] | Iterator[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """(body, headers by lower-case name) of one exchange.

        A connection that the daemon closed meanwhile is opened again once, unless the body can be sent only once.
        """
        pieces = [body] if isinstance(body, bytes) and body else body or ()
        for attempt in (0, 1):
            reused = self._http.is_open
            try:
                status, found, data = self._http.exchange(method, path, headers or {}, pieces)
                break
            except http.Closed as error:
                if attempt or not reused or isinstance(body, Iterator):
                    raise errors.Unavailable(f"edgeaid at {self.name} closed the connection: {error}") from error
            except BlockingIOError as error:
                raise errors.DeadlineExceeded(
                    f"edgeaid at {self.name} did not answer within {self.timeout:g} s"
                ) from error
            except (ValueError, OSError) as error:
                raise errors.Unavailable(f"edgeaid at {self.name}: {error}") from error
        if status >= 400:
            text = data.decode(errors="replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = json.loads(data)["error"]
            raise codec.error_of(status, text, found.get("retry-after"))
        return data, found

    def get(self, path: str) -> Any:
        """GET, JSON."""
        return json.loads(self.request("GET", path)[0])

    def post(self, path: str, value: Any = None) -> Any:
        """POST of a JSON value, JSON back."""
        body = b"" if value is None else json.dumps(value).encode()
        return json.loads(self.request("POST", path, body, {"Content-Type": "application/json"})[0] or b"null")

    # --- what there is ----------------------------------------------------------------------------------------------

    def server(self) -> dict[str, Any]:
        """Server metadata."""
        found: dict[str, Any] = self.get("/v2")
        return found

    def is_ready(self) -> bool:
        """True when every model is ready."""
        try:
            return bool(self.get("/v2/health/ready")["ready"])
        except errors.Unavailable:
            return False

    def models(self) -> list[dict[str, Any]]:
        """Every version on disk or loaded, with state and manifest facts."""
        found: list[dict[str, Any]] = self.get("/edgeai/v1/models")["models"]
        return found

    def devices(self) -> list[dict[str, Any]]:
        """Devices with state, queue and recovery counts."""
        found: list[dict[str, Any]] = self.get("/edgeai/v1/devices")["devices"]
        return found

    def stats(self, model: str = "") -> list[dict[str, Any]]:
        """Statistics of one or all models."""
        found: list[dict[str, Any]] = self.get(f"/v2/models/{quote(model)}/stats" if model else "/v2/models/stats")[
            "model_stats"
        ]
        return found

    def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """Tensors of a model; remembered until `forget`."""
        key = (model, version)
        if key not in self._metadata:
            self._metadata[key] = self.get(_model_path(model, version))
        return self._metadata[key]

    # --- inference --------------------------------------------------------------------------------------------------

    def infer(
        self, model: str, inputs: Inputs, *, version: str = "", timeout: float = 0.0, priority: int = 0
    ) -> Inference:
        """Run a model on numpy arrays. `timeout` in seconds, 0 = the daemon's default."""
        for attempt in (0, 1):
            arrays = codec.named(inputs, self.metadata(model, version))
            reused = self._fast is not None
            try:
                binding = self._bind(model, version)
                if binding is None or self._fast is None:
                    break
                return self._fast.infer(binding, arrays, priority=priority, timeout=timeout)
            except (errors.NotFound, errors.InvalidRequest):
                self._forget(model)  # reloaded with other tensors, or unloaded
                self._drop_fast()
                raise
            except http.Closed as error:
                self._forget(model)
                self._drop_fast()
                if attempt or not reused:
                    raise errors.Unavailable(f"edgeaid at {self.name} closed the fast socket: {error}") from error
            except OSError as error:
                self._drop_fast()
                if isinstance(error, BlockingIOError):
                    text = f"edgeaid at {self.name} did not answer within {self.timeout:g} s"
                    raise errors.DeadlineExceeded(text) from error
                raise errors.Unavailable(f"the fast socket broke: {error}") from error
        return self._infer_http(model, version, arrays, timeout, priority)

    def _bind(self, model: str, version: str) -> Binding | None:
        key = (model, version)
        if key in self._bindings:
            return self._bindings[key]
        if not self._want_fast:
            return None
        if self._fast is None:
            try:
                self._fast = Fast(self._fast_path, self.timeout)
            except (OSError, http.Closed, errors.Unavailable):
                self._want_fast = self._had_fast  # one that was there comes back with its daemon
                return None
            self._had_fast = True
        self._bindings[key] = self._fast.bind(model, version, self.metadata(model, version))
        return self._bindings[key]

    def _infer_http(
        self, model: str, version: str, arrays: Mapping[str, Array], timeout: float, priority: int
    ) -> Inference:
        parameters: dict[str, Any] = {}
        if timeout:
            parameters["timeout"] = int(timeout * 1e6)
        if priority:
            parameters["priority"] = priority
        body = codec.encode(arrays, parameters)
        said = {HEADER_LENGTH: str(len(body[0]))}
        data, headers = self.request("POST", _model_path(model, version) + "/infer", body, said)
        return codec.decode(data, int(headers.get(HEADER_LENGTH.lower(), "0")))

    def _picture(
        self, task: str, model: str, picture: bytes, options: dict[str, Any], accept: str = "application/json"
    ) -> bytes:
        query = urlencode({k: v for k, v in options.items() if v is not None})
        return self.request(
            "POST", f"/edgeai/v1/models/{quote(model, safe='')}/{task}?{query}", picture, {"Accept": accept}
        )[0]

    def classify(
        self, model: str, picture: bytes, *, max_results: int | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Classes of a JPEG, PNG or BMP picture, best first."""
        found: dict[str, Any] = json.loads(
            self._picture("classify", model, picture, {"max_results": max_results, "timeout": timeout})
        )
        return found

    def detect(
        self, model: str, picture: bytes, *, threshold: float | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Objects in a picture, best first."""
        found: dict[str, Any] = json.loads(
            self._picture("detect", model, picture, {"threshold": threshold, "timeout": timeout})
        )
        return found

    def segment(self, model: str, picture: bytes, *, timeout: float | None = None) -> dict[str, Any]:
        """Areas of a picture, largest first, and the mask."""
        found: dict[str, Any] = json.loads(self._picture("segment", model, picture, {"timeout": timeout}))
        return found

    def detect_tensor(self, model: str, tensor: bytes, *, threshold: float | None = None) -> dict[str, Any]:
        """Objects in a picture that is the model's input tensor already: its bytes, row-major."""
        query = "" if threshold is None else f"?threshold={threshold}"
        path = f"/edgeai/v1/models/{quote(model, safe='')}/detect{query}"
        found: dict[str, Any] = json.loads(
            self.request("POST", path, tensor, {"Content-Type": "application/octet-stream"})[0]
        )
        return found

    def draw(self, task: str, model: str, picture: bytes, *, threshold: float | None = None) -> bytes:
        """The picture with the answer drawn on it, as PNG."""
        return self._picture(task, model, picture, {"threshold": threshold}, "image/png")

    # --- control ----------------------------------------------------------------------------------------------------

    def load(self, model: str) -> None:
        """Load or reload a model."""
        self.post(f"/v2/repository/models/{quote(model, safe='')}/load", {})
        self._forget(model)

    def unload(self, model: str) -> None:
        """Stop serving a model."""
        self.post(f"/v2/repository/models/{quote(model, safe='')}/unload", {})
        self._forget(model)

    def rollback(self, model: str) -> str:
        """Serve the next older version; returns its number."""
        version: str = self.post(f"/edgeai/v1/models/{quote(model, safe='')}/rollback")["version"]
        self._forget(model)
        return version

    def remove(self, model: str, version: str) -> None:
        """Delete a stored version that is not being served."""
        self.request("DELETE", f"/edgeai/v1/models/{quote(model, safe='')}/versions/{quote(version, safe='')}")

    def _forget(self, model: str) -> None:
        self._metadata = {k: v for k, v in self._metadata.items() if k[0] != model}

    def push(
        self, model: str, file: Path, version: str = "", progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Upload a bundle or a bare .tflite; `progress(sent, total)` is called as it goes."""
        import hashlib

        total = file.stat().st_size
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()

        def pieces() -> Iterator[bytes]:
            sent = 0
            with open(file, "rb") as stream:
                while piece := stream.read(1 << 16):
                    yield piece
                    sent += len(piece)
                    if progress is not None:
                        progress(sent, total)

        path = f"/edgeai/v1/models/{quote(model, safe='')}"
        if version:
            path += f"/versions/{quote(version, safe='')}"
        headers = {"Content-Length": str(total), "X-Content-SHA256": digest}
        found: dict[str, Any] = json.loads(self.request("PUT", path, pieces(), headers)[0])
        self._forget(model)
        return found

    def events(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Events as they happen, on a connection of their own."""
        connection = HTTPConnection("localhost")
        connection.sock = http.connect(self.path, 60.0)
        try:
            connection.request("GET", "/edgeai/v1/events", headers={"Last-Event-ID": str(after)})
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()


def _model_path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{version}" if version else "")
