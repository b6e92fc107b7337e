"""RPCs for gRPC: bytes in and out, errors as status codes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError

from ... import errors
from .call import Call, Method
from .messages import Message
from .reader import Piece

Unary = Callable[[Message], Awaitable[Message]]


def parsed(kind: Any, data: Piece) -> Message:
    """A message from its bytes. InvalidRequest."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise errors.InvalidRequest(f"the message is not a valid {kind.DESCRIPTOR.name}") from error


def unary(function: Unary, kind: Any) -> Method:
    """One message in, one out."""

    async def run(call: Call) -> None:
        answer = await function(parsed(kind, await call.message()))
        call.reply((answer.SerializeToString(),))

    return Method(run)


def stream(function: Callable[[Message], AsyncIterator[Message]], kind: Any) -> Method:
    """One message in, many out."""

    async def run(call: Call) -> None:
        async for answer in function(parsed(kind, await call.message())):
            await call.send((answer.SerializeToString(),))

    return Method(run)


def both(function: Callable[[AsyncIterator[Message]], AsyncIterator[Message]], kind: Any) -> Method:
    """Many messages in and out."""

    async def messages(call: Call) -> AsyncIterator[Message]:
        while (data := await call.next()) is not None:
            yield parsed(kind, data)

    async def run(call: Call) -> None:
        async for answer in function(messages(call)):
            await call.send((answer.SerializeToString(),))

    return Method(run, streams=True)
