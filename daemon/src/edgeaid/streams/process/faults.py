"""What a source may do wrong."""

from __future__ import annotations


class SourceError(Exception):
    """The source gives no pictures; the text says why."""

    def __init__(self, text: str, *, final: bool = False, pause: float = 0.0) -> None:
        super().__init__(text)
        #: Another attempt cannot succeed before something is changed.
        self.final = final
        #: Least seconds before the next try.
        self.pause = pause
