"""`edgeai model check` as a person and as a CI job sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model

from ..check_cases import conv, quantised_relu_between, relu


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(model, ["check", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A model whose graph is cut: a warning, no error."""
    path = tmp_path / "cut.tflite"
    path.write_bytes(quantised_relu_between("TRANSPOSE"))
    return path


def test_the_table_names_rule_layer_limit_and_remedy(cut: Path) -> None:
    text = run(cut, "--target", "edgetpu", "--no-run")
    for part in ("ETP010", "#1 TRANSPOSE", "limit:", "do:", "coral.ai"):
        assert part in text


def test_the_exit_status_follows_the_severity_asked_for(cut: Path) -> None:
    run(cut, "--target", "edgetpu", "--no-run")
    run(cut, "--target", "edgetpu", "--no-run", "--fail-on", "warning", code=1)
    run(cut, "--target", "k210", "--no-run", code=1)
    run(cut, "--target", "k210", "--no-run", "--fail-on", "never")


def test_json_holds_one_report_per_model_and_target(cut: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.tflite"
    good.write_bytes(relu())
    reports = json.loads(run(cut, good, "--target", "edgetpu", "--target", "cpu", "--no-run", "--json"))
    assert [(Path(r["path"]).name, r["target"], r["worst"]) for r in reports] == [
        ("cut.tflite", "edgetpu", "warning"), ("cut.tflite", "cpu", ""),
        ("good.tflite", "edgetpu", ""), ("good.tflite", "cpu", ""),
    ]  # fmt: skip


def test_sarif_has_what_code_hosts_read(cut: Path, tmp_path: Path) -> None:
    run(cut, "--target", "edgetpu", "--no-run", "--sarif", tmp_path / "out.sarif")
    log = json.loads((tmp_path / "out.sarif").read_text())
    (only,) = log["runs"]
    assert log["version"] == "2.1.0"
    numbers = [r["id"] for r in only["tool"]["driver"]["rules"]]
    for result in only["results"]:
        assert numbers[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("cut.tflite")


def test_a_path_in_sarif_is_an_address(cut: Path, tmp_path: Path) -> None:
    odd = cut.rename(tmp_path / "my model#1.tflite")
    run(odd, "--target", "edgetpu", "--no-run", "--sarif", tmp_path / "out.sarif")
    (first, *_) = json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"]
    address = first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert address.endswith("/my%20model%231.tflite")


def test_a_rule_broken_in_many_layers_is_shown_a_few_times(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(quantised_relu_between(*["TRANSPOSE"] * 8))
    text = run(path, "--target", "edgetpu", "--no-run")
    assert text.count("ETP010 warning") == 3
    assert "5 more of ETP010" in text


def test_the_rules_can_be_listed() -> None:
    assert "NCS012" in run("--rules")
    assert len(json.loads(run("--rules", "--json"))) > 90


def test_a_device_profile_is_used(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(conv((1, 16, 16, 4), type="FP32"))
    run(path, "--target", "k210", "--no-run")
    (tmp_path / "tiny.toml").write_text("kpu_ram = 1000\n")
    assert "KPU013" in run(path, "--target", "k210", "--no-run", "--device-profile", tmp_path / "tiny.toml", code=1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 64),
        (["x.tflite"], 64),
        (["nothing.tflite", "--target", "cpu"], 66),
        (["x", "--target", "cpu", "--mean", "a"], 64),
        (["x", "--target", "cpu", "--mean", "1"], 64),
        (["x", "--target", "cpu", "--device-profile", "none"], 66),
    ],
)
def test_mistakes_have_exit_codes_of_their_own(arguments: list[str], code: int) -> None:
    run(*arguments, code=code)
