"""`/edgeai/v1/streams`: cameras and files that are analysed continuously; their events, results and pictures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ... import errors
from ...serving.access import Role
from ...streams import metrics
from ..inference import JSON
from .replies import reply

if TYPE_CHECKING:
    from ...streams.feed import Feed, Item
    from ...streams.manager import StreamManager
    from ...streams.runner import StreamRunner
    from .server import Call, Routes

#: A stream's table, as TOML and as JSON.
MAX_TABLE: Final = 4 << 20
JSON_TABLE: Final = 64 << 10
SSE_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
NO_STORE: Final = {"Cache-Control": "no-store"}
BOUNDARY: Final = "edgeai-frame"
#: Pictures per second of an MJPEG view that asks for no rate, and the most.
VIEW_FPS: Final = 5.0
MAX_VIEW_FPS: Final = 30.0


def register(routes: Routes, manager: StreamManager | None) -> None:
    """Add the routes; without a manager they answer that there are no streams."""
    add = routes.add
    here = StreamRoutes(manager)
    base = "/edgeai/v1/streams"
    if manager is not None:
        manager.plane.more_metrics = lambda: metrics.render(manager.runners.values())
    add("GET", base, Role.OBSERVE, gives=("Streams",))(here.index)
    add("GET", f"{base}/{{s}}", Role.OBSERVE, gives=("Stream",))(here.show)
    add("PUT", f"{base}/{{s}}", Role.CONTROL, takes=(JSON, "application/toml"), gives=("Stream",))(here.put)
    add("DELETE", f"{base}/{{s}}", Role.CONTROL)(here.remove)
    for verb in ("start", "stop", "restart"):
        add("POST", f"{base}/{{s}}/{verb}", Role.CONTROL, takes=(JSON,), gives=("Stream",))(here.switch)
    add("GET", f"{base}/{{s}}/events", Role.OBSERVE, gives=("text/event-stream",))(here.events)
    add("GET", f"{base}/{{s}}/results", Role.OBSERVE, gives=("text/event-stream",))(here.results)
    # Pictures show people's homes: observing the daemon's health is not enough.
    add("GET", f"{base}/{{s}}/frame", Role.INFER, gives=("image/jpeg",))(here.frame)
    add("GET", f"{base}/{{s}}/mjpeg", Role.INFER, gives=("multipart/x-mixed-replace",))(here.mjpeg)
    add("GET", f"{base}/{{s}}/websocket", Role.INFER, gives=("image/jpeg",))(here.websocket)
    add("GET", f"{base}/{{s}}/snapshots", Role.INFER, gives=("Snapshots",))(here.snapshots)
    add("GET", f"{base}/{{s}}/snapshots/{{f}}", Role.INFER, gives=("image/jpeg",))(here.snapshot)


class StreamRoutes:
    """Handlers of one manager."""

    def __init__(self, manager: StreamManager | None) -> None:
        self._manager = manager

    @property
    def manager(self) -> StreamManager:
        """The manager; Unsupported where there is none."""
        if self._manager is None:
            raise errors.Unsupported("this daemon has no streams")
        return self._manager

    async def index(self, _call: Call) -> web.Response:
        """All streams, with state and counters."""
        runners = sorted(self.manager.runners.items())
        return reply({"streams": [runner.snapshot() for _, runner in runners]})

    async def show(self, call: Call) -> web.Response:
        """One stream, with its table (without passwords)."""
        return reply(self.manager.runner(call.args["s"]).snapshot(whole=True))

    async def put(self, call: Call) -> web.Response:
        """Add or change a stream: its table as JSON, or as TOML with `Content-Type: application/toml`."""
        name = call.args["s"]
        try:
            runner = await self.manager.put(name, *await _table(call, name))
        except errors.InvalidConfig as error:
            raise errors.InvalidData(str(error)) from error
        return reply(runner.snapshot(), 201)

    async def remove(self, call: Call) -> web.Response:
        """Stop and forget a stream."""
        await self.manager.remove(call.args["s"])
        return reply({})

    async def switch(self, call: Call) -> web.Response:
        """Start, stop or restart a stream."""
        name = call.args["s"]
        verb = call.request.rel_url.raw_path.rstrip("/").rpartition("/")[2]
        if verb == "restart":
            runner = await self.manager.restart(name)
        else:
            runner = await self.manager.switch(name, on=verb == "start")
        return reply(runner.snapshot())

    async def events(self, call: Call) -> web.StreamResponse:
        """Server-sent events; `Last-Event-ID` continues where a client left off, `?types=new,end` chooses."""
        runner = self.manager.runner(call.args["s"])
        types = frozenset(filter(None, call.request.rel_url.query.get("types", "").split(",")))
        last = call.request.headers.get("Last-Event-ID", "")
        past = call.request.rel_url.query.get("past", "1") != "0"
        return await _server_sent(call, runner.events, last, types, past=past)

    async def results(self, call: Call) -> web.StreamResponse:
        """Results of each frame, as server-sent events."""
        runner = self.manager.runner(call.args["s"])
        try:
            return await _server_sent(call, runner.results, "", frozenset(), past=False, joined=runner.listen)
        finally:
            runner.listen()

    async def frame(self, call: Call) -> web.Response:
        """The newest frame as JPEG: `?boxes=1` with what was seen, `?width=320` smaller."""
        runner = self.manager.runner(call.args["s"])
        query = call.request.rel_url.query
        data, number = await runner.picture(boxes=query.get("boxes", "0") == "1", width=_width(query.get("width")))
        headers = {**NO_STORE, "X-Edgeai-Frame": str(number)}
        return web.Response(body=data, content_type="image/jpeg", headers=headers)

    async def mjpeg(self, call: Call) -> web.StreamResponse:
        """Frames without end, for browsers: `?boxes=1&fps=5&width=640`."""
        runner = self.manager.runner(call.args["s"])
        query = call.request.rel_url.query
        boxes, width, step = query.get("boxes", "1") == "1", _width(query.get("width")), 1 / _fps(query.get("fps"))
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        data, number = await runner.picture(boxes=boxes, width=width)  # an error is told before the answer begins
        with call.listening():
            response = web.StreamResponse(headers={"Content-Type": kind, **NO_STORE})
            await response.prepare(call.request)
            loop = asyncio.get_running_loop()
            shown = -1
            while True:
                due = loop.time() + step
                if number != shown:
                    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n"
                    await response.write(f"{head}X-Edgeai-Frame: {number}\r\n\r\n".encode() + data + b"\r\n")
                    shown = number
                await asyncio.sleep(max(0.0, due - loop.time()))
                try:
                    data, number = await runner.picture(boxes=boxes, width=width)
                except errors.Unavailable:
                    if self.manager.runners.get(runner.stream.name) is not runner:
                        return response
                    await asyncio.sleep(1.0)  # the view goes on when the stream does

    async def websocket(self, call: Call) -> web.WebSocketResponse:
        """Each result as a text message, followed by the JPEG of the same frame when it is the newest still."""
        runner = self.manager.runner(call.args["s"])
        query = call.request.rel_url.query
        boxes, width, step = query.get("boxes", "0") == "1", _width(query.get("width")), 1 / _fps(query.get("fps"))
        socket = web.WebSocketResponse(heartbeat=15.0, max_msg_size=1024)
        with call.listening():
            await socket.prepare(call.request)
            reader = asyncio.ensure_future(_read_all(socket))
            try:
                await self._feed(socket, reader, runner, boxes=boxes, width=width, step=step)
            finally:
                reader.cancel()
                runner.listen()
        return socket

    async def _feed(
        self,
        socket: web.WebSocketResponse,
        reader: asyncio.Future[None],
        runner: StreamRunner,
        *,
        boxes: bool,
        width: int,
        step: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        subscription = runner.results.subscribe()
        runner.listen()
        async for item in runner.results.listen(subscription):
            if reader.done() or socket.closed:
                return
            if item is None or loop.time() < due:
                continue
            due = loop.time() + step
            try:
                data, number = await runner.picture(boxes=boxes, width=width)
            except errors.EdgeaiError:
                continue
            await socket.send_str(json.dumps({**item.value, "picture": number}, separators=(",", ":")))
            await socket.send_bytes(data)

    async def snapshots(self, call: Call) -> web.Response:
        """File names of the snapshots, the newest first."""
        run = asyncio.get_running_loop().run_in_executor
        return reply({"snapshots": await run(None, self.manager.snapshots, call.args["s"])})

    async def snapshot(self, call: Call) -> web.Response:
        """One snapshot."""
        run = asyncio.get_running_loop().run_in_executor
        data = await run(None, self.manager.snapshot, call.args["s"], call.args["f"])
        return web.Response(body=data, content_type="image/jpeg")


async def _table(call: Call, name: str) -> tuple[dict[str, Any], str]:
    """A stream's table, and the TOML that it was sent as ("" for JSON)."""
    if "toml" not in call.request.headers.get("Content-Type", ""):
        return await call.json(JSON_TABLE), ""
    from ...streams import table

    try:
        text = (await call.body(MAX_TABLE)).decode()
    except UnicodeDecodeError as error:
        raise errors.InvalidData(f"the table is not UTF-8 text: {error}") from error
    run = asyncio.get_running_loop().run_in_executor
    entries = await run(None, table.parse, text)
    if [stream.name for stream, _ in entries] != [name]:
        raise errors.InvalidData(f"the table must have exactly [stream.{name}]")
    return entries[0][1], text


async def _read_all(socket: web.WebSocketResponse) -> None:
    """Nothing is wanted of the client but that it is there."""
    async for _ in socket:
        pass


async def _server_sent(
    call: Call,
    feed: Feed,
    last: str,
    types: frozenset[str],
    *,
    past: bool,
    joined: Callable[[], None] | None = None,
) -> web.StreamResponse:
    response = web.StreamResponse(headers=SSE_HEADERS)
    with call.listening():
        await response.prepare(call.request)
        await response.write(b": listening\n\n")
        subscription = feed.subscribe()
        if joined is not None:
            joined()
        async for item in feed.listen(subscription, feed.after(last) if past else ()):
            if text := _text(item, types):
                await response.write(text)
    return response


def _text(item: Item | None, types: frozenset[str]) -> bytes:
    if item is None:
        return b": still here\n\n"
    if types and item.kind not in types:
        return b""
    data = json.dumps(item.value, separators=(",", ":"))
    return f"id: {item.identity}\nevent: {item.kind}\ndata: {data}\n\n".encode()


def _width(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or len(text) > 5:
        raise errors.InvalidRequest(f"query parameter 'width' must be a number of pixels, not {text!r:.40}")
    return int(text)


def _fps(text: str | None) -> float:
    if text is None:
        return VIEW_FPS
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 1000:
        raise errors.InvalidRequest(f"query parameter 'fps' must be a number from 0.01 to 1000, not {text!r:.40}")
    return min(value, MAX_VIEW_FPS)
