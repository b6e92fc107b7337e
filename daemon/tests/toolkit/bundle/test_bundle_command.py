"""`edgeai model bundle`, `verify`, `keygen`: golden vectors, digests, signatures, and what they print."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.errors import InvalidModel
from edgeaid.models.bundle import extract
from edgeaid.models.manifest import parse
from edgeaid.toolkit.bundle import manifests

from ..check_cases import FP, bias_only, conv
from ..markers import signed


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(model, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "tiny" / "2"
    made.mkdir(parents=True)
    (made / "model.tflite").write_bytes(conv(type=FP))
    (made / "model.toml").write_text(
        'schema = 1\nname = "tiny"\n\n[artifacts.cpu]\nfile = "model.tflite"\nthreads = 2\n'
    )
    return made


def test_a_bare_directory_gets_digests_and_golden_vectors_that_hold(directory: Path, tmp_path: Path) -> None:
    text = run("bundle", directory, "-o", tmp_path)
    assert "2 golden vectors recorded" in text
    manifest = parse((directory / "model.toml").read_bytes(), "tiny")
    assert len(manifest.goldens) == 2
    assert manifest.artifacts[0].options == {"threads": 2}
    golden = manifest.goldens[0]
    value = np.load(directory / golden.inputs["x"], allow_pickle=False)
    assert value.shape == (1, 8, 8, 4)
    assert np.load(directory / golden.outputs["y"], allow_pickle=False).shape == (1, 8, 8, 4)
    extract(tmp_path / "tiny-2.edgeai", tmp_path / "out")
    assert (tmp_path / "out/golden/1.output0.npy").is_file()


def test_golden_vectors_differ_from_each_other_even_where_most_outputs_are_equal(
    directory: Path, tmp_path: Path
) -> None:
    """A saturating model answers 0 or 127 to nearly everything; devices refuse golden vectors of equal outputs."""
    weights = np.zeros((4, 3, 3, 4))
    weights[:, 1, 1, 0] = 127
    (directory / "model.tflite").write_bytes(conv((1, 4, 4, 4), weights=weights, padding=0, kernel=(3, 3)))
    run("bundle", directory, "-o", tmp_path)
    manifest = parse((directory / "model.toml").read_bytes(), "tiny")
    outputs = [np.load(directory / g.outputs["y"], allow_pickle=False) for g in manifest.goldens]
    assert len(outputs) == 2
    assert not np.array_equal(*outputs)


def test_a_model_that_ignores_its_input_gets_no_golden_vectors(directory: Path, tmp_path: Path) -> None:
    (directory / "model.tflite").write_bytes(bias_only(0.0))
    assert "same output for 24 different inputs" in run("bundle", directory, "-o", tmp_path)
    assert parse((directory / "model.toml").read_bytes(), "tiny").goldens == ()


def test_a_second_run_changes_nothing(directory: Path, tmp_path: Path) -> None:
    run("bundle", directory, "-o", tmp_path)
    first = (tmp_path / "tiny-2.edgeai").read_bytes()
    run("bundle", directory, "-o", tmp_path)
    assert (tmp_path / "tiny-2.edgeai").read_bytes() == first


@signed
def test_a_key_signs_and_its_public_half_verifies(directory: Path, tmp_path: Path) -> None:
    run("keygen", tmp_path / "key")
    run("keygen", tmp_path / "other")
    assert "signed" in run("bundle", directory, "-o", tmp_path, "--key", tmp_path / "key")
    path = tmp_path / "tiny-2.edgeai"
    assert "trusted key" in run("verify", path, "--trust", tmp_path / "key.pub")
    assert "for you to know" in run("verify", path)
    assert "not a trusted key" in run("verify", path, "--trust", (tmp_path / "other.pub").read_text().strip(), code=77)


def test_a_damaged_bundle_is_a_data_error(directory: Path, tmp_path: Path) -> None:
    run("bundle", directory, "-o", tmp_path)
    path = tmp_path / "tiny-2.edgeai"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 1
    path.write_bytes(raw)
    run("verify", path, code=65)


def test_a_key_in_the_manifest_is_replaced_or_added_without_touching_the_rest(directory: Path) -> None:
    before = (directory / "model.toml").read_text()
    manifests.set_key(directory, "[artifacts.cpu]", "threads", 4)
    manifests.set_key(directory, "[artifacts.cpu]", "sha256", "0" * 64)
    text = (directory / "model.toml").read_text()
    assert tomllib.loads(text)["artifacts"]["cpu"] == {"file": "model.tflite", "threads": 4, "sha256": "0" * 64}
    assert text.startswith(before[:30])
    with pytest.raises(InvalidModel, match="no table"):
        manifests.set_key(directory, "[nothing]", "a", 1)
    with pytest.raises(InvalidModel, match="not be TOML"):
        manifests.append(directory, ["[artifacts.cpu]\nfile = 'twice'\n"])


def test_values_survive_being_written_as_toml() -> None:
    table = {"a b": 'quote " back \\ newline \n tab \t del \x7f é', "n": [1, 2.5, True], "t": {"x/y:0": "f.npy"}}
    assert tomllib.loads(manifests.table("[t]", table))["t"] == table
