"""Names of classes from the files that people keep them in.

Understood: one name per line; `N name`, `N: name`, `N,name`, `N. name` with gaps, and the name first; CSV with a line
of column names; object detection's `.pbtxt`; JSON lists and tables, alone or in the files that trainers write (COCO,
Keras, Hugging Face, Ultralytics, whose YAML is understood too); UTF-8, UTF-16 and Windows-1252; a first line `???` or
`background`; empty lines; remarks below an empty line.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .label_tables import MAX_CLASSES, columns, dashed_rows, notation, pbtxt, reversed_rows, yaml

#: What stands for the class of nothing.
PLACEHOLDERS: Final = frozenset(
    {"???", "background", "__background__", "_background_", "n/a", "none of the above", "unlabeled", "unlabelled"}
)

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NUMBERED: Final = re.compile(r"\s*[(\[]?([0-9]{1,7})(\s*[:,;=|]\s*|[.)\]]\s+|\s+-\s+|\s+)(\S.*)")
#: A name with ImageNet's number of it in front.
_SYNSET: Final = re.compile(r"n[0-9]{8}[\s,:]+(\S.*)")
#: The class of a number whose name was left out.
_NAMELESS: Final = re.compile(r"\s*([0-9]{1,7})(\s*[:,;=|.)]?)()")
_REMARKS: Final = ("# ", "//")
#: What a first line is called that names the only column.
_TITLES: Final = frozenset({"label", "labels", "name", "names", "class", "classes", "class_name", "class name"})
_QUOTED: Final = re.compile(r""""([^"]*)",?|'([^']*)',?""")
_QUOTED_NUMBER: Final = re.compile(r'"([0-9]{1,7})"')


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of classes and what about them was not certain."""

    #: Name n is class n's; "" = the class has none.
    names: tuple[str, ...] = ()
    #: What was assumed, for the author to check.
    notes: tuple[str, ...] = ()


def parse(raw: bytes | str, classes: int | None = None) -> Labels:
    """Read a label file. `classes` = how many scores the model gives, where that is known: it settles doubts."""
    text, notes = (raw, []) if isinstance(raw, str) else _decoded(raw)
    stripped = text.strip()
    table = next((t for t in (read(stripped) for read in (pbtxt, notation, yaml)) if t is not None), None)
    if table is None:
        lines = _stripped(text, classes)
        table = columns(lines) or _numbered(lines, classes, notes) or reversed_rows(lines) or dashed_rows(lines)
        names = _named(table) if table is not None else _plain(lines, classes, notes)
        if stripped.startswith(("{", "[", "<")) and table is None:
            notes.append(
                "the labels look like JSON or XML of a kind that is not known here; each line is taken for a name"
            )
    else:
        names = _named(table)
    return _aligned(names, classes, notes)


def _stripped(text: str, classes: int | None) -> list[str]:
    """Lines without what stands around them: white space, empty lines before, quotation marks, remarks."""
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[0]:
        lines.pop(0)
    quoted = [_QUOTED.fullmatch(line) for line in lines if line]
    if quoted and all(quoted):
        lines = [row.group(1) or row.group(2) or "" for row in quoted if row is not None]
    lines = [_QUOTED_NUMBER.sub(r"\1", line, count=1) if line.startswith('"') else line for line in lines]
    synsets = [_SYNSET.fullmatch(line) for line in lines if line]
    if len(synsets) > 1 and all(synsets):
        lines = [row.group(1) for row in synsets if row is not None]
    plain = [line for line in lines if not line.startswith(_REMARKS)]
    filled = sum(map(bool, plain))
    if len(plain) < len(lines) and (
        filled == classes or (plain and all(map(_NUMBERED.fullmatch, filter(None, plain))))
    ):
        return plain
    if classes is not None and len(lines) == 1 and lines[0].count(",") == classes - 1:
        return [name.strip() for name in lines[0].split(",")]
    return lines


def _decoded(raw: bytes) -> tuple[str, list[str]]:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace"), []
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if raw[first:200:2].count(0) * 4 > len(raw[first:200:2]) * 3:
            return raw.decode(encoding, "replace"), []
    try:
        return raw.decode(), []
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), ["the labels are not UTF-8; they were read as Windows-1252"]


def _numbered(lines: Sequence[str], classes: int | None, notes: list[str]) -> dict[int, str] | None:
    """Lines that each begin with their class's number; None when they do not, or when the numbers belong to names."""
    rows = [_NUMBERED.fullmatch(line) for line in lines if line]
    if sum(row is not None for row in rows) * 2 <= len(rows):
        return None
    rows = [row or _NAMELESS.fullmatch(line) for row, line in zip(rows, filter(None, lines), strict=True)]
    if any(row is None for row in rows):
        return None
    numbered = [(int(row.group(1)), row.group(2), row.group(3)) for row in rows if row is not None]
    numbers = [number for number, _, _ in numbered]
    if sorted(set(numbers)) != numbers or numbers[-1] >= MAX_CLASSES:
        return None
    table = {number: _bare(name) for number, _, name in numbered}
    if classes is None or numbers[-1] < classes:
        return table
    counted = numbers == list(range(1, len(numbers) + 1))
    if counted and len(numbers) == classes and not all(gap == " " for _, gap, _ in numbered):
        notes.append(f"the labels are numbered from 1: class 0 is called {numbered[0][2]!r}")
        return {number - 1: name for number, name in table.items()}
    if all(gap == " " for _, gap, _ in numbered) and len(numbers) <= classes:
        return None  # "2 euro": the number is part of the name
    return table


def _bare(name: str) -> str:
    """A name without the quotation marks and the comma that stand around it."""
    quoted = _QUOTED.fullmatch(name)
    return (quoted.group(1) or quoted.group(2) or "") if quoted is not None else name.strip("\"' ")


def _named(table: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(table.get(n, "") for n in range(min(max(table, default=-1) + 1, MAX_CLASSES)))


def _plain(lines: list[str], classes: int | None, notes: list[str]) -> tuple[str, ...]:
    """One name per line. An empty line ends the names, unless the number of classes says that names follow it."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    if "" not in lines:
        return tuple(lines)
    first, without = tuple(lines[: lines.index("")]), tuple(line for line in lines if line)
    if classes is not None:
        for names in (first, without, tuple(lines)):
            if len(names) == classes:
                return names
        for names in (first, without):
            if len(names) + 1 == classes:
                return names
    notes.append(f"the labels have an empty line after {len(first)} names; what follows it was left out")
    return first


def _aligned(names: tuple[str, ...], classes: int | None, notes: list[str]) -> Labels:
    """Make names and scores go together where it is clear how; else say which class would be called what."""
    if not names or classes is None or len(names) == classes:
        return Labels(names, tuple(notes))
    if len(names) == classes + 1 and names[0].lower() in _TITLES:
        return Labels(names[1:], tuple(notes))
    last = len(names) - 1
    if len(names) + 1 == classes and names[0].lower() not in PLACEHOLDERS and classes > 2:
        notes.append(
            f"{len(names)} labels for {classes} scores: class 0 is taken for the background, class 1 is called "
            f"{names[0]!r} and class {classes - 1} {names[last]!r}"
        )
        return Labels(("background", *names), tuple(notes))
    if len(names) == classes + 1 and names[0].lower() in PLACEHOLDERS:
        notes.append(f"the first label {names[0]!r} is left out: class 0 is called {names[1]!r}")
        return Labels(names[1:], tuple(notes))
    if len(names) < classes and "" in names:
        return Labels(names, tuple(notes))  # numbered, with gaps: classes without a name are called by their number
    shown = min(last, classes - 1)
    notes.append(
        f"{len(names)} labels for {classes} scores: class 0 would be called {names[0]!r} and class {shown} "
        f"{names[shown]!r}; check the label file"
    )
    return Labels(names, tuple(notes))
