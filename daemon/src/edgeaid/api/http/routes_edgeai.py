"""`/edgeai/v1/`: pictures in and labelled answers out, devices, events, push; and `/metrics`."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from ... import __version__, errors
from ...models import manifest as manifests
from ...models.repository import DIGESTS, SIGNATURE, open_inside
from ...serving import metrics, push
from ...serving.access import Role
from ...serving.pictures import ask
from .. import pictures
from ..inference import BINARY, JSON
from .bodies import UnsupportedMediaType, encoding_of
from .replies import reply
from .server import Call, Routes

#: Bytes read at once of a model that is downloaded.
CHUNK: Final = 1 << 18
PICTURES: Final = ("image/jpeg", "image/png", "image/bmp")


def register(routes: Routes) -> None:
    """Add the routes."""
    add = routes.add
    add("GET", "/metrics", Role.OBSERVE, gives=("text/plain",))(show_metrics)
    add("GET", "/edgeai/v1", Role.OBSERVE)(about)

    described = b""  # the same for everybody, once all routes are there

    async def openapi(_call: Call) -> web.Response:
        """This description."""
        nonlocal described
        if not described:
            from .openapi import describe

            described = json.dumps(describe(routes), separators=(",", ":")).encode()
        return web.Response(body=described, content_type=JSON)

    add("GET", "/edgeai/v1/openapi.json", Role.OBSERVE)(openapi)
    add("GET", "/edgeai/v1/devices", Role.OBSERVE, gives=("Devices",))(devices)
    add("GET", "/edgeai/v1/models", Role.OBSERVE, gives=("Models",))(models)
    add("GET", "/edgeai/v1/events", Role.OBSERVE, gives=("text/event-stream",))(events)
    add("PUT", "/edgeai/v1/models/{m}", Role.CONTROL, takes=(BINARY,), gives=("Pushed",))(push_model)
    add("PUT", "/edgeai/v1/models/{m}/versions/{v}", Role.CONTROL, takes=(BINARY,), gives=("Pushed",))(push_model)
    add("DELETE", "/edgeai/v1/models/{m}/versions/{v}", Role.CONTROL)(remove)
    add("GET", "/edgeai/v1/models/{m}/versions/{v}/bundle", Role.OBSERVE, gives=("application/x-tar",))(pull_model)
    add("POST", "/edgeai/v1/models/{m}/rollback", Role.CONTROL)(rollback)
    for verb in pictures.TASKS:
        path = f"/edgeai/v1/models/{{m}}/{verb}"
        add("POST", path, Role.INFER, takes=PICTURES, gives=("Answer", "image/png"))(picture)
    add("GET", "/v2/logging", Role.OBSERVE)(get_logging)
    add("POST", "/v2/logging", Role.CONTROL, takes=(JSON,))(set_logging)
    for path in ("/v2/trace/setting", "/v2/models/{m}/trace/setting"):
        add("GET", path, Role.OBSERVE)(get_trace)
        add("POST", path, Role.CONTROL, takes=(JSON,))(set_trace)
    for kind in ("system", "cuda"):
        base = f"/v2/{kind}sharedmemory"
        add("GET", f"{base}/status", Role.OBSERVE, gives=("Rows",))(shm_status)
        add("GET", f"{base}/region/{{r}}/status", Role.OBSERVE, gives=("Rows",))(shm_status)
        add("POST", f"{base}/region/{{r}}/register", Role.INFER, takes=(JSON,))(shm_register)
        add("POST", f"{base}/unregister", Role.INFER, takes=(JSON,))(shm_unregister)
        add("POST", f"{base}/region/{{r}}/unregister", Role.INFER, takes=(JSON,))(shm_unregister)


async def show_metrics(call: Call) -> web.Response:
    """Metrics in Prometheus' text format."""
    return web.Response(
        text=metrics.render(call.plane), content_type="text/plain", headers={"X-Content-Type-Options": "nosniff"}
    )


async def about(call: Call) -> web.Response:
    """Version of the API and the caller's role."""
    return reply({"name": "edgeaid", "version": __version__, "api": 1, "role": call.peer.role.name.lower()})


async def devices(call: Call) -> web.Response:
    """Devices, their state and history."""
    return reply({"devices": [d.snapshot() for d in call.plane.devices.values()]})


async def models(call: Call) -> web.Response:
    """The repository index with what the manifests say."""
    rows: list[dict[str, Any]] = []
    for row in call.plane.registry.index():
        served = call.plane.registry.served.get(row["name"])
        live = served.versions.get(row["version"]) if served else None
        extra: dict[str, Any] = {"removable": call.plane.registry.repository.removable(row["name"], row["version"])}
        if live is not None and served is not None:
            m = live.stored.manifest
            extra |= {
                "default": served.default is live,
                "task": m.task,
                "description": m.description,
                "license": m.license,
                "accuracy": dict(m.accuracy),
                "labels": len(live.labels),
                "pinned": call.plane.registry.pins.get(live.name) == live.version,
                "devices": {
                    d.id: {**live.facts.get(d.id, {}), "p50_ms": live.stats.of(d.id)["compute"].quantile(0.5) * 1e3}
                    for d in live.devices
                },
            }
        rows.append({**row, **extra})
    return reply({"models": rows})


async def events(call: Call) -> web.StreamResponse:
    """Server-sent events; `Last-Event-ID` continues where a client left off."""
    last = call.request.headers.get("Last-Event-ID", "0")
    after = int(last) if last.isascii() and last.isdecimal() and len(last) < 19 else 0
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    if call.request.method == "HEAD":
        return web.Response(headers=headers)
    response = web.StreamResponse(headers=headers)
    with call.listening():
        await response.prepare(call.request)
        async for event in call.plane.events.listen(after):
            if event is None:
                await response.write(b": still here\n\n")
            else:
                await response.write(
                    f"id: {event.number}\nevent: {event.kind}\ndata: {json.dumps(event.to_json())}\n\n".encode()
                )
    return response


async def picture(call: Call) -> web.Response:
    """Ask about a picture: a JPEG, PNG or BMP body; answers labelled JSON, or a drawn PNG with `Accept: image/png`."""
    url, headers = call.request.rel_url, call.request.headers
    wish = pictures.wish(call.args["m"], url.raw_path.rstrip("/").rpartition("/")[2], url.query)
    live = pictures.model(call.plane, wish)
    asked = replace(
        wish,
        draw="image/png" in headers.get("Accept", ""),
        # Said to be bytes: prepared by the client, unless the size says that it is a picture all the same.
        tensor=headers.get("Content-Type", "").startswith(BINARY),
    )
    result = await ask(call.plane, live, await call.body(call.plane.config.limits.picture_bytes), call.peer, asked)
    if isinstance(result, bytes):
        return web.Response(body=result, content_type="image/png")
    return reply(result)


# --- push and pull --------------------------------------------------------------------------------------------------


async def push_model(call: Call) -> web.Response:
    """Body: a bundle or a bare .tflite. Streams to disk; nothing is visible before it is whole and self-tested."""
    name = manifests.check_name(call.args["m"])
    version = call.args.get("v", "")
    if version:
        manifests.check_version(version)
    limits = call.plane.config.limits
    if encoding_of(call.request):
        raise UnsupportedMediaType("an upload must not have a Content-Encoding; archives may be packed themselves")
    length = call.request.content_length
    if length is not None and length > limits.bundle_bytes:
        raise errors.TooLarge(f"the upload has {length} bytes, the limit is {limits.bundle_bytes}")
    with call.plane.registry.repository.staging() as base:
        upload = base / "upload"
        digest = await push.receive(call.chunks(), upload, limits.bundle_bytes, length or 0)
        expected = call.request.headers.get("X-Content-SHA256", digest).lower()
        if expected != digest:
            raise errors.InvalidRequest(
                f"the upload's sha256 is {digest}, expected {expected}; it was damaged on the way"
            )
        staged = base / "model"
        staged.mkdir()
        unless_same = call.request.headers.get("X-Unless-Same", "").lower() == "true"
        allow_older = call.request.headers.get("X-Allow-Older", "").lower() == "true"
        stored = await push.accept(
            call.plane.registry,
            name,
            version,
            upload,
            staged,
            digest=digest,
            unless_same=unless_same,
            allow_older=allow_older,
        )
        return reply(stored, 200 if stored.get("unchanged") else 201)


async def pull_model(call: Call) -> web.StreamResponse:
    """A model directory as an uncompressed tar of the files that its manifest names."""
    import tarfile  # for this alone

    run = asyncio.get_running_loop().run_in_executor  # a slow card must not stall requests
    stored = await run(None, call.plane.registry.repository.find, call.args["m"], call.args["v"])
    headers = {"Content-Type": "application/x-tar"}
    if call.request.method == "HEAD":
        return web.Response(headers=headers)
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    signed = [file for file in (DIGESTS, SIGNATURE) if (stored.path / file).is_file()]
    for file in ("model.toml", *stored.manifest.files, *signed):
        with open(open_inside(stored.path, file), "rb") as stream:  # noqa: ASYNC230  a local file, read piece by piece
            info = tarfile.TarInfo(file)
            stream.seek(0, io.SEEK_END)
            info.size = stream.tell()
            stream.seek(0)
            await response.write(info.tobuf())
            left = info.size
            while left and (chunk := await run(None, stream.read, min(CHUNK, left))):
                left -= len(chunk)
                await response.write(chunk)
            await response.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))
    await response.write(b"\0" * (2 * tarfile.BLOCKSIZE))
    await response.write_eof()
    return response


async def remove(call: Call) -> web.Response:
    """Delete a version that is not being served from the writable repository."""
    await call.plane.registry.remove(call.args["m"], call.args["v"])
    return reply({})


async def rollback(call: Call) -> web.Response:
    """Serve the next older version."""
    return reply({"name": call.args["m"], "version": await call.plane.registry.rollback(call.args["m"])})


# --- settings and shared memory -------------------------------------------------------------------------------------


async def get_logging(call: Call) -> web.Response:
    """Log settings."""
    return reply(call.plane.settings.logging)


async def set_logging(call: Call) -> web.Response:
    """Log settings."""
    return reply(call.plane.settings.set_logging(await call.json()))


async def get_trace(call: Call) -> web.Response:
    """Trace settings."""
    if "m" in call.args:
        call.plane.registry.model(call.args["m"])
    return reply(call.plane.settings.trace_of(call.args.get("m", "")))


async def set_trace(call: Call) -> web.Response:
    """Trace settings."""
    if "m" in call.args:
        call.plane.registry.model(call.args["m"])
    return reply(call.plane.settings.set_trace(await call.json(), call.args.get("m", "")))


def _is_cuda(call: Call) -> bool:
    return call.request.rel_url.raw_path.startswith("/v2/cuda")


async def shm_status(call: Call) -> web.Response:
    """Named shared memory."""
    return reply([] if _is_cuda(call) else call.plane.regions.status(call.peer, call.args.get("r", "")))


async def shm_register(call: Call) -> web.Response:
    """Register or release named shared memory."""
    if _is_cuda(call):
        raise errors.Unsupported("there is no CUDA device here")
    call.plane.regions.register(call.args["r"], await call.json(), call.peer)
    return reply({})


async def shm_unregister(call: Call) -> web.Response:
    """Register or release named shared memory."""
    await call.json()  # nothing in it matters, but it must be what the protocol says
    if not _is_cuda(call):
        call.plane.regions.unregister(call.peer, call.args.get("r", ""))
    return reply({})
