"""The plain requests of one connection: read, queued and answered from the socket's own callbacks.

That takes no task, no stream and no request object, which cost more than a small model's inference. What takes turns or
a thread (much JSON) is read so too and answered by a task.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Protocol

from ... import errors
from ...serving.access import Peer, Role
from ...serving.holdings import Kind
from ...serving.model import LiveModel, Request
from ...serving.pictures import Asked
from ...serving.plane import Plane
from .. import answers, inference, json_text, oip, pictures
from .account import Account
from .bodies import MIN_RATE
from .plain import Head, plain_answer, plain_head
from .replies import failure

log = logging.getLogger(__name__)

#: Headers and body.
Answer = tuple[dict[str, str], bytes]


class Line(Protocol):
    """What they need of their connection."""

    account: Account
    since: float

    @property
    def plane(self) -> Plane: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    def identify(self) -> Peer: ...
    def keep(self, data: bytes | memoryview) -> None: ...
    def go_on(self) -> None: ...
    async def turn(self) -> None: ...


class PlainRequests:
    """Reads and answers one at a time."""

    __slots__ = ("_body", "_connection", "_head", "_last", "_memory", "_other", "_running", "_since")

    def __init__(self, connection: Line) -> None:
        self._connection = connection
        #: Head and what has come of the body of a request that is not whole yet, and when it began.
        self._head: Head | None = None
        self._body = bytearray()
        self._since = 0.0
        #: The request under way, what it asked for, whose it is and the encodings that its client takes.
        self._running: tuple[Request, oip.InferRequest, Peer, str] | None = None
        #: The request under way where a task answers it, or where it is a picture.
        self._other: asyncio.Task[None] | Asked | None = None
        #: The last head: clients that keep a connection send the same one again.
        self._last: Head | None = None
        self._memory = inference.Memory()

    @property
    def begun(self) -> bool:
        """Whether a body is not whole yet: what comes belongs to it."""
        return self._head is not None

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._running is not None or self._other is not None

    def head(self, data: bytes) -> Head | None:
        """The head of the plain request that `data` begins with."""
        head = self._last
        if head is None or not data.startswith(head.raw):
            head = plain_head(data)
            if head is not None and head.length > self._most(head):
                return None
            self._last = head
        return head

    def _most(self, head: Head) -> int:
        """Bytes that the body may have; what is longer is refused by the routes."""
        plane = self._connection.plane
        limits = plane.config.limits
        if head.wish is not None:
            return limits.picture_bytes
        if not head.large:
            return limits.body_bytes
        try:
            return inference.body_limit(plane.registry.model(head.model, head.version), limits, head.json_length)
        except errors.EdgeaiError:
            return 0

    def begin(self, head: Head, data: bytes) -> None:
        """`data` begins with `head`; what is behind the body is the connection's."""
        connection = self._connection
        body = memoryview(data)[len(head.raw) :]
        if len(body) < head.length:
            self._head = head
            self._since = connection.since = time.monotonic()
            if connection.identify().role < Role.INFER:
                self._infer(head, b"")  # refuses; no body is taken in before
                if connection.transport is not None:
                    connection.transport.close()
                return
            self.more(body)
            return
        if len(body) > head.length:
            connection.keep(body[head.length :])
            body = body[: head.length]
        self._infer(head, body)

    def more(self, data: bytes | memoryview) -> None:
        """More of the body that is not whole yet."""
        head, connection = self._head, self._connection
        assert head is not None  # noqa: S101  `begun`
        missing = head.length - len(self._body)
        if len(data) > missing:
            connection.keep(memoryview(data)[missing:])
            data = data[:missing]
        try:
            connection.account.take(len(data))
        except errors.Unavailable as error:
            self.fail(error, close=True)
            return
        self._body += data
        if len(self._body) < head.length:
            connection.since = min(time.monotonic(), self._since + len(self._body) / MIN_RATE)
            return
        body = self._body
        self.drop()
        self._infer(head, body)
        connection.account.give(head.length)

    def drop(self) -> None:
        """Forget the request that is not whole yet."""
        self._head = None
        self._body = bytearray()

    def cancel(self) -> None:
        """The client is gone: so is what it waited for."""
        running, self._running = self._running, None
        if running is not None:
            self._connection.plane.withdraw(running[0])
        if self._other is not None:
            self._other.cancel()

    def _infer(self, head: Head, body: oip.Body) -> None:
        connection = self._connection
        plane = connection.plane
        connection.since = inf
        request: Request | None = None
        try:
            peer = connection.identify()
            if peer.role < Role.INFER:
                plane.denials.deny(peer, Role.INFER, head.raw[: head.raw.index(b" HTTP/")].decode())
            plane.holdings.check(peer.uid, Kind.BYTES, 0)  # a client that reads its answers has room
            if head.wish is not None:
                self._ask(pictures.model(plane, head.wish), head.wish, body, peer)
                return
            live = plane.registry.model(head.model, head.version)
            asked = (live, body, head.json_length)
            serve = functools.partial(inference.serve, plane, *asked, peer, head.accept, connection.turn)
            if head.large:
                self._begin_task(serve, len(body))
                return
            wanted = inference.decode(*asked, plane.config.limits.json_depth, self._memory)
            with_pictures = any(given.picture is not None for given in wanted.inputs)
            if with_pictures or answers.is_heavy(wanted, live.outputs, head.accept):
                self._begin_task(serve, len(body))
                return
            request = plane.request(live, peer, priority=wanted.priority, timeout=wanted.timeout)
            inference.fill(plane, request, wanted, peer)
            request.done = self._done
            self._running = (request, wanted, peer, head.accept)
            plane.submit(request)
        except Exception as error:
            self._running = None
            if request is not None:
                request.release()
            self.fail(error)

    def _ask(self, live: LiveModel, wish: pictures.Wish, body: oip.Body, peer: Peer) -> None:
        """Have a picture answered; it is counted until then."""
        account, size = self._connection.account, len(body)

        def done(answer: Any, error: Exception | None) -> None:
            self._other = None
            account.give(size)
            if error is not None:
                self.fail(error)
            else:
                self._write(200, {"Content-Type": inference.JSON}, [json_text.dump(answer)])

        account.take(size)
        self._other = asked = Asked(self._connection.plane, live, body, peer, wish, done)
        try:
            asked.start()
        except Exception:
            self._other = None
            account.give(size)
            raise

    def _begin_task(self, serve: Callable[[], Awaitable[Answer]], size: int) -> None:
        """Answer by a task; the body, of `size`, is counted until then."""
        account = self._connection.account
        account.take(size)

        async def answer() -> None:
            try:
                headers, body = await serve()
            except Exception as error:
                self._other = None
                self.fail(error)
            else:
                self._other = None
                self._write(200, headers, [body])
            finally:
                account.give(size)

        self._other = asyncio.get_running_loop().create_task(answer())

    def _done(self, request: Request) -> None:
        running, self._running = self._running, None
        if running is None:
            request.release()
            return
        _, wanted, peer, accept = running
        try:
            if request.error is not None:
                raise request.error
            plane = self._connection.plane
            headers, pieces = inference.answer(plane, request, wanted, peer, accept, self._memory)
            self._write(200, headers, pieces)
        except Exception as error:
            self.fail(error)
        finally:
            request.release()

    def fail(self, error: Exception, *, close: bool = False) -> None:
        """Answer with an error, and `close` the connection where the rest of the body is not worth reading."""
        if not isinstance(error, errors.EdgeaiError):
            log.error("inference over HTTP", exc_info=error)
            error = errors.EdgeaiError("internal error; see the journal of edgeaid")
        headers, body = failure(error)
        if close:
            headers["Connection"] = "close"
        self._write(error.http, headers, [body])
        transport = self._connection.transport
        if close and transport is not None:
            transport.close()

    def _write(self, status: int, headers: dict[str, str], pieces: list[oip.Body]) -> None:
        connection = self._connection
        connection.since = time.monotonic()
        transport = connection.transport
        if transport is None or transport.is_closing():
            return
        transport.write(plain_answer(status, headers, pieces))
        connection.go_on()
