"""kmodels, flash packages and NCS graphs with one fault each."""

from __future__ import annotations

import struct

import pytest

from edgeaid.errors import InvalidModel, Unsupported
from edgeaid.formats.k210 import kfpkg, kmodel
from edgeaid.formats.ncs import reader as ncs

from . import builders


def patched(data: bytes, at: int, fmt: str, *values: int) -> bytes:
    """The file with numbers written over it."""
    copy = bytearray(data)
    struct.pack_into(fmt, copy, at, *values)
    return bytes(copy)


@pytest.mark.parametrize("missing", range(8))
def test_the_last_body_may_be_up_to_seven_bytes_short(missing: int) -> None:
    data = builders.kmodel_v3_short()  # already 4 short of its stated size
    stated = len(data) - 44 + missing
    assert kmodel.read(patched(data, 40, "<I", stated)).shortfall == missing
    with pytest.raises(InvalidModel, match="runs past the end"):
        kmodel.read(patched(data, 40, "<I", len(data) - 44 + 8))


def test_a_fully_connected_layer_larger_than_its_body_is_refused() -> None:
    with pytest.raises(InvalidModel, match="fully_connected"):
        kmodel.read(patched(builders.kmodel_v3_short(), 44 + 12, "<I", 1000))


def test_a_v3_convolution_with_tables_outside_the_file_is_refused() -> None:
    with pytest.raises(InvalidModel, match="weights"):
        kmodel.read(patched(builders.kmodel_v3(), 52 + 12, "<I", 1 << 30))


def test_an_unknown_kmodel_version_is_not_called_damaged() -> None:
    with pytest.raises(Unsupported, match="version 6"):
        kmodel.read(b"LDMK" + struct.pack("<9I", 6, *[0] * 8))


def test_an_early_v5_file_is_not_called_damaged() -> None:
    with pytest.raises(Unsupported, match="early compiler"):
        kmodel.read(patched(builders.kmodel_v5(), 8, "<I", 0))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (40, 7, "memory 7"),
        (48, 1 << 20, "outside the 512 bytes of main memory"),
        (56, 0, "impossible shape"),
        (24, 99999, "nodes"),
    ],
)
def test_a_v4_header_with_one_fault_is_refused(at: int, value: int, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        kmodel.read(patched(builders.kmodel_v4(), at, "<I", value))


def test_a_v4_file_shows_where_each_node_runs() -> None:
    model = kmodel.read(builders.kmodel_v4())
    assert [n.name for n in model.nodes] == [
        "kpu_upload", "kpu_conv2d", "dequantize", "concat", "conv2d", "matmul", "binary", "unary",
    ]  # fmt: skip
    assert [n.device for n in model.nodes] == ["kpu", "kpu"] + ["cpu"] * 6
    convolution = model.nodes[1].convolution
    assert convolution is not None
    assert (convolution.input, convolution.output, convolution.kernel) == ((2, 4, 4), (3, 4, 4), 3)
    assert model.kpu_peak == 256 + 256
    assert model.nodes[6].details["op"] == "mul"


def test_a_v5_chain_of_modules_must_end_with_the_file() -> None:
    with pytest.raises(InvalidModel, match="end at byte"):
        kmodel.read(builders.kmodel_v5() + bytes(8))


def test_a_v5_function_outside_its_text_is_refused() -> None:
    data = builders.kmodel_v5()
    function_at = 32 + 48 + 16
    with pytest.raises(InvalidModel, match="outside the text"):
        kmodel.read(patched(data, function_at + 24, "<I", 4096))


def test_a_model_too_big_for_the_chip_is_reported() -> None:
    rules = {f.rule: f.severity for f in kmodel.check(kmodel.read(builders.kmodel_v4()), free_ram=100)}
    assert rules["ram"] == "refused"


def test_a_flash_package_reads_bare_hexadecimal_addresses() -> None:
    package = kfpkg.read(builders.kfpkg())
    assert [(f.address, f.name, f.kind, f.sha256_prefix) for f in package.files] == [
        (0, "fw.bin", "unknown", True),
        (0x300000, "m.kmodel", "kmodel-v3", False),
    ]
    assert not kfpkg.check(package)


def _package(*files: tuple[str, str, bool]) -> bytes:
    listed = ", ".join(f'{{"address": {a}, "bin": "{n}", "sha256Prefix": {str(p).lower()}}}' for a, n, p in files)
    text = f'{{"version": "0.1.0", "files": [{listed}]}}'
    return builders.archive({"flash-list.json": text.encode(), "a": builders.kmodel_v3_short(), "b": bytes(5000)})


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ([("0x1000", "missing", False)], "missing"),
        ([("0x0", "b", False), ("0x1000", "a", False)], "overlap"),
        ([("0x300000", "a", True)], "prefix"),
        ([("0x300001", "a", False)], "alignment"),
        ([("0xFFFFF0", "b", False)], "flash-size"),
    ],
)
def test_misplaced_files_of_a_flash_package_are_named(files: list[tuple[str, str, bool]], rule: str) -> None:
    assert rule in {f.rule for f in kfpkg.check(kfpkg.read(_package(*files)))}


@pytest.mark.parametrize(
    "listing", ['{"files": 3}', "[", '{"files": [{"bin": "a"}]}', '{"files": [{"address": -1, "bin": "a"}]}']
)
def test_a_wrong_flash_list_is_refused(listing: str) -> None:
    with pytest.raises(InvalidModel, match=r"flash-list\.json"):
        kfpkg.read(builders.archive({"flash-list.json": listing.encode(), "a": b"x"}))


def test_a_v1_graph_with_more_stages_than_bytes_is_refused_before_a_library_walks_them() -> None:
    data = builders.ncs_v1()
    assert ncs.read(data).stage_count == 2
    for wrong in (0, 3, 60000):
        with pytest.raises(InvalidModel):
            ncs.read(patched(data, 240, "<H", wrong))


def test_the_number_of_output_values_follows_from_the_last_stage() -> None:
    graph = ncs.read(builders.ncs_v1())
    assert (graph.input_elements, graph.output_elements) == (4 * 4 * 8, 4 * 4 * 16 // 2)


@pytest.mark.parametrize("at", [38, 54, 58, 62])
def test_a_v2_graph_whose_sections_contradict_each_other_is_refused(at: int) -> None:
    data = builders.ncs_v2()
    ncs.read(data)
    with pytest.raises(InvalidModel):
        ncs.read(patched(data, at, "<I", len(data) + 4))


def test_a_blob_states_the_version_its_runtime_must_have() -> None:
    blob = ncs.read_blob(builders.blob())
    assert (blob.major, blob.minor, blob.stages, blob.shaves, blob.uses_hw) == (6, 0, 12, 4, True)
    with pytest.raises(InvalidModel, match="bytes stated"):
        ncs.read_blob(builders.blob()[:-1])
