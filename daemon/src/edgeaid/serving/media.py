"""The daemon's end of the media workers: started with the first model that takes pictures, replaced when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .. import errors
from ..config import Limits
from ..worker import wire
from ..worker.handle import OnReply, WorkerHandle
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
#: A picture up to this goes in the message itself: one copy less, and no file to make and close. The socket holds
#: `AT_ONCE` of them (see `handle.SEND_BUFFER`).
INLINE_BYTES: Final = 150_000

#: What a picture may be: bytes of a file.
Buffer = bytes | bytearray | memoryview
#: Called once: with what the process answered and the files that came with it, or with the error.
OnDone = Callable[[dict[str, Any], list[int], Exception | None], None]

log = logging.getLogger(__name__)


class Call:
    """One thing that a decoding process is to do. `done` is called once, unless the call was withdrawn."""

    __slots__ = ("decoder", "done", "late", "live", "send")

    def __init__(self, live: LiveModel, send: Callable[[WorkerHandle, OnReply], None], done: OnDone) -> None:
        self.live = live
        self.send = send
        self.done = done
        self.decoder: _Decoder | None = None
        #: Its process has not answered in time and is killed.
        self.late = False

    def withdraw(self) -> bool:
        """Take it back; False when a process has it (`done` is still called) or had it."""
        if self.decoder is None or self not in self.decoder.waiting:
            return False
        self.decoder.waiting.remove(self)
        return True


class _Decoder:
    """One media process: its handle, the models that it knows, and the calls that it has or will have to answer."""

    def __init__(self, number: int, spawner: Spawner, on_exit: Callable[[str], None]) -> None:
        self.name = f"media{number}"
        self.handle: WorkerHandle | None = None
        self.waiting: deque[Call] = deque()
        #: Calls that the process has.
        self.under_way = 0
        self.attached: set[int] = set()
        self._spawner = spawner
        self._on_exit = on_exit
        self._lock = asyncio.Lock()
        #: Gets the process, or a model in it, ready for the first call that waits.
        self._bringing: asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """Calls to answer."""
        return len(self.waiting) + self.under_way

    def submit(self, call: Call) -> None:
        """Send it to the process when few calls are before it there, and the process knows its model."""
        call.decoder = self
        self.waiting.append(call)
        self._go_on()

    def _go_on(self) -> None:
        while self.waiting and self.under_way < AT_ONCE:
            call = self.waiting[0]
            if self.handle is None or call.live.number not in self.attached:
                if self._bringing is None:
                    self._bringing = asyncio.get_running_loop().create_task(self._bring(call))
                return
            self.waiting.popleft()
            self._send(self.handle, call)

    async def _bring(self, call: Call) -> None:
        try:
            await self.ready(call.live)
        except Exception as error:  # whoever asked is told
            if call.withdraw():
                call.done({}, [], error)
        finally:
            self._bringing = None
        self._go_on()

    def _send(self, handle: WorkerHandle, call: Call) -> None:
        self.under_way += 1
        timer = asyncio.get_running_loop().call_later(SECONDS, self._late, handle, call)

        def answered(answer: dict[str, Any], out: list[int], error: errors.EdgeaiError | None) -> None:
            timer.cancel()
            self.under_way -= 1
            self._go_on()
            if call.late and error is not None:
                error = errors.DeadlineExceeded(str(error))
            call.done(answer, out, error)

        try:
            call.send(handle, answered)
        except (errors.EdgeaiError, BlockingIOError) as error:
            timer.cancel()
            self.under_way -= 1
            full = isinstance(error, BlockingIOError)
            call.done({}, [], errors.Unavailable("the media worker has no room; ask again") if full else error)

    def _late(self, handle: WorkerHandle, call: Call) -> None:
        """Kill a process that does not answer: its calls end with it, and so nothing is written into their slots."""
        call.late = True
        handle.kill(f"did not answer within {SECONDS:g} s")

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
        """Something about models; a process that does not answer is killed."""
        handle = self.handle
        if handle is None:
            raise errors.Unavailable("the media worker is starting again; ask again")
        try:
            answer, _ = await handle.call(kind, body, fds, timeout=SECONDS)
        except errors.DeadlineExceeded:
            handle.kill(f"did not answer {kind.name} within {SECONDS:g} s")
            raise
        return answer

    async def stop(self) -> None:
        """End the process."""
        if self._bringing is not None:
            self._bringing.cancel()
        if self.handle is not None:
            await self.handle.stop()

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

    def picture(self, live: LiveModel, slot: int, picture: Buffer, done: OnDone) -> Call:
        """Have a picture (the bytes of its file) written into the first input of a slot; `done` gets its placement.

        The slot must stay the caller's until then, unless the call is withdrawn. InvalidData, InvalidRequest.
        """
        if not len(picture):
            raise errors.InvalidData("the request has no body; send a JPEG, PNG or BMP picture")
        if len(live.inputs) != 1:
            raise errors.InvalidRequest(
                f"model {live.name!r} has {len(live.inputs)} inputs; pictures go to models with one"
            )
        return self._submit(Call(live, partial(_send_picture, live, slot, picture), done))

    async def prepare(self, live: LiveModel, slot: int, picture: Buffer) -> dict[str, Any]:
        """The same, waited for; returns the placement."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def done(placement: dict[str, Any], _: list[int], error: Exception | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(placement)

        call = self.picture(live, slot, picture, done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not call.withdraw():
                await asyncio.wait([future])  # a process may write into the slot, which the caller gives back now
            raise

    def decode(
        self,
        live: LiveModel,
        slot: int,
        placement: dict[str, Any],
        done: OnDone,
        *,
        threshold: float | None,
        max_results: int | None,
        drawn_on: Buffer | None,
    ) -> Call:
        """Have a slot's outputs decoded; `done` gets what `result_of` reads. `drawn_on`: the picture to draw it on."""
        body = {
            "model": live.number,
            "slot": slot,
            "placement": placement,
            "threshold": threshold,
            "max_results": max_results,
        }
        return self._submit(Call(live, partial(_send_outputs, body, drawn_on), done))

    def _submit(self, call: Call) -> Call:
        self._choose().submit(call)
        return call

    async def forget(self, live: LiveModel) -> None:
        """The model is unloaded."""
        for decoder in self.decoders:
            if live.number in decoder.attached:
                decoder.attached.discard(live.number)
                await decoder.ask(Kind.UNLOAD, {"model": live.number})

    async def stop(self) -> None:
        """End the processes."""
        await asyncio.gather(*(decoder.stop() for decoder in self.decoders))
        self.decoders.clear()


def _send_picture(live: LiveModel, slot: int, data: Buffer, handle: WorkerHandle, on_reply: OnReply) -> None:
    place = (slot, live.number)
    if len(data) <= INLINE_BYTES:
        with contextlib.suppress(BlockingIOError):
            handle.send(Kind.PICTURE, (data,), (), on_reply, place=place)
            return
    with PictureFile(data) as file:
        handle.send(Kind.PICTURE, (), (file.fd,), on_reply, place=place)


def _send_outputs(body: dict[str, Any], drawn_on: Buffer | None, handle: WorkerHandle, on_reply: OnReply) -> None:
    text = wire.json_body(Kind.DECODE, body)
    if drawn_on is None:
        handle.send(Kind.DECODE, (text,), (), on_reply, gives_file=True)
        return
    with PictureFile(drawn_on) as file:
        handle.send(Kind.DECODE, (text,), (file.fd,), on_reply, gives_file=True)


def result_of(answer: dict[str, Any], out: list[int]) -> dict[str, Any] | bytes:
    """Labelled result as JSON values, or PNG bytes, of what a process answered; closes the file that came with it."""
    try:
        if not out:
            result: dict[str, Any] = answer["result"]
            return result
        data = os.pread(out[0], answer["size"], 0)
        return data if answer["form"] == "png" else json.loads(data)
    finally:
        close_all(out)


class PictureFile:
    """Picture bytes in a memfd, for passing on; use as a context manager."""

    def __init__(self, data: Buffer) -> None:
        """Unavailable when no file, or no memory for it, is to be had."""
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
