"""Names of classes from the files that people keep them in.

Understood: one name per line; `N name`, `N: name`, `N,name` with gaps; object detection's `.pbtxt`; JSON lists and
tables; UTF-8, UTF-16 and Windows-1252; a first line `???` or `background`; empty lines; remarks below an empty line.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Numbers of classes above this are not numbers of classes.
MAX_CLASSES: Final = 1 << 17
#: Characters of a first line that names columns, and of a table in Python's notation, which takes long to read.
MAX_HEADER: Final = 100
MAX_PYTHON: Final = 1 << 17
#: What stands for the class of nothing.
PLACEHOLDERS: Final = frozenset({"???", "background", "__background__", "_background_", "n/a", "none of the above"})

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NUMBERED: Final = re.compile(r"\s*(\d{1,7})(\s*[:,;=|]\s*|\s+)(\S.*)")
_ITEM: Final = re.compile(r"item\s*\{")
_ID: Final = re.compile(r"\bid\s*:\s*(\d{1,7})")
_NAME: Final = re.compile(r"\b(display_name|name)\s*:\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)')")
_HEADER: Final = re.compile(
    r"(id|index|class|class_?id|number)\s*[,;\t]\s*(name|label|class|class_?name)", re.IGNORECASE
)


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
    table = _pbtxt(stripped) or _json(stripped)
    if table is None:
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[0]:
            lines.pop(0)
        if lines and len(lines[0]) <= MAX_HEADER and _HEADER.fullmatch(lines[0]):
            lines.pop(0)
        numbered = _numbered(lines, classes, notes)
        names = _named(numbered) if numbered is not None else _plain(lines, classes, notes)
    else:
        names = _named(table)
    return _aligned(names, classes, notes)


def _decoded(raw: bytes) -> tuple[str, list[str]]:
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw.decode(encoding, "replace"), []
    if raw[1:200:2].count(0) * 4 > len(raw[1:200:2]) * 3:
        return raw.decode("utf-16-le", "replace"), []
    try:
        return raw.decode(), []
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), ["the labels are not UTF-8; they were read as Windows-1252"]


def _pbtxt(text: str) -> dict[int, str] | None:
    """Object detection's label map: `item { id: 1 name: "..." display_name: "..." }`."""
    rest = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).lstrip()
    if not _ITEM.match(rest):
        return None
    table = {}
    # Cut at the brackets: a search for both would look through the whole text from each one that is not closed.
    for part in rest.split("}")[:-1]:
        item = part.partition("{")[2]
        number = _ID.search(item)
        names = {m.group(1): m.group(2) or m.group(3) for m in _NAME.finditer(item)}
        name = names.get("display_name") or names.get("name")
        if number is not None and name and int(number.group(1)) < MAX_CLASSES:
            table[int(number.group(1))] = name
    return table or None


def _json(text: str) -> dict[int, str] | None:
    """A list of names, or a table of numbers and names either way round."""
    if not text.startswith(("[", "{")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if len(text) > MAX_PYTHON:
            return None
        try:
            value = ast.literal_eval(text)  # Ultralytics writes Python's notation
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    if isinstance(value, dict) and isinstance(value.get("names"), dict | list):
        value = value["names"]
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return dict(enumerate(value))
    if not isinstance(value, dict):
        return None
    table: dict[int, str] = {}
    for left, right in value.items():
        swapped = isinstance(right, int) and not isinstance(right, bool)
        key, entry = (str(right), left) if swapped else (str(left), right)
        if not key.isascii() or not key.isdecimal() or len(key) > 7 or not isinstance(entry, str):
            return None
        table[int(key)] = entry
    return table


def _numbered(lines: Sequence[str], classes: int | None, notes: list[str]) -> dict[int, str] | None:
    """Lines that each begin with their class's number; None when they do not, or when the numbers belong to names."""
    rows = [_NUMBERED.fullmatch(line) for line in lines if line]
    if not rows or any(row is None for row in rows):
        return None
    numbered = [(int(row.group(1)), row.group(2), row.group(3)) for row in rows if row is not None]
    numbers = [number for number, _, _ in numbered]
    if sorted(set(numbers)) != numbers or numbers[-1] >= MAX_CLASSES:
        return None
    table = {number: name.strip("\"' ") for number, _, name in numbered}
    if classes is None or numbers[-1] < classes:
        return table
    counted = numbers == list(range(1, len(numbers) + 1))
    if counted and len(numbers) == classes and not all(gap == " " for _, gap, _ in numbered):
        notes.append(f"the labels are numbered from 1: class 0 is called {numbered[0][2]!r}")
        return {number - 1: name for number, name in table.items()}
    if all(gap == " " for _, gap, _ in numbered) and len(numbers) <= classes:
        return None  # "2 euro": the number is part of the name
    return table


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
