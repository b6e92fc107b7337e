"""Requests and answers of a client, once for both clients.

Everything here is a coroutine over a `Transport`. The asyncio client awaits them; the blocking one runs them to their
end in one step, because its transport never suspends (`run` in blocking.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast
from urllib.parse import quote

from .. import errors
from . import codec, fast, http, repeated
from .arguments import Address, Upload, check_priority, check_timeout, model_name, version_text
from .codec import Array, Inference, Inputs
from .inventory import Device, Model

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
JSON: Final = {"Content-Type": "application/json"}


class Transport(Protocol):
    """Connections to one daemon: HTTP, opened at first use, and the fast socket."""

    address: Address

    @property
    def is_open(self) -> bool:
        """True when the next exchange goes over a connection that served one before."""

    async def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: http.Body
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case name, body. Closed, Late, OSError, ValueError for what is not HTTP."""

    async def open_fast(self) -> None:
        """Connect to the fast socket. Unavailable, PermissionDenied."""

    async def exchange_fast(self, message: bytes, fd: int) -> bytes:
        """Send a message, with a descriptor unless it is -1; the answer. Closed, Late, OSError."""

    def close_fast(self) -> None:
        """Close the fast socket."""

    def close(self) -> None:
        """Close everything."""


class Core:
    """One daemon over one transport; one request at a time."""

    def __init__(self, transport: Transport, *, fast_socket: bool) -> None:
        self.transport = transport
        self._want_fast = fast_socket
        self._had_fast = False
        self._fast: fast.Session | None = None
        #: Models that the fast socket cannot serve: their tensors are too large or of no fixed size.
        self._plain: set[tuple[str, str]] = set()
        self._metadata: dict[tuple[str, str], dict[str, Any]] = {}
        #: What was asked last over HTTP.
        self._prepared: dict[tuple[str, str], repeated.Request] = {}

    def close(self) -> None:
        """Close all connections."""
        self._drop_fast()
        self.transport.close()

    def _drop_fast(self) -> None:
        if self._fast is not None:
            self._fast = None
            self.transport.close_fast()

    # --- plain HTTP -------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | list[codec.Buffer] | Upload = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """(body, headers by lower-case name) of one exchange; the daemon's errors as exceptions.

        A connection that the daemon closed meanwhile is opened again once.
        """
        name = self.transport.address.name
        for attempt in (0, 1):
            reused = self.transport.is_open
            pieces: http.Body = body if isinstance(body, list | tuple) else ()
            if isinstance(body, Upload):
                pieces = body.pieces()
            elif isinstance(body, bytes) and body:
                pieces = (body,)
            try:
                status, answered, data = await self.transport.exchange(method, path, headers or {}, pieces)
                break
            except http.Closed as error:
                if attempt or not reused:
                    raise errors.Unavailable(f"edgeaid at {name} closed the connection: {error}") from error
            except http.Late as error:
                raise errors.DeadlineExceeded(
                    f"edgeaid at {name} did not answer within {self.transport.address.timeout:g} s"
                ) from error
            except (ValueError, OSError) as error:
                raise errors.Unavailable(f"edgeaid at {name}: {error}") from error
        repeated.check_status(status, answered, data)
        return data, answered

    async def get(self, path: str) -> Any:
        """GET, JSON."""
        return json.loads((await self.request("GET", path))[0])

    async def post(self, path: str, value: Any = None) -> Any:
        """POST of a JSON value, JSON back."""
        body = b"" if value is None else json.dumps(value).encode()
        return json.loads((await self.request("POST", path, body, JSON))[0] or b"null")

    async def server(self) -> dict[str, Any]:
        """See Client.server."""
        metadata: dict[str, Any] = await self.get("/v2")
        return metadata

    async def models(self) -> list[Model]:
        """See Client.models."""
        return [Model.from_json(row) for row in (await self.get("/edgeai/v1/models"))["models"]]

    async def devices(self) -> list[Device]:
        """See Client.devices."""
        return [Device.from_json(row) for row in (await self.get("/edgeai/v1/devices"))["devices"]]

    async def is_ready(self) -> bool:
        """True when every model is ready."""
        try:
            return bool((await self.get("/v2/health/ready"))["ready"])
        except errors.Unavailable:
            return False

    async def metadata(self, model: str, version: str | int = "") -> dict[str, Any]:
        """Tensors of a model; remembered until it is loaded, unloaded or pushed by this client, or does not fit."""
        key = (model_name(model), version_text(version))
        if key not in self._metadata:
            self._metadata[key] = await self.get(_model_path(*key))
        return self._metadata[key]

    async def stats(self, model: str) -> list[dict[str, Any]]:
        """See Client.stats."""
        path = f"/v2/models/{quote(model_name(model), safe='')}/stats" if model else "/v2/models/stats"
        rows: list[dict[str, Any]] = (await self.get(path))["model_stats"]
        return rows

    # --- inference --------------------------------------------------------------------------------------------------

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int,
        timeout: float | None,
        priority: int,
        parameters: Mapping[str, Any] | None,
    ) -> Inference:
        """See Client.infer."""
        check_timeout(timeout)
        check_priority(priority)
        key = (model_name(model), version_text(version))
        remembered = key in self._metadata
        try:
            return await self._infer(key, inputs, timeout, priority, parameters)
        except (errors.NotFound, errors.InvalidRequest):
            # Loaded anew with other tensors, or unloaded: nothing ran, so asking again with fresh metadata is safe.
            await self.forget(model)
            if not remembered:
                raise
        return await self._infer(key, inputs, timeout, priority, parameters)

    def repeat(
        self,
        now: repeated.Immediate,
        model: object,
        inputs: Inputs,
        version: object,
        timeout: float | None,
        priority: int,
    ) -> Inference | None:
        """`infer` without coroutines, for the usual case: the model was asked before, and its inputs are arrays that
        fit as they are. None = `infer` has to do it.
        """
        if type(model) is not str:
            return None
        if timeout is not None:
            check_timeout(timeout)
        if priority:
            check_priority(priority)
        key = (model, version_text(version) if version else "")
        session = self._fast
        try:
            if session is not None:
                binding = session.repeated(key, inputs)
                if binding is not None:
                    return fast.answer(binding, now.ask_fast(session.question(binding, priority, timeout), -1))
            elif (request := self._prepared.get(key)) and timeout is None and not priority and now.is_open:
                pieces = repeated.pieces_of(request, inputs)
                return self._again(now, request, pieces) if pieces is not None else None
        except http.Closed:
            self._drop_fast()  # one new attempt on a fresh connection
        except (errors.NotFound, errors.InvalidRequest):
            pass  # nothing ran: `infer` asks again, and then for the model's tensors
        except (http.Late, OSError) as error:
            raise self._broken(error) from error
        return None

    def _again(self, now: repeated.Immediate, request: repeated.Request, pieces: list[Any]) -> Inference:
        known = request.answer
        try:
            answer = now.again(pieces, request.size, known.start, known.length)
        except ValueError as error:
            raise errors.Unavailable(f"edgeaid at {self.transport.address.name}: {error}") from error
        if type(answer) is bytes:
            return known.read(answer)
        status, headers, data = cast(http.Answer, answer)
        inference = self._answered(status, headers, data)
        if now.is_open:  # of a connection that is closed now, nothing can be said of the next answer
            request.answer = codec.known(now.head, data, int(headers.get(HEADER_LENGTH.lower(), "0")))
        return inference

    @staticmethod
    def _answered(status: int, headers: Mapping[str, str], data: bytes) -> Inference:
        repeated.check_status(status, headers, data)
        return codec.decode(data, int(headers.get(HEADER_LENGTH.lower(), "0")))

    def _broken(self, error: http.Late | OSError) -> errors.EdgeaiError:
        """What to raise when a connection failed; the fast socket is closed."""
        socket = "the fast socket" if self._fast is not None else "the connection"
        self._drop_fast()
        if isinstance(error, http.Late):
            name, seconds = self.transport.address.name, self.transport.address.timeout
            return errors.DeadlineExceeded(f"edgeaid at {name} did not answer within {seconds:g} s")
        return errors.Unavailable(f"{socket} broke: {error}")

    async def _infer(
        self,
        key: tuple[str, str],
        inputs: Inputs,
        timeout: float | None,
        priority: int,
        parameters: Mapping[str, Any] | None,
    ) -> Inference:
        arrays = codec.named(inputs, await self.metadata(*key))
        if self._want_fast and not parameters and key not in self._plain:
            answer = await self._infer_fast(key, arrays, timeout, priority)
            if answer is not None:
                return answer
        return await self._infer_http(key, arrays, timeout, priority, parameters or {})

    async def _infer_fast(
        self, key: tuple[str, str], arrays: Mapping[str, Array], timeout: float | None, priority: int
    ) -> Inference | None:
        """None when this request must go over HTTP."""
        name = self.transport.address.name
        for attempt in (0, 1):
            reused = self._fast is not None
            try:
                session = await self._open_fast()
                if session is None:
                    return None
                binding = await self._bound(session, key)
                if binding is None:
                    return None
                answer: Inference = await self._drive(
                    session.infer(binding, arrays, priority=priority, timeout=timeout)
                )
                return answer
            except http.Closed as error:
                self._drop_fast()
                if attempt or not reused:
                    raise errors.Unavailable(f"edgeaid at {name} closed the fast socket: {error}") from error
            except (http.Late, OSError) as error:
                raise self._broken(error) from error
        return None

    def is_fast(self, model: str, version: str = "") -> bool:
        """Whether requests to a model that was asked go over the fast socket."""
        return self._fast is not None and (model, version) not in self._plain

    async def _open_fast(self) -> fast.Session | None:
        if self._fast is None:
            try:
                await self.transport.open_fast()
                session = fast.Session()
                await self._drive(session.hello())
            except (OSError, http.Closed, errors.EdgeaiError):
                self.transport.close_fast()
                self._want_fast = self._had_fast  # one that was there comes back with its daemon
                return None
            self._fast = session
            self._had_fast = True
        return self._fast

    async def _bound(self, session: fast.Session, key: tuple[str, str]) -> fast.Binding | None:
        if (known := session.bound(key)) is not None:
            return known
        metadata = await self.metadata(*key)
        if not fast.fits(metadata):
            self._plain.add(key)
            return None
        try:
            binding: fast.Binding = await self._drive(session.bind(*key, metadata))
        except (errors.TooLarge, errors.Unsupported):
            self._plain.add(key)
            return None
        return binding

    async def _drive(self, steps: fast.Steps) -> Any:
        """Exchange the messages of `steps`; its result."""
        try:
            message, fd = next(steps)
            while True:
                reply = await self.transport.exchange_fast(message, fd)
                message, fd = steps.send(reply)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()

    async def _infer_http(
        self,
        key: tuple[str, str],
        arrays: Mapping[str, Array],
        timeout: float | None,
        priority: int,
        parameters: Mapping[str, Any],
    ) -> Inference:
        said = dict(parameters)
        if timeout is not None:
            said["timeout"] = max(1, int(timeout * 1e6))
        if priority:
            said["priority"] = priority
        body = codec.encode(arrays, said)
        head = {HEADER_LENGTH: str(len(body[0]))}
        path = _model_path(*key) + "/infer"
        data, headers = await self.request("POST", path, body, head)
        if not said and not any(array.dtype.hasobject for array in arrays.values()):
            start = http.request_head("POST", path, head, body) + body[0]
            forms = tuple((name, array.dtype, array.shape) for name, array in arrays.items())
            self._prepared[key] = repeated.Request(forms, start, len(start) + sum(map(len, body[1:])))
        return self._answered(200, headers, data)

    # --- control ----------------------------------------------------------------------------------------------------

    async def load(self, model: str) -> None:
        """See Client.load."""
        await self.post(f"/v2/repository/models/{quote(model_name(model), safe='')}/load", {})
        await self.forget(model)

    async def unload(self, model: str) -> None:
        """See Client.unload."""
        await self.post(f"/v2/repository/models/{quote(model_name(model), safe='')}/unload", {})
        await self.forget(model)

    async def rollback(self, model: str) -> str:
        """See Client.rollback."""
        version: str = (await self.post(edgeai_path(model, "rollback")))["version"]
        await self.forget(model)
        return version

    async def remove(self, model: str, version: str | int) -> None:
        """See Client.remove."""
        await self.request("DELETE", edgeai_path(model, "versions/" + quote(version_text(version), safe="")))

    async def push(
        self, model: str, upload: Upload, version: str | int, *, unless_same: bool = False, allow_older: bool = False
    ) -> dict[str, Any]:
        """See Client.push."""
        text = version_text(version)
        path = edgeai_path(model, "versions/" + quote(text, safe="") if text else "")
        headers = {"Content-Length": str(upload.total), "X-Content-SHA256": upload.digest}
        if unless_same:
            headers["X-Unless-Same"] = "true"
        if allow_older:
            headers["X-Allow-Older"] = "true"
        stored: dict[str, Any] = json.loads((await self.request("PUT", path, upload, headers))[0])
        await self.forget(model)
        return stored

    async def forget(self, model: str) -> None:
        """Ask for a model's tensors anew at its next use."""
        self._metadata = {k: v for k, v in self._metadata.items() if k[0] != model}
        self._plain = {k for k in self._plain if k[0] != model}
        self._prepared = {k: v for k, v in self._prepared.items() if k[0] != model}
        if self._fast is not None:
            try:
                await self._drive(self._fast.forget(model))
            except (OSError, http.Closed, http.Late):
                self._drop_fast()


def _model_path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def edgeai_path(model: str, rest: str) -> str:
    """Path of our own routes about a model."""
    return f"/edgeai/v1/models/{quote(model_name(model), safe='')}" + (f"/{rest}" if rest else "")
