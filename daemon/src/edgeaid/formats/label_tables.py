"""Label files that are more than one name per line: object detection's label maps, JSON, YAML and CSV.

Each reader gives the names by their class's number, or None for a text of another kind; each takes time in proportion
to the text, whatever is in it.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Sequence
from typing import Any, Final

#: Numbers of classes above this are not numbers of classes.
MAX_CLASSES: Final = 1 << 17
#: Characters of a table in Python's notation, which takes long to read, and of a first line that names columns.
MAX_PYTHON: Final = 1 << 17
MAX_HEADER: Final = 200

#: A text that does not end is a token too: a search from each of its quotation marks would never end.
_TOKEN: Final = re.compile(
    r"""#[^\n]*|"(?:[^"\\]++|\\.)*+"?|'(?:[^'\\]++|\\.)*+'?|[{}<>]|[A-Za-z_][A-Za-z_0-9]*+|-?[0-9]++""", re.DOTALL
)
_ITEM: Final = re.compile(r"(?:\s++|#[^\n]*+)*+item\s*:?\s*[{<]")
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPED: Final = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}
_NUMBER: Final = re.compile(r"-?[0-9]{1,7}")

#: Where files of JSON and YAML keep the names, and how tables call a number and a name.
_PLACES: Final = ("names", "categories", "id2label", "labels", "classes", "label2id", "class_names")
_NUMBERS: Final = (
    "id",
    "index",
    "idx",
    "class",
    "classid",
    "class_id",
    "class id",
    "number",
    "label_id",
    "category_id",
)
_NAMES: Final = ("display_name", "name", "label", "class_name", "classname", "class name", "category", "title", "class")

#: What programs write before a list: `labels =`, `export const LABELS =`.
_ASSIGNED: Final = re.compile(r"(?:export\s+)?(?:(?:const|let|var)\s+)?[A-Za-z_]\w{0,60}\s*=\s*(?=[\[{(])")
_DASHED: Final = re.compile(r"([0-9]{1,7})-(\S.*)")

_YAML: Final = re.compile(rf"^(?:{'|'.join(_PLACES)})[ \t]*:[ \t]*(.*)$", re.MULTILINE)
_YAML_ROW: Final = re.compile(r"[ \t]*(?:([0-9]{1,7})[ \t]*:|-)[ \t]+(\S.*)")


def pbtxt(text: str) -> dict[int, str] | None:
    """Object detection's label map: `item { id: 1 name: "..." display_name: "..." }`."""
    if not _ITEM.match(text):
        return None
    table: dict[int, str] = {}
    item: dict[str, str] = {}
    depth, key = 0, ""
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in ("{", "<"):
            depth, key = depth + 1, ""
            item = item if depth > 1 else {}
        elif token in ("}", ">"):
            depth -= 1
            name, number = item.get("display_name") or item.get("name"), item.get("id", "")
            if depth == 0 and name and _NUMBER.fullmatch(number) and 0 <= int(number) < MAX_CLASSES:
                table[int(number)] = name
        elif token[0] in "\"'-0123456789":
            if depth == 1 and key:
                item.setdefault(key, _unescaped(_bare(token)) if token[0] in "\"'" else token)
            key = ""
        elif token[0] != "#":
            key = token
    return table or None


def _unescaped(text: str) -> str:
    """What protobuf's text format means: bytes that are not ASCII stand in it as octal numbers."""
    if "\\" not in text:
        return text

    def byte(match: re.Match[bytes]) -> bytes:
        code = match.group(1)
        if code[:1] == b"x" and len(code) > 1:
            return bytes([int(code[1:], 16)])
        return bytes([int(code, 8) & 255]) if code.isdigit() else _ESCAPED.get(code, code)

    return _ESCAPE.sub(byte, text.encode()).decode(errors="replace")


def notation(text: str) -> dict[int, str] | None:
    """JSON or Python's notation: a list of names, a table of numbers and names either way round, lists of entries."""
    assigned = _ASSIGNED.match(text)
    if assigned is not None:
        text = text[assigned.end() :].rstrip("; \t\r\n")
    elif not text.startswith(("[", "{")):
        return None
    try:
        value = json.loads(_one_list(text))
    except (ValueError, RecursionError):
        if len(text) > MAX_PYTHON:
            return None
        try:
            value = ast.literal_eval(text)  # Ultralytics writes Python's notation
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None
    if isinstance(value, dict):
        value = next((value[place] for place in _PLACES if isinstance(value.get(place), dict | list)), value)
    if isinstance(value, list | tuple):
        return _listed(list(value))
    return _tabled(value) if isinstance(value, dict) else None


def _one_list(text: str) -> str:
    """JSON lines, an object each, as one list; other texts as they are."""
    lines = text.split("\n")
    objects = len(lines) > 1 and all(line.strip()[:1] == "{" and line.strip()[-1:] == "}" for line in lines)
    return f"[{','.join(lines)}]" if objects else text


def _listed(values: list[Any]) -> dict[int, str] | None:
    table: dict[int, str] = {}
    for position, value in enumerate(values):
        number: Any = position
        if isinstance(value, dict):
            number = next((value[k] for k in _NUMBERS if k in value), position)
        name = _name(value)
        if name is None or not isinstance(number, int) or not 0 <= number < MAX_CLASSES:
            return None
        table[number] = name
    return table


def _tabled(values: dict[Any, Any]) -> dict[int, str] | None:
    table: dict[int, str] = {}
    for left, right in values.items():
        swapped = isinstance(right, int) and not isinstance(right, bool)
        key, name = (str(right), str(left)) if swapped else (str(left), _name(right))
        if not key.isascii() or not key.isdecimal() or len(key) > 7 or name is None:
            return None
        table[int(key)] = name
    return table


def _name(value: object) -> str | None:
    """The name in an entry: a text, an object with one, or ImageNet's pair of synset and name. None = there is none."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = next((value[k] for k in _NAMES if isinstance(value.get(k), str)), None)
    elif isinstance(value, list | tuple) and 0 < len(value) <= 3:
        value = value[-1]
    return value if isinstance(value, str) else None


def yaml(text: str) -> dict[int, str] | None:
    """The names in a data set's description as Ultralytics has it: `names:` with a list or a table."""
    start = _YAML.search(text)
    if start is None:
        return None
    given = start.group(1).partition(" #")[0].strip()
    if given.startswith(("[", "{")):
        inside = text[start.start(1) :].partition("]" if given[0] == "[" else "}")[0]
        whole = inside + ("]" if given[0] == "[" else "}")
        table = notation(whole)
        return table if table is not None else _flow(inside[1:].split(","), numbered=given[0] == "{")
    table = {}
    for line in text[start.end() :].splitlines() if not given else ():
        row = _YAML_ROW.fullmatch(line.rstrip())
        if row is not None and int(row.group(1) or 0) < MAX_CLASSES:
            table[int(row.group(1)) if row.group(1) else len(table)] = _bare(row.group(2).partition(" #")[0])
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return table or None


def _flow(entries: list[str], *, numbered: bool) -> dict[int, str] | None:
    """YAML's lists and tables in brackets, whose names need no quotation marks."""
    if not numbered:
        return dict(enumerate(_bare(name) for name in entries if name.strip()))
    table = {}
    for number, _, name in (entry.partition(":") for entry in entries if entry.strip()):
        if not _NUMBER.fullmatch(number.strip()) or not 0 <= int(number) < MAX_CLASSES:
            return None
        table[int(number)] = _bare(name)
    return table


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def columns(lines: Sequence[str]) -> dict[int, str] | None:
    """CSV whose first line names its columns, one of them the number, another the name."""
    head = lines[0].lower() if lines and len(lines[0]) <= MAX_HEADER else ""
    separator = next((s for s in "\t;," if s in head), "")
    if not separator:
        return None
    try:
        named, *rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    except csv.Error:
        return None
    titles = [title.strip().lower() for title in named]
    number = next((titles.index(t) for t in _NUMBERS if t in titles), -1)
    names = [i for t in _NAMES for i, title in enumerate(titles) if i != number and title.endswith(t)]
    if number < 0 or not names:
        return None
    table = {}
    for row in rows:
        if not row:
            continue
        if len(row) <= max(number, names[0]) or not _NUMBER.fullmatch(row[number].strip()):
            return None
        if 0 <= int(row[number]) < MAX_CLASSES:
            table[int(row[number])] = row[names[0]].strip()
    return table or None


def dashed_rows(lines: Sequence[str]) -> dict[int, str] | None:
    """`N-name`, every number from 0 in its place: others are names that begin with a number."""
    rows = [_DASHED.fullmatch(line) for line in lines if line]
    table = {int(row.group(1)): row.group(2) for row in rows if row is not None}
    return table if len(rows) > 1 and list(table) == list(range(len(rows))) else None


def reversed_rows(lines: Sequence[str]) -> dict[int, str] | None:
    """`name,N`: lines that each end with their class's number, every number from 0 once.

    White space alone does not separate them: "class 1" is a name.
    """
    table: dict[int, str] = {}
    for line in filter(None, lines):
        front = line.rstrip("0123456789")
        number, name = line[len(front) :], front.rstrip(" ")
        if not 0 < len(number) <= 7 or name[-1:] not in (":", ",", ";", "=", "|", "\t") or not name[:-1].strip():
            return None
        table[int(number)] = _bare(name[:-1])
    rows = sum(map(bool, lines))
    return table if rows > 1 and sorted(table) == list(range(rows)) and len({*table.values()}) == rows else None
