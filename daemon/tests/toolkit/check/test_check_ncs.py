"""Rules NCS and OVN: Caffe texts, TensorFlow graphs, NCSDK graphs, compiler logs, OpenVINO IR."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeaid.errors import InvalidConfig, InvalidRequest, NotFound
from edgeaid.toolkit.check.check import Options, check
from edgeaid.toolkit.check.ncs import KERNELS
from edgeaid.toolkit.check.rules import PROFILES, profile, rules

from ...formats.builders_exchange import checkpoint_index
from ..check_cases import TFLITE

INPUT = 'input: "data" input_shape { dim: 1 dim: 3 dim: 64 dim: 64 }'


def layer(name: str, type: str, bottom: str = "data", more: str = "", top: str = "") -> str:
    bottoms = " ".join(f'bottom: "{b}"' for b in bottom.split())
    return f'layer {{ name: "{name}" type: "{type}" {bottoms} top: "{top or name}" {more} }}\n'


def conv(kernel: int = 3, stride: int = 1, group: int = 1, out: int = 8) -> str:
    return layer("c", "Convolution", more=f"convolution_param {{ num_output: {out} kernel_size: {kernel} "
                 f"stride: {stride} group: {group} }}")  # fmt: skip


def net(*layers: str, head: str = INPUT) -> bytes:
    return (head + "\n" + "".join(layers)).encode()


GOOD = net(conv(), layer("p", "Softmax", "c"))
BIG = 'input: "data" input_shape { dim: 1 dim: 1025 dim: 256 dim: 256 }'

#: rule -> (a text that breaks it, one that keeps it).
CAFFE = {
    "NCS001": (
        net(layer("data", "Input", "", "input_param { shape: { dim: 1 dim: 3 dim: 64 dim: 64 } }"), conv(), head=""),
        GOOD,
    ),
    "NCS002": (net(conv().replace("data", "image"), head=INPUT.replace("data", "image")), GOOD),
    "NCS003": (net(conv(), head=INPUT.replace("dim: 1", "dim: 8", 1)), GOOD),
    "NCS004": (net(conv(), head=INPUT + INPUT.replace("data", "second")), GOOD),
    "NCS005": (
        net(conv(), layer("crop", "Crop", "c data")),
        net(conv(), layer("r", "ReLU", "c"), layer("crop", "Crop", "c r")),
    ),
    "NCS006": (net(layer("a", "AbsVal")), net(layer("a", "Sigmoid"))),
    "NCS007": (net(conv(5, 3)), net(conv(7, 2))),
    "NCS008": (
        net(conv(group=1024, out=2048), head=INPUT.replace("dim: 3", "dim: 1024")),
        net(conv(group=4), head=INPUT.replace("dim: 3", "dim: 4")),
    ),
    "NCS010": (
        net(layer("ip", "InnerProduct", more="inner_product_param { num_output: 14000 }")),
        net(layer("ip", "InnerProduct", more="inner_product_param { num_output: 10 }")),
    ),
    "NCS011": (net(layer("r", "ReLU"), head=BIG), net(layer("r", "ReLU"))),
}


def broken(data: bytes, path: Path, target: str = "ncs", name: str = "default") -> set[str]:
    path.write_bytes(data)
    return {v.rule.id for v in check(path, target, Options(PROFILES[name], run=False)).violations}


@pytest.mark.parametrize("rule", sorted(CAFFE))
def test_a_caffe_rule_is_broken_by_the_wrong_text_and_kept_by_the_right_one(rule: str, tmp_path: Path) -> None:
    bad, good = CAFFE[rule]
    assert rule in broken(bad, tmp_path / "net.prototxt")
    assert rule not in broken(good, tmp_path / "net.prototxt")


@pytest.mark.parametrize(("kernel", "stride"), sorted(KERNELS))
def test_every_convolution_that_the_vendor_compiles_is_accepted(kernel: int, stride: int, tmp_path: Path) -> None:
    assert broken(net(conv(kernel, stride)), tmp_path / "net.prototxt") == set()


def test_a_depthwise_convolution_of_a_thousand_channels_is_no_matter_of_groups(tmp_path: Path) -> None:
    text = net(conv(stride=2, group=1024, out=1024), head=INPUT.replace("dim: 3", "dim: 1024"))
    for name in ("ncsdk1", "ncsdk2"):
        assert broken(text, tmp_path / "net.prototxt", name=name) == set()


def test_the_detector_of_the_articles_has_no_findings(shared_data: Path, tmp_path: Path) -> None:
    text = shared_data.parent / "findings/toolkit/MobileNetSSD_deploy.prototxt"
    if not text.is_file():
        pytest.skip("the detector's description is not beside the checkout")
    assert broken(text.read_bytes(), tmp_path / "net.prototxt") == set()


def test_ssd_layers_need_the_second_sdk(tmp_path: Path) -> None:
    text = net(conv(), layer("p", "Permute", "c"))
    assert broken(text, tmp_path / "n.prototxt", name="ncsdk2") == set()
    assert broken(text, tmp_path / "n.prototxt", name="ncsdk1") == {"NCS006"}


# --- TensorFlow graphs: protobuf written by hand (tensorflow/core/framework/graph.proto) ------------------------------


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out, value = b"", value & (1 << 64) - 1
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def node(name: str, op: str, inputs: Sequence[str] = (), shape: Sequence[int] | None = None) -> bytes:
    body = field(1, name) + field(2, op) + b"".join(field(3, i) for i in inputs)
    body += field(5, field(1, "dtype") + field(2, field(6, 1)))
    if shape is not None:
        dims = b"".join(field(2, field(1, d)) for d in shape)
        body += field(5, field(1, "shape") + field(2, field(7, dims)))
    return field(1, body)


def graph(*nodes: bytes) -> bytes:
    return b"".join(nodes) + field(4, field(1, 22))


IN = node("input", "Placeholder", shape=(1, 224, 224, 3))
NET = node("MobilenetV1/Conv", "Relu", ["input"])
OUT = node("output", "Softmax", ["MobilenetV1/Conv"])
GRAPH = graph(IN, NET, OUT)

TENSORFLOW = {
    "NCS030": graph(IN, node("MyNet/Conv", "Relu", ["input"]), node("output", "Softmax", ["MyNet/Conv"])),
    "NCS031": graph(IN, node("keep_prob", "Placeholder"), NET, OUT),
    "NCS032": graph(IN, NET, node("MobilenetV1/Dropout/RandomUniform", "RandomUniform", ["MobilenetV1/Conv"]), OUT),
    "NCS033": graph(IN, NET, OUT, node("loss", "SparseSoftmaxCrossEntropyWithLogits", ["output"])),
    "NCS034": graph(
        node("Placeholder", "Placeholder", shape=(1, 224, 224, 3)),
        node("MobilenetV1/Conv", "Relu", ["Placeholder"]),
        OUT,
    ),
    "NCS035": graph(IN, NET, OUT, node("w", "VariableV2")),
}


@pytest.mark.parametrize(
    ("shape", "rules"), [((4, 224, 224, 3), {"NCS003"}), ((-1, 224, 224, 3), {"NCS037"}), ((1, -1, -1, 3), {"NCS037"})]
)
def test_a_graph_for_another_batch_is_not_passed(shape: tuple[int, ...], rules: set[str], tmp_path: Path) -> None:
    assert broken(graph(node("input", "Placeholder", shape=shape), NET, OUT), tmp_path / "net.pb") == rules


def checkpoint(directory: Path, *, complete: bool) -> Path:
    """A .meta with its saver, as TensorFlow 1 writes it, with or without the files of its variables."""
    saver = (
        node("save/filename", "Placeholder"), node("save/Const", "PlaceholderWithDefault", ["save/filename"]),
        node("save/SaveV2", "SaveV2", ["save/Const", "w"]), node("save/RestoreV2", "RestoreV2", ["save/Const"]),
        node("save/Assign", "Assign", ["w", "save/RestoreV2"]),
    )  # fmt: skip
    nodes = graph(IN, NET, node("w", "VariableV2", shape=(1,)), OUT, *saver)
    (directory / "net.meta").write_bytes(field(1, field(5, "1.15.0")) + field(2, nodes))
    if complete:
        (directory / "net.index").write_bytes(checkpoint_index())
        (directory / "net.data-00000-of-00001").write_bytes(bytes(4))
    return directory / "net.meta"


def test_a_metagraph_is_checked_with_its_checkpoint(tmp_path: Path) -> None:
    report = check(checkpoint(tmp_path, complete=True), "ncs")
    assert [v.rule.id for v in report.violations] == []
    assert report.facts["checkpoint_bytes"] > 0
    (tmp_path / "net.index").unlink()
    assert {v.rule.id for v in check(tmp_path / "net.meta", "ncs").violations} == {"NCS036"}


@pytest.mark.parametrize("rule", sorted(TENSORFLOW))
def test_a_tensorflow_rule_is_broken_by_the_wrong_graph_and_kept_by_the_right_one(rule: str, tmp_path: Path) -> None:
    assert rule in broken(TENSORFLOW[rule], tmp_path / "net.pb")
    assert broken(GRAPH, tmp_path / "net.pb") == set()


def test_a_mobilenet_of_an_odd_input_size_is_not_vouched_for(tmp_path: Path) -> None:
    odd = graph(node("input", "Placeholder", shape=(1, 96, 96, 3)), NET, OUT)
    assert broken(odd, tmp_path / "net.pb") == {"NCS030"}


# --- compiled graphs and logs -----------------------------------------------------------------------------------------


def test_real_graphs_are_accepted_by_their_own_sdk(shared_data: Path) -> None:
    for name, sdk in (("12net.graph", "ncsdk2"), ("graph.facedetect80", "ncsdk2"), ("p.graph", "ncsdk1")):
        assert check(shared_data / "ncs" / name, "ncs", Options(PROFILES[sdk])).violations == ()


def test_a_graph_of_the_other_sdk_is_named(shared_data: Path) -> None:
    (violation,) = check(shared_data / "ncs/p.graph", "ncs", Options(PROFILES["ncsdk2"])).violations
    assert violation.rule.id == "NCS042"


def test_a_graph_with_more_stages_than_the_file_holds_is_refused(shared_data: Path, tmp_path: Path) -> None:
    data = bytearray((shared_data / "ncs/p.graph").read_bytes())
    struct.pack_into("<H", data, 240, 5000)
    assert "NCS040" in broken(bytes(data), tmp_path / "p.graph", name="ncsdk1")


def test_a_graph_for_more_processors_than_there_are_is_refused(shared_data: Path, tmp_path: Path) -> None:
    data = bytearray((shared_data / "ncs/12net.graph").read_bytes())
    struct.pack_into("<I", data, 50, 13)
    assert broken(bytes(data), tmp_path / "g.graph") & {"NCS040", "NCS041"}


def test_an_error_in_a_compiler_log_is_explained_by_its_rule(tmp_path: Path) -> None:
    log = b"mvNCCompile v02.00, Copyright @ Intel Corporation 2017\n\n"
    log += b'[Error 25] Myriad Error: "Matmul scratch memory [112640] lower than required [225792]"\n'
    path = tmp_path / "compile.log"
    path.write_bytes(log)
    (violation,) = check(path, "ncs").violations
    assert violation.rule.id == "NCS012"
    assert "225792" in violation.value
    path.write_bytes(b"mvNCCompile v02.00, Copyright @ Intel Corporation 2017\n\nBlob generated\n")
    assert check(path, "ncs").violations == ()


# --- OpenVINO ---------------------------------------------------------------------------------------------------------


def ir(
    type: str = "ReLU",
    *,
    version: int = 10,
    opset: str = "opset1",
    shape: Sequence[int] = (1, 3, 8, 8),
    element: str = "f16",
) -> bytes:
    dims = "".join(f"<dim>{d}</dim>" for d in shape)
    port = f'<port id="%d" precision="FP32">{dims}</port>'
    size = {"f16": 2, "f32": 4}[element]
    return f"""<?xml version="1.0"?>
<net name="n" version="{version}"><layers>
<layer id="0" name="data" type="Parameter" version="opset1">
<data shape="{",".join(map(str, shape))}" element_type="f32"/>
<output>{port % 0}</output></layer>
<layer id="1" name="k" type="Const" version="opset1"><data element_type="{element}" shape="1" offset="0" size="{size}"/>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="2" name="act" type="{type}" version="{opset}"><input>{port % 0}</input><output>{port % 1}</output></layer>
<layer id="3" name="end" type="Result" version="opset1"><input>{port % 0}</input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="2" from-port="1" to-layer="3" to-port="0"/></edges></net>""".encode()


OPENVINO = {
    "OVN000": b"no model at all",
    "OVN001": ir(version=11),
    "OVN002": ir("Sin"),
    "OVN004": ir(shape=(-1, 3, 8, 8)),
    "OVN005": ir(opset="opset10"),
    "OVN006": ir(element="f32"),
}


@pytest.mark.parametrize("rule", sorted(OPENVINO))
def test_an_openvino_rule_is_broken_by_the_wrong_ir_and_kept_by_the_right_one(rule: str, tmp_path: Path) -> None:
    (tmp_path / "n.bin").write_bytes(bytes(16))
    assert rule in broken(OPENVINO[rule], tmp_path / "n.xml", "ncs2", "openvino-2021.4")
    assert broken(ir(), tmp_path / "n.xml", "ncs2", "openvino-2021.4") == set()


def test_weights_that_are_missing_or_cut_off_are_noticed(tmp_path: Path) -> None:
    assert broken(ir(), tmp_path / "n.xml", "ncs2") == {"OVN003"}
    (tmp_path / "n.bin").write_bytes(b"x")
    assert broken(ir(), tmp_path / "n.xml", "ncs2") == {"OVN003"}


# --- rules and profiles -----------------------------------------------------------------------------------------------

#: Found only by a compiler, or tested beside a real file above or in test_check_tflite.
ELSEWHERE = {
    "TFL007", "TFL008", "TFL010", "SAN004", "SAN009", "ETP011", "ETP012", "ETP013", "ETP040", "ETP041",
    "ETP042", "ETP043", "ETP044",
    "KPU014", "KPU018", "KPU019", "KPU022", "KPU024", "KPU025", "KPU026", "KPU027",
    "NCS012", "NCS036", "NCS037", "NCS040", "NCS041", "NCS042", "OVN003",
}  # fmt: skip


def test_every_rule_has_a_model_that_breaks_it() -> None:
    assert set(rules()) == set(TFLITE) | set(CAFFE) | set(TENSORFLOW) | set(OPENVINO) | ELSEWHERE


def test_a_rule_says_everything_a_person_needs() -> None:
    for rule in rules().values():
        assert rule.severity in ("error", "warning", "note")
        assert all((rule.title, rule.limit, rule.source, rule.remedy)), rule.id


def test_a_profile_file_changes_a_limit(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "ncsdk1"\nncs_layer = 1000\nweights_range = 8\nkmodel_versions = [4]\n')
    mine = profile(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.ncsdk, mine.ncs_layer, mine.weights_range, mine.kmodel_versions) == (
        "mine",
        "1",
        1000,
        8.0,
        (4,),
    )


@pytest.mark.parametrize("text", ["what = 1", "ncs_layer = 'x'", "= 1", "kmodel_versions = ['a']", "ncs_layer = true"])
def test_a_wrong_profile_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InvalidConfig):
        profile(str(tmp_path / "p.toml"))


def test_an_unknown_profile_and_target_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="m5stickv"):
        profile("m5stack")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="edgetpu"):
        check(tmp_path / "x", "gpu")


@pytest.mark.parametrize("text", ["Edge TPU Compiler version 16.0.384591198\n\nModel compiled successfully.\n", "hm\n"])
def test_text_that_mvnccompile_did_not_print_is_not_taken_for_a_clean_log(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(text)
    (violation,) = check(tmp_path / "run.log", "ncs").violations
    assert violation.rule.id == "NCS000"
