"""One call of gRPC: messages from the body of a stream of HTTP/2, and answers in its place."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol

from ... import errors
from ...serving.access import Peer
from ...serving.holdings import Kind
from ...serving.model import Request
from ...serving.plane import Plane
from ...serving.turns import Share
from .. import inference
from ..http.bodies import inflate
from . import frames
from .frames import DATA, DONE, END_HEADERS, END_STREAM, HEADERS, RESPONSE, Code, Status, failed, frame, head
from .headers import Asked
from .messages import Last
from .reader import Piece

log = logging.getLogger(__name__)

#: Bytes of bodies that a client may send on a stream before they are looked at.
STREAM_WINDOW: Final = 1 << 20
#: A flag and the length stand before each message.
PREFIX: Final = 5
PACKED: Final = ("gzip", "deflate")
#: Who made the call that the task at work answers.
CALLER: Final[ContextVar[Peer]] = ContextVar("caller")


class Limits(Protocol):
    """How large bodies may be."""

    def check_size(self, size: int) -> None: ...
    def size_limit(self) -> int: ...


class Carrier(Protocol):
    """What a call needs of its connection."""

    plane: Plane
    peer: Peer
    share: Share
    memory: Last
    tasks: set[asyncio.Task[None]]
    window: int
    initial_window: int
    frame_bytes: int

    @property
    def limits(self) -> Limits: ...
    def takes(self, size: int) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def forget(self, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Method:
    """How calls of one name are answered."""

    run: Callable[[Call], Awaitable[None]]
    #: Messages are taken while others are still to come; else the only one is there before `run` begins.
    streams: bool = False
    #: Answers without a task; False = it cannot, and has done nothing. It may raise.
    at_once: Callable[[Call, Piece], bool] | None = None


def failure(error: Exception) -> tuple[Status, str]:
    """Status and text for the client."""
    if isinstance(error, errors.EdgeaiError):
        result = Status[error.grpc], str(error)
    else:
        log.error("gRPC", exc_info=error)
        result = Status.INTERNAL, "internal error; see the journal of edgeaid"
    errors.answered(error)
    return result


class Call:
    """One call, until it is answered or given up."""

    __slots__ = (
        "_asked", "_body", "_counted", "_drained", "_ended", "_held", "_method", "_number", "_room", "_task", "_timer",
        "_trailers", "_unsent", "_waiter", "begun", "closed", "connection", "request", "window",
    )  # fmt: skip

    def __init__(self, connection: Carrier, number: int, method: Method, asked: Asked) -> None:
        self.connection = connection
        self._number = number
        self._method = method
        self._asked = asked
        #: Bytes that may be sent on the stream.
        self.window = connection.initial_window
        #: Bytes that the client may send.
        self._room = STREAM_WINDOW
        self._body: Piece = b""
        #: Bytes of the body that are counted.
        self._held = 0
        #: The client has sent everything.
        self._ended = False
        #: Headers of the answer are sent.
        self.begun = False
        self.closed = False
        #: Answers that the client has no window for, and how many bytes of them are counted.
        self._unsent: deque[memoryview] = deque()
        self._counted = 0
        self._trailers: bytes | None = None
        #: The inference under way.
        self.request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if asked.timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(asked.timeout, self._expire)
        if method.streams:
            self._start()

    # --- what the client sends --------------------------------------------------------------------------------------

    def spend(self, size: int) -> bool:
        """A frame of so many bytes comes; False = there was no window for it."""
        self._room -= size
        return self._room >= 0

    def receive(self, piece: Piece, *, end: bool) -> None:
        """Bytes of the body."""
        if self._ended:
            self._abort(Code.STREAM_CLOSED)
            return
        self._ended = end
        try:
            if self._method.streams:
                self._append(piece)
                self._wake()
            elif end and not self._body:
                self._whole(piece)
            else:
                self._append(piece)
                self._length()  # one that is too large is refused before it has come
                if end:
                    self._whole(self._body)
                else:
                    self._grant()
        except Exception as error:
            failed_as = failure(error)
        else:
            return
        self._stop()
        self.fail(*failed_as)

    def _append(self, piece: Piece) -> None:
        self._hold(len(piece))
        if not isinstance(self._body, bytearray):
            self._body = bytearray()
        self._body += piece

    def _hold(self, size: int) -> None:
        total = self._held + size
        self.connection.limits.check_size(total)
        self.connection.plane.holdings.take(self.connection.peer.uid, Kind.BYTES, size)
        self._held = total

    def _release(self, size: int) -> None:
        self.connection.plane.holdings.give(self.connection.peer.uid, Kind.BYTES, size)
        self._held -= size

    def _grant(self) -> None:
        """Let the client send more."""
        if self._room <= STREAM_WINDOW // 2 and not self._ended:
            self.connection.write(frames.window(self._number, STREAM_WINDOW - self._room))
            self._room = STREAM_WINDOW

    def _whole(self, body: Piece) -> None:
        """The only message of a call is there."""
        self.connection.limits.check_size(len(body))
        if len(body) < PREFIX or len(body) - PREFIX != int.from_bytes(body[1:PREFIX], "big"):
            raise errors.InvalidRequest("the call has not exactly one message, or it is cut short")
        at_once = self._method.at_once
        if at_once is not None and not body[0] and at_once(self, memoryview(body)[PREFIX:]):
            return
        if not self._held:
            self._hold(len(body))
        self._body = body
        self._start()

    def _length(self) -> int | None:
        """Bytes of the next message when all of it is there."""
        if len(self._body) < PREFIX:
            return None
        size = int.from_bytes(self._body[1:PREFIX], "big")
        self.connection.limits.check_size(size)
        return size if len(self._body) >= PREFIX + size else None

    async def message(self) -> Piece:
        """The only message of the call, which no longer has it."""
        body, self._body = self._body, b""
        packed = body[0]
        if isinstance(body, bytearray):
            del body[:PREFIX]  # moves nothing
        else:
            body = memoryview(body)[PREFIX:]
        return await self._unpacked(packed, body)

    async def next(self) -> Piece | None:
        """The next message of a call that has several; None after the last. The one before is not held any more."""
        while True:
            self._release(self._held - len(self._body))
            size = self._length()
            if size is not None:
                break
            if self._ended:
                if self._body:
                    raise errors.InvalidRequest("the last message is cut short")
                return None
            self._grant()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        await self.connection.plane.turns.turn(self.connection.peer.uid, self.connection.share)
        body = self._body
        assert isinstance(body, bytearray)  # noqa: S101  a body that comes in parts is one
        packed, data = body[0], bytes(memoryview(body)[PREFIX : PREFIX + size])
        del body[: PREFIX + size]
        return await self._unpacked(packed, data)

    async def _unpacked(self, packed: int, data: Piece) -> Piece:
        if not packed:
            return data
        if packed != 1 or self._asked.encoding not in PACKED:
            raise errors.InvalidRequest(f"a message is packed in a way that the call does not name: {packed}")
        plane = self.connection.plane
        limit = self.connection.limits.size_limit()
        unpacked = await inference.in_thread(plane, inflate, bytes(data), self._asked.encoding, limit)
        self._hold(len(unpacked))
        return unpacked

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- work -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._task = task = asyncio.get_running_loop().create_task(self._run())
        self.connection.tasks.add(task)
        task.add_done_callback(self.connection.tasks.discard)

    async def _run(self) -> None:
        CALLER.set(self.connection.peer)
        failed_as = None
        try:
            await self._method.run(self)
        except Exception as error:
            failed_as = failure(error)
        if failed_as is not None:
            self.fail(*failed_as)
        else:
            self._finish(DONE)

    def _stop(self) -> None:
        """Give up what is being done for the call."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        request, self.request = self.request, None
        if request is not None:
            self.connection.plane.withdraw(request)

    def _expire(self) -> None:
        self._give_up(Status.DEADLINE_EXCEEDED, "the deadline of the call has passed")

    def end(self) -> None:
        """The daemon ends."""
        self._give_up(Status.UNAVAILABLE, "the daemon is ending")

    def _give_up(self, status: Status, text: str) -> None:
        self._stop()
        self._forget_unsent()
        self._trailers = None
        self.fail(status, text)

    # --- answers ----------------------------------------------------------------------------------------------------

    def reply(self, parts: Sequence[Piece]) -> None:
        """The only answer, in pieces that may lie in a slot: they are copied."""
        size = sum(map(len, parts))
        whole = size + PREFIX
        connection, number = self.connection, self._number
        if self.closed:
            return
        if whole <= self.window and connection.takes(whole) and not self.begun:
            connection.window -= whole
            connection.write(
                b"".join((
                    head(len(RESPONSE), HEADERS, END_HEADERS, number), RESPONSE,
                    head(whole, DATA, 0, number), b"\0", size.to_bytes(4, "big"), *parts,
                    head(len(DONE), HEADERS, END_HEADERS | END_STREAM, number), DONE,
                ))
            )  # fmt: skip
            self._close()
        else:
            self._send(parts, size)
            self._finish(DONE)

    async def send(self, parts: Sequence[Piece]) -> None:
        """One of several answers; returns when the client has a window for it."""
        self._send(parts, sum(map(len, parts)))
        if self._unsent:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _send(self, parts: Sequence[Piece], size: int) -> None:
        if self.closed:
            return
        if not self.begun:
            self.begun = True
            self.connection.write(frame(HEADERS, END_HEADERS, self._number, RESPONSE))
        data = b"".join((b"\0", size.to_bytes(4, "big"), *parts))
        self._unsent.append(memoryview(data))
        self._count(len(data))
        self.pump()

    def _count(self, size: int) -> None:
        self._counted += size
        self.connection.plane.holdings.add(self.connection.peer.uid, Kind.BYTES, size)

    def _forget_unsent(self) -> None:
        self._unsent.clear()
        self._count(-self._counted)

    def fail(self, status: Status, text: str) -> None:
        """The call has failed."""
        self._finish(failed(status, text))

    def _finish(self, trailers: bytes) -> None:
        """Nothing follows but what is not sent yet, and these."""
        if not self.closed and self._trailers is None:
            self._trailers = trailers if self.begun else RESPONSE + trailers
            self.pump()

    def pump(self) -> None:
        """Send what there is a window for."""
        connection = self.connection
        while self._unsent and connection.takes(1) and self.window > 0:
            data = self._unsent[0]
            size = min(len(data), self.window, connection.window, connection.frame_bytes)
            self.window -= size
            connection.window -= size
            connection.write(head(size, DATA, 0, self._number) + data[:size])
            if size < len(data):
                self._unsent[0] = data[size:]
            else:
                self._unsent.popleft()
            self._count(-size)
        if self._unsent:
            return
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        if self._trailers is not None and not self.closed:
            connection.write(frame(HEADERS, END_HEADERS | END_STREAM, self._number, self._trailers))
            self._close()

    def _abort(self, code: Code) -> None:
        self.connection.write(frames.reset(self._number, code))
        self.drop()

    def drop(self) -> None:
        """The client wants no answer, or is gone."""
        self._ended = True
        self._stop()
        self._close()

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if not self._ended:  # what still comes is not looked at
            self.connection.write(frames.reset(self._number, Code.NO_ERROR))
        if self._timer is not None:
            self._timer.cancel()
        if self._unsent:
            self._forget_unsent()
        if self._held:
            self._release(self._held)
        self._body = b""
        self.connection.forget(self._number)
