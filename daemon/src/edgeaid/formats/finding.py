"""What a reader noticed about a file it could read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The runtime or device refuses the file.
REFUSED: Final = "refused"
#: It runs, perhaps not as its owner expects.
WARNING: Final = "warning"
#: Worth knowing.
NOTE: Final = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark, with a stable short name so that programs can act on it."""

    #: REFUSED, WARNING or NOTE.
    severity: str
    #: For example "min-runtime".
    rule: str
    text: str
