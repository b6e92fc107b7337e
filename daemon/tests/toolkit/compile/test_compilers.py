"""`edgeai model compile` against stand-ins that replay real logs, and OpenVINO for real."""

from __future__ import annotations

import json
import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.errors import InvalidModel, InvalidRequest, NotFound, Unsupported
from edgeaid.models.manifest import parse
from edgeaid.toolkit.bundle.model_dir import add_artifact
from edgeaid.toolkit.compile.compilers import command, compile_models
from edgeaid.toolkit.compile.request import Request
from edgeaid.toolkit.convert import convert
from edgeaid.toolkit.convert.conversion import Options
from edgeaid.toolkit.convert.representative import Normalisation

from ..check_cases import FP, PROTOTXT, conv, relu
from ..plan.test_plan_command import LOG
from .test_compile_logs import LOG_16


def program(path: Path, *, prints: str = "", writes: Sequence[Path] = (), status: int = 0) -> str:
    """A compiler that records its arguments, prints a log and writes its outputs."""
    lines = [f"printf '%s\\n' \"$@\" > {path}.args"]
    lines += [f"echo compiled > {shlex.quote(str(p))}" for p in writes]
    lines += [f"cat <<'END'\n{prints}\nEND", f"exit {status}"]
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("bird", "plant"):
        (tmp_path / f"{name}.tflite").write_bytes(relu())
    return tmp_path / "bird.tflite", tmp_path / "plant.tflite"


def test_co_compilation_is_one_command_and_the_log_becomes_facts(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    compiler = program(
        tmp_path / "edgetpu_compiler", prints=LOG, writes=[out / "bird_edgetpu.tflite", out / "plant_edgetpu.tflite"]
    )
    result = compile_models(Request(pair, "edgetpu", out, compiler, min_runtime=13))
    arguments = Path(compiler + ".args").read_text().splitlines()
    assert arguments == ["-s", "-m", "13", "-o", str(out), *map(str, pair)]
    assert [p.name for p in result.files] == ["bird_edgetpu.tflite", "plant_edgetpu.tflite"]
    assert result.facts["bird_edgetpu.tflite"]["cached_bytes"] == round(3.75 * 2**20)
    assert result.facts["plant_edgetpu.tflite"]["streamed_bytes"] == round(2.59 * 2**20)
    assert any("ETP043" in r for r in result.remarks)


def test_operators_that_stay_on_the_cpu_are_explained_by_rule(tmp_path: Path) -> None:
    (tmp_path / "deeplab.tflite").write_bytes(relu())
    compiler = program(tmp_path / "edgetpu_compiler", prints=LOG_16, writes=[tmp_path / "deeplab_edgetpu.tflite"])
    result = compile_models(Request((tmp_path / "deeplab.tflite",), "edgetpu", tmp_path, compiler))
    assert result.facts["deeplab_edgetpu.tflite"]["on_cpu"] == 2
    assert any("ARG_MAX" in r and "ETP010" in r for r in result.remarks)
    assert any("RESIZE_BILINEAR" in r and "ETP012" in r for r in result.remarks)


def test_an_unquantised_model_is_explained_by_rule(pair: tuple[Path, Path], tmp_path: Path) -> None:
    text = "Edge TPU Compiler version 16.0.384591198\nInvalid model: bird.tflite\nModel not quantized"
    compiler = program(tmp_path / "edgetpu_compiler", prints=text, status=1)
    with pytest.raises(InvalidModel, match=r"Model not quantized.*ETP001.*edgeai model quantize"):
        compile_models(Request(pair[:1], "edgetpu", tmp_path, compiler))


def test_a_compiler_that_says_success_but_writes_nothing_is_not_believed(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    compiler = program(tmp_path / "edgetpu_compiler", prints=LOG)
    with pytest.raises(InvalidModel, match=r"bird_edgetpu\.tflite"):
        compile_models(Request(pair, "edgetpu", tmp_path / "out", compiler))


def test_without_the_compiler_the_command_for_another_machine_is_printed(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    out = pair[0].parent / "out"
    with pytest.raises(Unsupported, match="apt archive") as caught:
        compile_models(Request(pair, "edgetpu", out))
    assert f"edgetpu_compiler -s -o {out} {pair[0]} {pair[1]}" in str(caught.value)


def test_a_container_sees_only_the_directories_it_needs_and_no_network(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    out = tmp_path / "out"
    engine = program(tmp_path / "bin" / "docker", prints=LOG, writes=[out / f"{p.stem}_edgetpu.tflite" for p in pair])
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    which = "edgeaid.toolkit.compile.compilers.shutil.which"
    monkeypatch.setattr(which, lambda name: engine if name == "docker" else None)
    compile_models(Request(pair, "edgetpu", out, container="coral/compiler"))
    arguments = Path(engine + ".args").read_text().splitlines()
    assert arguments[:3] == ["run", "--rm", "--network=none"]
    assert f"{tmp_path}:{tmp_path}" in arguments
    assert arguments[arguments.index("coral/compiler") + 1] == "edgetpu_compiler"


def test_the_ncs_compiler_gets_nodes_shaves_and_weights(tmp_path: Path) -> None:
    net, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    net.write_bytes(PROTOTXT)
    weights.write_bytes(b"")
    compiler = program(
        tmp_path / "mvNCCompile",
        prints="mvNCCompile v02.00, Copyright @ Intel Corporation 2017",
        writes=[tmp_path / "net.graph"],
    )
    request = Request((net,), "ncs", tmp_path, compiler, input_node="data", output_node="r", weights=weights)
    result = compile_models(request)
    assert command(request)[1:] == [
        str(net), "-s", "12", "-w", str(weights), "-in", "data", "-on", "r", "-o", str(tmp_path / "net.graph"),
    ]  # fmt: skip
    assert result.facts["net.graph"]["compiler"] == "v02.00"


def test_options_of_a_compiler_itself_are_passed_on(tmp_path: Path) -> None:
    extra = {"weights-bits": "8", "dump-ir": "", "v": ""}
    line = command(Request((tmp_path / "net.tflite",), "k210-v4", tmp_path, extra=extra))
    assert line[-4:] == ["--weights-bits", "8", "--dump-ir", "-v"]


def test_the_first_ncc_gets_its_own_options_by_name(tmp_path: Path) -> None:
    request = Request((tmp_path / "net.tflite",), "k210-v3", tmp_path, calibration="pictures",
                      rules=Normalisation((127.5,), (127.5,)), extra={"weights-bits": "16"})  # fmt: skip
    assert command(request) == [
        "ncc", "-i", "tflite", "-o", "k210model", "--dataset", "pictures", "--postprocess", "n1to1",
        str(tmp_path / "net.tflite"), str(tmp_path / "net.kmodel"), "--weights-bits", "16",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "calibration", "mean", "reason"),
    [
        ("net.onnx", "p", 0.0, "convert it first"),
        ("net.tflite", "", 0.0, "--calibration"),
        ("net.tflite", "p", 3.0, "0..1"),
    ],
)
def test_what_the_first_ncc_cannot_do_is_said(
    name: str, calibration: str, mean: float, reason: str, tmp_path: Path
) -> None:
    rules = Normalisation((mean,), (255.0,))
    with pytest.raises(InvalidRequest, match=reason):
        command(Request((tmp_path / name,), "k210-v3", tmp_path, calibration=calibration, rules=rules))


def test_the_manifest_says_how_the_maps_of_a_kmodel_are_turned_back(tmp_path: Path) -> None:
    """The KPU has channels first and a v4 file no output shapes; clients see what the TFLite model had."""
    (tmp_path / "m.tflite").write_bytes(conv((1, 8, 6, 3), 5, type=FP))
    compiler = program(tmp_path / "ncc", writes=[tmp_path / "out" / "m.kmodel"])
    (tmp_path / "out").mkdir()
    result = compile_models(Request((tmp_path / "m.tflite",), "k210-v4", tmp_path / "out", compiler))
    assert result.options == {"layout": "nhwc", "outputs": [[6, 8, 5]]}
    made = tmp_path / "mine" / "1"
    made.mkdir(parents=True)
    (made / "model.toml").write_text('schema = 1\nname = "mine"\n')
    add_artifact(made, result)
    (artifact,) = parse((made / "model.toml").read_bytes(), "mine").artifacts
    assert artifact.options["layout"] == "nhwc"
    assert artifact.options["outputs"] == [[6, 8, 5]]


def test_an_ncs_error_is_explained_by_rule(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_bytes(PROTOTXT)
    text = '[Error 25] Myriad Error: "Matmul scratch memory [112640] lower than required [225792]"'
    compiler = program(tmp_path / "mvNCCompile", prints=text, status=1)
    with pytest.raises(InvalidModel, match=r"error 25.*NCS012"):
        compile_models(Request((tmp_path / "net.prototxt",), "ncs", tmp_path, compiler))


def test_ncc_gets_the_normalisation_in_its_own_terms(tmp_path: Path) -> None:
    """ncc scales pictures to 0..1 before (x - mean) / std: 127.5 becomes 0.5."""
    (tmp_path / "m.tflite").write_bytes(relu(type=FP))
    compiler = program(tmp_path / "ncc", writes=[tmp_path / "m.kmodel"], prints="main memory usage: 3.50 MB")
    request = Request(
        (tmp_path / "m.tflite",),
        "k210-v4",
        tmp_path,
        compiler,
        calibration="pictures",
        rules=Normalisation((127.5,), (127.5,)),
    )
    result = compile_models(request)
    line = " ".join(command(request))
    assert "--input-mean 0.5 --input-std 0.5" in line
    assert "-i tflite -o kmodel -t k210 --dataset pictures --dataset-format image --inference-type uint8" in line
    assert result.facts["m.kmodel"]["main"] == round(3.5 * 2**20)


def test_the_blob_of_an_ncs2_is_made_from_ir_by_compile_tool(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("<net/>")
    compiler = program(
        tmp_path / "compile_tool", writes=[tmp_path / "m.blob"], prints="Done. LoadNetwork time elapsed: 5 ms"
    )
    request = Request((tmp_path / "m.xml",), "ncs2-blob", tmp_path, compiler)
    result = compile_models(request)
    assert command(request)[1:] == [
        "-m",
        str(tmp_path / "m.xml"),
        "-d",
        "MYRIAD",
        "-ip",
        "U8",
        "-o",
        str(tmp_path / "m.blob"),
    ]
    assert [p.name for p in result.files] == ["m.blob"]
    with pytest.raises(InvalidModel, match="no MYRIAD device"):
        compile_models(
            Request(request.models, "ncs2-blob", tmp_path, program(tmp_path / "c", prints="no MYRIAD device", status=1))
        )
    (tmp_path / "m.tflite").write_bytes(relu())
    with pytest.raises(InvalidRequest, match="--target ncs2"):
        compile_models(Request((tmp_path / "m.tflite",), "ncs2-blob", tmp_path, compiler))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request((), "edgetpu", Path("out")), InvalidRequest),
        (Request((Path("/nothing.tflite"),), "edgetpu", Path("out")), NotFound),
    ],
)
def test_impossible_requests_are_refused(request_: Request, error: type[Exception]) -> None:
    with pytest.raises(error):
        compile_models(request_)


def test_nncase_never_sees_a_quantised_model(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(conv())
    with pytest.raises(InvalidModel, match="KPU002"):
        compile_models(Request((tmp_path / "m.tflite",), "k210", tmp_path))


# --- conversions: OpenVINO is there -----------------------------------------------------------------------------------


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGEAI_PYTHON_OPENVINO", sys.executable)


def small_onnx(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 8]) for n, c in (("x", 3), ("y", 4))]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    onnx.save(made, str(path))


@pytest.mark.usefixtures("openvino")
def test_onnx_becomes_openvino_and_computes_the_same(tmp_path: Path) -> None:
    small_onnx(tmp_path / "net.onnx")
    result = convert.convert(tmp_path / "net.onnx", "openvino", tmp_path / "net.xml", Options(fp16=False))
    assert result.difference is not None
    assert result.difference.max_error < 1e-4
    assert [p.name for p in result.files] == ["net.xml", "net.bin"]
    report = json.loads((tmp_path / "net.report.json").read_text())
    assert report["route"] == "onnx -> openvino"


@pytest.mark.usefixtures("openvino")
def test_tflite_becomes_openvino_for_the_ncs2_and_is_then_checked(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(conv(type=FP, weights=np.random.default_rng(1).normal(0, 0.3, (4, 3, 3, 4))))
    result = compile_models(Request((tmp_path / "m.tflite",), "ncs2", tmp_path / "out"))
    assert result.facts["m.xml"]["max_error"] < 0.01
    from edgeaid.toolkit.check.check import check

    assert {v.rule.id for v in check(tmp_path / "out/m.xml", "ncs2").violations} <= {"OVN005"}


@pytest.mark.usefixtures("openvino")
def test_a_real_quantised_classifier_keeps_its_answers_in_openvino(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "coral/mobilenet_v1_0.25_128_quant.tflite"
    result = convert.convert(source, "openvino", tmp_path / "m.xml")
    assert result.difference is not None
    assert result.difference.correlation > 0.99


@pytest.mark.parametrize(
    ("target", "text"), [("tfjs", "tensorflowjs"), ("coreml", "coremltools"), ("tflite", "there are")]
)
def test_a_conversion_that_no_tool_offers_is_answered_with_what_to_do(target: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(relu())
    with pytest.raises(Unsupported, match=text):
        convert.convert(tmp_path / "m.tflite", target, tmp_path / "out")


@pytest.mark.usefixtures("openvino")
def test_a_model_the_converter_refuses_is_reported_with_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(conv(type=FP)[:400])
    with pytest.raises(InvalidModel):
        convert.convert(tmp_path / "m.tflite", "openvino", tmp_path / "m.xml")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(model, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.mark.usefixtures("openvino")
def test_the_commands_print_what_was_compared(tmp_path: Path) -> None:
    small_onnx(tmp_path / "net.onnx")
    directory = tmp_path / "net" / "1"
    directory.mkdir(parents=True)
    manifest = directory / "model.toml"
    manifest.write_text(f'schema = 1\nname = "net"\n[artifacts.ncs2]\nfile = "net.xml"\nsha256 = "{"0" * 64}"\n')
    text = run("convert", tmp_path / "net.onnx", "--to", "openvino", "--fp32", "--model-dir", directory)
    assert 'route = "onnx -> openvino"' in manifest.read_text()
    assert "same inputs, 4 runs" in text
    assert "transposes in the result: 0" in text


def test_the_compile_command_adds_the_artifact_to_the_manifest(tmp_path: Path) -> None:
    from edgeaid.models.manifest import parse

    directory = tmp_path / "net" / "1"
    directory.mkdir(parents=True)
    source = directory / "m.tflite"
    source.write_bytes(relu())
    (directory / "model.toml").write_text(
        'schema = 1\nname = "net"  # a remark of mine\n[artifacts.cpu]\nfile = "m.tflite"\nsha256 = "'
        + "0" * 64
        + '"\n'
    )
    compiler = program(
        tmp_path / "edgetpu_compiler", prints=LOG.replace("bird", "m"), writes=[tmp_path / "m_edgetpu.tflite"]
    )
    run("compile", source, "--target", "edgetpu", "-o", tmp_path, "--compiler", compiler, "--model-dir", directory)
    manifest = parse((directory / "model.toml").read_bytes())
    assert [a.target for a in manifest.artifacts] == ["cpu", "edgetpu"]
    assert "a remark of mine" in (directory / "model.toml").read_text()
    assert "cached_bytes = 3932160" in (directory / "model.toml").read_text()
    run(
        "compile",
        source,
        "--target",
        "edgetpu",
        "-o",
        tmp_path,
        "--compiler",
        compiler,
        "--model-dir",
        directory,
        code=64,
    )
