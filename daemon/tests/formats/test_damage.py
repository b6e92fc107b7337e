"""Damaged files of every format: only our own errors come out, whatever is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeaid.errors import EdgeaiError
from edgeaid.formats.detect import KINDS, detect
from edgeaid.toolkit.inspect.files import inspect_bytes
from edgeaid.toolkit.inspect.html import page
from edgeaid.toolkit.inspect.report import as_json, compare

from ..support.examples import examples
from .damage import damaged
from .targets import READERS, WORDS, try_reading

#: Cases per kind of file for the fuzzer that is guided by coverage.
CASES = int(os.environ.get("EDGEAI_FUZZ_CASES", "200000"))


def test_there_is_a_seed_and_a_reader_for_every_kind_of_file() -> None:
    assert set(WORDS) == set(READERS) == set(KINDS) - {"unknown"}


@pytest.mark.parametrize("kind", WORDS)
def test_a_seed_is_recognised_and_read(kind: str) -> None:
    assert detect(WORDS[kind]) == kind
    assert try_reading(kind, WORDS[kind])


@pytest.mark.parametrize("kind", WORDS)
def test_a_file_cut_off_anywhere_gives_only_our_own_errors(kind: str) -> None:
    for end in range(0, len(WORDS[kind]), 1 if len(WORDS[kind]) < 1000 else 7):
        try_reading(kind, WORDS[kind][:end])


@pytest.mark.parametrize("kind", WORDS)
@settings(max_examples=examples(150), deadline=None)
@given(number=st.integers(0, 2**48))
def test_a_damaged_file_gives_only_our_own_errors(kind: str, number: int) -> None:
    data = damaged(WORDS[kind], number)
    try_reading(kind, data)
    detect(data)


@pytest.mark.parametrize("kind", WORDS)
@settings(max_examples=50, deadline=None)
@given(noise=st.binary(max_size=400), keep=st.integers(0, 64))
def test_noise_behind_a_true_beginning_gives_only_our_own_errors(kind: str, noise: bytes, keep: int) -> None:
    try_reading(kind, WORDS[kind][:keep] + noise)


@pytest.mark.parametrize("kind", WORDS)
def test_inspecting_damaged_files_ends_in_a_page_or_in_one_of_our_errors(kind: str) -> None:
    look_closely(kind, range(60))


def look_closely(kind: str, numbers: range) -> int:
    """Inspect damaged files as the command does; returns how many gave a report."""
    good = 0
    for number in numbers:
        try:
            report = inspect_bytes(damaged(WORDS[kind], number), Path("damaged.bin"))
        except EdgeaiError:
            continue
        good += 1
        if good % 8 == 0:  # drawing is slow and sees only what the reader let through
            compare([report, report])
            as_json([report])
            page([report])
    return good


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORDS)
def test_a_fuzzer_guided_by_coverage_finds_only_our_own_errors(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it is published for x86-64 Linux and some versions of Python only")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "seed").write_bytes(WORDS[kind])
    command = [
        sys.executable, "-m", "tests.formats.fuzz",
        kind, str(CASES), str(tmp_path / "corpus"), "-seed=1", "-timeout=60",
        "-rss_limit_mb=1024", "-max_len=16384", f"-artifact_prefix={tmp_path}/", "-print_final_stats=1",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, check=False, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    stats = [line for line in done.stderr.splitlines() if line.startswith(("Done ", "stat::slow", "stat::peak"))]
    with capsys.disabled():
        print(f"\n{kind}: {done.stdout.strip()}; {', '.join(' '.join(s.split()) for s in stats)}")
    assert done.stdout.startswith(f"{CASES} cases, ")
