"""The board's camera feeding a model: results that come without a request each."""

from __future__ import annotations

import time
from typing import Final

from .frames import Frame, Type
from .line import Line
from .messages import BoardError, Result, parse_error, parse_result
from .port import LineLost

#: Results kept that were not taken.
KEPT: Final = 8


class Camera:
    """The stream of results of one session. It begins and ends by requests of the session (`link.Link`)."""

    def __init__(self, line: Line, max_result: int) -> None:
        self.line = line
        self.max_result = max_result
        #: Number of the request that began the stream, which its frames carry.
        self._stream: int | None = None
        self._shot: Result | None = None
        self._shots: list[Result] = []
        self._error: BoardError | None = None
        line.aside = self._take

    def clear(self) -> None:
        """Forget the stream before: another is asked for."""
        self._stream, self._shots, self._shot, self._error = None, [], None, None

    def began(self, seq: int) -> None:
        """The board has taken the request of this number."""
        self._stream = seq

    def ended(self) -> None:
        """The board has stopped the stream."""
        self._stream = None

    def _take(self, frame: Frame) -> bool:
        if self._stream is None or frame.seq != self._stream or frame.type not in (Type.OUT, Type.DATA, Type.ERR):
            return False
        if frame.type == Type.OUT:
            self._shot = parse_result(frame, self.max_result)
        elif frame.type == Type.ERR:
            self._error = parse_error(frame)
        elif self._shot is not None:
            self._shot.put(frame)
            if self._shot.whole:
                self._shots = [*self._shots[1 - KEPT :], self._shot]
                self._shot = None
        return True

    def next_shot(self, timeout: float = 10.0) -> Result:
        """The camera's newest result that was not yet taken, without damaged ones; LineLost after `timeout`."""
        begin = time.monotonic()
        asked = 0.0
        while not self._shots:
            if self._error:
                error, self._error, self._stream = self._error, None, None
                raise error
            now = time.monotonic()
            if now - begin > timeout:
                raise LineLost(f"{self.line.port.path}: no picture from the board's camera within {timeout:.1f} s")
            if now - asked > 2.0:
                self.line.send(Frame(Type.PING, 0, self.line.next_seq(), 0))
                asked = now
            self.line.frames(min(0.2, begin + timeout - now))
        shot = self._shots[-1]
        self._shots = []
        return shot
