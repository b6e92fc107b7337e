"""Messages on their way to a broker: nothing is lost while it is away, as far as the queue goes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

QUEUE: Final = 1000
#: The broker has so long to confirm a message; then it is sent again.
CONFIRM_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    topic: str
    payload: bytes
    retain: bool = False


class Outbox(threading.Thread):
    """Sends in order. `send` returns True when the broker has confirmed; retained messages replace older ones."""

    def __init__(self, send: Callable[[Message], bool], size: int = QUEUE) -> None:
        super().__init__(name="outbox", daemon=True)
        self._send = send
        self._queue: deque[Message] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._connected = False
        self._halted = False
        #: Messages that made room for newer ones.
        self.dropped = 0
        #: The last value of each retained topic: published again for a broker that kept nothing.
        self.retained: dict[str, bytes] = {}

    def put(self, message: Message) -> None:
        """Queue a message; the oldest makes room. A retained value that did not change is not published again."""
        with self._changed:
            if message.retain:
                if self.retained.get(message.topic) == message.payload:
                    return
                self.retained[message.topic] = message.payload
                kept = [m for m in self._queue if not (m.retain and m.topic == message.topic)]
                if len(kept) < len(self._queue):
                    self._queue = deque(kept)
            if len(self._queue) >= self._size:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(message)
            self._changed.notify_all()

    def connected(self, *, yes: bool) -> None:
        """The connection was made or lost; once it is made, retained values are published before what waits."""
        with self._changed:
            self._connected = yes
            if yes:
                waiting = [m for m in self._queue if not m.retain]
                again = [Message(topic, payload, retain=True) for topic, payload in self.retained.items()]
                self._queue = deque([*again, *waiting])
            self._changed.notify_all()

    def halt(self) -> None:
        """Send no more."""
        with self._changed:
            self._halted = True
            self._changed.notify_all()

    def run(self) -> None:
        """Until `halt`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._halted or (self._connected and self._queue))
                if self._halted:
                    return
                message = self._queue[0]
            if not self._send(message):
                with self._changed:
                    self._changed.wait_for(lambda: self._halted, 0.5)
                continue
            with self._changed:
                if self._queue and self._queue[0] is message:
                    self._queue.popleft()

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._queue)
