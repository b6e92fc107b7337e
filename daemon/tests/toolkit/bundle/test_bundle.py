"""Making, signing and verifying bundles."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

import pytest

from edgeaid.errors import CannotWrite, InvalidModel, NotFound, PermissionDenied
from edgeaid.models import repository
from edgeaid.models.bundle import extract
from edgeaid.models.pack import write
from edgeaid.models.trust import Trust
from edgeaid.toolkit.bundle.bundle import make_key, read_key, verify

from ..markers import signed

MODEL = os.urandom(2000)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "digits" / "3"
    (made / "golden").mkdir(parents=True)
    (made / "model.tflite").write_bytes(MODEL)
    (made / "labels.txt").write_text("zero\none\n")
    for name in ("0.in.npy", "0.out.npy"):
        (made / "golden" / name).write_bytes(b"data")
    (made / "notes.md").write_text("not named in the manifest")
    (made / "model.toml").write_text(
        f'schema = 1\nname = "digits"\n[artifacts.cpu]\nfile = "model.tflite"\nsha256 = "{sha256(MODEL).hexdigest()}"\n'
        '[labels]\nfile = "labels.txt"\n'
        '[[golden]]\ninputs = { x = "golden/0.in.npy" }\noutputs = { y = "golden/0.out.npy" }\n'
    )
    return made


def test_a_bundle_is_named_after_model_and_version(directory: Path, tmp_path: Path) -> None:
    assert write(directory, tmp_path) == tmp_path / "digits-3.edgeai"


def test_the_same_directory_gives_the_same_bytes_at_any_time(directory: Path, tmp_path: Path) -> None:
    one = write(directory, tmp_path / "one").read_bytes()
    for path in directory.rglob("*"):
        os.utime(path, (time.time() - 1e6,) * 2)
    (directory / "labels.txt").chmod(0o600)
    assert write(directory, tmp_path / "two").read_bytes() == one


def test_only_files_that_the_manifest_names_are_taken(directory: Path, tmp_path: Path) -> None:
    verified = verify(write(directory, tmp_path))
    assert set(verified.files) == {
        "model.toml", "model.tflite", "labels.txt", "golden/0.in.npy", "golden/0.out.npy", "bundle.sha256",
    }  # fmt: skip
    assert (verified.name, verified.version, verified.signed_by) == ("digits", "3", "")


def test_a_bundle_unpacks_to_what_was_packed(directory: Path, tmp_path: Path) -> None:
    extract(write(directory, tmp_path), tmp_path / "out")
    assert (tmp_path / "out/model.tflite").read_bytes() == MODEL


@signed
def test_a_signed_bundle_is_accepted_for_its_key_only(directory: Path, tmp_path: Path) -> None:
    mine, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    path = write(directory, tmp_path, read_key(tmp_path / "key"))
    assert verify(path, [other, mine]).signed_by == mine.hex()
    extract(path, tmp_path / "out")
    stored = repository.read(tmp_path / "out", "digits", "3", 1 << 20)
    Trust((other, mine), required=True).check(stored)
    with pytest.raises(PermissionDenied, match="not among"):
        Trust((other,)).check(stored)


@signed
def test_an_unsigned_bundle_is_refused_where_keys_are_trusted(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied, match="not signed"):
        verify(write(directory, tmp_path), [make_key(tmp_path / "key")])


@signed
def test_a_signature_over_other_content_is_refused(directory: Path, tmp_path: Path) -> None:
    from io import BytesIO
    from zipfile import ZipFile

    key = make_key(tmp_path / "key")
    path = write(directory, tmp_path, read_key(tmp_path / "key"))
    with ZipFile(path) as z:
        members = {n: z.read(n) for n in z.namelist()}
    members["labels.txt"] = b"nine\n"
    members["bundle.sha256"] = b"".join(
        sha256(c).hexdigest().encode() + b"  " + n.encode() + b"\n"
        for n, c in sorted(members.items())
        if not n.startswith("bundle.")
    )
    stream = BytesIO()
    with ZipFile(stream, "w") as z:
        for name, content in members.items():
            z.writestr(name, content)
    path.write_bytes(stream.getvalue())
    with pytest.raises(InvalidModel, match="changed after signing"):
        verify(path, [key])
    with pytest.raises(InvalidModel, match="changed after signing"):
        verify(path)


@signed
def test_a_private_key_is_readable_by_its_owner_only_and_never_replaced(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(CannotWrite, match="exists"):
        make_key(tmp_path / "key")


def test_an_artifact_that_changed_after_its_digest_was_written_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "model.tflite").write_bytes(b"other")
    with pytest.raises(InvalidModel, match="sha256"):
        write(directory, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('file = "labels.txt"', 'file = "../../secret"', "plain path inside the model directory"),
        ('name = "digits"', 'name = "../x"', "starting with a letter or digit"),
        ("[artifacts.cpu]", "[artifact.cpu]", "at least one \\[artifacts"),
        ("schema = 1", "schema = = 1", "model.toml: Invalid value"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(directory: Path, tmp_path: Path, old: str, new: str, text: str) -> None:
    manifest = directory / "model.toml"
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(InvalidModel, match=text):
        write(directory, tmp_path)


def test_a_symbolic_link_is_not_followed_into_a_bundle(directory: Path, tmp_path: Path) -> None:
    (directory / "labels.txt").unlink()
    (directory / "labels.txt").symlink_to("/etc/hostname")
    with pytest.raises(InvalidModel, match="not a plain file"):
        write(directory, tmp_path)


def test_a_directory_without_manifest_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"model\.toml"):
        write(tmp_path)
