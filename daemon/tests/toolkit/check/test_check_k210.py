"""What a K210 needs is foreseen from the float network: its two memories, as nncase 1.9 lays them out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeaid.formats.k210 import kmodel
from edgeaid.toolkit.check.check import Options, check
from edgeaid.toolkit.check.k210_memory import ABOVE, BELOW
from edgeaid.toolkit.check.k210_operators import READS_OPTIONS
from edgeaid.toolkit.check.rules import PROFILES, Checked
from edgeaid.toolkit.compile import compilers
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.run import child

from .. import tflite_builder
from ..float_networks import NETWORKS, RELU6, Net
from ..tflite_builder import Op

SDK = Options(profile=PROFILES["kendryte-sdk"], run=False)

#: Network -> bytes of the KPU's memory and of general memory in the kmodel that nncase 1.9.0.20230322 made of it.
MEASURED = {
    "auto-encoder 32": (69632, 821232),
    "bottlenecks 112": (172032, 2099768),
    "dense blocks 32": (49152, 299000),
    "depthwise stride 2 before 1x1": (143360, 771856),
    "depthwise stride 2 before 3x3": (143360, 507512),
    "detector 160": (327680, 1712016),
    "digits 28": (50944, 82480),
    "dilated 33x40": (67584, 265104),
    "functions 16x24": (10240, 35864),
    "growing 16": (163840, 876240),
    "hard swish 64": (29568, 961184),
    "inception 64": (86016, 885072),
    "kernel 5 48": (36864, 309000),
    "keyword 49x10": (54400, 75392),
    "mobilenet v1 0.25 224": (458752, 2783128),
    "mobilenet v1 0.25 99": (128000, 757176),
    "mobilenet v1 0.25 grey 95x63": (55296, 498168),
    "mobilenet v1 0.5 224 padded": (1089536, 1820640),
    "mobilenet v2 0.35 96": (319488, 1707200),
    "padded twice 20": (11776, 61120),
    "pointwise stride 2": (110592, 207544),
    "pool stride 1 40": (69120, 1445168),
    "prelu 64": (196608, 1676400),
    "pyramid 128": (116480, 1289952),
    "residual 33": (76032, 302424),
    "residual 64 leaky": (196608, 1294688),
    "shuffled 128": (149760, 1277360),
    "sigmoid 64": (28672, 958640),
    "squeeze and excite 96": (98304, 510792),
    "squeezenet 224": (636416, 4527008),
    "stride 2 before 1x1": (208896, 1362704),
    "stride 4 64": (77824, 492296),
    "sums 32": (36864, 268784),
    "swish 64": (28672, 316424),
    "u-net 128 grey": (1048576, 6218736),
    "valid 63x65": (153216, 675984),
}
#: These leave room for nothing else: nncase 1.9 gives up with "Allocator has ran out of memory".
TOO_LARGE = ("mobilenet v1 0.75 240x320", "mobilenet v2 1.0 160")


def looked_at(data: bytes, directory: Path, options: Options = SDK) -> Checked:
    (directory / "m.tflite").write_bytes(data)
    return check(directory / "m.tflite", "k210", options)


@pytest.mark.parametrize("name", MEASURED)
def test_memories_are_foreseen_as_the_compiler_lays_them_out(name: str, tmp_path: Path) -> None:
    kpu, general = MEASURED[name]
    facts = looked_at(NETWORKS[name](), tmp_path).facts
    assert facts["kpu_peak_bytes"] == kpu
    assert facts["ram_bytes_about"] * BELOW > general
    if general > 1 << 20:
        assert facts["ram_bytes_about"] * ABOVE < general


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_the_compiler_finds_no_room_for_is_an_error_by_layer(name: str, tmp_path: Path) -> None:
    broken = {v.rule.id: v.layer for v in looked_at(NETWORKS[name](), tmp_path).violations}
    assert broken["KPU013"].startswith("#")


def test_a_network_whose_parts_fit_but_not_its_whole_is_an_error(tmp_path: Path) -> None:
    """The KPU's 2 MiB suffice; kmodel and buffers do not find room in the 6 MiB beside the firmware."""
    report = looked_at(NETWORKS["mobilenet v2 0.5 224"](), tmp_path)
    broken = {v.rule.id: v.value for v in report.violations}
    assert "KPU013" not in broken
    assert "kmodel" in broken["KPU014"]
    assert "49 networks" in report.facts["ram_measured"]


def test_what_may_or_may_not_fit_is_a_warning(tmp_path: Path) -> None:
    assert {"KPU024"} <= {v.rule.id for v in looked_at(NETWORKS["squeezenet 224"](), tmp_path).violations}
    assert not {"KPU014", "KPU024"} & {
        v.rule.id for v in looked_at(NETWORKS["mobilenet v1 0.25 224"](), tmp_path).violations
    }


#: Size of the picture, then out channels, kernel and dilation of each layer -> general memory in the kmodel, bytes.
DILATED: dict[tuple[tuple[int, ...], ...], int] = {
    ((64, 64, 3), (16, 3, 2), (16, 3, 1)): 484_672,  # the pictures of the dilation fill their maps: joined as bytes
    ((65, 65, 3), (16, 3, 2), (16, 3, 1)): 1_027_920,  # they do not: joined as numbers of 4 bytes
    ((66, 66, 3), (16, 3, 3), (16, 3, 1)): 520_912,
    ((64, 64, 3), (8, 3, 1), (16, 3, 2), (16, 3, 1)): 655_824,
    ((64, 64, 3), (16, 3, 2), (16, 1, 1)): 482_624,
    ((48, 48, 1), (8, 3, 3)): 278_520,
    ((40, 60, 3), (32, 3, 2), (8, 3, 2)): 887_392,
}


@pytest.mark.parametrize("form", DILATED, ids=str)
def test_general_memory_of_dilated_convolutions_is_foreseen_within_2_percent(
    form: tuple[tuple[int, ...], ...], tmp_path: Path
) -> None:
    shape, *layers = form
    net = Net(*shape)
    x = net.input
    for out, kernel, dilation in layers:
        x = net.conv(x, out, kernel, dilation=dilation)
    facts = looked_at(net.file(x), tmp_path).facts
    assert facts["ram_bytes_about"] == pytest.approx(DILATED[form], rel=0.02)


def test_a_matrix_too_large_for_the_kpu_stays_float_and_fills_the_memory(tmp_path: Path) -> None:
    net = Net(64, 64, 3)
    net.random = np.random.default_rng(0)
    x = net.flat(net.pool(net.conv(net.input, 8), 4, 4))
    broken = {v.rule.id for v in looked_at(net.file(net.dense(x, 1000)), tmp_path).violations}
    assert {"KPU014", "KPU017"} <= broken


@pytest.mark.parametrize("kind", sorted(READS_OPTIONS))
def test_options_that_a_file_leaves_out_would_kill_the_compiler(kind: str, tmp_path: Path) -> None:
    net = Net(8, 8, 8)
    net.operators.append(Op(kind, [net.input, net.constant((8, 8))], [net.add_tensor((1, 8, 8, 8))]))
    union, tflite_builder.UNION = tflite_builder.UNION, {}
    try:
        data = net.file("t2")
    finally:
        tflite_builder.UNION = union
    assert "KPU027" in {v.rule.id for v in looked_at(data, tmp_path).violations}
    old = Options(profile=PROFILES["m5stickv"], run=False)
    assert "KPU027" not in {v.rule.id for v in looked_at(data, tmp_path, old).violations}


def test_maps_below_four_pixels_are_padded_by_nncase_1_and_left_to_the_cpu_by_0_2(tmp_path: Path) -> None:
    net = Net(8, 8, 8)
    x = net.conv(net.conv(net.input, 8, 3, 2, RELU6), 8, 3, 2, RELU6)
    data = net.file(net.conv(x, 8))
    assert "KPU005" not in {v.rule.id for v in looked_at(data, tmp_path).violations}
    old = Options(profile=PROFILES["m5stickv"], run=False)
    assert "KPU005" in {v.rule.id for v in looked_at(data, tmp_path, old).violations}


def test_operators_are_those_of_the_compiler_of_the_profile(tmp_path: Path) -> None:
    net = Net(8, 8, 8)
    data = net.file(net.op("TILE", [net.input, net.constant((4,), "INT32", (1, 1, 1, 2))], (1, 8, 8, 16)))
    assert "KPU012" not in {v.rule.id for v in looked_at(data, tmp_path).violations}
    old = Options(profile=PROFILES["m5stickv"], run=False)
    assert "KPU012" in {v.rule.id for v in looked_at(data, tmp_path, old).violations}


def onnx_file(path: Path, *, shaped: bool, stride: int = 1, channels: int = 16, folded: bool = True) -> Path:
    """Conv, Relu, MaxPool, Conv, sum, mean, Gemm, as PyTorch exports them; with BatchNormalization unless folded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name)

    stats = [weight(n, channels) for n in ("s", "b", "m")] + [
        numpy_helper.from_array(np.ones(channels, np.float32), "v")
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4, strides=[stride] * 2),
        *([] if folded else [helper.make_node("BatchNormalization", ["c1", "s", "b", "m", "v"], ["n1"])]),
        helper.make_node("Relu", ["c1" if folded else "n1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Add", ["p1", "c2"], ["a1"]),
        helper.make_node("GlobalAveragePool", ["a1"], ["g1"]),
        helper.make_node("Flatten", ["g1"], ["f1"]),
        helper.make_node("Gemm", ["f1", "w3", "b3"], ["y"], transB=1),
    ]
    size: list[int | str] = [1, 3, 64, 64] if shaped else ["n", 3, "h", "w"]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [weight("w1", channels, 3, 3, 3), weight("w2", channels, channels, 3, 3), weight("w3", 10, channels),
         weight("b3", 10), *stats],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    made.ir_version = 7
    onnx.save(made, str(path))
    return path


def test_an_onnx_file_is_checked_by_the_same_rules(tmp_path: Path) -> None:
    report = check(onnx_file(tmp_path / "n.onnx", shaped=True), "k210", SDK)
    assert report.worst in ("", "note"), report.violations
    # 3x64x64 and 16x32x32; then the sum of two maps, one behind the other.
    assert report.facts["kpu_peak_bytes"] == 49152
    assert 100_000 < report.facts["ram_bytes_about"] < 400_000
    plain = check(onnx_file(tmp_path / "b.onnx", shaped=True, folded=False), "k210", SDK)
    # Unfolded, the map of 16x64x64 leaves the KPU before it is pooled.
    assert plain.facts["kpu_peak_bytes"] == 77824
    assert "KPU026" in {v.rule.id for v in plain.violations}
    wide = check(onnx_file(tmp_path / "w.onnx", shaped=True, channels=1100), "k210", SDK)
    assert "KPU004" in {v.rule.id for v in wide.violations}
    by_three = check(onnx_file(tmp_path / "s.onnx", shaped=True, stride=3), "k210", SDK)
    assert "KPU007" in {v.rule.id for v in by_three.violations}


def test_an_onnx_file_with_open_dimensions_is_told_to_fix_them(tmp_path: Path) -> None:
    report = check(onnx_file(tmp_path / "n.onnx", shaped=False), "k210", SDK)
    assert {v.rule.id for v in report.violations} == {"KPU020"}
    assert "ram_bytes_about" not in report.facts


def test_onnx_for_maixpy_is_sent_through_tflite(tmp_path: Path) -> None:
    report = check(onnx_file(tmp_path / "n.onnx", shaped=True), "k210", Options(run=False))
    (note,) = [v for v in report.violations if v.rule.id == "KPU025"]
    assert "--to tflite" in note.rule.remedy


def compiled(source: Path, kind: str, shape: tuple[int, ...]) -> kmodel.Kmodel:
    """What nncase makes of a file, with noise to calibrate."""
    noise = np.random.default_rng(0).uniform(0, 1, (4, *shape)).astype(np.float32)
    np.savez(source.with_suffix(".npz"), data=noise)
    made = source.with_suffix(".kmodel")
    request = {
        "model": str(source), "kind": kind, "target": "k210", "options": {}, "inputs": "", "outputs": "",
        "calibration": str(source.with_suffix(".npz")), "kmodel": str(made), "answer": str(source.with_suffix(".json")),
    }  # fmt: skip
    source.with_suffix(".request").write_text(json.dumps(request))
    program = Path(compilers.__file__).parent / "children" / "nncase_compile.py"
    done = child([environments.python("nncase"), program, source.with_suffix(".request")], timeout=600)
    assert done.status == 0, done.error[-2000:]
    return kmodel.read(made.read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nncase_allocates_what_was_foreseen_on_all_networks(tmp_path: Path) -> None:
    if environments.find_python(environments.ENVIRONMENTS["nncase"]) is None:
        pytest.skip("nncase needs Python 3.8 to 3.10")
    off = {}
    for number, (name, make) in enumerate(NETWORKS.items()):
        if name in TOO_LARGE:
            continue
        facts = looked_at(make(), tmp_path).facts
        source = tmp_path / f"n{number}.tflite"
        (tmp_path / "m.tflite").rename(source)
        shape = tuple(int(d) for d in make_shape(source))
        real = compiled(source, "tflite", shape)
        if facts["kpu_peak_bytes"] != real.kpu_peak or facts["ram_bytes_about"] * BELOW < real.ram_need:
            off[name] = (facts["kpu_peak_bytes"], real.kpu_peak, facts["ram_bytes_about"], real.ram_need)
    assert not off


@pytest.mark.slow
def test_nncase_allocates_what_was_foreseen_from_onnx(tmp_path: Path) -> None:
    if environments.find_python(environments.ENVIRONMENTS["nncase"]) is None:
        pytest.skip("nncase needs Python 3.8 to 3.10")
    import onnx

    for folded in (True, False):
        path = onnx_file(tmp_path / f"n{folded}.onnx", shaped=True, folded=folded)
        facts = check(path, "k210", SDK).facts
        # nncase wants the shapes of all values in the file, as `edgeai model compile` writes them.
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load(str(path))), str(path))
        real = compiled(path, "onnx", (3, 64, 64))
        assert facts["kpu_peak_bytes"] == real.kpu_peak
        assert real.ram_need / BELOW < facts["ram_bytes_about"] < 2 * real.ram_need


def make_shape(path: Path) -> tuple[int, ...]:
    """Shape of a file's input, without the batch."""
    from edgeaid.formats.tflite import reader

    return reader.read(path.read_bytes()).inputs[0].shape[1:]
