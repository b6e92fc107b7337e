"""The programs in daemon/examples do what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeaid.models.repository import EMBEDDED

from .support.daemon import Running

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples are not beside the tests here", allow_module_level=True)
PICTURES = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))
TRUTH = [picture.stem.rsplit("-", 1)[1] for picture in PICTURES]


def run(daemon: Running, *words: object, cwd: Path | None = None) -> str:
    environment = {**os.environ, "EDGEAI_SOCKET": str(daemon.socket)}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=environment, timeout=120, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("program", ["classify.py", "classify_async.py"])
def test_pictures_are_classified_from_python(daemon: Running, program: str) -> None:
    lines = run(daemon, sys.executable, EXAMPLES / program, *PICTURES).splitlines()
    assert [line.split(": ")[1][0] for line in lines] == TRUTH


def test_the_camera_loop_prints_what_changes(daemon: Running, tmp_path: Path) -> None:
    # The model wants light on dark, as its samples are not all.
    for number, picture in enumerate(PICTURES[:4]):
        shutil.copy(picture, tmp_path / f"{number}.png")
    lines = run(daemon, sys.executable, EXAMPLES / "camera_loop.py", tmp_path).splitlines()
    assert lines
    assert all(" ms on cpu0)" in line for line in lines)
    assert lines[0][0] == TRUTH[0]


def test_tritons_client_asks_over_grpc(start: Callable[..., Running], tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc")
    address = tmp_path / "grpc.sock"
    daemon = start(f'[server]\ngrpc_socket = "{address}"\n')
    assert run(daemon, sys.executable, EXAMPLES / "triton_client.py", f"unix:{address}").startswith(
        "digits version 1: ["
    )


def test_curl_alone_asks_and_gets_a_drawn_picture(daemon: Running, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    ready, model, answer = run(daemon, "sh", EXAMPLES / "curl.sh", PICTURES[0], cwd=tmp_path).splitlines()[:3]
    assert json.loads(ready)["ready"]
    assert json.loads(model)["name"] == "digits"
    assert json.loads(answer)["classes"][0]["label"] == TRUTH[0]
    assert (tmp_path / "answer.png").read_bytes()[:4] == b"\x89PNG"


def test_node_classifies_without_packages(daemon: Running) -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js here")
    assert run(daemon, "node", EXAMPLES / "classify.mjs", PICTURES[0]).startswith(f"{TRUTH[0]} (")


@pytest.mark.parametrize(
    ("words", "emulator"),
    [
        ("gcc -std=c99", ""),
        ("g++ -x c++ -std=c++11", ""),
        ("aarch64-linux-gnu-gcc -std=c99", "qemu-aarch64 -L /usr/aarch64-linux-gnu"),
    ],
)
def test_a_program_in_c_or_cpp_needs_one_header(daemon: Running, tmp_path: Path, words: str, emulator: str) -> None:
    compiler, *language = words.split()
    for tool in (compiler, *emulator.split()[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    assert len((EXAMPLES / "edgeai_fast.h").read_text().splitlines()) < 250
    program = tmp_path / "fast"
    options = [*language, "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", program, EXAMPLES / "fast.c"], check=True)
    pixels = Image.open(PICTURES[0]).convert("L").resize((32, 32))
    (tmp_path / "picture.raw").write_bytes(np.asarray(pixels).tobytes())
    socket = daemon.socket.parent / "fast.sock"
    command: list[str | Path] = [*emulator.split(), program, tmp_path / "picture.raw"]
    assert run(daemon, *command, socket).startswith(f"{TRUTH[0]} on cpu0 in ")
    missing = subprocess.run([*command, tmp_path / "none"], capture_output=True, check=False)
    assert missing.returncode == 75
    assert b"No such file" in missing.stderr


def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    units = tmp_path / "units"
    shutil.copytree(EXAMPLES.parent / "systemd", units)
    text = (EXAMPLES / "doorbell.service").read_text()
    (units / "doorbell.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / "doorbell.service"],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "doorbell" in line and "not executable" not in line]
    assert not ours, done.stderr


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"[{file.name}]" in listed for file in EXAMPLES.iterdir() if file.name != "README.md")
