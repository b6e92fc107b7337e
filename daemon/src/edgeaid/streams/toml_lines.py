"""On which line of a TOML file a value stands, so that a wrong value can be pointed at.

The standard library's reader tells lines of syntax errors only. This follows headers and keys at the start of lines,
which is how people write such files; a value inside an inline table or array is found by the line of its outermost key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from ..tables import KeyPath

# Blanks inside the brackets are left to _PART: two repetitions that both take blanks would try every way to share them.
_HEADER: Final = re.compile(r"\s*(\[\[?)([^\[\]]+)\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(
    r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)
#: Texts and comments, in which brackets mean nothing; a text of many lines (its first group) need not end in its line.
_QUIET: Final = re.compile(r"""("{3}|'{3}).*?(?:(\1)|$)|"(?:[^"\\]|\\.)*"|'[^']*'|#.*""")
_PART: Final = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


def _parts(text: str) -> list[str]:
    return ["".join(groups) for groups in _PART.findall(text)]


def lines_of(text: str) -> dict[KeyPath, int]:
    """Line number, from 1, of each header and key, by its path; array elements are counted from 0."""
    places: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in _statements(text):
        header = _HEADER.match(line)
        if header is not None:
            table = _resolve(_parts(header[2]), counts, new=header[1] == "[[")
            places.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            places.setdefault((*table, *_parts(key[1])), number)
    return places


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that begin a header or a key: not those inside an array or a text of many lines."""
    depth, until = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        rest = line
        if until:
            _, quote, rest = line.partition(until)
            if not quote:
                continue
            until = ""
        elif not depth:
            yield number, line
            if not _KEY.match(line):
                continue
        for quiet in _QUIET.finditer(rest):
            if quiet[1] and not quiet[2]:
                until = quiet[1]
        rest = _QUIET.sub("", rest)
        depth = max(0, depth + sum(map(rest.count, "[{")) - sum(map(rest.count, "]}")))


def _resolve(parts: Sequence[str], counts: dict[KeyPath, int], *, new: bool) -> KeyPath:
    """Path of a header: tables inside an array belong to its last element."""
    path: KeyPath = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        if new and position == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def line_of(text: str, path: KeyPath) -> int:
    """Line of a path or of the nearest table around it; 0 when there is none."""
    places = lines_of(text)
    while path:
        if path in places:
            return places[path]
        path = path[:-1]
    return 0
