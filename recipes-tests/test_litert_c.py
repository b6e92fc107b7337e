"""A C program against the library and the headers of litert-bin: Google's build, on this computer's processor and on an emulated aarch64.

The headers are fetched from LiteRT's repository; EDGEAI_TEST_LITERT_GIT names a git directory that has them already.
"""

from __future__ import annotations

import os
import shutil
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
    directory = tmp_path_factory.mktemp("litert")
    commit = RECIPE.split('SRCREV_headers = "')[1][:40]
    source = os.environ.get("EDGEAI_TEST_LITERT_GIT")
    if not source:
        source = str(directory / ".git")
        subprocess.run(["git", "init", "-q", str(directory)], check=True)
        fetch = ["git", "-C", str(directory), "fetch", "-q", "--depth=1", LITERT, commit]
        got = subprocess.run(
            fetch, capture_output=True, text=True, check=False, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        )
        if got.returncode:
            pytest.skip(f"{LITERT} does not give {commit[:10]}: {got.stderr.strip()[-200:]}")
    archive = ["git", "--git-dir", source, "archive", commit, "litert/c", "litert/build_common"]
    packed = subprocess.run(archive, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(directory)], input=packed, check=True)
    template = (directory / "litert/build_common/build_config.h.in").read_text()
    lines = [
        f"#define {line.split()[1]} 0" if line.startswith("#cmakedefine01") else line for line in template.splitlines()
    ]
    (directory / "litert/build_common/build_config.h").write_text("\n".join(lines) + "\n")
    return directory


def wheel_library(directory: Path, *platform: str) -> Path:
    """Directory with libLiteRt.so of the recipe's release, for a platform of pip or for this computer."""
    words = ["--no-deps", "--only-binary=:all:", *platform, "-d", str(directory), "ai-edge-litert==2.3.0"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no such wheel of ai-edge-litert 2.3.0: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
        return Path(wheel.extract("ai_edge_litert/libLiteRt.so", directory)).parent


def differences(command: list[str], environment: dict[str, str]) -> dict[str, int]:
    """Golden input -> the largest difference between the program's answer and the golden one, in steps of the quantisation."""
    steps = {}
    for golden in sorted((MODEL / "golden").glob("*.in.npy")):
        tensor, answer = np.load(golden), np.load(golden.with_name(golden.name.replace(".in.", ".out.")))
        done = subprocess.run(command, input=tensor.tobytes(), capture_output=True, check=True, env=environment)
        said = np.array(done.stdout.split(), np.uint8).view(np.int8)
        steps[golden.name] = int(np.abs(said.astype(int) - answer.reshape(-1)).max())
    assert steps
    return steps


def compiled(compiler: str, headers: Path, library: Path, program: Path) -> Path:
    source = TOP / "recipes-tests/litert_c/run_model.c"
    # The library of another system's packages needs symbols of that system's C library only.
    words = [f"-I{headers}", str(source), "-o", str(program), f"-L{library}", "-lLiteRt", "-Wl,--allow-shlib-undefined"]
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", *words], check=True)
    return program


def test_a_c_program_gets_the_models_golden_answers(headers: Path, tmp_path: Path) -> None:
    library = wheel_library(tmp_path)
    program = compiled("gcc", headers, library, tmp_path / "run_model")
    steps = differences([str(program), str(MODEL / "model.tflite")], {"LD_LIBRARY_PATH": str(library)})
    assert max(steps.values()) <= 2, steps


#: A Raspberry Pi 4's processor as its kernel describes it.
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


def test_the_same_program_for_a_raspberry_pi_gets_them_under_emulation(headers: Path, tmp_path: Path) -> None:
    """qemu-aarch64 shows a program the /proc/cpuinfo of the x86 computer it runs on, and LiteRT crashes on that while it looks for
    the processor; with the file of an aarch64 kernel in QEMU's sysroot it does not."""
    for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"not installed: {tool}")
    library = wheel_library(
        tmp_path, "--implementation", "cp", "--python-version", "311", "--platform", "manylinux_2_27_aarch64"
    )
    program = compiled("aarch64-linux-gnu-gcc", headers, library, tmp_path / "run_model")
    sysroot = tmp_path / "sysroot"
    (sysroot / "proc").mkdir(parents=True)
    (sysroot / "proc/cpuinfo").write_text(CPUINFO)
    (sysroot / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    # Not -cpu max: this QEMU computes wrongly what the newest instructions do.
    emulator = ["qemu-aarch64", "-cpu", "cortex-a72", "-L", str(sysroot), "-E", f"LD_LIBRARY_PATH={library}"]
    steps = differences([*emulator, str(program), str(MODEL / "model.tflite")], dict(os.environ))
    assert max(steps.values()) <= 2, steps
