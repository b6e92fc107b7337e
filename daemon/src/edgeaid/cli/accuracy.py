"""How often a model is right on a directory of labelled pictures."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import errors
from .common import Session
from .pictures import FORMATS
from .text import hint, table

if TYPE_CHECKING:
    from ..client import Client

_SHOWN: Final = 10
#: What file managers and notebooks leave beside pictures.
_OF_TOOLS: Final = re.compile(r"\.|__MACOSX$")
_BETWEEN: Final = re.compile(r"[\s_/\\:-]+")
#: An area below this part of the picture is taken for noise.
_AREA: Final = 0.01
#: (class number, name), what is surest first.
Seen = Sequence[tuple[int, str]]
#: What a right answer is, by task.
RIGHT: Final = {
    "classify": "the best class is the label",
    "detect": "an object of the label was detected",
    "pose": "an object of the label was detected",
    "segment": f"the label covers at least {_AREA:.0%} of the picture",
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers, and which labels were taken for which."""

    task: str
    right: int
    asked: int
    #: Pictures that could not be read.
    unread: int
    #: (label, answer) -> how often, for wrong ones.
    mistakes: Counter[tuple[str, str]]
    #: Labels of directories that no answer was right about: perhaps the model calls them otherwise.
    never: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.right / self.asked if self.asked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        mistakes = [{"label": a, "answer": b, "count": n} for (a, b), n in self.mistakes.most_common()]
        return {
            "task": self.task, "right_means": RIGHT[self.task], "right": self.right, "asked": self.asked,
            "unread": self.unread, "accuracy": self.share, "mistakes": mistakes, "never_right": list(self.never),
        }  # fmt: skip

    def text(self) -> str:
        """For people."""
        line = f"accuracy: {self.right} of {self.asked} pictures, {self.share:.1%}"
        if self.task != "classify":
            line += f" (right: {RIGHT[self.task]})"
        if self.unread:
            line += f"; {self.unread} could not be read"
        if self.never:
            names = ", ".join(map(repr, self.never[:_SHOWN])) + (", ..." if len(self.never) > _SHOWN else "")
            line += (
                f"\nno picture of {names} was right: if the model calls it otherwise, name the directory as the model "
                "does, or by its class number"
            )
        rows = [(n, a, b) for (a, b), n in self.mistakes.most_common(_SHOWN)]
        return f"{line}\n{table(('WRONG>', 'LABEL', 'ANSWER'), rows)}" if rows else line


def labelled(directory: Path) -> tuple[tuple[str, Path], ...]:
    """(label, picture) of every picture below `directory`, whose subdirectories are named by label or class number.

    InvalidData where there is none.
    """
    cases = tuple(
        (subdirectory.name, file)
        for subdirectory in sorted(p for p in directory.iterdir() if p.is_dir() and not _OF_TOOLS.match(p.name))
        for file in sorted(subdirectory.iterdir())
        if file.suffix.lower() in FORMATS and not _OF_TOOLS.match(file.name)
    )
    if not cases:
        raise errors.InvalidData(
            f"{directory} has no pictures in subdirectories named by label, such as {directory}/cat/1.jpg"
        )
    return cases


def measure(session: Session, model: str, task: str, cases: Sequence[tuple[str, Path]]) -> Accuracy:
    """Ask a model of `task` about labelled pictures and count the right answers; `RIGHT` says what these are."""
    unread = 0
    right: Counter[str] = Counter()
    mistakes: Counter[tuple[str, str]] = Counter()
    for label, file in cases:
        try:
            seen = _seen(session.client, model, task, file)
        except errors.InvalidData as error:
            unread += 1
            hint(f"{file}: {error}")
            continue
        if any(_is(label, index, name) for index, name in seen):
            right[label] += 1
        else:
            mistakes[label, seen[0][1] if seen else "(nothing)"] += 1
    never = dict.fromkeys(label for label, _ in mistakes if label not in right)
    return Accuracy(task, right.total(), len(cases) - unread, unread, mistakes, tuple(never))


def _seen(client: Client, model: str, task: str, file: Path) -> Seen:
    """The classes that count as the model's answer."""
    if task == "classify":
        return [(c.index, c.label) for c in client.classify(model, file, max_results=1).classes]
    if task == "segment":
        return [(c.index, c.label) for c in client.segment(model, file).classes if c.fraction >= _AREA]
    answer = client.pose(model, file) if task == "pose" else client.detect(model, file)
    return [(o.index, o.label) for o in answer.objects]


def _is(label: str, index: int, name: str) -> bool:
    """Whether a directory's name means this class. Where names are numbers, a number is a name: 7 is not class 7.

    Of a label that lists synonyms ("tench, Tinca tinca", as ImageNet's do) each will do.
    """
    if _plain(label) in {_plain(name), *map(_plain, name.split(","))}:
        return True
    return label.isdecimal() and int(label) == (int(name) if name.isdecimal() else index)


def _plain(label: str) -> str:
    """A label as directories spell it too: without what a directory's name cannot hold or is spelt otherwise in it."""
    return _BETWEEN.sub(" ", unicodedata.normalize("NFC", label).casefold()).strip()
