"""The checklist of daemon/docs/testing.md, word for word: every command that needs no hardware, typed by a person with a card and a device.

The device is the emulator behind an SSH port. A block ```console is run, a block ```console hardware is not; what follows a `$` line is
the output that the page promises, with `...` for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig import machine, paths

from .card import SPARE, blank_card, ssh_key, wait_serving
from .conftest import TOP

pytestmark = pytest.mark.slow

PAGE = TOP / "daemon/docs/testing.md"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the page."""

    line: int
    command: str
    #: What must come out; "..." stands for anything.
    expected: str


def steps() -> list[Step]:
    parsed: list[Step] = []
    inside = False
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        text = line.strip()
        if text.startswith("```"):
            inside = text == "```console"
        elif inside and text.startswith("$ "):
            parsed.append(Step(number, text[2:], ""))
        elif inside and parsed:
            last = parsed[-1]
            parsed[-1] = Step(last.line, last.command, f"{last.expected}{text}\n")
    return parsed


def fits(expected: str, output: str) -> bool:
    """Word by word: how columns are spaced depends on the terminal's width."""
    words = [re.escape(" ".join(part.split())) for part in expected.split("...")]
    return re.fullmatch(r"\s*.*?\s*".join(words), " ".join(output.split()), re.S) is not None


@pytest.fixture(scope="module")
def desk(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of the person's shell: the programs of the page, with IMAGE and CARD as the page asks for."""
    if image.suffix != ".wic":
        pytest.skip("the checklist begins with a card image; this release has none here (wic)")
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed: apt-get install openssh-client")
    directory = tmp_path_factory.mktemp("desk")
    with blank_card(directory / "card.img", image.stat().st_size + SPARE) as loop:
        yield _environment(image, directory, loop)


def _environment(image: Path, directory: Path, loop: str) -> dict[str, str]:
    tools = directory / "bin"
    tools.mkdir()
    key = ssh_key(directory)
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True)
    shutil.copy(key.with_suffix(".pub"), home / ".ssh/id_ed25519.pub")
    scripts = {
        "sudo": 'exec "$@"',
        "edgeai": f'exec {sys.executable} -c "from edgeaid.cli import main; main()" "$@"',
        "ssh": f'exec {shutil.which("ssh")} -F {directory}/config "$@"',
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    data = Path(os.environ.get("EDGEAI_TEST_DATA", TOP.parent / "shared" / "data"))
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(TOP / "daemon/src"),
        "COLUMNS": "160",
        "IMAGE": str(image),
        "CARD": loop,
        "EDGEAI_TEST_CARD": str(directory / "card.img"),
        "EDGEAI_TEST_SSH": str(directory / "config"),
        "EDGEAI_TEST_KEY": str(key),
        **({"EDGEAI_MODEL_MIRROR": str(data / "coral")} if (data / "coral").is_dir() else {}),
    }


@pytest.fixture(scope="module")
def device(desk: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Machine]:
    """The device `check`, started from the card that was flashed."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path(desk["EDGEAI_TEST_SSH"]).write_text(
        f"Host check\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {desk['EDGEAI_TEST_KEY']}\n  BatchMode yes\n"
        "  LogLevel ERROR\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
    )
    board = machine.Board(ssh_port=port, read_only_root=True)
    disk = tmp_path_factory.mktemp("disk") / "card.qcow2"
    running = machine.boot(Path(desk["EDGEAI_TEST_CARD"]), paths.work_dir(), disk, board)
    try:
        running.wait_up()
        assert running.link is not None
        wait_serving(running.link, disk.parent)
        yield running
        assert running.shut_down() == 0
    finally:
        running.kill()
        running.remove()


def test_the_page_has_steps_of_both_kinds() -> None:
    assert len(steps()) >= 10
    assert "```console hardware" in PAGE.read_text()
    assert all(step.expected.replace("...", "").strip() for step in steps()), "a step without its output"
    assert fits("SCORE ... LABEL\n0.9... 7 ...", "SCORE  CLASS  LABEL\n0.998      7  7")
    assert not fits("active\nactive", "active\ninactive")


@pytest.mark.parametrize("step", steps(), ids=lambda step: f"line{step.line}")
def test_a_step_says_what_the_page_promises(step: Step, desk: dict[str, str], request: pytest.FixtureRequest) -> None:
    if "$CARD" not in step.command:
        request.getfixturevalue("device")
    elif Path(desk["EDGEAI_TEST_SSH"]).exists():
        pytest.fail("the card is written after the device was started: the page's order is wrong")
    if "pull" in step.command and "EDGEAI_MODEL_MIRROR" not in desk:
        pytest.skip("no real models here (set EDGEAI_TEST_DATA) and no internet to fetch them from")
    typed = f"{Path(desk['CARD']).name}\n"  # flash asks for the name of the device
    done = subprocess.run(
        ["bash", "-c", step.command], input=typed if "flash" in step.command else "",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TOP, env=desk, timeout=900, check=False,
    )  # fmt: skip
    assert fits(step.expected, done.stdout), (
        f"$ {step.command}\n{done.stdout}\n--- but the page says ---\n{step.expected}"
    )
