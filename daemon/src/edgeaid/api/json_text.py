"""JSON with a limit of its nesting."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ..errors import InvalidRequest

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
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
            raise InvalidRequest(f"JSON is nested deeper than {depth} levels")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"request is not valid JSON: {str(error)[:200]}") from error
