"""The daemon's end of the media worker: started by the first picture, replaced when a picture kills it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import asdict
from typing import Any, Final

from .. import errors
from ..config import Limits
from ..worker.handle import WorkerHandle
from ..worker.spawner import Spawner
from ..worker.wire import Kind, close_all
from .device_models import attach
from .events import EventLog
from .model import LiveModel

#: Decoding a picture within the pixel limit, on a slow board, with room to spare.
SECONDS: Final = 20.0
#: Starting an interpreter that imports the image library, on a board that has just booted and is busy.
START_SECONDS: Final = 60.0


class MediaRunner:
    """Pictures to tensors and tensors to answers, outside the daemon's process."""

    def __init__(self, limits: Limits, events: EventLog, spawner: Spawner) -> None:
        self.limits = limits
        self.events = events
        self._spawner = spawner
        self.handle: WorkerHandle | None = None
        self.restarts = 0
        self._lock = asyncio.Lock()
        self._attached: set[int] = set()

    async def _worker(self, live: LiveModel) -> WorkerHandle:
        """A running worker that knows `live`."""
        async with self._lock:
            if self.handle is None:
                handle = await WorkerHandle.spawn(self._spawner, "media", lambda *_: None, self._on_exit)
                try:
                    opening = {"target": "media", "device": "", "options": {}}
                    await handle.call(Kind.OPEN, opening, timeout=START_SECONDS)
                except BaseException:  # late, or its client is gone: a start that nobody waits for must not stay
                    await handle.stop()
                    raise
                self.handle = handle
            if live.number not in self._attached:
                await attach(self._call, live, _rules(live))
                self._attached.add(live.number)
            return self.handle

    def _on_exit(self, cause: str) -> None:
        self.handle = None
        self._attached.clear()
        self.restarts += 1
        self.events.publish("worker-died", f"media worker {cause}", level=logging.ERROR, device="media", cause=cause)

    async def _call(self, kind: Kind, body: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        answer, out = await self._call_fds(kind, body, fds)
        close_all(out)
        return answer

    async def _call_fds(
        self, kind: Kind, body: dict[str, Any], fds: tuple[int, ...]
    ) -> tuple[dict[str, Any], list[int]]:
        handle = self.handle
        if handle is None:
            raise errors.Unavailable("the media worker is starting again; ask again")
        try:
            return await handle.call(kind, body, fds, timeout=SECONDS)
        except errors.DeadlineExceeded:
            handle.kill(f"did not answer {kind.name} within {SECONDS:g} s")
            raise

    async def prepare(self, live: LiveModel, slot: int, picture: PictureFile) -> dict[str, Any]:
        """Write a picture into the first input of a slot; returns its placement."""
        if len(live.inputs) != 1:
            raise errors.InvalidRequest(
                f"model {live.name!r} has {len(live.inputs)} inputs; pictures go to models with one"
            )
        await self._worker(live)
        return await self._call(Kind.PICTURE, {"model": live.number, "slot": slot, "size": picture.size}, (picture.fd,))

    async def decode(
        self,
        live: LiveModel,
        slot: int,
        placement: dict[str, Any],
        *,
        threshold: float | None,
        max_results: int | None,
        drawn_on: PictureFile | None,
    ) -> dict[str, Any] | bytes:
        """Labelled result of a slot's outputs as JSON values, or PNG bytes when it is to be drawn on the picture."""
        await self._worker(live)
        body = {
            "model": live.number,
            "slot": slot,
            "placement": placement,
            "threshold": threshold,
            "max_results": max_results,
        }
        fds: tuple[int, ...] = ()
        if drawn_on is not None:
            body["size"] = drawn_on.size
            fds = (drawn_on.fd,)
        answer, out = await self._call_fds(Kind.DECODE, body, fds)
        try:
            if not out:
                result: dict[str, Any] = answer["result"]
                return result
            data = os.pread(out[0], answer["size"], 0)
            return data if answer["form"] == "png" else json.loads(data)
        finally:
            close_all(out)

    async def forget(self, live: LiveModel) -> None:
        """The model is unloaded."""
        if live.number in self._attached and self.handle is not None:
            self._attached.discard(live.number)
            await self._call(Kind.UNLOAD, {"model": live.number})

    async def stop(self) -> None:
        """End the worker."""
        if self.handle is not None:
            await self.handle.stop()
            self.handle = None


class PictureFile:
    """Picture bytes in a memfd, for passing on; use as a context manager."""

    def __init__(self, data: bytes | bytearray) -> None:
        if not data:
            raise errors.InvalidRequest("the request has no body; send a JPEG, PNG or BMP picture")
        self.size = len(data)
        self.fd = os.memfd_create("edgeai-picture", os.MFD_CLOEXEC)
        with open(os.dup(self.fd), "wb") as stream:
            stream.write(data)

    def __enter__(self) -> PictureFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _rules(live: LiveModel) -> dict[str, Any]:
    manifest = live.found.manifest
    return {
        "picture": asdict(manifest.picture) if manifest.picture is not None else None,
        "output": asdict(manifest.output) if manifest.output is not None else None,
        "labels": str(live.found.path / manifest.labels_file) if manifest.labels_file else "",
        "classes": live.classes,
    }
