"""A C program against the library and the headers of litert-bin: Google's build, on this computer's processor.

The headers are fetched from LiteRT's repository; EDGEAI_TEST_LITERT_GIT names a git directory that has them already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rig.paths import TOP

RECIPE = (TOP / "meta-edgeai/recipes-runtime/ai-edge-litert/litert-bin_2.3.0.bb").read_text()
LITERT = "https://github.com/google-ai-edge/LiteRT"
MODEL = TOP / "daemon/src/edgeaid/models/defaults/digits/1"


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """litert/c and build_config.h as the recipe installs them."""
    folder = tmp_path_factory.mktemp("litert")
    commit = RECIPE.split('SRCREV_headers = "')[1][:40]
    source = os.environ.get("EDGEAI_TEST_LITERT_GIT")
    if not source:
        source = str(folder / ".git")
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        fetch = ["git", "-C", str(folder), "fetch", "-q", "--depth=1", LITERT, commit]
        got = subprocess.run(
            fetch, capture_output=True, text=True, check=False, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        )
        if got.returncode:
            pytest.skip(f"{LITERT} does not give {commit[:10]}: {got.stderr.strip()[-200:]}")
    archive = ["git", "--git-dir", source, "archive", commit, "litert/c", "litert/build_common"]
    packed = subprocess.run(archive, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    template = (folder / "litert/build_common/build_config.h.in").read_text()
    lines = [
        f"#define {line.split()[1]} 0" if line.startswith("#cmakedefine01") else line for line in template.splitlines()
    ]
    (folder / "litert/build_common/build_config.h").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libLiteRt.so of the same release's wheel for this processor."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder), "ai-edge-litert==2.3.0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no wheel of ai-edge-litert 2.3.0 for this computer: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return Path(wheel.extract("ai_edge_litert/libLiteRt.so", folder)).parent


def test_a_c_program_gets_the_models_golden_answers(headers: Path, library: Path, tmp_path: Path) -> None:
    program = tmp_path / "run_model"
    source = TOP / "recipes-tests/litert_c/run_model.c"
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", f"-I{headers}", str(source), "-o", str(program), f"-L{library}", "-lLiteRt"], check=True)  # fmt: skip
    for golden in sorted((MODEL / "golden").glob("*.in.npy")):
        tensor, answer = np.load(golden), np.load(golden.with_name(golden.name.replace(".in.", ".out.")))
        done = subprocess.run(
            [str(program), str(MODEL / "model.tflite")],
            input=tensor.tobytes(), capture_output=True, check=True, env={"LD_LIBRARY_PATH": str(library)},
        )  # fmt: skip
        said = np.array(done.stdout.split(), np.uint8).view(np.int8)
        assert np.abs(said.astype(int) - answer.reshape(-1)).max() <= 2, golden.name
