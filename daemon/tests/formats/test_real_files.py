"""Real models, decoded: every fact that the accelerator reference and the data set's README state."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeaid.formats.detect import detect
from edgeaid.formats.edgetpu import reader as edgetpu
from edgeaid.formats.edgetpu import rules as edgetpu_rules
from edgeaid.formats.k210 import kmodel, kpu
from edgeaid.formats.labels import parse as labels_of
from edgeaid.formats.ncs import reader as ncs
from edgeaid.formats.tflite import metadata as tflite_metadata
from edgeaid.formats.tflite import reader as tflite

KINDS = {
    "coral/mobilenet_v1_0.25_128_quant.tflite": "tflite",
    "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite": "tflite",
    "coral/invalid_models/model_invoking_error.tflite": "tflite",
    "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite": "edgetpu",
    "ncs/p.graph": "ncs-v1",
    "ncs/12net.graph": "ncs-v2",
    "ncs/graph.facedetect80": "ncs-v2",
    "k210/iris_v3.kmodel": "kmodel-v3",
    "k210/slim-320_v4.kmodel": "kmodel-v4",
    "k210/ulffd_landmark_v4.kmodel": "kmodel-v4",
    "k210/yolox_nano_224_v5.kmodel": "kmodel-v5",
    "coral/cat.bmp": "unknown",
    "coral/parrot.jpg": "unknown",
    "coral/coco_labels.txt": "unknown",
}


@pytest.mark.parametrize("name", KINDS)
def test_every_real_file_is_recognised_for_what_it_is(shared_data: Path, name: str) -> None:
    assert detect((shared_data / name).read_bytes()) == KINDS[name]


#: File -> bytes, operators, input shape, output shapes and types, labels, oldest runtime.
TFLITE = {
    "mobilenet_v1_0.25_128_quant": (525_598, 31, (1, 128, 128, 3), [("UINT8", (1, 1001))], 1001, "1.5.0"),
    "mobilenet_v1_0.5_160_quant": (1_392_846, 31, (1, 160, 160, 3), [("UINT8", (1, 1001))], 1001, "1.5.0"),
    "mobilenet_v2_1.0_224_quant": (3_610_798, 66, (1, 224, 224, 3), [("UINT8", (1, 1001))], 1001, "1.5.0"),
    "mobilenet_v2_1.0_224_inat_bird_quant": (3_579_500, 65, (1, 224, 224, 3), [("UINT8", (1, 965))], 965, "1.5.0"),
    "mobilenet_v1_1.0_224_quant_embedding_extractor": (
        3_251_736, 28, (1, 224, 224, 3), [("UINT8", (1, 1, 1, 1024))], 0, "1.5.0",
    ),
    "deeplabv3_mnv2_dm05_pascal_quant": (760_904, 72, (1, 513, 513, 3), [("INT64", (1, 513, 513))], 0, "1.14.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", TFLITE)
def test_a_real_tflite_file_shows_its_tensors_operators_and_labels(shared_data: Path, name: str) -> None:
    size, operators, shape, outputs, labels, oldest = TFLITE[name]
    data = (shared_data / "coral" / f"{name}.tflite").read_bytes()
    model = tflite.read(data)
    assert (model.size, model.version, len(model.subgraphs), len(model.operators)) == (size, 3, 1, operators)
    assert [(i.datatype, i.shape) for i in model.inputs] == [("UINT8", shape)]
    assert [(o.datatype, o.shape) for o in model.outputs] == outputs
    assert model.inputs[0].quantization is not None
    assert model.inputs[0].quantization.scale == (0.0078125,)
    assert model.inputs[0].quantization.zero_point == (128,)
    assert len(tflite_metadata.labels(data, model).names) == labels
    assert (model.min_runtime_version, model.edgetpu, model.custom_codes) == (oldest, False, ())


def test_the_operator_list_is_the_one_a_runtime_sees(shared_data: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    path = shared_data / "coral" / "mobilenet_v2_1.0_224_quant.tflite"
    runtime = interpreter.Interpreter(
        model_path=str(path), experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    graph = tflite.read(path.read_bytes()).subgraphs[0]
    theirs = [(d["name"], tuple(d["shape"])) for d in runtime.get_tensor_details()]
    ours = [(t.name, t.shape) for t in graph.tensors]
    assert ours == theirs[: len(ours)]
    assert [o["op_name"] for o in runtime._get_ops_details()] == [o.name for o in graph.operators]


def test_labels_are_those_of_the_label_file(shared_data: Path) -> None:
    data = (shared_data / "coral" / "mobilenet_v2_1.0_224_inat_bird_quant.tflite").read_bytes()
    lines = (shared_data / "coral" / "inat_bird_labels.txt").read_text("utf-8").splitlines()
    assert list(tflite_metadata.labels(data).names) == [line.strip() for line in lines]


def test_label_reading_stops_at_the_first_empty_line(shared_data: Path) -> None:
    raw = (shared_data / "coral" / "pascal_voc_segmentation_labels.txt").read_bytes()
    labels = labels_of(raw).names
    assert (len(labels), labels[0], labels[8]) == (21, "background", "cat")


def test_the_authors_normalisation_is_read(shared_data: Path) -> None:
    data = (shared_data / "coral" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite").read_bytes()
    about = tflite_metadata.metadata(data, tflite.read(data))
    assert about is not None
    assert (about.inputs[0].mean, about.inputs[0].std, about.inputs[0].color) == ((127.5,), (127.5,), "RGB")
    assert about.outputs[0].files[0].name == "imagenet_labels.txt"


def test_a_custom_operator_nobody_knows_is_named(shared_data: Path) -> None:
    model = tflite.read((shared_data / "coral/invalid_models/model_invoking_error.tflite").read_bytes())
    assert model.custom_codes == ("fake-op-double",)
    assert (model.inputs[0].datatype, model.inputs[0].shape, model.outputs[0].datatype) == ("UINT8", (1, 3), "FP32")


M25, M50, M75 = "mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.5_160_quant", "mobilenet_v1_0.75_192_quant"
#: File -> bytes, token, cached, streamed, instruction bytes (execution, caching).
EDGETPU = {
    f"{M25}_edgetpu": (801454, 0x6D146C3F97D6648C, 566912, 0, (170032, 12624)),
    f"{M50}_edgetpu": (1743534, 0x8EBC2700DE21D6AA, 1473280, 0, (205936, 12624)),
    f"cocompilation/{M25}_cocompiled_with_3quant_edgetpu": (
        809646, 0x99B484BE30458CDE, 315840, 251072, (182928, 4560),
    ),
    f"cocompilation/{M50}_cocompiled_with_3quant_edgetpu": (
        1747630, 0x99B484BE30458CDE, 1024960, 448320, (217792, 5328),
    ),
    f"cocompilation/{M75}_cocompiled_with_3quant_edgetpu": (
        3037870, 0x99B484BE30458CDE, 2619456, 158144, (198928, 6736),
    ),
    f"cocompilation/{M25}_cocompiled_with_{M50}_edgetpu": (801454, 0xE2C366FD5D62FA6B, 566912, 0, (170032, 12624)),
    f"cocompilation/{M50}_cocompiled_with_{M25}_edgetpu": (1743534, 0xE2C366FD5D62FA6B, 1473280, 0, (205936, 12624)),
    "mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu": (
        3486336, 0x7344024D6CFF6B4A, 3363072, 0, (87584, 4688),
    ),
    "pipeline/ssd_mobilenet_v1_coco_quant_postprocess_segment_0_of_2_edgetpu": (
        3499360, 0xAA514B815318EA97, 3363072, 0, (98048, 4688),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGETPU)
def test_a_real_compiled_file_shows_token_cached_and_streamed_bytes(shared_data: Path, name: str) -> None:
    size, token, cached, streamed, instructions = EDGETPU[name]
    model = edgetpu.read((shared_data / "coral" / f"{name}.tflite").read_bytes())
    assert (model.tflite.size, model.token, model.cached_bytes, model.streamed_bytes) == (size, token, cached, streamed)
    package = model.package
    assert [e.type for e in package.executables] == [edgetpu.EXECUTION_ONLY, edgetpu.PARAMETER_CACHING]
    assert tuple(sum(e.bitstreams) for e in package.executables) == instructions
    assert (package.identifier, package.min_runtime, package.virtual_chip_id) == ("DWN1", 12, 0)
    assert package.size % 4096 == 0
    assert {e.chip for e in package.executables} == {"beagle"}
    assert {e.token for e in package.executables} == {token}
    assert (model.scratch_bytes, model.cpu_operators, len(model.operators)) == (0, (), 1)
    assert not [f for f in edgetpu_rules.check(model) if f.severity != "note"]


def test_cached_and_streamed_bytes_of_one_model_are_constant_however_it_was_compiled() -> None:
    sums = {m: {c + s for n, (_, _, c, s, _) in EDGETPU.items() if Path(n).name.startswith(m)} for m in (M25, M50)}
    assert all(len(totals) == 1 for totals in sums.values())


def test_an_older_runtime_refuses_a_newer_file(shared_data: Path) -> None:
    model = edgetpu.read((shared_data / "coral" / f"{M25}_edgetpu.tflite").read_bytes())
    assert [f.rule for f in edgetpu_rules.check(model, runtime=11) if f.severity == "refused"] == ["min-runtime"]


def test_output_layers_are_padded_and_tensors_are_not(shared_data: Path) -> None:
    main = edgetpu.read((shared_data / "coral" / f"{M25}_edgetpu.tflite").read_bytes()).package.main
    assert main is not None
    assert (main.outputs[0].size_bytes, main.outputs[0].actual_bytes) == (1008, 1001)


def test_the_first_half_of_a_split_detector_has_two_outputs(shared_data: Path) -> None:
    name = "pipeline/ssd_mobilenet_v1_coco_quant_postprocess_segment_0_of_2_edgetpu.tflite"
    model = tflite.read((shared_data / "coral" / name).read_bytes())
    assert [o.shape for o in model.outputs] == [(1, 19, 19, 512), (1, 10, 10, 1024)]


def test_kmodel_v3_of_the_iris_example(shared_data: Path) -> None:
    model = kmodel.read((shared_data / "k210/iris_v3.kmodel").read_bytes())
    assert (model.version, model.size, model.shortfall) == (3, 436, 4)
    assert [n.name for n in model.nodes] == ["fully_connected", "fully_connected"]
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((1, 4), (3,))
    assert [n.details["activation"] for n in model.nodes] == ["relu", "linear"]


@pytest.mark.parametrize(
    ("name", "nodes", "convolutions", "peak", "need", "outputs", "shortfall"),
    [
        ("slim-320_v4", 73, 42, 1_704_960, 544_404, 2, 4),
        ("ulffd_landmark_v4", 99, 43, 1_474_560, 879_520, 3, 0),
    ],
)
def test_kmodel_v4_shows_nodes_and_memory(
    shared_data: Path, name: str, nodes: int, convolutions: int, peak: int, need: int, outputs: int, shortfall: int
) -> None:
    model = kmodel.read((shared_data / "k210" / f"{name}.kmodel").read_bytes())
    assert (model.version, model.target, len(model.nodes)) == (4, "k210", nodes)
    assert sum(n.name == "kpu_conv2d" for n in model.nodes) == convolutions
    assert (model.kpu_peak, model.ram_need, model.shortfall) == (peak, need, shortfall)
    assert [(i.datatype, i.shape) for i in model.inputs] == [("UINT8", (1, 3, 240, 320))]
    assert model.input_ranges[0].memory == "kpu"
    assert [o.datatype for o in model.outputs] == ["FP32"] * outputs
    assert not kmodel.check(model)


def test_kmodel_v5_shows_modules_and_functions(shared_data: Path) -> None:
    model = kmodel.read((shared_data / "k210/yolox_nano_224_v5.kmodel").read_bytes())
    assert [(m.type, m.functions) for m in model.modules] == [("stackvm", 1), ("k210", 27)]
    assert [(i.datatype, i.shape) for i in model.inputs] == [("UINT8", (1, 3, 224, 224))]
    assert [(o.datatype, o.shape) for o in model.outputs] == [("FP32", (1, 1029, 85))]
    assert model.kpu_peak <= kpu.KPU_RAM
    assert [f.rule for f in kmodel.check(model)] == ["maixpy"]


@pytest.mark.parametrize(
    ("shape", "expected"), [((3, 32, 32), 4096), ((3, 240, 320), 230_400), ((1, 4, 4), 256), ((16, 120, 160), 368_640)]
)
def test_feature_maps_take_the_documented_kpu_ram(shape: tuple[int, int, int], expected: int) -> None:
    assert kpu.feature_map_bytes(*shape) == expected


def test_ncs_graph_of_the_first_generation(shared_data: Path) -> None:
    graph = ncs.read((shared_data / "ncs/p.graph").read_bytes())
    assert (graph.generation, graph.version, graph.stage_count, graph.size) == (1, (2,), 27, 20_352)
    assert (graph.stages[0].input, graph.input_elements, graph.output_elements) == ((28, 38, 3), 28 * 38 * 3, 756)
    assert (graph.stages[0].name, graph.stages[0].kernel) == ("pnet/conv1/BiasAdd", (3, 3))
    assert sum(size for _, size in graph.sections) + 7 >= graph.size


@pytest.mark.parametrize(
    ("name", "stages", "inputs", "outputs"), [("12net.graph", 10, 432, 4), ("graph.facedetect80", 16, 19_200, 50)]
)
def test_ncs_graph_of_the_second_generation(
    shared_data: Path, name: str, stages: int, inputs: int, outputs: int
) -> None:
    graph = ncs.read((shared_data / "ncs" / name).read_bytes())
    assert (graph.generation, graph.version, graph.shaves, graph.stage_count) == (2, (2, 3), 12, stages)
    assert (graph.input_elements, graph.output_elements) == (inputs, outputs)
    assert sum(size for _, size in graph.sections) == graph.size
    assert not ncs.check(graph)
