"""TOML and JSON tables that people write, taken apart key by key: every value is checked, no key is left over.

What is wrong is raised as `WrongValue` with the path of the key; each kind of file says where that is in its own way.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, overload

from .errors import EdgeaiError

#: Keys and positions from the top of a file.
KeyPath = tuple[str | int, ...]


#: Dots in one line of a TOML file. A dotted key costs the square of its parts: a line of 40 kB would take gigabytes.
MAX_DOTS: Final = 100


def read_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML file from anybody. tomllib.TOMLDecodeError, whatever it is that makes it unreadable."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS and not line.lstrip().startswith("#"):
            raise tomllib.TOMLDecodeError(f"more than {MAX_DOTS} dots (at line {number}, column 1)")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise tomllib.TOMLDecodeError(f"nested too deeply, or a number is too long: {error!s:.200}") from None


class WrongValue(Exception):
    """A value, or the lack of one, that cannot be used. The text follows `dotted(path)` and a colon."""

    def __init__(self, path: KeyPath, text: str) -> None:
        super().__init__(text)
        self.path = path


def dotted(path: KeyPath) -> str:
    """`("stage", 1, "model")` as `stage[1].model`, at most 200 characters."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:200]


@contextmanager
def raising(kind: type[EdgeaiError], where: str = "") -> Iterator[None]:
    """WrongValue becomes `kind`, its text preceded by `where` and the path of the key."""
    try:
        yield
    except WrongValue as error:
        raise kind(": ".join(part for part in (where, dotted(error.path), str(error)) if part)) from error


def is_number(value: object) -> bool:
    """A finite integer or float; TOML's and JSON's booleans are not numbers."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def is_integer(value: object) -> bool:
    """An integer that is not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


class Table:
    """Takes typed values out of a table; `done` refuses what is left over."""

    def __init__(self, content: object, path: KeyPath = ()) -> None:
        self.path = path
        if not isinstance(content, Mapping):
            raise WrongValue(path, "must be a table")
        self.rest = dict(content)
        self._taken: list[str] = []

    def wrong(self, key: str, text: str) -> NoReturn:
        raise WrongValue((*self.path, key), text)

    def take(self, key: str, default: object = None) -> Any:
        """The value as it is."""
        self._taken.append(key)
        return self.rest.pop(key, default)

    def text(self, key: str, default: str | None = None, *, least: int = 1, limit: int = 1024) -> str:
        """A text of `least` to `limit` characters; without a default the key is needed."""
        value = self.take(key, default)
        if value is None:
            self.wrong(key, "is missing")
        if not isinstance(value, str) or not (value == default or least <= len(value) <= limit) or "\0" in value:
            self.wrong(key, f"must be a text of {least} to {limit} characters")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of `choices`; without a default the key is needed."""
        value = self.take(key, default)
        if value is None:
            self.wrong(key, f"is missing: one of {', '.join(choices)}")
        if not isinstance(value, str) or value not in choices:
            self.wrong(key, f"{value!r:.80} is not one of {', '.join(choices)}")
        return value

    @overload
    def number(self, key: str, default: float, low: float, high: float) -> float: ...
    @overload
    def number(self, key: str, default: None, low: float, high: float) -> float | None: ...
    def number(self, key: str, default: float | None, low: float, high: float) -> float | None:
        """A finite number in the range, both ends included."""
        value = self.take(key, default)
        if value is None and default is None:
            return None
        if not is_number(value) or not low <= value <= high:
            self.wrong(key, f"{value!r:.80} is not a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """An integer in the range, both ends included."""
        value = self.take(key, default)
        if not is_integer(value) or not low <= value <= high:
            self.wrong(key, f"{value!r:.80} is not an integer from {low} to {high}")
        return int(value)

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A text or an array of texts."""
        value = self.take(key, [])
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(i, str) and 0 < len(i) <= 256 for i in items):
            self.wrong(key, "must be a text or an array of texts")
        return tuple(items)

    def table(self, key: str) -> Table:
        """A table in this one; an empty one where there is none."""
        return Table(self.take(key, {}), (*self.path, key))

    def tables(self, key: str, limit: int) -> list[Table]:
        """An array of at most `limit` tables; empty where there is none."""
        value = self.take(key, [])
        if not isinstance(value, list | tuple) or len(value) > limit:
            self.wrong(key, f"must be an array of at most {limit} tables")
        return [Table(entry, (*self.path, key, position)) for position, entry in enumerate(value)]

    def done(self) -> None:
        if self.rest:
            self.wrong(next(iter(self.rest)), f"unknown key; known: {', '.join(sorted(self._taken))}")


def build(kind: Callable[..., Any], content: object, path: KeyPath = ()) -> Any:
    """An instance of the dataclass `kind`, each value checked against the type of its field."""
    table = Table(content, path)
    hints = typing.get_type_hints(kind)
    values = {}
    for name in hints:
        if name in table.rest:
            values[name] = _typed(hints[name], table.take(name), (*path, name))
        else:
            table.take(name)
    table.done()
    return kind(**values)


def _typed(hint: Any, value: Any, path: KeyPath) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(Any, hint), value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise WrongValue(path, "must be an array")
        return tuple(_typed(typing.get_args(hint)[0], v, (*path, i)) for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        inner = typing.get_args(hint)[1]
        content = Table(value, path).rest
        return {k: v if inner is Any else _typed(inner, v, (*path, k)) for k, v in content.items()}
    if hint is Path:
        if not isinstance(value, str) or not value:
            raise WrongValue(path, "must be a path")
        return Path(value)
    expected: type | types.UnionType = int | float if hint is float else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and hint is not bool):
        raise WrongValue(
            path, f"must be {'a number' if hint in (int, float) else 'true or false' if hint is bool else 'a text'}"
        )
    if hint is not float:
        return value
    if isinstance(value, int) and not is_number(value):
        raise WrongValue(path, "must be a number, and not one of hundreds of digits")
    return float(typing.cast(float, value))
