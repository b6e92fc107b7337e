"""How long to wait for something that was done before: a multiple of what it took, not the longest that it ever may.

A device that hangs is opened again, and hangs in that too. Waiting each time as long as its first opening may take
(firmware is uploaded, the device re-enumerates) would keep it away for a minute per try.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Seconds that are always granted: a machine may be busy, and a reset device needs its firmware once more.
SHORTEST: Final = 10.0
#: How much longer than the last time it may take.
FACTOR: Final = 5.0


@dataclass(slots=True)
class Patience:
    """One thing that is done again and again."""

    #: Seconds that it took when it last succeeded; None = it never has.
    took: float | None = None
    #: Times in a row that the limit ran out since.
    ran_out: int = 0

    def limit(self, longest: float) -> float:
        """Seconds to wait, `longest` at most; twice as long after each time that it was not enough."""
        if self.took is None:
            return longest
        return min(max(SHORTEST, FACTOR * self.took) * 2.0**self.ran_out, longest)

    def succeeded(self, seconds: float) -> None:
        """It was done within so many seconds."""
        self.took, self.ran_out = seconds, 0

    def gave_up(self) -> None:
        """The limit ran out."""
        self.ran_out += 1
