"""The bundle reader against everything a hostile or damaged file can do."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid.errors import EdgeaiError, InvalidModel, TooLarge
from edgeaid.models.bundle import extract, open_bundle
from edgeaid.models.bundle_entries import Limits
from edgeaid.models.pack import pack

MANIFEST = b'schema = 1\nname = "digits"\n[artifacts.cpu]\nfile = "model.tflite"\n'
GOOD = pack({"model.toml": MANIFEST, "model.tflite": os.urandom(3000), "golden/0.in.npy": b"\x93NUMPY" * 400})


def archive(*members: tuple[str | zipfile.ZipInfo, bytes], manifest: bool = True) -> BytesIO:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as z:
        if manifest:
            z.writestr("model.toml", MANIFEST)
        for name, content in members:
            z.writestr(name, content)
    return stream


def nothing_left(directory: Path) -> bool:
    return list(directory.iterdir()) == []


def refused(
    source: BytesIO, directory: Path, error: type[EdgeaiError], text: str, limits: Limits | None = None
) -> None:
    with pytest.raises(error, match=text):
        extract(source, directory / "out", limits or Limits())
    assert nothing_left(directory)


def test_a_good_bundle_is_unpacked_with_its_directories(tmp_path: Path) -> None:
    extract(BytesIO(GOOD), tmp_path / "out")
    assert (tmp_path / "out/model.toml").read_bytes() == MANIFEST
    assert (tmp_path / "out/golden/0.in.npy").read_bytes() == b"\x93NUMPY" * 400
    assert stat.S_IMODE((tmp_path / "out/model.tflite").stat().st_mode) & 0o133 == 0


def test_a_bundle_may_lie_in_a_file_and_the_directory_may_exist_empty(tmp_path: Path) -> None:
    (tmp_path / "b.edgeai").write_bytes(GOOD)
    (tmp_path / "out").mkdir()
    extract(tmp_path / "b.edgeai", tmp_path / "out")
    assert (tmp_path / "out/model.tflite").stat().st_size == 3000


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(InvalidModel, match="not empty"):
        extract(BytesIO(GOOD), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_zip_made_by_an_ordinary_zip_tool_with_directory_entries_is_accepted(tmp_path: Path) -> None:
    directory = zipfile.ZipInfo("golden/")
    directory.external_attr = (0o40755 << 16) | 0x10
    extract(archive((directory, b""), ("golden/0.npy", b"x")), tmp_path / "out")
    assert (tmp_path / "out/golden/0.npy").read_bytes() == b"x"


@pytest.mark.parametrize(
    "name",
    ["../evil", "golden/../../evil", "/etc/evil", "C:\\evil", "a\\..\\evil", ".hidden", "a//b", "a/./b", "é.txt",
     "a b", "x" * 200, "1/2/3/4/5/6", "new\nline", "-rf"],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    refused(archive((name, b"x")), tmp_path, InvalidModel, "plain relative names")


def test_a_name_with_a_nul_byte_is_refused(tmp_path: Path) -> None:
    raw = archive(("aXb", b"x")).getvalue().replace(b"aXb", b"a\0b")
    refused(BytesIO(raw), tmp_path, InvalidModel, "plain relative names")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    refused(archive((info, b"/etc/passwd")), tmp_path, InvalidModel, "not a plain file")


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    refused(archive(("bomb", bytes(20 << 20))), tmp_path, TooLarge, "packed 1")


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    source = archive(("big", os.urandom(5000)))
    refused(source, tmp_path, TooLarge, "5000 bytes", Limits(file_bytes=4999))


def test_many_files_over_the_limit_together_are_refused(tmp_path: Path) -> None:
    source = archive(*((f"f{i}", os.urandom(1000)) for i in range(10)))
    refused(source, tmp_path, TooLarge, "unpacks to more", Limits(total_bytes=5000))


def test_too_many_entries_are_refused_before_the_directory_is_read(tmp_path: Path) -> None:
    refused(archive(*((f"f{i}", b"") for i in range(20))), tmp_path, TooLarge, "21 entries", Limits(entries=20))


def lie_about_size(raw: bytes, name: bytes, size: int) -> bytes:
    """Change the unpacked size of a file in its local header and in the directory."""
    out = bytearray(raw)
    local = out.index(b"PK\x03\x04" + out[4:26][:0], out.index(name) - 30)
    struct.pack_into("<L", out, local + 22, size)
    central = out.rindex(name) - 46
    assert out[central : central + 4] == b"PK\x01\x02"
    struct.pack_into("<L", out, central + 24, size)
    return bytes(out)


@pytest.mark.parametrize("size", [10, 39_999, 40_001, 60_000])
def test_a_file_that_lies_about_its_size_is_refused(tmp_path: Path, size: int) -> None:
    raw = archive(("liar", os.urandom(100) * 400)).getvalue()
    refused(BytesIO(lie_about_size(raw, b"liar", size)), tmp_path, InvalidModel, "unpacks to more|damaged")


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        source = archive(("a", b"1"), ("a", b"2"))
    refused(source, tmp_path, InvalidModel, "twice")


def test_a_name_that_is_file_and_directory_is_refused(tmp_path: Path) -> None:
    refused(archive(("a", b"1"), ("a/b", b"2")), tmp_path, InvalidModel, "a file and a directory")


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """Two directory entries for the same data: how a small file unpacks to a huge one without a high ratio."""
    raw = archive(("aaa", b"1" * 50), ("aab", b"1" * 50)).getvalue()
    out = bytearray(raw)
    first, second = out.rindex(b"aaa") - 46, out.rindex(b"aab") - 46
    out[second + 42 : second + 46] = out[first + 42 : first + 46]
    out[second + 46 : second + 49] = b"aaa"
    refused(BytesIO(bytes(out)), tmp_path, InvalidModel, "share bytes")


def test_a_directory_that_disagrees_with_the_content_is_refused(tmp_path: Path) -> None:
    out = bytearray(archive(("good", b"x")).getvalue())
    at = out.index(b"good")
    out[at : at + 4] = b"evil"
    refused(BytesIO(bytes(out)), tmp_path, InvalidModel, "disagree")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_methods_are_refused(tmp_path: Path, method: int) -> None:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", method) as z:
        z.writestr("model.toml", MANIFEST)
    refused(stream, tmp_path, InvalidModel, "stored and deflated|streamed")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    out = bytearray(archive(("secret", b"x")).getvalue())
    out[out.rindex(b"secret") - 46 + 8] |= 1
    refused(BytesIO(bytes(out)), tmp_path, InvalidModel, "encrypted")


def test_a_bundle_without_a_manifest_is_refused(tmp_path: Path) -> None:
    refused(archive(("a", b"1"), manifest=False), tmp_path, InvalidModel, "no model.toml")


def test_bytes_in_front_of_or_behind_the_archive_are_refused(tmp_path: Path) -> None:
    refused(BytesIO(b"#!/bin/sh\n" + GOOD), tmp_path, InvalidModel, "before, between or after")
    refused(BytesIO(GOOD + b"tail"), tmp_path, InvalidModel, "does not end")


def test_every_cut_off_bundle_is_refused(tmp_path: Path) -> None:
    for length in range(0, len(GOOD), 7):
        refused(BytesIO(GOOD[:length]), tmp_path, InvalidModel, ".")


def test_a_file_that_does_not_match_its_digest_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    digests = b"".join(b"0" * 64 + b"  " + n + b"\n" for n in (b"model.toml",))
    refused(archive(("bundle.sha256", digests)), tmp_path, InvalidModel, "digest")


def test_a_file_missing_in_the_digest_list_is_refused(tmp_path: Path) -> None:
    import hashlib

    digests = f"{hashlib.sha256(MANIFEST).hexdigest()}  model.toml\n".encode()
    refused(archive(("bundle.sha256", digests), ("extra", b"x")), tmp_path, InvalidModel, "extra")


def test_a_deflated_file_with_a_second_stream_behind_it_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = packer.compress(b"hello") + packer.flush() + b"hidden data"
    info = zipfile.ZipInfo("two")
    raw = bytearray(archive((info, stream)).getvalue())
    for at in (raw.index(b"two") - 30, raw.rindex(b"two") - 46):
        base = at + (8 if raw[at : at + 4] == b"PK\x03\x04" else 10)
        struct.pack_into("<H", raw, base, 8)
        struct.pack_into("<L", raw, base + 6, zlib.crc32(b"hello"))
        struct.pack_into("<L", raw, base + 14, 5)
    refused(BytesIO(bytes(raw)), tmp_path, InvalidModel, "after its end")


def read_all(raw: bytes) -> None:
    with open_bundle(BytesIO(raw), Limits(total_bytes=1 << 20, file_bytes=1 << 20)) as bundle:
        bundle.digests()
        for name in bundle.entries:
            assert sum(map(len, bundle.pieces(name))) == bundle.entries[name].size


MUTATION = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6)


def mutated(changes: list[tuple[int, int]], base: bytes = GOOD) -> bytes:
    out = bytearray(base)
    for at, value in changes:
        out[at] = value
    return bytes(out)


@given(MUTATION)
def test_changed_bytes_are_refused_or_read_completely(changes: list[tuple[int, int]]) -> None:
    with suppress(EdgeaiError):
        read_all(mutated(changes))


TAIL = len(GOOD) - 420


@given(st.lists(st.tuples(st.integers(TAIL, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_directory_is_refused_or_read_completely(changes: list[tuple[int, int]]) -> None:
    with suppress(EdgeaiError):
        read_all(mutated(changes))


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(EdgeaiError):
        read_all(raw)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(TAIL, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_twenty_thousand_changed_directories_are_refused_or_read_completely(changes: list[tuple[int, int]]) -> None:
    with suppress(EdgeaiError):
        read_all(mutated(changes))
