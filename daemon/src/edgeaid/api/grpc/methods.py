"""RPCs for gRPC: bytes in and out, errors as status codes, callers identified."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from ... import errors
from ...serving.holdings import Kind
from ...serving.plane import Plane
from .front import Front
from .messages import Message
from .service import CALLER

log = logging.getLogger(__name__)

#: Answers from here on are counted until they are sent.
COUNTED: Final = 1 << 16

Unary = Callable[[Message], Awaitable[Message]]


#: Arguments of `context.abort`.
Failure = tuple[Any, str]


def _failure(error: Exception) -> Failure:
    """Status and text for the client.

    A context of gRPC keeps the exception that `abort` raises, and with its traceback the frames that refer to the
    context: a cycle, which lasts until the collector comes. So `abort` is called where nothing large hangs on it:
    outside of the `except`, with the frames of the error cleared.
    """
    if isinstance(error, errors.EdgeaiError):
        failure = getattr(grpc.StatusCode, error.grpc), str(error)
    else:
        log.error("gRPC", exc_info=error)
        failure = grpc.StatusCode.INTERNAL, "internal error; see the journal of edgeaid"
    errors.answered(error)
    return failure


def _parsed(kind: Any, data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise errors.InvalidRequest(f"the message is not a valid {kind.DESCRIPTOR.name}") from error


class Methods:
    """Wraps RPCs: messages are parsed here, so that broken ones get an answer, and callers are known."""

    def __init__(self, plane: Plane, front: Front) -> None:
        self.plane = plane
        self.front = front

    def unary(self, function: Unary, kind: Any) -> Any:
        """One message in, one out."""

        async def call(data: bytes, context: Any) -> bytes:
            peer, share = self.front.peer(context.peer())
            await self.plane.turns.turn(peer.uid, share)
            CALLER.set(peer)
            answer = b""
            failure: Failure | None = None
            try:
                message = _parsed(kind, data)
                del data
                answer = (await function(message)).SerializeToString()
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception as error:
                failure = _failure(error)
            message = None
            if failure is not None:
                await context.abort(*failure)
            if len(answer) > COUNTED:
                holdings = self.plane.holdings
                holdings.add(peer.uid, Kind.BYTES, len(answer))
                context.add_done_callback(lambda _: holdings.give(peer.uid, Kind.BYTES, len(answer)))
            return answer

        return grpc.unary_unary_rpc_method_handler(call)

    def stream(self, function: Callable[[Message], AsyncIterator[Message]], kind: Any) -> Any:
        """One message in, many out."""

        async def call(data: bytes, context: Any) -> AsyncIterator[bytes]:
            peer, share = self.front.peer(context.peer())
            await self.plane.turns.turn(peer.uid, share)
            failure: Failure | None = None
            try:
                async for answer in function(_parsed(kind, data)):
                    yield answer.SerializeToString()
            except errors.EdgeaiError as error:
                failure = _failure(error)
            if failure is not None:
                await context.abort(*failure)

        return grpc.unary_stream_rpc_method_handler(call)

    def both(self, function: Callable[[AsyncIterator[Message]], AsyncIterator[Message]], kind: Any) -> Any:
        """Many messages in and out."""

        async def call(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            peer, share = self.front.peer(context.peer())
            CALLER.set(peer)

            async def parsed() -> AsyncIterator[Message]:
                async for data in messages:
                    await self.plane.turns.turn(peer.uid, share)
                    yield _parsed(kind, data)

            failure: Failure | None = None
            try:
                async for answer in function(parsed()):
                    yield answer.SerializeToString()
            except errors.EdgeaiError as error:
                failure = _failure(error)
            if failure is not None:
                await context.abort(*failure)

        return grpc.stream_stream_rpc_method_handler(call)
