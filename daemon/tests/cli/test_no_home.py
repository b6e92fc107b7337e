"""A user without a home directory, or with one that cannot be written: a sentence and the right exit, no traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeaid.models.repository import EMBEDDED

MODEL = EMBEDDED / "digits" / "1" / "model.tflite"
#: In a user namespace: a user id that no list of users has, and none of root's rights.
NOBODY = ["unshare", "--user", "--map-user=54321"]
if shutil.which("unshare") is None or subprocess.run([*NOBODY, "true"], capture_output=True, check=False).returncode:
    pytest.skip("no user namespaces here", allow_module_level=True)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory in which nothing can be made."""
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o555)
    return directory


def call(directory: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NOBODY, sys.executable, "-m", "edgeaid.cli", *map(str, words)],
        cwd=directory, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("model", "environments"), 73, "set XDG_CACHE_HOME"),
        (("doctor",), 1, "runtime"),
        (("--timeout", "0.1", "models"), 75, "cannot reach edgeaid"),
    ],
)
def test_a_user_id_without_a_name_or_home_gets_an_answer(
    tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = call(tmp_path, *words, EDGEAI_SOCKET=str(tmp_path / "none.sock"))
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("model", "init", MODEL),
        ("model", "kfpkg", MODEL, "-o", "x.kfpkg"),
        ("model", "compile", MODEL, "--target", "edgetpu", "-o", "new"),
        ("model", "deploy", MODEL, "--target", "cpu", "--no-push"),
        ("model", "keygen", "key"),
        ("model", "environments", "openvino", "--create"),
    ],
)
def test_what_cannot_be_written_ends_with_73_whatever_verb_was_to_write_it(
    closed: Path, words: tuple[object, ...]
) -> None:
    done = call(closed, *words, HOME=str(closed))
    assert done.returncode == 73, done.stdout + done.stderr
    assert "Permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("model", "check", "m.tflite", "--target", "cpu"),
        ("model", "quantize", "m.tflite", "--representative", "x"),
        ("model", "init", "m.tflite"),
        ("run", "m.tflite", "p.png"),
        ("push", "m.tflite"),
    ],
)
def test_a_file_that_may_not_be_read_is_said_to_be_so_with_77(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "m.tflite").write_bytes(MODEL.read_bytes())
    (tmp_path / "m.tflite").chmod(0)
    (tmp_path / "p.png").write_bytes(b"x")
    done = call(tmp_path, *words, EDGEAI_SOCKET=str(tmp_path / "none.sock"))
    assert done.returncode == 77, done.stderr
    assert "Permission denied" in done.stderr
