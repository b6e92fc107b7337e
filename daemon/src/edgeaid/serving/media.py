"""The daemon's end of the media workers: started with the first model that takes pictures, replaced when one dies."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from .. import errors
from ..config import Limits
from ..worker.handle import WorkerHandle
from ..worker.spawner import Spawner
from ..worker.wire import Kind, close_all
from .device_models import attach, rules_of
from .events import EventLog
from .model import LiveModel

#: Decoding a picture within the pixel limit, and the one before it, on a slow board, with room to spare.
SECONDS: Final = 20.0
#: Calls that a process has at once, so that the next lies ready. One that waited behind many would be taken for a hang.
AT_ONCE: Final = 2
#: Starting an interpreter that imports the image library, on a board that has just booted and is busy.
START_SECONDS: Final = 60.0
#: A picture up to this goes to an idle process in the message itself: one copy less, and no file to make and close.
#: Well below what a socket holds (212,992 bytes by default), so that such a message is never refused for want of room.
INLINE_BYTES: Final = 100_000

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Decoder:
    """One media process: its handle, the models that it knows, and how many calls it has or will have to answer."""

    def __init__(self, number: int, spawner: Spawner, on_exit: Callable[[str], None]) -> None:
        self.name = f"media{number}"
        self.handle: WorkerHandle | None = None
        self.busy = 0
        self.attached: set[int] = set()
        self._spawner = spawner
        self._on_exit = on_exit
        self._lock = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def turn(self, live: LiveModel) -> AsyncIterator[None]:
        """Wait until few calls are before this one; the process knows `live` then. Raises like `ready`."""
        self.busy += 1
        try:
            async with self._turns:
                await self.ready(live)
                yield
        finally:
            self.busy -= 1

    async def ready(self, live: LiveModel) -> None:
        """Run, and know `live`. Raises DeviceError when no process is to be had."""
        if self.handle is not None and live.number in self.attached:
            return
        async with self._lock:
            if self.handle is None:
                handle = await WorkerHandle.spawn(self._spawner, self.name, lambda *_: None, self._exited)
                try:
                    opening = {"target": "media", "device": "", "options": {}}
                    await handle.call(Kind.OPEN, opening, timeout=START_SECONDS)
                except BaseException:  # late, or its client is gone: the started process must not stay
                    await handle.stop()
                    raise
                self.handle = handle
            if live.number not in self.attached:
                await attach(self.ask, live, rules_of(live))
                self.attached.add(live.number)

    async def ask(self, kind: Kind, body: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        """One call; descriptors in its answer are closed."""
        answer, out = await self.call(kind, body, fds)
        close_all(out)
        return answer

    async def call(self, kind: Kind, body: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], list[int]]:
        """One call; a process that does not answer is killed."""
        gives_file = kind is Kind.DECODE
        return await self._at_work(
            kind, lambda handle: handle.call(kind, body, fds, timeout=SECONDS, gives_file=gives_file)
        )

    async def picture(self, live: LiveModel, slot: int, data: bytes | bytearray) -> dict[str, Any]:
        """Write a picture into the first input of a slot; returns its placement."""
        if len(data) <= INLINE_BYTES and self.busy == 1:  # this one
            return await self._at_work(
                Kind.PICTURE, lambda handle: handle.picture(live.number, slot, data, timeout=SECONDS)
            )
        with PictureFile(data) as file:
            return await self._at_work(
                Kind.PICTURE, lambda handle: handle.picture(live.number, slot, b"", (file.fd,), timeout=SECONDS)
            )

    async def _at_work(self, kind: Kind, ask: Callable[[WorkerHandle], Coroutine[Any, Any, T]]) -> T:
        handle = self.handle
        if handle is None:
            raise errors.Unavailable("the media worker is starting again; ask again")
        try:
            return await ask(handle)
        except errors.DeadlineExceeded:
            handle.kill(f"did not answer {kind.name} within {SECONDS:g} s")
            raise

    def _exited(self, cause: str) -> None:
        self.handle = None
        self.attached.clear()
        self._on_exit(cause)


class MediaRunner:
    """Pictures to tensors and tensors to answers, outside the daemon's process.

    One process decodes as long as it is idle when a picture comes; when all are busy another one is started, up to
    `decoders` of the limits. A call goes to the process with the fewest calls, which answers in their order.
    """

    def __init__(self, limits: Limits, events: EventLog, spawner: Spawner) -> None:
        self.limits = limits
        self.events = events
        self.restarts = 0
        self.decoders: list[_Decoder] = []
        self._spawner = spawner

    def _choose(self) -> _Decoder:
        """The process for the next call."""
        most = self.limits.decoders
        best = min(self.decoders, key=lambda d: (d.busy, d.handle is None), default=None)
        if best is None or (best.busy and len(self.decoders) < most):
            best = _Decoder(len(self.decoders), self._spawner, self._on_exit)
            self.decoders.append(best)
        return best

    def _on_exit(self, cause: str) -> None:
        self.restarts += 1
        self.events.publish("worker-died", f"media worker {cause}", level=logging.ERROR, device="media", cause=cause)

    async def warm(self, live: LiveModel) -> None:
        """Start a process ahead of the first picture of a model, and let it read the model's labels."""
        try:
            await self._choose().ready(live)
        except errors.EdgeaiError as error:
            log.warning("media worker: %s", error)  # the first picture tries again

    async def prepare(self, live: LiveModel, slot: int, picture: bytes | bytearray) -> dict[str, Any]:
        """Write a picture (the bytes of its file) into the first input of a slot; returns its placement."""
        if not picture:
            raise errors.InvalidData("the request has no body; send a JPEG, PNG or BMP picture")
        if len(live.inputs) != 1:
            raise errors.InvalidRequest(
                f"model {live.name!r} has {len(live.inputs)} inputs; pictures go to models with one"
            )
        decoder = self._choose()
        async with decoder.turn(live):
            return await decoder.picture(live, slot, picture)

    async def decode(
        self,
        live: LiveModel,
        slot: int,
        placement: dict[str, Any],
        *,
        threshold: float | None,
        max_results: int | None,
        drawn_on: bytes | bytearray | None,
    ) -> dict[str, Any] | bytes:
        """Labelled result of a slot's outputs as JSON values, or PNG bytes when it is to be drawn on the picture."""
        body = {
            "model": live.number,
            "slot": slot,
            "placement": placement,
            "threshold": threshold,
            "max_results": max_results,
        }
        decoder = self._choose()
        async with decoder.turn(live):
            if drawn_on is None:
                return await self._decoded(decoder, body)
            with PictureFile(drawn_on) as file:
                body["size"] = file.size
                return await self._decoded(decoder, body, (file.fd,))

    async def _decoded(
        self, decoder: _Decoder, body: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> dict[str, Any] | bytes:
        answer, out = await decoder.call(Kind.DECODE, body, fds)
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
        for decoder in self.decoders:
            if live.number in decoder.attached:
                decoder.attached.discard(live.number)
                await decoder.ask(Kind.UNLOAD, {"model": live.number})

    async def stop(self) -> None:
        """End the processes."""
        await asyncio.gather(*(d.handle.stop() for d in self.decoders if d.handle is not None))
        self.decoders.clear()


class PictureFile:
    """Picture bytes in a memfd, for passing on; use as a context manager."""

    def __init__(self, data: bytes | bytearray) -> None:
        """Unavailable when no file, or no memory for it, is to be had."""
        self.size = len(data)
        try:
            self.fd = os.memfd_create("edgeai-picture", os.MFD_CLOEXEC)
        except OSError as error:
            raise errors.Unavailable(f"no room for the picture: {error.strerror}; ask again") from error
        try:
            with open(self.fd, "wb", closefd=False) as stream:
                stream.write(data)
        except OSError as error:
            os.close(self.fd)
            raise errors.Unavailable(f"no room for the picture: {error.strerror}; ask again") from error

    def __enter__(self) -> PictureFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
