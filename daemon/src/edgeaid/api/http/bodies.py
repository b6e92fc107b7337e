"""Bodies of HTTP requests as they come: how large, how slow, how many chunks, and what they inflate to."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Callable
from typing import Final

from aiohttp import ClientPayloadError, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from ... import errors
from ...config import Limits

#: Bytes per second below which a body is late, once `idle_seconds` have passed.
MIN_RATE: Final = 1024
#: Inflated bytes up to this are fine however small they were packed: an empty picture packs to a thousandth.
FREE_BYTES: Final = 16 << 20
#: Beyond, inflated bytes per packed byte.
MAX_RATIO: Final = 100
#: Bytes inflated at once: what a thread holds beside the result.
STEP: Final = 1 << 20


class UnsupportedMediaType(errors.InvalidRequest):
    """A Content-Encoding that is not taken."""

    http = 415


def encoding_of(request: web.BaseRequest) -> str:
    """ "", "gzip" or "deflate"; UnsupportedMediaType for any other Content-Encoding."""
    name = request.headers.get("Content-Encoding", "").strip().lower()
    if name in ("", "identity"):
        return ""
    if name in ("gzip", "x-gzip"):
        return "gzip"
    if name == "deflate":
        return name
    raise UnsupportedMediaType(f"Content-Encoding {name[:50]!r} is not taken; use gzip or deflate")


async def proceed(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`: the body is wanted."""
    expected = request.headers.get("Expect", "").lower()
    transport = request.transport
    if expected == "100-continue" and request.version >= (1, 1) and transport is not None:
        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def chunks(
    request: web.BaseRequest, limits: Limits, heard: Callable[[float], None] = lambda _: None
) -> AsyncGenerator[bytes, None]:
    """Pieces of a body as they come, packed as they are.

    `heard` is called with the time up to which the client has done its part. InvalidRequest for damage, too many
    chunks, a stall, or a body that is slower than MIN_RATE.
    """
    if not request.body_exists:
        return
    await proceed(request)
    content = request.content
    length = request.content_length
    started = time.monotonic()
    total = count = 0
    good = started
    try:
        while True:
            left = limits.idle_seconds - (time.monotonic() - good)
            async with asyncio.timeout(left if length is None or total < length else None):
                chunk, ended = await content.readchunk()
            if not chunk and not ended:
                return
            more, ends = _rest(content)
            chunk += more
            count += ended + ends
            if count > limits.chunks:
                raise errors.InvalidRequest(
                    f"Chunked request body exceeds maximum of {limits.chunks} non-empty chunks. "
                    "Send fewer or larger HTTP chunks."
                )
            total += len(chunk)
            now = time.monotonic()
            good = min(now, started + total / MIN_RATE)
            heard(good)
            if chunk:
                yield chunk
                ours = time.monotonic() - now  # what we did with it is not a delay of the client's
                started += ours
                good += ours
    except TimeoutError:
        raise errors.InvalidRequest(
            f"the body stalled for {limits.idle_seconds:g} s, or came slower than {MIN_RATE} bytes/s"
        ) from None
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError) as error:
        raise errors.InvalidRequest(f"the body cannot be read: {str(error)[:200]!a}") from error


def _rest(content: StreamReader) -> tuple[bytes, int]:
    """What else has come, and how many chunks ended in it; one by one, chunks of a byte would cost thousands of steps.

    aiohttp keeps the ends that nobody has asked for; one that lies where reading goes on is told with the next chunk.
    """
    ends = getattr(content, "_http_chunk_splits", None)
    if not ends:
        return b"", 0
    before = len(ends)
    return content.read_nowait(), before - len(ends)


def inflate(data: bytes | bytearray, encoding: str, limit: int) -> bytes:
    """A packed body unpacked; for a thread. TooLarge, InvalidRequest for damage."""
    stream = zlib.decompressobj(31 if encoding == "gzip" else 15)
    most = min(limit, max(FREE_BYTES, MAX_RATIO * len(data)))
    parts: list[bytes] = []
    total = 0
    rest: bytes | bytearray = data
    try:
        while not stream.eof and rest:
            part = stream.decompress(rest, STEP)
            rest = stream.unconsumed_tail
            total += len(part)
            if total > most:
                raise errors.TooLarge(f"the body is larger than {most} bytes after decompression")
            parts.append(part)
    except zlib.error as error:
        raise errors.InvalidRequest(f"the body is not {encoding}: {error}") from error
    if not stream.eof:
        raise errors.InvalidRequest(f"the body's {encoding} is cut short")
    if stream.unused_data or rest:
        raise errors.InvalidRequest(f"something follows the body's {encoding}")
    return b"".join(parts)
