"""A model serves only if its bytes are those that were sent and those that its manifest names, small or large."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.models.digests import LARGE
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running

DIGITS = EMBEDDED / "digits" / "1"
IMAGE = np.load(DIGITS / "golden" / "0.in.npy")


@pytest.fixture(scope="module")
def daemon(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = launch(tmp_path_factory.mktemp("pushed"))
    yield running
    running.stop()


@pytest.fixture(params=[0, 2 * LARGE], ids=["small", "large"])
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model file, with bytes behind it that no runtime reads."""
    file = tmp_path / "model.tflite"
    file.write_bytes((DIGITS / "model.tflite").read_bytes() + bytes(request.param))
    return file


def test_the_manifest_of_a_bare_file_has_the_digest_of_what_was_sent(daemon: Running, model: Path) -> None:
    with daemon.client() as client:
        version = client.push("kept", model)["version"]
        assert client.infer("kept", IMAGE).model == "kept"
    stored = daemon.repository / "kept" / version
    (artifact,) = tomllib.loads((stored / "model.toml").read_text())["artifacts"].values()
    assert (stored / artifact["file"]).read_bytes() == model.read_bytes()
    assert artifact["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_an_upload_that_is_not_what_its_sender_read_is_refused(daemon: Running, model: Path) -> None:
    data = bytearray(model.read_bytes())
    digest = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    with daemon.client() as client:
        with pytest.raises(errors.InvalidRequest, match="damaged on the way"):
            client.request(
                "PUT",
                "/edgeai/v1/models/refused",
                bytes(data),
                {"Content-Type": "application/octet-stream", "X-Content-SHA256": digest},
            )
        assert "refused" not in {row.name for row in client.models()}


def test_a_stored_file_with_one_wrong_bit_is_not_loaded(daemon: Running, model: Path) -> None:
    with daemon.client() as client:
        version = client.push("damaged", model)["version"]
        client.unload("damaged")
        (file,) = (daemon.repository / "damaged" / version).glob("*.tflite")
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.chmod(0o644)
        file.write_bytes(data)
        with pytest.raises(errors.InvalidRequest, match="damaged or was replaced"):
            client.load("damaged")
