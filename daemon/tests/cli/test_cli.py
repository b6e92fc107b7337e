"""The command line against a running daemon: what people and scripts see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running

SAMPLES = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))


@pytest.fixture
def edgeai(daemon: Running) -> Any:
    def run(*words: Any, code: int = 0, text: bool = True) -> Any:
        environment = {**os.environ, "EDGEAI_SOCKET": str(daemon.socket), "COLUMNS": "200"}
        command = [sys.executable, "-c", "from edgeaid.cli import main; main()", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=text, env=environment, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_help_names_every_verb_and_the_exit_codes(edgeai: Any) -> None:
    text = edgeai("--help")
    for word in ("models", "push", "pull", "classify", "top", "doctor", "bench", "model", "Exit status"):
        assert word in text
    for verb in (
        "models",
        "push",
        "pull",
        "infer",
        "classify",
        "detect",
        "segment",
        "stats",
        "top",
        "devices",
        "bench",
    ):
        assert "Usage" in edgeai(verb, "--help")


def test_classify_prints_a_table_or_json_and_draws(edgeai: Any, tmp_path: Path) -> None:
    picture = SAMPLES[0]
    wanted = picture.stem.rsplit("-", 1)[1]
    assert f" {wanted}" in edgeai("classify", "digits", picture)
    answer = json.loads(edgeai("--json", "classify", "digits", picture))
    assert answer["classes"][0]["label"] == wanted
    edgeai("classify", "digits", picture, "-o", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_detect_finds_the_digits_of_a_scene(edgeai: Any) -> None:
    scene = sorted((EMBEDDED / "digit-scenes" / "1" / "samples").glob("*.png"))[0]
    truth = json.loads((scene.parent / "truth.json").read_text())
    objects = json.loads(edgeai("--json", "detect", "digit-scenes", scene))["objects"]
    assert objects
    assert str(objects[0]["label"]) in json.dumps(truth)


def test_infer_reads_and_writes_npy(edgeai: Any, tmp_path: Path) -> None:
    golden = EMBEDDED / "digits" / "1" / "golden"
    edgeai("infer", "digits", "-i", golden / "0.in.npy", "-o", tmp_path)
    got, want = np.load(tmp_path / "scores.npy"), np.load(golden / "0.out.npy")
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 2


def test_listings_are_tables_and_json(edgeai: Any) -> None:
    assert "READY" in edgeai("models")
    assert json.loads(edgeai("--json", "models"))[0]["state"] == "READY"
    assert "cpu0" in edgeai("devices")
    assert "digits" in edgeai("stats")
    assert "cpu0" in edgeai("top", "--count", "1")
    assert json.loads(edgeai("--json", "version"))["edgeaid"]["role"] == "control"
    assert "_EDGEAI_COMPLETE" in edgeai("completion", "bash")


def test_bench_measures_both_transports(edgeai: Any) -> None:
    for transport in ("fast", "http"):
        measured = json.loads(edgeai("--json", "bench", "digits", "-n", "40", "-c", "2", "--transport", transport))
        assert measured["requests"] == 40
        assert measured["failures"] == 0


def test_errors_go_to_stderr_with_their_exit_code(edgeai: Any, tmp_path: Path) -> None:
    assert "unknown model" in edgeai("classify", "nosuch", SAMPLES[0], code=66)
    assert "No such file" in edgeai("classify", "digits", tmp_path / "none.png", code=66)
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 100)
    assert edgeai("push", "bad", bad, code=65)
    assert "is it running" in edgeai("--socket", tmp_path / "x.sock", "models", code=75)


def test_a_model_of_the_catalogue_is_pulled_pushed_and_used(start: Callable[..., Running], shared_data: Path) -> None:
    daemon = start()
    environment = {
        **os.environ,
        "EDGEAI_SOCKET": str(daemon.socket),
        "EDGEAI_MODEL_MIRROR": str(shared_data / "coral"),
        "COLUMNS": "200",
    }

    def edgeai(*words: Any) -> Any:
        command = [sys.executable, "-c", "from edgeaid.cli import main; main()", "--json", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    names = edgeai("pull", "--list")
    assert "inat-bird" in names
    assert edgeai("pull", "mobilenet-v1-0.25-128")["serving"]
    answer = edgeai("classify", "mobilenet-v1-0.25-128", shared_data / "coral" / "parrot.jpg")
    assert (answer["classes"][0]["index"], answer["classes"][0]["label"]) == (89, "macaw")


def test_doctor_speaks_plainly_and_writes_a_report(daemon: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from edgeaid.cli import main; main()", "--socket", str(daemon.socket), "doctor"]
    done = subprocess.run(
        [*command, "--report", str(tmp_path / "r.txt")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert "CHECK" in done.stdout
    written = (tmp_path / "r.txt").read_text()
    assert "model digits 1 READY cpu0" in written
    printed = subprocess.run([*command, "--report"], capture_output=True, text=True, timeout=120, check=False)
    assert printed.returncode == done.returncode, printed.stderr
    assert printed.stdout.startswith("== findings ==")
    assert "device cpu0 cpu ready" in printed.stdout


def test_doctor_names_a_report_that_cannot_be_written(daemon: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from edgeaid.cli import main; main()", "--socket", str(daemon.socket), "doctor"]
    done = subprocess.run(
        [*command, "--report", str(tmp_path / "none/r.txt")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode not in (0, 1)
    assert "r.txt cannot be written: No such file or directory" in done.stderr


def test_every_verb_about_the_daemon_speaks_json(start: Callable[..., Running], tmp_path: Path) -> None:
    daemon = start()

    def edgeai(*words: Any) -> Any:
        environment = {**os.environ, "EDGEAI_SOCKET": str(daemon.socket)}
        command = [sys.executable, "-c", "from edgeaid.cli import main; main()", "--json", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    bare = EMBEDDED / "digits" / "1" / "model.tflite"
    assert edgeai("push", "mine", bare)["version"] == "1"
    assert edgeai("push", "mine", bare, "--version", "2")["version"] == "2"
    assert edgeai("rollback", "mine")["version"] == "1"
    assert edgeai("remove", "mine", "2")["removed"] == "mine/2"
    assert edgeai("load", "mine") == edgeai("reload", "mine") == {"loaded": "mine"}
    assert edgeai("unload", "mine") == {"unloaded": "mine"}
    assert {m["name"] for m in edgeai("models")} >= {"digits", "mine"}
    assert edgeai("devices")[0]["id"] == "cpu0"
    assert {s["name"] for s in edgeai("stats")} >= {"digits"}
    assert edgeai("top", "--count", "1").keys() == {"devices", "stats"}
    assert edgeai("infer", "digits", "-i", EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")
    assert edgeai("classify", "digits", SAMPLES[0])["classes"]
    for name, task in (("digit-scenes", "detect"), ("digit-mask", "segment")):
        picture = sorted((EMBEDDED / name / "1" / "samples").glob("*.png"))[0]
        assert edgeai(task, name, picture)["model"] == name
    assert edgeai("version")["edgeaid"]["role"] == "control"
    assert edgeai("bench", "digits", "-n", "8", "-c", "1")["requests"] == 8
