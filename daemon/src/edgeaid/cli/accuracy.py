"""How often a classifier is right on a directory of labelled pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import errors
from .common import Session
from .pictures import FORMATS
from .text import hint, table

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers, and which labels were taken for which."""

    right: int
    asked: int
    #: Pictures that could not be read.
    unread: int
    #: (label, answer) -> how often, for wrong ones.
    mistakes: Counter[tuple[str, str]]

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.right / self.asked if self.asked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        mistakes = [{"label": a, "answer": b, "count": n} for (a, b), n in self.mistakes.most_common()]
        return {
            "right": self.right, "asked": self.asked, "unread": self.unread, "accuracy": self.share,
            "mistakes": mistakes,
        }  # fmt: skip

    def text(self) -> str:
        """For people."""
        line = f"accuracy: {self.right} of {self.asked} pictures, {self.share:.1%}"
        if self.unread:
            line += f"; {self.unread} could not be read"
        rows = [(n, a, b) for (a, b), n in self.mistakes.most_common(_SHOWN)]
        return f"{line}\n{table(('WRONG>', 'LABEL', 'ANSWER'), rows)}" if rows else line


def labelled(directory: Path) -> tuple[tuple[str, Path], ...]:
    """(label, picture) of every picture below `directory`, whose subdirectories are named by label or class number.

    InvalidRequest where there is none.
    """
    cases = tuple(
        (subdirectory.name, file)
        for subdirectory in sorted(p for p in directory.iterdir() if p.is_dir())
        for file in sorted(subdirectory.iterdir())
        if file.suffix.lower() in FORMATS
    )
    if not cases:
        raise errors.InvalidRequest(
            f"{directory} has no pictures in subdirectories named by label, such as {directory}/cat/1.jpg"
        )
    return cases


def measure(session: Session, model: str, cases: Sequence[tuple[str, Path]]) -> Accuracy:
    """Classify labelled pictures and count the right answers."""
    right = unread = 0
    mistakes: Counter[tuple[str, str]] = Counter()
    for label, file in cases:
        try:
            best = session.client.classify(model, file, max_results=1).classes[0]
        except errors.InvalidRequest as error:
            if "is made for" in str(error):
                raise
            unread += 1
            hint(f"{file}: {error}")
            continue
        if label.casefold() in (best.label.casefold(), str(best.index)):
            right += 1
        else:
            mistakes[label, best.label or str(best.index)] += 1
    return Accuracy(right, len(cases) - unread, unread, mistakes)
