"""Who may give this device a model: signatures, trusted keys, and no way back to an older serial."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from edgeaid import errors
from edgeaid.client import AsyncClient
from edgeaid.models.bundle import extract
from edgeaid.models.pack import write
from edgeaid.models.repository import EMBEDDED
from edgeaid.provision.apply import run

from ..support.daemon import Running

pytest.importorskip("cryptography", reason="signing needs the package cryptography")

from edgeaid.toolkit.bundle import bundle as bundles

DIGITS = EMBEDDED / "digits" / "1"


def made(tmp_path: Path, key: Path | None, serial: int = 0, change: Callable[[Path], None] = lambda _: None) -> Path:
    """A bundle of `digits` under the name m; `change` alters its directory after signing."""
    top = tmp_path / secrets.token_hex(4)
    directory = top / "m" / "1"
    shutil.copytree(DIGITS, directory)
    text = (directory / "model.toml").read_text().replace('name = "digits"', f'name = "m"\nserial = {serial}')
    (directory / "model.toml").write_text(text)
    bundle = write(directory, top, bundles.read_key(key) if key else None)
    out = top / "out"
    extract(bundle, out)
    change(out)
    with ZipFile(bundle, "w") as archive:
        for file in sorted(p for p in out.rglob("*") if p.is_file()):
            archive.write(file, str(file.relative_to(out)))
    return bundle


def relabelled(directory: Path) -> None:
    """Another file and its right digest, under the old signature."""
    labels = directory / "labels.txt"
    before = hashlib.sha256(labels.read_bytes()).hexdigest()
    labels.write_text("\n".join("9876543210") + "\n")
    listed = directory / "bundle.sha256"
    listed.write_text(listed.read_text().replace(before, hashlib.sha256(labels.read_bytes()).hexdigest()))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path, str]:
    """A trusted key, another one, and the trusted public key in hexadecimal."""
    trusted, other = tmp_path / "trusted", tmp_path / "other"
    public = bundles.make_key(trusted).hex()
    bundles.make_key(other)
    return trusted, other, public


def test_where_signatures_are_required_only_a_trusted_one_over_the_whole_content_counts(
    start: Callable[..., Running], tmp_path: Path, keys: tuple[Path, Path, str]
) -> None:
    trusted, other, public = keys
    daemon = start(f'[models]\nrequire_signature = true\ntrusted_keys = ["{public}"]\n')
    with daemon.client() as client:
        with pytest.raises(errors.PermissionDenied, match="not signed"):
            client.push("m", made(tmp_path, None))
        with pytest.raises(errors.PermissionDenied, match="not among"):
            client.push("m", made(tmp_path, other))
        with pytest.raises(errors.InvalidRequest, match="changed after signing"):
            client.push("m", made(tmp_path, trusted, change=relabelled))
        with pytest.raises(errors.PermissionDenied, match="not signed"):
            client.push("m", DIGITS / "model.tflite")
        assert not (daemon.repository / "m").exists()
        assert client.push("m", made(tmp_path, trusted))["serving"]
        # What is changed on the disk is noticed at the next load.
        (daemon.repository / "m" / "1" / "labels.txt").write_text("nothing\n")
        with pytest.raises(errors.InvalidRequest, match="changed after signing"):
            client.load("m")
        assert next(m for m in client.models() if m["name"] == "m")["state"] == "READY"


def test_a_forged_signature_is_refused_where_none_is_required_and_an_older_serial_unless_told_so(
    start: Callable[..., Running], tmp_path: Path, keys: tuple[Path, Path, str]
) -> None:
    trusted, other, public = keys
    daemon = start(f'[models]\ntrusted_keys = ["{public}"]\n')
    with daemon.client() as client:
        with pytest.raises(errors.InvalidRequest, match="changed after signing"):
            client.push("m", made(tmp_path, trusted, change=relabelled))
        with pytest.raises(errors.PermissionDenied, match="not among"):
            client.push("m", made(tmp_path, other))
        assert client.push("m", made(tmp_path, trusted, serial=5))["version"] == "1"
        for serial in (0, 4):
            with pytest.raises(errors.PermissionDenied, match="older than 5"):
                client.push("m", made(tmp_path, trusted, serial=serial))
        assert client.push("m", made(tmp_path, None, serial=5))["version"] == "2"
    status, answer = daemon.json(
        "PUT", "/edgeai/v1/models/m", made(tmp_path, trusted, serial=4).read_bytes(), {"X-Allow-Older": "true"}
    )
    assert (status, answer["version"]) == (201, "3")


@pytest.mark.slow
def test_push_with_allow_older_goes_back_on_purpose(
    start: Callable[..., Running], tmp_path: Path, keys: tuple[Path, Path, str]
) -> None:
    trusted, _, public = keys
    daemon = start(f'[models]\nrequire_signature = true\ntrusted_keys = ["{public}"]\n')
    with daemon.client() as client:
        client.push("m", made(tmp_path, trusted, serial=5))
        older = made(tmp_path, trusted, serial=4)
        status, text = edgeai(daemon, "push", "m", str(older))
        assert (status, "--allow-older" in text) == (77, True), text
        assert edgeai(daemon, "push", "--allow-older", "m", str(older))[0] == 0
        assert client.metadata("m")["versions"] == ["2"]
        # What is meant to be older must be signed all the same.
        assert edgeai(daemon, "push", "--allow-older", "m", str(made(tmp_path, None, serial=3)))[0] == 77
        oldest = made(tmp_path, trusted, serial=2)

    async def by_asyncio() -> None:
        async with AsyncClient(daemon.socket) as client:
            with pytest.raises(errors.PermissionDenied, match="older than 5"):
                await client.push("m", oldest)
            assert (await client.push("m", oldest, allow_older=True))["version"] == "3"

    asyncio.run(by_asyncio())


def edgeai(daemon: Running, *arguments: str) -> tuple[int, str]:
    """Exit status and messages of the command, asking this daemon."""
    command = [sys.executable, "-c", "from edgeaid.cli import main; main()", "--socket", str(daemon.socket), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_bundle_fetched_from_a_device_is_taken_by_another_that_trusts_its_signer_and_by_no_other_rule(
    start: Callable[..., Running], tmp_path: Path, keys: tuple[Path, Path, str]
) -> None:
    trusted, other, public = keys
    here = start("")
    there = start(f'[models]\nrequire_signature = true\ntrusted_keys = ["{public}"]\n')
    with here.client() as giver:
        versions = {
            "good": giver.push("m", made(tmp_path, trusted, serial=3))["version"],
            "unsigned": giver.push("m", made(tmp_path, None, serial=3))["version"],
            "another's": giver.push("m", made(tmp_path, other, serial=3))["version"],
            "newer": giver.push("m", made(tmp_path, trusted, serial=4))["version"],
        }
    fetched = {what: fetch(here, tmp_path / what, version) for what, version in versions.items()}
    forged = shutil.copytree(fetched["good"], tmp_path / "forged")
    (forged / "labels.txt").write_text("\n".join("9876543210") + "\n")
    with there.client() as taker:
        for what, reason in ((fetched["unsigned"], "not signed"), (fetched["another's"], "not among"), (forged, "not")):
            status, text = edgeai(there, "push", "m", str(what))
            assert (status, reason in text) == (77, True), text
        assert not (there.repository / "m").exists()
        assert edgeai(there, "push", "m", str(fetched["newer"]))[0] == 0
        assert (there.repository / "m" / "1" / "bundle.sig").is_file()
        with pytest.raises(errors.PermissionDenied, match="older than 4"):
            taker.push("m", write(fetched["good"], tmp_path))


def fetch(daemon: Running, directory: Path, version: str) -> Path:
    """A stored version as the device gives it on, unpacked."""
    status, _, data = daemon.http("GET", f"/edgeai/v1/models/m/versions/{version}/bundle")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.mark.slow
def test_public_models_are_refused_where_signatures_are_required(
    start: Callable[..., Running], tmp_path: Path, keys: tuple[Path, Path, str], shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    daemon = start(f'[models]\nrequire_signature = true\ntrusted_keys = ["{keys[2]}"]\n')
    monkeypatch.setenv("EDGEAI_MODEL_MIRROR", str(shared_data / "coral"))
    status, text = edgeai(daemon, "pull", "mobilenet-v1-0.25-128")
    assert (status, "is not signed" in text) == (77, True), text


def test_provisioning_takes_only_what_the_daemon_would_take(tmp_path: Path, keys: tuple[Path, Path, str]) -> None:
    trusted, _, public = keys
    root = tmp_path / "root"
    (root / "etc/edgeai").mkdir(parents=True)
    (root / "var/lib/edgeai/models").mkdir(parents=True)
    (root / "boot/edgeai-models").mkdir(parents=True)
    (root / "etc/edgeai/edgeaid.toml").write_text(f'[models]\nrequire_signature = true\ntrusted_keys = ["{public}"]\n')
    for number, bundle in (
        ("1", made(tmp_path, None)),
        ("2", made(tmp_path, trusted, 3)),
        ("3", made(tmp_path, trusted, 2)),
    ):
        shutil.copy(bundle, root / "boot" / "edgeai-models" / f"m-{number}.edgeai")
    (root / "boot/edgeai.toml").write_text(
        'schema = 1\n[models]\npreload = ["m-1.edgeai", "m-2.edgeai", "m-3.edgeai"]\n'
    )
    report = run(root, root / "boot")
    assert report is not None
    assert len(report.problems) == 2, (report.problems, report.done)
    assert ["not signed" in report.problems[0], "older than 3" in report.problems[1]] == [True, True]
    assert sorted(p.name for p in (root / "var/lib/edgeai/models/m").iterdir()) == ["2"]


@pytest.mark.parametrize(
    "table", ["require_signature = true", 'trusted_keys = ["abc"]', 'trusted_keys = ["/no/such/file"]']
)
def test_trust_that_cannot_work_is_refused_at_the_start(tmp_path: Path, table: str) -> None:
    file = tmp_path / "edgeaid.toml"
    file.write_text(f"[models]\n{table}\n")
    done = subprocess.run(
        [sys.executable, "-m", "edgeaid", "--config", file, "--socket", tmp_path / "s"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "models." in done.stderr) == (78, True)
