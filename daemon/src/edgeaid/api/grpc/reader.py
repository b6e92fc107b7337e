"""Frames from the bytes of a connection, in steps."""

from __future__ import annotations

from typing import Final, Protocol

from .. import oip
from . import frames
from .frames import Broken, Code
from .headers import MAX_METADATA, too_many

Piece = oip.Body
#: Bytes of a message in one frame: clients that send larger frames cost less.
LARGE_FRAME: Final = 1 << 20
#: Frames looked at in one step.
FRAMES: Final = 64
_STREAM: Final = 0x7FFFFFFF


class Body(Protocol):
    """What takes the bytes of a body."""

    closed: bool

    def receive(self, piece: Piece, *, end: bool) -> None: ...


class Sink(Protocol):
    """What takes what was read. It may raise Broken."""

    def go_on(self) -> bool: ...
    def open(self, stream: int, block: bytes, *, ends: bool) -> None: ...
    def body(self, stream: int, size: int) -> Body | None: ...
    def control(self, kind: int, flags: int, stream: int, payload: bytes) -> None: ...


class Reader:
    """Reads frames. Those of bodies need not be whole."""

    __slots__ = ("_block", "_body", "_ends", "_left", "_padding", "_prefaced", "_sink", "short", "steps")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        #: Frames that may still be looked at in this step.
        self.steps = FRAMES
        #: What is left is only a part of a frame.
        self.short = False
        self._prefaced = False
        #: The frame of a body that is being received: what is left of it and of its padding, and whose it is.
        self._left = 0
        self._padding = 0
        self._body: Body | None = None
        self._ends = False
        #: Headers that go on in the next frame: (stream, they end it, bytes so far).
        self._block: tuple[int, bool, bytearray] | None = None

    def read(self, data: bytes | bytearray) -> int:
        """Look at the frames at the beginning of `data` for one step; bytes that are done. Broken."""
        self.steps = FRAMES
        self.short = False
        at = 0
        size = len(data)
        if not self._prefaced:
            if not data.startswith(frames.PREFACE[:size]):
                raise Broken(Code.PROTOCOL_ERROR, "this is not HTTP/2, which gRPC speaks; HTTP/1.1 has another socket")
            if size < len(frames.PREFACE):
                self.short = True
                return 0
            self._prefaced = True
            at = len(frames.PREFACE)
        while True:
            if self._left:
                at += self._more(data, at)
            if self._padding and not self._left:
                step = min(self._padding, size - at)
                self._padding -= step
                at += step
            if self._left or self._padding or size - at < frames.HEADER.size:
                break
            if self.steps <= 0:
                if not self._sink.go_on():
                    return at
                self.steps = FRAMES
            self.steps -= 1
            taken = self._frame(data, at)
            if not taken:
                break
            at += taken
        self.short = True
        return at

    def _more(self, data: bytes | bytearray, at: int) -> int:
        """Bytes of a body."""
        size = min(self._left, len(data) - at)
        self._left -= size
        if self._body is not None and not self._body.closed:
            # What was put aside moves as soon as a part of it is done.
            view = memoryview(data)[at : at + size]
            self._body.receive(view if isinstance(data, bytes) else bytes(view), end=self._ends and not self._left)
        return size

    def _frame(self, data: bytes | bytearray, at: int) -> int:
        """One frame, of a body only its beginning: bytes that it has; 0 = it is not whole."""
        high, low, kind, flags, stream = frames.HEADER.unpack_from(data, at)
        length: int = high << 16 | low
        stream &= _STREAM
        block = self._block
        if (kind == frames.CONTINUATION) != (block is not None) or (block is not None and stream != block[0]):
            raise Broken(Code.PROTOCOL_ERROR, "headers are interrupted")
        if kind in (frames.HEADERS, frames.CONTINUATION):
            if length + (len(block[2]) if block is not None else 0) > MAX_METADATA:
                raise too_many()
        elif length > (LARGE_FRAME if kind == frames.DATA else frames.FRAME_BYTES):
            raise Broken(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        start = at + frames.HEADER.size
        if kind == frames.DATA:
            return self._on_data(data, start, length, flags, stream)
        if len(data) < start + length:
            return 0
        payload = bytes(memoryview(data)[start : start + length])
        if kind == frames.HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            self._on_more_headers(flags, payload)
        else:
            self._sink.control(kind, flags, stream, payload)
        return frames.HEADER.size + length

    def _on_data(self, data: bytes | bytearray, start: int, length: int, flags: int, stream: int) -> int:
        prefix = 0
        if flags & frames.PADDED:
            if length and start == len(data):
                return 0
            self._padding = data[start] if length else 0
            prefix = 1
        self._left = length - prefix - self._padding
        if self._left < 0:
            raise Broken(Code.PROTOCOL_ERROR, "a frame has more padding than bytes")
        self._ends = bool(flags & frames.END_STREAM)
        self._body = self._sink.body(stream, length)
        if not self._left and self._body is not None:
            self._body.receive(b"", end=self._ends)
        return frames.HEADER.size + prefix

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        padding = 0
        if flags & frames.PADDED:
            padding, payload = (payload[0], payload[1:]) if payload else (1, b"")
        if flags & frames.WITH_PRIORITY:
            payload = payload[5:]
        if padding > len(payload) or not stream:
            raise Broken(Code.PROTOCOL_ERROR, "malformed headers")
        if padding:
            payload = payload[:-padding]
        ends = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._sink.open(stream, payload, ends=ends)
        else:
            self._block = stream, ends, bytearray(payload)

    def _on_more_headers(self, flags: int, payload: bytes) -> None:
        assert self._block is not None  # noqa: S101  checked by `_frame`
        stream, ends, block = self._block
        block += payload
        if flags & frames.END_HEADERS:
            self._block = None
            self._sink.open(stream, bytes(block), ends=ends)
        elif not payload:
            raise Broken(Code.ENHANCE_YOUR_CALM, "headers go on and say nothing")
