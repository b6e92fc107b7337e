"""`edgeai model deploy`: one command, every step kept, what is missing said with what to do."""

from __future__ import annotations

import json
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeaid.cli import main as edgeai
from edgeaid.models.bundle import open_bundle
from edgeaid.models.manifest import parse

DIGITS = Path(str(files("edgeaid.models") / "defaults/digits/1/model.tflite"))


def deploy(*arguments: object, code: int = 0) -> dict[str, Any]:
    """The report of the command."""
    result = CliRunner().invoke(edgeai, ["model", "deploy", *map(str, arguments), "--json"])
    assert result.exit_code == code, (result.output, result.exception)
    report: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
    return report


def steps(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name and target."""
    return {f"{s['name']} {s['target']}".strip(): s for s in report["steps"]}


def test_a_quantised_file_becomes_a_bundle_and_the_missing_compiler_is_told_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    report = deploy(DIGITS, "--name", "mine", "--target", "edgetpu,cpu", "--no-push", "-o", tmp_path)
    made = steps(report)
    assert list(made) == ["check edgetpu", "compile edgetpu", "check cpu", "bundle"]
    assert made["compile edgetpu"]["state"] == "left out"
    assert "edgetpu_compiler -s" in made["compile edgetpu"]["text"]
    assert [made[key]["state"] for key in ("check edgetpu", "check cpu", "bundle")] == ["done"] * 3
    assert json.loads((tmp_path / "deploy.json").read_text()) == report
    with open_bundle(tmp_path / "mine-1.edgeai") as opened:
        manifest = parse(opened.read("model.toml"), "mine")
    assert [a.target for a in manifest.artifacts] == ["cpu"]
    assert manifest.goldens


def test_without_a_daemon_it_ends_with_the_bundle_and_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeaid.cli.common.HTTP_SOCKET", str(tmp_path / "none.sock"))
    made = steps(deploy(DIGITS, "--name", "mine", "-o", tmp_path / "work"))
    assert made["push"]["state"] == "left out"
    assert "mine-1.edgeai" in made["push"]["text"]


def test_a_target_that_needs_the_float_model_is_left_out_for_a_quantised_one(tmp_path: Path) -> None:
    made = steps(deploy(DIGITS, "--name", "mine", "--target", "k210,cpu", "--no-push", "-o", tmp_path))
    assert made["compile k210"]["state"] == "left out"
    assert "float model" in made["compile k210"]["text"]


def test_the_name_comes_from_the_file_whatever_its_kind(tmp_path: Path) -> None:
    net = tmp_path / "My net.keras"
    with zipfile.ZipFile(net, "w") as archive:
        for part in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(part, "x")
    done = CliRunner().invoke(edgeai, ["model", "deploy", str(net), "-o", str(tmp_path / "work")])
    assert (done.exit_code, "no representative data" in done.stderr) == (65, True), done.stderr
    assert "[left out] quantise" in done.stderr
    assert "My net.keras cannot be deployed" in done.stderr


def test_a_file_that_is_no_model_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "notes.tflite").write_text("nothing")
    result = CliRunner().invoke(edgeai, ["model", "deploy", str(tmp_path / "notes.tflite"), "-o", str(tmp_path / "w")])
    assert result.exit_code == 65, result.output
    assert "deploy takes" in result.output
    result = CliRunner().invoke(edgeai, ["model", "deploy", str(DIGITS), "--target", "toaster", "-o", str(tmp_path)])
    assert "toaster" in result.output
    assert result.exit_code == 64
