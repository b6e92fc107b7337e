"""Packages for kflash: what is written can be read, and what would break a board is refused."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeaid.errors import AlreadyExists, InvalidModel, InvalidRequest, NotFound
from edgeaid.formats.k210 import kfpkg as reader
from edgeaid.toolkit.compile import kfpkg

#: The smallest thing that is recognised as a kmodel v4.
MODEL = b"LDMK\x04\0\0\0" + bytes(64)


def test_firmware_gets_the_prefix_and_a_model_goes_raw(tmp_path: Path) -> None:
    firmware = tmp_path / "maixpy.bin"
    firmware.write_bytes(b"\x13" * 5000)
    packed, findings = kfpkg.build({0x500000: ("m.kmodel", MODEL), 0: firmware})
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        listing = json.loads(archive.read("flash-list.json"))
        assert archive.read("m.kmodel") == MODEL
    assert listing == {
        "version": "0.1.0",
        "files": [
            {"address": 0, "bin": "maixpy.bin", "sha256Prefix": True},
            {"address": 0x500000, "bin": "m.kmodel", "sha256Prefix": False},
        ],
    }
    assert findings == ()


@given(st.dictionaries(st.integers(0, 4000), st.binary(min_size=1, max_size=4000), min_size=1, max_size=6))
def test_what_is_written_is_read_back(blobs: dict[int, bytes]) -> None:
    parts = {address * 4096 + 4096 * 64: (f"{address}.bin", data) for address, data in blobs.items() if address < 3900}
    if parts:
        packed, _ = kfpkg.build(parts)
        assert {p.address: (p.name, p.data) for p in kfpkg.read(packed)} == parts


def test_the_same_parts_give_the_same_bytes() -> None:
    parts = {0x500000: ("m.kmodel", MODEL)}
    assert hashlib.sha256(kfpkg.build(parts)[0]).digest() == hashlib.sha256(kfpkg.build(parts)[0]).digest()


def test_bare_hexadecimal_addresses_of_other_tools_are_understood() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        text = '{"version": "0.1.0", "files": [{"address": 0x00C00000, "bin": "m.kmodel", "sha256Prefix": false}]}'
        archive.writestr("flash-list.json", text)
        archive.writestr("m.kmodel", MODEL)
    (part,) = kfpkg.read(out.getvalue())
    assert (part.address, part.data, part.sha256_prefix) == (0xC00000, MODEL, False)


def test_a_listed_file_that_is_missing_is_named() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("flash-list.json", '{"files": [{"address": 4096, "bin": "gone.bin"}]}')
    with pytest.raises(InvalidModel, match=r"'gone\.bin' is listed but not in the archive"):
        kfpkg.read(out.getvalue())


def test_parts_that_overlap_are_refused() -> None:
    with pytest.raises(InvalidModel, match="overlaps"):
        kfpkg.build({0x500000: ("a.bin", bytes(5000)), 0x501000: ("b.bin", b"x")})


@pytest.mark.parametrize("address", [1, 0x500001, 0x1000000, -4096])
def test_an_address_that_kflash_cannot_erase_is_refused(address: int) -> None:
    with pytest.raises(InvalidRequest, match="not a multiple of 4096"):
        kfpkg.build({address: ("a.bin", b"x")})


def test_a_model_in_the_firmwares_place_and_one_in_the_file_system_are_warned_of() -> None:
    _, findings = kfpkg.build({0: ("m.kmodel", MODEL), 0xCFF000: ("big.bin", bytes(8192))})
    assert sorted(f.rule for f in findings) == ["file-system", "firmware"]


def test_files_are_not_overwritten_unasked(tmp_path: Path) -> None:
    target = tmp_path / "a.kfpkg"
    kfpkg.write(target, {0x500000: ("m.kmodel", MODEL)})
    with pytest.raises(AlreadyExists):
        kfpkg.write(target, {0x500000: ("m.kmodel", MODEL)})
    kfpkg.write(target, {0x400000: ("m.kmodel", MODEL)}, replace=True)
    assert reader.read(target.read_bytes()).files[0].address == 0x400000


def test_missing_and_impossible_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.kmodel"):
        kfpkg.build({0x500000: tmp_path / "none.kmodel"})
    with pytest.raises(InvalidRequest, match="same name"):
        kfpkg.build({0x500000: ("a", b"1"), 0x600000: ("a", b"2")})
    with pytest.raises(InvalidRequest, match="at least one file"):
        kfpkg.build({})
    with pytest.raises(NotFound, match="directory"):
        kfpkg.write(tmp_path / "no" / "a.kfpkg", {0x500000: ("m", MODEL)})


def test_kflash_itself_would_take_the_package(tmp_path: Path) -> None:
    kflash = pytest.importorskip("kflash")
    assert kflash
    packed, _ = kfpkg.build({0x500000: ("m.kmodel", MODEL)})
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        listing = json.loads(archive.read("flash-list.json"))
        for item in listing["files"]:  # what kflash looks up of every file
            assert isinstance(item["address"], int)
            assert archive.getinfo(item["bin"]).file_size == len(MODEL)
            assert isinstance(item["sha256Prefix"], bool)


def test_the_verb_packs_models_to_their_addresses(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from edgeaid.cli.model import model

    for name, first in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.kmodel").write_bytes(b"LDMK" + (5).to_bytes(4, "little") + bytes([first]) * 100)
    output = tmp_path / "both.kfpkg"
    files = [str(tmp_path / "a.kmodel"), f"0x600000={tmp_path / 'b.kmodel'}"]
    result = CliRunner().invoke(model, ["kfpkg", *files, "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert [(p.address, p.name, p.data[8]) for p in kfpkg.read(output.read_bytes())] == [
        (0x500000, "a.kmodel", 1), (0x600000, "b.kmodel", 2),
    ]  # fmt: skip
    result = CliRunner().invoke(model, ["kfpkg", f"here={files[0]}", "-o", str(output)])
    assert result.exit_code == 64
    assert "ADDRESS=FILE" in result.output
