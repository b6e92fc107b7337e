"""A file that a person typed: its text in whatever encoding, and what is probably wrong with a line."""

from __future__ import annotations

import codecs
import re
from typing import Final

#: What stands in a text for bytes that are none.
UNREADABLE: Final = "\N{REPLACEMENT CHARACTER}"
_TYPOGRAPHIC: Final = frozenset("\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb")


def decoded(data: bytes) -> tuple[str, list[int]]:
    """Text in UTF-8, or in UTF-16 as Windows calls Unicode, lines ending with \\n, and the numbers of lines that
    are neither: they are empty in it.
    """
    unreadable: list[int] = []
    text = utf16(data)
    if text is not None:
        return text.replace("\r\n", "\n").replace("\r", "\n"), unreadable
    lines = []
    for number, line in enumerate(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), 1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            lines.append("")
            unreadable.append(number)
    return "\n".join(lines), unreadable


def utf16(data: bytes) -> str | None:
    """Text in UTF-16, with its mark or without; None for other files."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if data[first:200:2].count(0) * 4 > len(data[first:200:2]) * 3:
            return data.decode(encoding, "replace")
    return None


def hint(line: str) -> str:
    """What is probably wrong with a line that is not TOML."""
    if _TYPOGRAPHIC & set(line):
        return 'it has typographic quotation marks where " is needed'
    if "\u00a0" in line:
        return "it has a no-break space where a plain one is needed"
    if re.match(r"\s*[A-Za-z_]+\s*:", line):
        return "write = for the colon"
    return "texts need quotes at both ends"
