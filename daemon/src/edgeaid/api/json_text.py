"""JSON with a limit of its nesting, and arrays of numbers, with orjson where it is installed."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any, Final

from ..errors import InvalidRequest

try:
    import orjson as _orjson
except ImportError:
    orjson: Any = None
else:
    orjson = _orjson  # optional: five times as fast for arrays of numbers

_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_BRACKETS: Final = bytes(c for c in range(256) if c not in b"[]{}")


def loads(text: bytes | bytearray | memoryview, depth: int) -> Any:
    """Parse JSON whose nesting is at most `depth`; InvalidRequest otherwise."""
    raw = bytes(text)
    if raw.count(b"[") + raw.count(b"{") > depth:
        # Only brackets are left; each turn takes the innermost away.
        left = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
        for _ in range(depth):
            inner = left.replace(b"[]", b"").replace(b"{}", b"")
            if len(inner) == len(left):
                break
            left = inner
        if left.count(b"[") + left.count(b"{") > depth or b"[]" in left or b"{}" in left:
            raise InvalidRequest(f"JSON nesting depth exceeds maximum allowed limit ({depth}): it is nested deeper")
    try:
        value = json.loads(raw)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()  # half a pair is a text that nothing can write
    except UnicodeEncodeError as error:
        raise InvalidRequest("request is not valid JSON: a text has half of a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"request is not valid JSON: {str(error)[:200]}") from error
    return value


def load_numbers(text: bytes, datatype: str) -> Any:
    """The values of a flat array of numbers for a tensor of `datatype`. ValueError, RecursionError."""
    # Integers beyond 64 bits are rounded to floats by orjson: the nearest one would pass for a value of these.
    if orjson is not None and datatype not in ("INT64", "UINT64"):
        # What it refuses, the standard library may take: NaN, and numbers of any length.
        with contextlib.suppress(ValueError):
            return orjson.loads(text)
    return json.loads(text)


def dump(value: Any) -> bytes:
    """The text of an answer that is not large. NaN and infinities are no part of it."""
    if orjson is not None:
        with contextlib.suppress(TypeError):  # half of a surrogate pair, which the standard library escapes
            text: bytes = orjson.dumps(value)
            return text
    return _COMPACT.encode(value).encode()


def dump_numbers(values: list[Any]) -> bytes:
    """The text of a flat array of numbers; NaN and infinities are null."""
    if orjson is not None:
        text: bytes = orjson.dumps(values)
        return text
    if not all(map(math.isfinite, values)):
        values = [v if math.isfinite(v) else None for v in values]
    return json.dumps(values, separators=(",", ":")).encode()
