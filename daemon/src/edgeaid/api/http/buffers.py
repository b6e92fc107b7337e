"""Memory for requests whose bodies are not whole yet."""

from __future__ import annotations

from ... import errors
from ...serving.plane import Plane


class Buffers:
    """Bounds what the bodies of all connections take while they are not whole."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.taken = 0

    def take(self, size: int) -> None:
        """Count bytes; Unavailable when there are too many."""
        limit = self.plane.config.limits.buffer_bytes
        if self.taken + size > limit:
            raise errors.Unavailable(f"the bodies of all connections together take over {limit} bytes; ask again")
        self.taken += size

    def give(self, size: int) -> None:
        """Forget bytes."""
        self.taken -= size
