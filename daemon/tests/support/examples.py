"""How many examples hypothesis tries."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """`count` under ./scripts/test --slow; a quarter in the gate, which tries the same ones each time."""
    return count if os.environ.get("EDGEAI_TEST_SLOW") else count // 4
