"""Tables and colours for terminals, and plain text for everything else."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

#: Narrower than this, texts that may be shortened are left out.
MIN_ELASTIC: Final = 12
GAP: Final = "  "
_BARS: Final = "▁▂▃▄▅▆▇█"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_COLORS: Final = {
    "ready": "green", "ok": "green", "available": "green",
    "loading": "yellow", "warning": "yellow", "recovering": "yellow", "degraded": "yellow", "note": "cyan",
    "problem": "red", "unavailable": "red", "failed": "red", "error": "red", "lost": "red", "quarantined": "red",
}  # fmt: skip


def plain(value: object) -> str:
    """A text without control sequences of terminals: names and labels come from others."""
    return _CONTROL.sub("?", "" if value is None else str(value))


def state(text: str) -> str:
    """A state's name in its colour."""
    return click.style(text, fg=_COLORS.get(text.lower()))


def width() -> int:
    """Columns to write in: the terminal's, or no limit in a pipe or file. COLUMNS decides where it is set."""
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given) > 0:
        return int(given)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20


@dataclass(frozen=True, slots=True)
class Column:
    """How a table's column may be treated where there is little room. By default it is shown whole."""

    title: str
    right: bool = False
    #: 0 = never left out; otherwise the highest numbers go first.
    drop: int = 0
    #: May be cut at its end, with an ellipsis: for sentences, never for identifiers.
    elastic: bool = False
    style: Callable[[str], str] | None = field(default=None)


def columns(*titles: str) -> tuple[Column, ...]:
    """Columns from texts: 'NAME', 'SIZE>' (right), 'TASK?2' (dropped second), 'NOTE~' (shortened)."""
    made = []
    for text in titles:
        title, _, order = text.partition("?")
        right, elastic = title.endswith(">"), title.endswith("~")
        name = title.rstrip(">~")
        style = state if name == "STATE" else None
        made.append(Column(name, right, int(order) if order else 0, elastic, style))
    return tuple(made)


def table(titles: Sequence[str | Column], rows: Iterable[Sequence[object]], title: str = "") -> str:
    """A plain table. Identifiers are never cut or folded: other columns are shortened or left out instead."""
    shape = [t if isinstance(t, Column) else columns(t)[0] for t in titles]
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        return title or "(none)"
    kept = [i for i, c in enumerate(shape) if c.title or any(row[i] for row in cells) or not c.drop]
    widths = [max(len(c.title), *(len(row[i]) for row in cells)) for i, c in enumerate(shape)]
    room = width()

    def total() -> int:
        return sum(min(widths[i], MIN_ELASTIC) if shape[i].elastic else widths[i] for i in kept) + len(GAP) * (
            len(kept) - 1
        )

    while total() > room and (losable := [i for i in kept if shape[i].drop]):
        kept.remove(max(losable, key=lambda i: shape[i].drop))
    elastic = [i for i in kept if shape[i].elastic]
    fixed = sum(widths[i] for i in kept if i not in elastic) + len(GAP) * (len(kept) - 1)
    for i in elastic:
        widths[i] = max(MIN_ELASTIC, min(widths[i], (room - fixed) // len(elastic)))
    lines = [title] if title else []
    if any(shape[i].title for i in kept):
        lines.append(click.style(_line([(shape[i].title, widths[i], shape[i]) for i in kept], styled=False), bold=True))
    lines += [_line([(row[i], widths[i], shape[i]) for i in kept]) for row in cells]
    return "\n".join(lines)


def _line(parts: Sequence[tuple[str, int, Column]], *, styled: bool = True) -> str:
    texts = []
    for text, room, column in parts:
        shown = text if len(text) <= room or not column.elastic else text[: room - 1] + "…"
        padded = shown.rjust(room) if column.right else shown.ljust(room)
        texts.append(padded.replace(shown, column.style(shown), 1) if styled and column.style and shown else padded)
    return GAP.join(texts).rstrip()


def spark(values: Sequence[float], length: int) -> str:
    """The last values as bars, the highest one full."""
    last = list(values)[-length:]
    high = max(last, default=0.0)
    return "".join(_BARS[min(7, int(v / high * 7.999))] if high > 0 else _BARS[0] for v in last)


def hint(text: str) -> None:
    """A remark for people, on standard error."""
    click.echo(text, err=True)


def picture_lines(data: bytes, columns_: int | None = None) -> str:
    """A picture as half blocks in 24-bit colour, two pixels per character."""
    import io

    from PIL import Image

    image: Any = Image.open(io.BytesIO(data)).convert("RGB")
    wide = min(columns_ or shutil.get_terminal_size().columns, 120)
    high = max(2, round(image.height * wide / image.width / 2) * 2)
    pixels = image.resize((wide, high)).load()
    lines = []
    for y in range(0, high, 2):
        cells = []
        for x in range(wide):
            (r, g, b), (r2, g2, b2) = pixels[x, y], pixels[x, y + 1]
            cells.append(f"\x1b[38;2;{r};{g};{b};48;2;{r2};{g2};{b2}m▀")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
