"""Any damaged model gives findings or our own error, from every target's rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeaid.toolkit.check import edgetpu as check_edgetpu
from edgeaid.toolkit.check.check import Options, check
from edgeaid.toolkit.check.rules import TARGETS

from ..check_cases import FP, TFLITE, concat, conv, dense, quantised_relu_between, tensor
from ..float_networks import NETWORKS
from ..tflite_builder import Graph, Op, build
from .test_check_k210 import onnx_file
from .test_check_ncs import GOOD, GRAPH, ir

MODELS = [conv(), conv(type=FP), dense(64, 64, type=FP), concat(0), quantised_relu_between("TRANSPOSE", "LOGISTIC")]
MODELS += [data for rule, (_, bad, good) in TFLITE.items() for data in (bad, good) if len(data) < 6000]
#: Networks with parts, sums, strides that move, and layers of both processors.
FLOATS = [NETWORKS[name]() for name in ("keyword 49x10", "sums 32", "stride 2 before 1x1", "hard swish 64")]
TEXTS = [GOOD, GRAPH, ir()]


@st.composite
def damaged(draw: st.DrawFn, models: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(models)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.integers(0, 3))
        if kind == 0 and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == 1 and data:
            # Small numbers are what indices, counts and shapes are made of.
            data[at] = draw(st.sampled_from([0, 1, 2, 3, 4, 127, 128, 255]))
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 16))]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


def check_all(data: bytes, path: Path, targets: tuple[str, ...]) -> None:
    path.write_bytes(data)
    for target in targets:
        report = check(path, target, Options(mean=(127.5,), std=(127.5,), run=False))
        assert report.target == target


FIXTURE = [HealthCheck.function_scoped_fixture]


@settings(suppress_health_check=FIXTURE, deadline=None)
@given(damaged(MODELS))
def test_damaged_tflite_files_only_give_findings(tmp_path: Path, data: bytes) -> None:
    check_all(data, tmp_path / "m.tflite", ("cpu", "edgetpu", "k210"))


@settings(suppress_health_check=FIXTURE, deadline=None)
@given(damaged(FLOATS))
def test_damaged_float_networks_only_give_findings(tmp_path: Path, data: bytes) -> None:
    check_all(data, tmp_path / "m.tflite", ("k210",))


@pytest.fixture(scope="module")
def onnx_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return onnx_file(tmp_path_factory.mktemp("onnx") / "n.onnx", shaped=True).read_bytes()


@settings(suppress_health_check=FIXTURE, deadline=None)
@given(data=st.data())
def test_damaged_onnx_files_only_give_findings(tmp_path: Path, onnx_bytes: bytes, data: st.DataObject) -> None:
    check_all(data.draw(damaged([onnx_bytes])), tmp_path / "m.onnx", ("k210",))


@settings(suppress_health_check=FIXTURE, deadline=None)
@given(damaged(TEXTS))
def test_damaged_texts_and_graphs_only_give_findings(tmp_path: Path, data: bytes) -> None:
    check_all(data, tmp_path / "m.xml", ("ncs", "ncs2"))


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck), deadline=None)
@given(damaged(MODELS))
def test_ten_thousand_damaged_tflite_files_only_give_findings(tmp_path: Path, data: bytes) -> None:
    check_all(data, tmp_path / "m.tflite", ("cpu", "edgetpu", "k210"))


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck), deadline=None)
@given(damaged(TEXTS))
def test_ten_thousand_damaged_texts_and_graphs_only_give_findings(tmp_path: Path, data: bytes) -> None:
    check_all(data, tmp_path / "m.xml", ("ncs", "ncs2"))


def test_every_target_answers_about_every_kind_of_file(tmp_path: Path, shared_data: Path) -> None:
    for path in sorted(p for p in shared_data.rglob("*") if p.is_file()):
        for target in TARGETS:
            assert check(path, target, Options(run=False)).path == str(path)


#: Operators that a rule looks at closely.
LOOKED_AT = sorted(
    {*check_edgetpu._FORMS, "CONV_2D", "TRANSPOSE_CONV", "TRANSPOSE", "RESHAPE", "QUANTIZE", "DEQUANTIZE"}
)


@pytest.mark.parametrize("shape", [(), (0,), (1, 8), (1, 4, 4, 3)])
@pytest.mark.parametrize("inputs", [[], ["x"], ["", "x"], ["x", ""], ["x", "x", "x"]])
def test_operators_with_missing_or_odd_operands_only_give_findings(
    shape: tuple[int, ...], inputs: list[str], tmp_path: Path
) -> None:
    for number, name in enumerate(LOOKED_AT):
        for outputs in ([], ["y"]):
            tensors = [tensor("x", shape, FP if number % 2 else "INT8"), tensor("y", shape)]
            data = build(Graph(tensors, [Op(name, inputs, outputs)], ["x"], ["y"]))
            check_all(data, tmp_path / "m.tflite", ("edgetpu", "k210"))
