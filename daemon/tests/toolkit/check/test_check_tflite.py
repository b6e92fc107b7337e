"""Rules TFL, SAN, ETP and KPU: each is broken by a minimal model and kept by another."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeaid.errors import InvalidModel
from edgeaid.toolkit.check.check import Options, check
from edgeaid.toolkit.check.rules import PROFILES, Violation
from edgeaid.toolkit.run import child, litert

from ...formats import builders
from ...support import tflite
from ..check_cases import (
    FP,
    TFLITE,
    axes,
    bias_only,
    concat,
    conv,
    dense,
    input_range,
    one,
    padded_conv,
    relu,
    strided_slice,
)
from ..compile.test_compile_logs import LOG_16
from ..tflite_builder import Graph, Op, T, build


def broken(data: bytes, target: str, directory: Path, options: Options | None = None) -> set[str]:
    path = directory / "model.tflite"
    path.write_bytes(data)
    return {v.rule.id for v in check(path, target, options or Options(run=False)).violations}


@pytest.mark.parametrize("rule", sorted(TFLITE))
def test_a_rule_is_broken_by_the_wrong_model_and_kept_by_the_right_one(rule: str, tmp_path: Path) -> None:
    target, bad, good = TFLITE[rule]
    options = Options(run=rule in ("SAN001", "SAN007", "SAN008"))
    assert rule in broken(bad, target, tmp_path, options)
    assert rule not in broken(good, target, tmp_path, options)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("ETP021", concat(None, activation=1)),
        ("ETP021", concat(0, 0)),
        ("ETP023", dense(8, 4, format=1)),
        (
            "ETP026",
            one(
                "PAD",
                (1, 4, 4, 3),
                (2, 4, 4, 3),
                constants=[T("p", (4, 2), "INT32", data=[[1, 0], [0, 0], [0, 0], [0, 0]])],
            ),
        ),
        ("ETP026", one("PACK", (1, 8), (1, 1, 8), options=[(0, "i", 1), (1, "i", 0)])),
        ("ETP030", one("SOFTMAX", (1, 16385), (1, 16385), options=[(0, "f", 1.0)])),
        ("ETP005", one("RESHAPE", (1, 4, 2, 4, 2), (1, 4, 4, 4), constants=[axes(1, 4, 4, 4)])),
        ("ETP003", one("RESHAPE", (1, 8), (2, 4), constants=[T("n", (2,), "INT32")])),
        ("ETP032", strided_slice((1, 1), mask=1)),
        ("KPU008", conv((1, 8, 8, 8), in_channels=4, type=FP)),
    ],
)
def test_further_forms_of_a_rule_are_found(rule: str, bad: bytes, tmp_path: Path) -> None:
    assert rule in broken(bad, "k210" if rule.startswith("KPU") else "edgetpu", tmp_path)


@pytest.mark.parametrize(
    "good",
    [
        # Seen in files that the compiler took: temporal convolutions, a softmax over a picture, an open batch.
        conv((1, 16, 1, 4), kernel=(3, 1), dilation=(2, 1)),
        conv((1, 1, 16, 4), kernel=(1, 3), dilation=(1, 4)),
        one("SOFTMAX", (1, 16384), (1, 16384), options=[(0, "f", 1.0)]),
        one("RESHAPE", (1, 8), (2, 4), constants=[axes(2, 4)], signature=(-1, 8)),
    ],
)
def test_forms_that_the_edge_tpu_compiler_takes_are_mapped_without_a_word(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(good)
    report = check(tmp_path / "m.tflite", "edgetpu", Options(run=False))
    assert not {v.rule.id for v in report.violations if v.rule.id.startswith("ETP")}
    assert report.facts["cpu_operators"] == 0


def test_normalisation_is_compared_with_the_quantised_range(tmp_path: Path) -> None:
    """The three published conventions, each with an input quantised for it and for another one."""
    conventions = {(0.0, 255.0): (1 / 255, 0), (127.5, 127.5): (2 / 255, 128), (0.0, 1.0): (1.0, 0)}
    for (mean, std), fitting in conventions.items():
        for quantised in conventions.values():
            options = Options(mean=(mean,), std=(std,), run=False)
            findings = broken(input_range(*quantised), "cpu", tmp_path, options)
            assert ("SAN004" in findings) == (quantised != fitting), (mean, std, quantised)


def test_normalisation_is_read_from_the_files_own_metadata(shared_data: Path) -> None:
    report = check(shared_data / "coral/mobilenet_v2_1.0_224_quant.tflite", "cpu", Options(run=False))
    assert "SAN004" not in {v.rule.id for v in report.violations}


def test_a_model_for_a_newer_runtime_fails_on_the_old_one_only(tmp_path: Path) -> None:
    old = Options(PROFILES["tflite-runtime"], run=False)
    data = one("FULLY_CONNECTED", (1, 8), (1, 4), constants=[T("w", (4, 8), "FP32", data=1)], type=FP, version=12)
    assert "TFL005" in broken(data, "cpu", tmp_path, old)
    assert "TFL005" not in broken(data, "cpu", tmp_path)


def test_a_file_that_cannot_be_read_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    whole = conv()
    for length in range(0, len(whole), 13):
        for target in ("cpu", "edgetpu", "k210", "ncs", "ncs2"):
            assert broken(whole[:length], target, tmp_path)


def test_a_run_names_the_output_that_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(bias_only(0.0))
    (violation,) = check(tmp_path / "m.tflite", "cpu").violations
    assert (violation.rule.id, violation.layer) == ("SAN001", "y")


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant"])
def test_real_classifiers_fit_the_edge_tpu_completely(name: str, shared_data: Path) -> None:
    report = check(shared_data / f"coral/{name}.tflite", "edgetpu")
    assert report.violations == ()
    assert report.facts["cpu_operators"] == 0


def test_a_real_segmentation_model_keeps_its_known_operators_on_the_cpu(shared_data: Path) -> None:
    """The public compiled file of this model leaves eight there, from the resizing of the pooled branch on."""
    report = check(shared_data / "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite", "edgetpu", Options(run=False))
    assert {v.rule.id for v in report.violations} == {"ETP010", "ETP014", "ETP029"}
    assert report.facts["cpu_operators"] == 8
    lost = [v.value for v in report.violations if v.rule.id == "ETP014"]
    assert "CONCATENATION reads from QUANTIZE" in lost


def test_real_kmodels_fit_where_their_version_is_loaded(shared_data: Path) -> None:
    for name, profile in (("slim-320_v4", "m5stickv"), ("iris_v3", "maixpy-v3"), ("yolox_nano_224_v5", "kendryte-sdk")):
        report = check(shared_data / f"k210/{name}.kmodel", "k210", Options(PROFILES[profile]))
        assert report.worst in ("", "note"), (name, report.violations)
    report = check(shared_data / "k210/slim-320_v4.kmodel", "k210", Options(PROFILES["maixpy-v3"]))
    assert report.violations[0].rule.id == "KPU018"


def pooled_conv() -> bytes:
    convolution = Op("CONV_2D", ["x", "w", "b"], ["c"], [(0, "b", 0), (1, "i", 1), (2, "i", 1)])
    pooling = Op("MAX_POOL_2D", ["c"], ["y"], [(0, "b", 1), (1, "i", 2), (2, "i", 2), (3, "i", 2), (4, "i", 2)])
    tensors = [T("x", (1, 24, 24, 1)), T("w", (8, 3, 3, 1), data=0.1), T("b", (8,), data=0), T("c", (1, 24, 24, 8))]
    return build(Graph([*tensors, T("y", (1, 12, 12, 8))], [convolution, pooling], ["x"], ["y"]))


def transposed(kernel: int, stride: int, padding: int) -> bytes:
    """A transposed convolution of 16x16x3 to 8 channels; padding 0 = SAME, 1 = VALID."""
    options = [(0, "b", padding), (1, "i", stride), (2, "i", stride)]
    edge = 16 * stride if padding == 0 else 16 * stride + max(kernel - stride, 0)
    shape = T("shape", (4,), "INT32", data=np.array([1, edge, edge, 8], np.int32))
    tensors = [shape, T("w", (8, kernel, kernel, 3), data=0.1), T("x", (1, 16, 16, 3)), T("y", (1, edge, edge, 8))]
    return build(Graph(tensors, [Op("TRANSPOSE_CONV", ["shape", "w", "x"], ["y"], options)], ["x"], ["y"]))


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize("padding", [0, 1])
def test_only_the_transposed_convolution_that_nncase_compiles_passes(
    kernel: int, stride: int, padding: int, tmp_path: Path
) -> None:
    """Twelve forms were compiled with nncase 1.9: 3x3 stride 1 SAME is the only one that it lays out."""
    (tmp_path / "m.tflite").write_bytes(transposed(kernel, stride, padding))
    rules = {v.rule.id for v in check(tmp_path / "m.tflite", "k210", Options(run=False)).violations}
    assert ("KPU022" in rules) == ((kernel, stride, padding) != (3, 1, 0))


#: One layer each -> KPU RAM of the kmodel that nncase 1.9 made of it.
COMPILED = {
    "same": (conv((1, 64, 64, 3), 16, type=FP), 77_824),
    "same narrow": (conv((1, 14, 14, 64), 128, type=FP), 43_008),
    "1x1": (conv((1, 20, 20, 32), 64, (1, 1), type=FP), 61_440),
    "1x1 stride 2": (conv((1, 64, 64, 3), 16, (1, 1), (2, 2), type=FP), 28_672),
    "same stride 2": (conv((1, 64, 64, 3), 16, stride=(2, 2), type=FP), 29_568),
    "same stride 2 odd": (conv((1, 65, 65, 3), 16, stride=(2, 2), type=FP), 59_136),
    "valid": (conv((1, 64, 64, 3), 16, padding=1, type=FP), 77_824),
    "valid stride 2": (conv((1, 64, 64, 3), 16, stride=(2, 2), padding=1, type=FP), 29_568),
    "valid stride 2 odd": (conv((1, 65, 65, 3), 16, stride=(2, 2), padding=1, type=FP), 59_136),
    "padded": (padded_conv(64, 1, (1, 1)), 77_824),
    "padded stride 2": (padded_conv(64, 2, (1, 1)), 28_672),
    "padded on one side stride 2": (padded_conv(64, 2, (0, 1)), 29_568),
    "stride 4": (conv((1, 32, 32, 4), 8, (3, 3), (4, 4), type=FP), 12_288),
    "pooled": (pooled_conv(), 3_072),
    "matrix": (dense(576, 10, type=FP), 37_632),
}


@pytest.mark.parametrize("name", COMPILED)
def test_memory_of_the_kpu_is_foreseen_as_the_compiler_uses_it(name: str, tmp_path: Path) -> None:
    data, used = COMPILED[name]
    (tmp_path / "m.tflite").write_bytes(data)
    assert check(tmp_path / "m.tflite", "k210", Options(run=False)).facts["kpu_peak_bytes"] == used


def test_memory_limits_of_the_profile_decide_about_a_kmodel(shared_data: Path) -> None:
    from dataclasses import replace

    small = replace(PROFILES["m5stickv"], k210_free=500_000, kpu_ram=1_700_000, k210_flash=300_000)
    report = check(shared_data / "k210/slim-320_v4.kmodel", "k210", Options(small))
    assert {"KPU013", "KPU014", "KPU019"} <= {v.rule.id for v in report.violations}


def test_compiled_edge_tpu_files_are_judged_as_the_runtime_does(shared_data: Path) -> None:
    from dataclasses import replace

    path = shared_data / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    assert check(path, "edgetpu").violations == ()
    old = replace(PROFILES["default"], edgetpu_runtime=11)
    assert [v.rule.id for v in check(path, "edgetpu", Options(old)).violations] == ["ETP041"]
    streaming = "cocompilation/mobilenet_v1_0.5_160_quant_cocompiled_with_3quant_edgetpu.tflite"
    report = check(shared_data / "coral" / streaming, "edgetpu")
    assert [(v.rule.id, v.value) for v in report.violations] == [("ETP043", "448320 of 1473280 bytes")]


def test_several_subgraphs_are_remarked() -> None:
    from dataclasses import replace

    from edgeaid.formats.tflite import reader as tflite
    from edgeaid.toolkit.check import edgetpu as check_edgetpu
    from edgeaid.toolkit.check import tflite as check_tflite
    from edgeaid.toolkit.check.rules import Findings

    data = relu()
    model = tflite.read(data)
    model = replace(model, subgraphs=model.subgraphs * 2)
    findings = Findings(PROFILES["default"])
    check_tflite.check(model, findings)
    check_edgetpu.check(data, model, findings)
    assert {v.rule.id for v in findings.violations} == {"TFL007", "ETP010"}


@pytest.mark.parametrize(
    ("status", "rule"),
    [
        ("Mapped to Edge TPU", ""),
        ("More than one subgraph is not supported", "ETP011"),
        ("Operation is otherwise supported, but not mapped due to some unspecified limitation", "ETP012"),
        ("Operation version not supported", "ETP013"),
    ],
)
def test_what_only_the_compiler_finds_out_is_read_from_its_log(status: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "net.log"
    path.write_text(LOG_16.replace("Operation not supported", status))
    findings = {(v.rule.id, v.layer) for v in check(path, "edgetpu").violations}
    assert ("ETP012", "deeplab.tflite: RESIZE_BILINEAR") in findings
    assert ({r for r, layer in findings if layer.endswith("ARG_MAX")} or {""}) == {rule}
    assert {("ETP043", "deeplab.tflite"), ("ETP044", "deeplab.tflite")} <= findings


def test_a_compiler_that_gave_up_is_an_error_by_rule(tmp_path: Path) -> None:
    path = tmp_path / "net.log"
    for text, rule in (
        ("Edge TPU Compiler version 16.0.384591198\nInvalid model: float.tflite\nModel not quantized\n", "ETP001"),
        ("Edge TPU Compiler version 16.0.384591198\nInternal compiler error. Aborting!\n", "ETP015"),
        ("what a nice day\n", "TFL009"),
    ):
        path.write_text(text)
        assert {v.rule.id for v in check(path, "edgetpu").violations} == {rule}


def test_an_operator_that_stayed_on_the_cpu_is_named(tmp_path: Path) -> None:
    mixed = builders.edgetpu(before=19)  # RELU
    (violation,) = [v for v in check_bytes(mixed, tmp_path) if v.rule.id == "ETP044"]
    assert (violation.layer, violation.value) == ("#0 RELU (in)", "1 operators")
    assert "ETP044" not in broken(builders.edgetpu(), "edgetpu", tmp_path)


def check_bytes(data: bytes, directory: Path) -> tuple[Violation, ...]:
    (directory / "model.tflite").write_bytes(data)
    return check(directory / "model.tflite", "edgetpu", Options(run=False)).violations


def test_a_compiled_part_that_does_not_belong_to_the_graph_is_refused(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite").read_bytes()
    assert "ETP042" in broken(data.replace(b"DWN1", b"XXXX"), "edgetpu", tmp_path)
    name = b"MobilenetV1/Predictions/Reshape_1"
    at = data.rindex(name)
    last, first = data[:at] + name.lower() + data[at + len(name) :], data.replace(name, name.lower(), 1)
    assert "ETP040" in broken(last, "edgetpu", tmp_path) | broken(first, "edgetpu", tmp_path)


def test_without_a_runtime_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeaid.toolkit.check.run.have_litert", lambda: False)
    (tmp_path / "m.tflite").write_bytes(relu())
    assert [v.rule.id for v in check(tmp_path / "m.tflite", "cpu").violations] == ["SAN009"]


def test_a_model_that_keeps_state_between_runs_is_told_to_do_so(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    for data, state in ((tflite.sequence(), "resources"), (tflite.text_sum(), None), (tflite.batches(), None)):
        path.write_bytes(data)
        assert check(path, "cpu", Options(run=False)).facts.get("state") == state


def test_no_child_may_take_all_memory_and_one_that_runs_out_says_what_it_might_have() -> None:
    wait = "import resource, time\nwhile resource.getrlimit(resource.RLIMIT_DATA)[0] < 0: time.sleep(0.01)\n"
    done = child([sys.executable, "-c", f"{wait}print(resource.getrlimit(resource.RLIMIT_DATA)[0])"], timeout=60)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert int(done.output) <= max(4 << 30, physical)
    done = child([sys.executable, "-c", f"{wait}bytes(1 << 30)"], timeout=60, memory=200 << 20)
    assert done.ran_out
    assert "200 MiB" in done.reason


def test_a_child_that_opens_a_foreign_file_has_a_memory_limit(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    shape = [1, 1 << 14, 1 << 14]  # a gigabyte of values from a file of a few hundred bytes
    path.write_bytes(build(Graph([T("x", shape), T("y", shape)], [Op("RELU", ["x"], ["y"])], ["x"], ["y"])))
    with pytest.raises(InvalidModel, match="cannot be run"):
        litert(path, {"runs": 1, "seed": 1, "threads": 1, "low": -1.0, "high": 1.0}, memory=600 << 20)
