"""`check` takes what `inspect` takes: the artifact for the target in it, or the way there."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeaid.formats.detect import KINDS, detect
from edgeaid.toolkit.check.check import Options, check

from ...formats.builders import SEEDS, archive
from ..check_cases import conv

MANIFEST = b'schema = 1\nname = "m"\n[artifacts.cpu]\nfile = "m.tflite"\n'
QUIET = Options(run=False)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"unknown"}))
@pytest.mark.parametrize("target", ["edgetpu", "k210", "ncs", "ncs2"])
def test_no_kind_of_file_is_refused_unread(kind: str, target: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(SEEDS[kind]())
    report = check(path, target, QUIET)
    assert report.kind in (detect(path.read_bytes()), "unknown", "tflite", "kmodel-v4", "kmodel-v5", "kmodel-v3")


def test_of_a_bundle_and_of_a_model_directory_the_artifact_for_the_target_is_checked(tmp_path: Path) -> None:
    files = {"model.toml": MANIFEST, "m.tflite": conv()}
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    bundle = tmp_path / "m-1.edgeai"
    bundle.write_bytes(archive(files))
    for path in (directory, bundle):
        report = check(path, "cpu")
        assert (report.kind, report.path) == ("tflite", str(path))
        assert report.facts["operators"] == 1
        (violation,) = check(path, "k210").violations
        assert "no artifact for k210; it has cpu" in violation.value


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("keras", "model quantize"),
        ("torch-export", "convert"),
        ("torchscript", "torch.export"),
        ("onnx", "convert"),
        ("kmodel-v4", "cannot be turned back"),
        ("tf-metagraph", "model freeze"),
        ("ncs-v2", "cannot be turned back"),
    ],
)
def test_what_has_to_be_converted_is_told_how(kind: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(SEEDS[kind]())
    (violation,) = check(tmp_path / "model", "edgetpu", QUIET).violations
    assert violation.rule.id == "TFL009"
    assert words in violation.value
