"""What the toolkit's pages share: commands to copy, graphs to zoom. Self-contained, and readable without the script."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

_PARTS: Final = Path(__file__).with_name("page.html").read_text("utf-8")
STYLE: Final = _PARTS[_PARTS.index("<style>") + 7 : _PARTS.index("</style>")]
#: Opens a graph so that it fills its box, zooms it by buttons or Ctrl and wheel, drags it; copies commands.
SCRIPT: Final = _PARTS[_PARTS.index("<script>") + 8 : _PARTS.index("</script>")]


def command(text: str) -> str:
    """A command in a box that wraps it, with a button that copies it."""
    return f'<div class="command"><pre>{escape(text)}</pre><button type="button" hidden>copy</button></div>'


def graph(svg: str) -> str:
    """A graph in a box; without the script it can be scrolled."""
    return f'<div class="graphbox"><div class="zoom"></div><div class="scroll">{svg}</div></div>'


def verdict(text: str, grade: str) -> str:
    """The first thing that a page says; `grade`: good, part or bad."""
    return f'<p class="verdict {grade}">{escape(text)}</p>'
