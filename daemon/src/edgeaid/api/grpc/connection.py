"""One client of gRPC: HTTP/2 without encryption, as far as gRPC uses it.

Python's own server of gRPC has threads, a poller and a queue of its own beside the event loop, can neither say who is
at the other end of a Unix socket nor bound what it holds for a client, and costs several times what the rest of the
daemon does for a request. Here a request is read, queued and answered from the socket's callbacks, as over HTTP.
What a client sends is looked at in small steps, each when it is the client's turn.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Final, Protocol

from ... import errors
from ...serving.access import Peer, Role, credentials
from ...serving.holdings import Kind
from ...serving.plane import Plane
from ...serving.turns import Share
from . import frames
from .call import PACKED, STREAM_WINDOW, Call, Limits, Method
from .frames import Broken, Code, Setting, Status
from .headers import MAX_METADATA, Asked, Headers
from .messages import Last
from .reader import LARGE_FRAME, Piece, Reader

#: Calls under way at once on a connection.
MAX_STREAMS: Final = 64
#: Bytes that a client may send on all streams before it is told that it may send more; each stream has its own limit.
CONNECTION_WINDOW: Final = 1 << 24
#: Bytes put aside before reading stops: more than a frame that has to be there whole.
KEPT: Final = 1 << 15
#: Bytes written at once.
BATCH: Final = 1 << 16
_SIZE: Final = 0x7FFFFFFF


class Owner(Limits, Protocol):
    """What a connection needs of the server that accepted it."""

    plane: Plane
    role: Role
    methods: Mapping[str, Method]
    connections: set[Connection]


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Owner) -> None:
        self.server = server
        self.plane = server.plane
        self.peer = Peer(-1, 0, server.role)
        self.share = Share()
        #: What this client asked last.
        self.memory = Last()
        self.calls: dict[int, Call] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        #: Bytes that may be sent on all streams, on a new one, and in one frame.
        self.window = frames.WINDOW
        self.initial_window = frames.WINDOW
        self.frame_bytes = frames.FRAME_BYTES
        self._transport: asyncio.Transport | None = None
        self._headers = Headers()
        self._reader = Reader(self)
        self._admitted = False
        self._stopping = False
        #: The client does not read: nothing more is read of it either.
        self._paused = False
        #: What came and was not looked at, and whether it waits for its turn.
        self._kept = bytearray()
        self._waiting = False
        #: The highest stream of the client so far.
        self._last = 0
        #: Bytes received that the client was not told it may send again.
        self._received = 0
        #: What is to be written at the end of the step; None outside of one.
        self._out: list[bytes] | None = None
        self._out_bytes = 0

    @property
    def limits(self) -> Limits:
        """How large bodies may be."""
        return self.server

    # --- life -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come; it may be one too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  stream servers have stream transports
        self._transport = transport
        pid, uid, _, _ = credentials(transport.get_extra_info("socket"))
        self.peer = Peer(uid, pid, self.server.role)
        self.write(
            frames.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_FRAME_SIZE: LARGE_FRAME,
                    Setting.MAX_HEADER_LIST_SIZE: MAX_METADATA,
                }
            )
            + frames.window(0, CONNECTION_WINDOW - frames.WINDOW)
        )
        try:
            self.plane.holdings.take(uid, Kind.GRPC)
        except errors.Unavailable as error:
            self._end(Code.ENHANCE_YOUR_CALM, str(error))
            return
        self._admitted = True
        self.server.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The client is gone: so is what it waited for."""
        self._drop_calls()
        self._kept.clear()
        if self._admitted:
            self._admitted = False
            self.server.connections.discard(self)
            self.plane.holdings.give(self.peer.uid, Kind.GRPC)

    def _drop_calls(self) -> None:
        for call in list(self.calls.values()):
            call.drop()

    def _end(self, code: Code, text: str) -> None:
        """Say why, and close."""
        self.write(frames.go_away(self._last, code, text))
        self.flush()
        if self._transport is not None:
            self._transport.close()
        self._drop_calls()

    def leave(self) -> None:
        """Take no new calls, and close when those under way are answered."""
        self._stopping = True
        self.write(frames.go_away(self._last, Code.NO_ERROR, "the daemon is ending"))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._stopping and not self.calls and self._transport is not None:
            self.flush()
            self._transport.close()

    def end_calls(self) -> None:
        """Answer the calls that are still under way with an error."""
        for call in list(self.calls.values()):
            call.end()

    def abort(self) -> None:
        """Close, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    # --- writing ----------------------------------------------------------------------------------------------------

    def takes(self, size: int) -> bool:
        """Whether so many bytes of answers can be sent in one frame now."""
        return not self._paused and size <= self.window and size <= self.frame_bytes

    def write(self, data: bytes) -> None:
        """Send; in a step, at its end."""
        if self._out is None:
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(data)
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what a step has written so far."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(data)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        self._paused = False
        self._pump()
        if not self._paused and self._transport is not None:
            if len(self._kept) <= KEPT:
                self._transport.resume_reading()
            self._go_on()

    def _pump(self) -> None:
        for call in list(self.calls.values()):
            if call.begun:
                call.pump()

    def forget(self, number: int) -> None:
        """A call is over."""
        self.calls.pop(number, None)
        self._close_if_done()

    # --- reading ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if not self._admitted:
            return
        self._reader.short = False
        if self._kept or self._paused or not self.plane.turns.free():
            self._keep(data)
        else:
            taken = self._read(data)
            if taken < len(data):
                self._keep(memoryview(data)[taken:])

    def _keep(self, data: Piece) -> None:
        """Put aside what is looked at later, and read no more meanwhile when it is much."""
        self._kept += data
        if len(self._kept) > KEPT and self._transport is not None:
            self._transport.pause_reading()
        self._go_on()

    def _go_on(self) -> None:
        if self._kept and not self._reader.short and not self._waiting and not self._paused:
            self._waiting = True
            self.plane.turns.wait(self.peer.uid, self.share, self._step)

    def _step(self) -> None:
        """It is this client's turn."""
        self._waiting = False
        transport = self._transport
        if self._paused or transport is None or transport.is_closing():
            return
        taken = self._read(self._kept)
        del self._kept[:taken]
        if len(self._kept) <= KEPT and not self._paused:
            transport.resume_reading()
        self._go_on()

    def _read(self, data: bytes | bytearray) -> int:
        """Look at the frames at the beginning of `data` as long as it is this client's turn; bytes that are done."""
        self._out = []
        try:
            return self._reader.read(data)
        except Broken as error:
            self._end(error.code, str(error))
            return len(data)
        finally:
            self.flush()
            self._out = None

    def go_on(self) -> bool:
        """Whether it is still this client's turn."""
        return not self._paused and self.plane.turns.free()

    def body(self, stream: int, size: int) -> Call | None:
        """A frame of a body comes; None = its call is answered already, which the client did not know."""
        if not 0 < stream <= self._last:
            raise Broken(Code.PROTOCOL_ERROR, f"a body for stream {stream}, which nobody opened")
        self._received += size
        if self._received > CONNECTION_WINDOW // 2:
            self.write(frames.window(0, self._received))
            self._received = 0
        call = self.calls.get(stream)
        if call is not None and not call.spend(size):
            raise Broken(Code.FLOW_CONTROL_ERROR, f"more bytes on stream {stream} than it has a window for")
        return call

    def open(self, stream: int, block: bytes, *, ends: bool) -> None:
        """The headers of a call are there."""
        asked = self._headers.read(block)
        call = self.calls.get(stream)
        if call is not None:  # trailers, which say nothing
            if not ends:
                raise Broken(Code.PROTOCOL_ERROR, f"headers in the middle of stream {stream}")
            call.receive(b"", end=True)
            return
        if stream <= self._last:
            return  # of a call that is answered already
        if not stream % 2:
            raise Broken(Code.PROTOCOL_ERROR, f"a client opened stream {stream}")
        self._last = stream
        self._reader.steps = 0
        if self._stopping or max(len(self.calls), len(self.tasks)) >= MAX_STREAMS:
            self.write(frames.reset(stream, Code.REFUSED_STREAM))
            return
        if asked.malformed:
            self.write(frames.reset(stream, Code.PROTOCOL_ERROR))
            return
        method = self.server.methods.get(asked.path)
        refusal = _refusal(asked, method)
        if refusal or method is None:
            last = frames.END_HEADERS | frames.END_STREAM
            self.write(frames.frame(frames.HEADERS, last, stream, refusal))
            if not ends:
                self.write(frames.reset(stream, Code.NO_ERROR))
            return
        self.calls[stream] = call = Call(self, stream, method, asked)
        if ends:
            call.receive(b"", end=True)

    def _on_window(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(Code.FRAME_SIZE_ERROR, "malformed WINDOW_UPDATE")
        size = int.from_bytes(payload, "big") & _SIZE
        if not size or stream > self._last:
            raise Broken(Code.PROTOCOL_ERROR, "malformed WINDOW_UPDATE")
        if not stream:
            self.window = _widened(self.window, size)
            self._pump()
        elif (call := self.calls.get(stream)) is not None:
            call.window = _widened(call.window, size)
            if call.begun:
                call.pump()

    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Any other frame."""
        if kind == frames.WINDOW_UPDATE:
            self._on_window(stream, payload)
        elif kind == frames.SETTINGS:
            self._on_settings(flags, stream, payload)
        elif kind == frames.PING:
            if len(payload) != 8 or stream:
                raise Broken(Code.FRAME_SIZE_ERROR, "malformed PING")
            if not flags & frames.ACK:
                self.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RST_STREAM:
            if len(payload) != 4 or not 0 < stream <= self._last:
                raise Broken(Code.PROTOCOL_ERROR, "malformed RST_STREAM")
            call = self.calls.get(stream)
            if call is not None:
                call.drop()
        elif kind == frames.PUSH_PROMISE:
            raise Broken(Code.PROTOCOL_ERROR, "a client cannot promise anything")
        # GOAWAY, PRIORITY and what is not known ask for nothing.

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % 6 or (flags & frames.ACK and payload):
            raise Broken(Code.FRAME_SIZE_ERROR, "malformed SETTINGS")
        if flags & frames.ACK:
            return
        for key, value in struct.iter_unpack(">HI", payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise Broken(Code.FLOW_CONTROL_ERROR, f"a window of {value} bytes")
                for call in self.calls.values():
                    call.window = _widened(call.window, value - self.initial_window)
                self.initial_window = value
            elif key == Setting.MAX_FRAME_SIZE:
                if not frames.FRAME_BYTES <= value < 1 << 24:
                    raise Broken(Code.PROTOCOL_ERROR, f"frames of {value} bytes")
                self.frame_bytes = min(value, BATCH)
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._pump()


def _widened(window: int, size: int) -> int:
    if window + size > frames.MAX_WINDOW:
        raise Broken(Code.FLOW_CONTROL_ERROR, "a window is too wide")
    return window + size


def _refusal(asked: Asked, method: Method | None) -> bytes:
    """Headers of the answer to what is no call of a method of ours."""
    if asked.method != "POST":
        return frames.refusal(405)
    if not asked.content_type.startswith("application/grpc"):
        return frames.refusal(415)
    if method is None:
        return frames.RESPONSE + frames.failed(Status.UNIMPLEMENTED, f"no method {asked.path[:200]}")
    if asked.encoding not in ("identity", *PACKED):
        text = f"messages packed with {asked.encoding[:200]!r} are not taken; gzip and deflate are"
        return frames.RESPONSE + frames.failed(Status.UNIMPLEMENTED, text)
    return b""
