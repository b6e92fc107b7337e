"""The converters' environments: pinned, cached, and what is missing is named."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from edgeaid.errors import InvalidModel, NotFound, Unsupported
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.convert.environments import ENVIRONMENTS, Environment, override
from edgeaid.toolkit.convert.quantize import run_child


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ENVIRONMENTS:
        monkeypatch.delenv(override(name), raising=False)
    return tmp_path / "cache"


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_every_environment_has_a_lock_that_is_pinned_and_hashed(name: str) -> None:
    text = environments.lock(name)
    requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert requirements
    for line in requirements:
        assert "==" in line, line
    assert text.count("--hash=sha256:") >= len(requirements)
    assert "file:" not in text


def test_a_new_lock_makes_a_new_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environments.directory("nncase")
    monkeypatch.setattr(environments, "lock", lambda _: "other==1")
    assert environments.directory("nncase") != before


def test_a_missing_python_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(Unsupported, match=r"3\.10.*uv python install 3\.10.*EDGEAI_PYTHON_NNCASE"):
        environments.python("nncase")


def test_an_interpreter_of_the_users_own_is_taken_if_it_has_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(override("openvino"), sys.executable)
    monkeypatch.setitem(ENVIRONMENTS, "openvino", Environment("openvino", "x", ("3.11",), "0", "json"))
    assert environments.python("openvino") == Path(sys.executable)
    monkeypatch.setitem(ENVIRONMENTS, "openvino", Environment("openvino", "x", ("3.11",), "0", "no_such_module"))
    with pytest.raises(Unsupported, match="no module 'no_such_module'"):
        environments.python("openvino")


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(NotFound, match="tensorflow"):
        environments.python("tensorflaw")


def stand_in_uv(directory: Path, script: str) -> None:
    """A `uv` that is on PATH and does what the script says."""
    directory.mkdir(exist_ok=True)
    program = directory / "uv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def own_python(monkeypatch: pytest.MonkeyPatch) -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    monkeypatch.setitem(ENVIRONMENTS, "openvino", Environment("openvino", "x", (version,), "0", "json"))
    return version


def test_uv_installs_from_the_hashes_and_the_second_use_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_python: str
) -> None:
    log = tmp_path / "log"
    stand_in_uv(
        tmp_path / "bin",
        f'echo "$@" >> {log}; [ "$1" = venv ] || exit 0; for d; do :; done; mkdir -p "$d/bin"\n'
        f'ln -s {sys.executable} "$d/bin/python"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    said: list[str] = []
    python = environments.python("openvino", said.append)
    assert python == environments.directory("openvino") / "bin" / "python"
    assert environments.python("openvino", said.append) == python
    assert len(said) == 1
    venv, install = log.read_text().splitlines()
    assert "--no-python-downloads" in venv
    assert "--require-hashes --no-deps" in install


def test_a_failed_installation_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_python: str
) -> None:
    stand_in_uv(tmp_path / "bin", '[ "$1" = venv ] && exit 0; echo "no network" >&2; exit 2')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(Unsupported, match="no network"):
        environments.python("openvino")
    assert environments.ready("openvino") is None
    assert not environments.directory("openvino").exists()


def test_environments_of_older_locks_are_removed_too(cache: Path) -> None:
    for name in ("nncase-0123456789ab", "nncase-ffffffffffff", "onnx2tf-0123456789ab", "nncase-mine"):
        (cache / "edgeai" / "environments" / name).mkdir(parents=True)
    assert len(environments.remove("nncase")) == 2
    assert sorted(p.name for p in (cache / "edgeai" / "environments").iterdir()) == [
        "nncase-mine",
        "onnx2tf-0123456789ab",
    ]


@pytest.mark.slow
def test_the_smallest_environment_is_really_created_from_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeaid.toolkit.run import child

    if environments.find_python(ENVIRONMENTS["nncase"]) is None:
        pytest.skip("no Python 3.8 to 3.10 here")
    python = environments.python("nncase")
    done = child([python, "-c", "import nncase; print(nncase.CompileOptions().target)"], timeout=120)
    assert done.status == 0, done.error


def test_a_converter_that_crashes_is_told_from_one_that_refuses(tmp_path: Path) -> None:
    place = environments.directory("nncase")
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / "edgeai-complete").write_text("nncase\n")
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (tmp_path / "refuse.py").write_text("raise SystemExit('no such layer')\n")
    with pytest.raises(InvalidModel, match=r"nncase crashed .*SIGSEGV.*edgeai model check"):
        run_child("nncase", "crash", {}, tmp_path, print, tmp_path)
    with pytest.raises(InvalidModel, match="failed: no such layer"):
        run_child("nncase", "refuse", {}, tmp_path, print, tmp_path)
