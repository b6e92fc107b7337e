"""What clients make the daemon hold, counted per user id and in all.

Connections, bytes (bodies under way, answers that are not read) and shared memory. Over a limit the answer is
Unavailable, which clients get as 503. Root and the daemon's own user have no limit of their own, and some room above
the limit of all: administrators and health checks can always connect.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from typing import Final

from ..config import Limits
from ..errors import Unavailable

#: Share of a limit that only root and the daemon's own user may use, on top of it.
RESERVE: Final = 1 / 8
#: Clients that are told of things as they happen: each keeps a connection, and has work done for each event.
LISTENERS: Final = 128
LISTENERS_PER_USER: Final = 48


class Kind(Enum):
    """What is counted."""

    HTTP = "HTTP connections"
    FAST = "connections of the fast socket"
    GRPC = "gRPC connections"
    BYTES = "bytes of bodies and answers"
    REGIONS = "bytes of shared memory"
    LISTENERS = "listeners to events, results and pictures"


class Holdings:
    """Counters and their limits; `limits` gives the configuration in force."""

    def __init__(self, limits: Callable[[], Limits]) -> None:
        self._limits = limits
        self._own = os.geteuid()
        self._held: dict[Kind, defaultdict[int, int]] = {kind: defaultdict(int) for kind in Kind}
        self._all: dict[Kind, int] = dict.fromkeys(Kind, 0)

    def limits(self, kind: Kind) -> tuple[int, int]:
        """(per user, in all)."""
        limits = self._limits()
        if kind is Kind.BYTES:
            return limits.buffer_bytes_per_user, limits.buffer_bytes
        if kind is Kind.REGIONS:
            return limits.region_bytes_per_user, limits.region_bytes
        if kind is Kind.LISTENERS:
            return LISTENERS_PER_USER, LISTENERS
        return limits.connections_per_user, limits.connections

    def privileged(self, uid: int) -> bool:
        """Whether a user is root or the daemon's own."""
        return uid in (0, self._own)

    def of(self, uid: int, kind: Kind) -> int:
        """What a user holds."""
        return self._held[kind].get(uid, 0)

    def total(self, kind: Kind) -> int:
        """What all hold."""
        return self._all[kind]

    def check(self, uid: int, kind: Kind, size: int = 1) -> None:
        """Unavailable when a user may not hold `size` more."""
        own, together = self.limits(kind)
        if self.privileged(uid):
            together += max(int(together * RESERVE), 4)
        elif self.of(uid, kind) + size > own:
            raise Unavailable(f"user id {uid} would hold more than {own} {kind.value}; ask again")
        if self._all[kind] + size > together:
            raise Unavailable(f"all clients together would hold more than {together} {kind.value}; ask again")

    def take(self, uid: int, kind: Kind, size: int = 1) -> None:
        """Count `size` more. Unavailable over a limit."""
        self.check(uid, kind, size)
        self.add(uid, kind, size)

    def add(self, uid: int, kind: Kind, size: int) -> None:
        """Count what is there already, whatever the limits."""
        self._held[kind][uid] += size
        self._all[kind] += size

    def give(self, uid: int, kind: Kind, size: int = 1) -> None:
        """Count `size` less."""
        held = self._held[kind]
        self._all[kind] -= size
        held[uid] -= size
        if not held[uid]:
            del held[uid]
