"""What is counted for one HTTP connection: itself, bytes received, answers that its client does not read."""

from __future__ import annotations

from ...serving.holdings import Holdings, Kind


class Account:
    """A connection's part of its user's holdings, from its admission to `close`."""

    __slots__ = ("_held", "_holdings", "_uid", "unread")

    def __init__(self, holdings: Holdings, uid: int) -> None:
        self._holdings = holdings
        self._uid = uid
        #: Bytes of the plain body, of a picture under way and of what came behind a request.
        self._held = 0
        #: Bytes of answers that the client has not read.
        self.unread = 0

    def take(self, size: int) -> None:
        """Count bytes that came. Unavailable over a limit."""
        self._holdings.take(self._uid, Kind.BYTES, size)
        self._held += size

    def give(self, size: int) -> None:
        """Bytes that came are held no more; those that `close` gave back already are not given back again."""
        size = min(size, self._held)
        self._holdings.give(self._uid, Kind.BYTES, size)
        self._held -= size

    def set_unread(self, size: int) -> None:
        """So many bytes of answers lie here now; they are counted whatever the limits."""
        self._holdings.add(self._uid, Kind.BYTES, size - self.unread)
        self.unread = size

    def close(self) -> None:
        """Give back all of it, and the connection."""
        self._holdings.give(self._uid, Kind.HTTP)
        self.give(self._held)
        self._holdings.give(self._uid, Kind.BYTES, self.unread)
        self.unread = 0
