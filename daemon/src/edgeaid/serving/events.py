"""What happened: loads, device changes, recoveries, denials.

Kept in a ring, streamed to listeners, written to the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger("edgeaid.events")

#: systemd journal MESSAGE_ID of each kind of event, for `journalctl MESSAGE_ID=...`. Random, fixed for ever.
MESSAGE_IDS: Final[dict[str, str]] = {
    "daemon-ready": "9672b2c56cb646c6b00eb20e9f7aaf6a",
    "daemon-reloaded": "fe56015018bc470e8decef8c32813cdb",
    "model-loaded": "bafa992149c74d6ca2fde8aa632da4ee",
    "model-unloaded": "5c7a8633f6f74820b170ddbdf95425ff",
    "model-failed": "6cf713946cca4cc6aacccad5297629d7",
    "model-quarantined": "4a708b9707c64f14ab5ca0cd86285787",
    "device-added": "b6d5bc5925c8424f853c465634852817",
    "device-removed": "4908bea20130436ca3761b0b47febc65",
    "device-changed": "ac3eb5adf0a74145a8b5bee70a49dfae",
    "device-state": "ce07b85b8b634d6a81704c6a0aa413b5",
    "worker-died": "2e849499a4ba4eb7a8474ffb5f962a3c",
    "recovery": "7527f8a0f8f74c9f9c51971eaf227b6f",
    "stream-state": "9688c5a08f294c0cbd82739ce8c1baf6",
    "access-denied": "ed5d52beb0484dff976dd57d1a8a7574",
}
KEEP: Final = 256
#: Events a slow listener may lag behind before it is cut off.
LISTENER_QUEUE: Final = 256


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    #: Rises by one with each event since start.
    number: int
    #: Seconds since the epoch.
    time: float
    #: A key of MESSAGE_IDS.
    kind: str
    message: str
    #: model, device, uid, ...: JSON values.
    fields: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As sent to clients."""
        return {
            "number": self.number,
            "time": round(self.time, 3),
            "kind": self.kind,
            "message": self.message,
            **self.fields,
        }


class EventLog:
    """The ring and its listeners."""

    def __init__(self) -> None:
        self.ring: deque[Event] = deque(maxlen=KEEP)
        self._listeners: set[asyncio.Queue[Event]] = set()
        self._number = 0

    def publish(self, kind: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Record an event; `fields` become EDGEAI_<NAME>= in the journal."""
        self._number += 1
        event = Event(self._number, time.time(), kind, message, fields)
        self.ring.append(event)
        journal = {f"EDGEAI_{k.upper()}": str(v) for k, v in fields.items()}
        log.log(level, "%s", message, extra={"journal": {"MESSAGE_ID": MESSAGE_IDS[kind], **journal}})
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(queue)

    async def listen(self, after: int = 0) -> AsyncIterator[Event | None]:
        """Events numbered above `after`, then new ones as they come; None every 15 s as a sign of life.

        Ends when the listener lags behind.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue(LISTENER_QUEUE)
        self._listeners.add(queue)
        try:
            for event in [e for e in self.ring if e.number > after]:
                yield event
            while queue in self._listeners:
                try:
                    yield await asyncio.wait_for(queue.get(), 15)
                except TimeoutError:
                    yield None
        finally:
            self._listeners.discard(queue)
