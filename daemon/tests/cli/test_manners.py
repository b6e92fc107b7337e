"""How the command line behaves: help, mistakes, tables, exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeaid import errors
from edgeaid.cli import STATUSES
from edgeaid.cli.text import spark, table
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running
from ..support.memory import open_files
from ..support.waiting import eventually

DIGITS = EMBEDDED / "digits" / "1"
PICTURE = sorted((DIGITS / "samples").glob("*.png"))[0]
COMMAND = [sys.executable, "-m", "edgeaid.cli"]


def call(
    socket: Path | None, *words: object, columns: int | str = 200, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(columns), **more}
    if socket is not None:
        environment["EDGEAI_SOCKET"] = str(socket)
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ("classify",), ("nosuchverb",), ("--nosuchoption",), ("classify", "digits", "x.png", "--top", "many"),
        ("model", "nosuch"), ("model", "compile"), ("stream", "nosuch"), ("stream", "show"), ("push",), ("infer",),
        ("--timeout", "0", "models"), ("push", "a", "b", "c"), ("run", "m.tflite"), ("model", "init"),
        ("top", "-n", "0"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_64_and_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = call(tmp_path / "none.sock", *words)
    assert done.returncode == 64, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()[-1]) > 10
    machine = call(tmp_path / "none.sock", "--json", *words)
    assert machine.returncode == 64
    assert json.loads(machine.stdout)["error"]


@pytest.mark.parametrize(
    ("typed", "meant"), [("modles", "models"), ("clasify", "classify"), ("pul", "pull"), ("lst", "models")]
)
def test_a_mistyped_verb_is_answered_with_the_nearest_one(typed: str, meant: str) -> None:
    done = call(None, typed)
    assert done.returncode == 64
    assert f"Did you mean '{meant}'?" in done.stderr


def test_a_mistyped_model_is_answered_with_the_nearest_one(daemon: Running) -> None:
    for typed in ("digit", "DIGITS"):
        done = call(daemon.socket, "classify", typed, PICTURE)
        assert done.returncode == 66
        assert "did you mean 'digits'?" in done.stderr


def test_json_may_stand_before_or_after_the_verb(daemon: Running, tmp_path: Path) -> None:
    model = DIGITS / "model.tflite"
    for words in (
        ("models",), ("devices",), ("stats",), ("version",), ("status",), ("wait",), ("classify", "digits", PICTURE),
        ("stream", "list"), ("model", "inspect", model), ("model", "check", model, "--target", "cpu", "--no-run"),
        ("pull", "--list"), ("top", "--count", "1"),
    ):  # fmt: skip
        before, after = call(daemon.socket, "--json", *words), call(daemon.socket, *words, "--json")
        assert before.returncode == after.returncode == 0, (words, before.stderr, after.stderr)
        assert type(json.loads(before.stdout)) is type(json.loads(after.stdout)), words


def test_aliases_are_understood(daemon: Running) -> None:
    assert call(daemon.socket, "ls").stdout == call(daemon.socket, "models").stdout
    assert "Delete a" in call(daemon.socket, "rm", "--help").stdout
    assert "cpu0" in call(daemon.socket, "status").stdout


def test_fifty_models_are_readable_at_eighty_columns(start: Callable[..., Running]) -> None:
    names = [f"a-model-with-a-rather-long-name-{n:02}" for n in range(50)]
    daemon = start(models=dict.fromkeys(names, DIGITS / "model.tflite"))
    for verb in ("models", "devices", "stats", "status"):
        text = call(daemon.socket, verb, columns=80).stdout
        head = f"edgeaid 0.1.0 at {daemon.socket}"
        assert max(len(line) for line in text.splitlines() if not line.startswith(head)) <= 80, text
        if verb != "devices":
            assert all(sum(line.startswith(name) for line in text.splitlines()) == 1 for name in names)
    assert len(call(daemon.socket, "devices", columns=80).stdout.splitlines()) == 2


def test_a_table_never_cuts_or_folds_an_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("x" * 40, "y" * 30, "a sentence that is long and may be cut at its end")]
    for columns in (20, 40, 60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = table(("NAME", "TASK?1", "NOTE~?2"), rows)
        assert len(text.splitlines()) == 2
        assert "x" * 40 in text
        assert "y" * 30 in text or "TASK" not in text
        assert columns < 60 or max(map(len, text.splitlines())) <= columns


def test_names_from_others_cannot_steer_the_terminal() -> None:
    text = table(("NAME",), [("evil\x1b[2J\nname\u202e",)])
    assert "evil?[2J?name?" in text
    assert len(text.splitlines()) == 2


def test_bars_grow_with_their_values() -> None:
    assert spark([0, 1, 2, 4], 10) == "▁▂▄█"
    assert spark([0, 0], 10) == "▁▁"


@pytest.mark.parametrize(
    "words", [("top", "-n", "0.2"), ("events",), ("infer", "digits", "-f", "-i", DIGITS / "golden" / "0.in.npy")]
)
def test_ctrl_c_is_the_documented_end_of_what_runs_on(daemon: Running, words: tuple[Any, ...]) -> None:
    assert interrupted(daemon, *words).returncode == 0


def test_an_interrupted_bench_prints_what_it_has(daemon: Running) -> None:
    done = interrupted(daemon, "--json", "bench", "digits", "-n", "100000000")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] > 0
    assert "interrupted" in done.stderr


def interrupted(daemon: Running, *words: Any) -> subprocess.CompletedProcess[str]:
    before = served(daemon)
    environment = {**os.environ, "EDGEAI_SOCKET": str(daemon.socket)}
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def at_work() -> bool:
        if process.poll() is not None:
            return True
        if words[0] not in ("top", "events"):
            return served(daemon) > before + 3
        return any(link.startswith("socket:") for link in open_files(process.pid))

    eventually(at_work)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def served(daemon: Running) -> int:
    with daemon.client() as client:
        return int(client.stats("digits")[0]["inference_stats"]["success"]["count"])


def test_a_block_pasted_behind_the_start_of_the_daemon_works(tmp_path: Path) -> None:
    socket = tmp_path / "edgeaid.sock"
    options: list[str | Path] = ["--socket", socket, "--model-repository", tmp_path / "models", "--log-level", "error"]
    process = subprocess.Popen([sys.executable, "-m", "edgeaid", *options])
    try:
        assert call(socket, "--timeout", "60", "wait").stdout == "ready\n"
        assert call(socket, "classify", "digits", PICTURE).returncode == 0
    finally:
        process.terminate()
        process.wait(30)


def test_a_socket_in_a_directory_that_cannot_be_made_ends_in_a_sentence(tmp_path: Path) -> None:
    options: list[str | Path] = [
        "--socket",
        "/proc/none/edgeaid.sock",
        "--model-repository",
        tmp_path,
        "--log-level",
        "error",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "edgeaid", *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        78,
        "edgeaid: the directory /proc/none cannot be made: No such file or directory\n",
    )


def test_waiting_for_a_daemon_that_does_not_come_ends_with_75(tmp_path: Path) -> None:
    done = call(tmp_path / "none.sock", "wait", "--seconds", "0.3")
    assert done.returncode == 75
    assert "not ready" in done.stderr


def test_every_summary_in_help_stands_whole() -> None:
    for words in ((), ("model",)):
        text = call(None, *words, "--help", columns=80).stdout
        assert "..." not in text.split("Commands")[-1].replace("COMMAND [ARGS]...", "")


def test_a_tensor_verb_given_a_picture_says_so(daemon: Running, tmp_path: Path) -> None:
    junk = tmp_path / "x.npy"
    junk.write_bytes(b"\x93NUMPY" + b"\xff" * 40)
    for file, text, code in ((PICTURE, "is a picture", 65), (junk, "is damaged", 65), ("none.npy", "No such file", 66)):
        done = call(daemon.socket, "infer", "digits", "-i", file)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert "allow_pickle" not in done.stderr


def test_completion_offers_models_that_fit_the_verb_and_names_of_the_catalogue(daemon: Running) -> None:
    def offered(words: str, number: int) -> str:
        return call(daemon.socket, _EDGEAI_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number)).stdout

    script = [sys.executable, "-c", "from edgeaid.cli import main; main(prog_name='edgeai')"]

    def complete(words: str, number: int) -> str:
        environment = {
            **os.environ, "EDGEAI_SOCKET": str(daemon.socket), "_EDGEAI_COMPLETE": "bash_complete",
            "COMP_WORDS": words, "COMP_CWORD": str(number),
        }  # fmt: skip
        return subprocess.run(script, capture_output=True, text=True, env=environment, timeout=60, check=False).stdout

    assert "digits" in complete("edgeai classify ", 2)
    assert "digit-scenes" not in complete("edgeai classify ", 2)
    assert "digit-scenes" in complete("edgeai detect ", 2)
    assert "inat-bird" in complete("edgeai pull ", 2)
    assert complete("edgeai remove digits ", 3).split(",")[-1].strip() == "1"


def test_a_bad_file_ends_with_the_same_status_whoever_refuses_it(daemon: Running, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes((DIGITS / "model.tflite").read_bytes()[:20000])
    assert call(daemon.socket, "push", cut).returncode == 65, "this computer refuses it"
    with daemon.client() as client, pytest.raises(errors.InvalidModel):
        client.push("cut", cut)  # here the daemon does
    half = tmp_path / "half.png"
    half.write_bytes(PICTURE.read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    for file in (half, tmp_path / "empty.png"):
        done = call(daemon.socket, "classify", "digits", file)
        assert done.returncode == 65, done.stderr
        machine = call(daemon.socket, "classify", "digits", file, "--json")
        assert json.loads(machine.stdout)["kind"] == "InvalidData"


def test_a_full_disk_ends_with_73_and_a_sentence(daemon: Running) -> None:
    for words in (("models",), ("models", "--json"), ("--help",), ("model", "check", "--rules")):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
                env={**os.environ, "EDGEAI_SOCKET": str(daemon.socket)},
            )  # fmt: skip
        assert done.returncode == 73, (words, done.stderr)
        assert done.stderr == "edgeai: standard output cannot be written: No space left on device\n"


def test_a_page_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    model = DIGITS / "model.tflite"
    for words in (("inspect", model), ("check", model, "--target", "cpu"), ("compare", model, model)):
        done = call(None, "model", *words, "--html", tmp_path / "none" / "page.html")
        assert done.returncode == 73, done.stderr
        assert done.stderr == f"edgeai: {tmp_path}/none/page.html cannot be written: No such file or directory\n"


def test_every_exit_status_of_an_error_is_explained_in_the_help() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgeaiError)]
    assert {kind.exit_code for kind in kinds} <= set(STATUSES)
    shown = call(None, "--help").stdout
    assert all(f"{code:>3}  {text}" in shown for code, text in STATUSES.items())


def test_following_ends_when_its_reader_has_gone(daemon: Running) -> None:
    environment = {**os.environ, "EDGEAI_SOCKET": str(daemon.socket)}
    with subprocess.Popen([*COMMAND, "events"], stdout=subprocess.PIPE, text=True, env=environment) as following:
        assert following.stdout is not None
        assert following.stdout.readline(), "what has happened already comes first"
        following.stdout.close()
        assert following.wait(60) == 0
