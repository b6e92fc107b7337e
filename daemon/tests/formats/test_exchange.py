"""OpenVINO, ONNX, TensorFlow, Caffe, archives: read without their packages, compared with those that are here."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from edgeaid.errors import InvalidModel, TooLarge, Unsupported
from edgeaid.formats.detect import detect
from edgeaid.formats.exchange import caffe, onnx, openvino, tensorflow
from edgeaid.formats.wire import protobuf, tardir, zipdir
from edgeaid.tensors import TensorSpec

from . import builders
from .builders_exchange import OLD_IR, graph_of_functions, pb


def test_an_ir_shows_layers_edges_and_weights() -> None:
    model = openvino.read(builders.IR.encode(), 32)
    assert (model.name, model.version, len(model.layers), len(model.edges)) == ("tiny", 11, 4, 3)
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [("x", "FP32", (1, 4))]
    assert [(t.name, t.datatype, t.shape) for t in model.outputs] == [("y", "FP32", (1, 2))]
    assert (model.weights_bytes, model.layers[1].constant) == (32, (0, 32))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<?xml version="1.0"?>', '<!DOCTYPE net [<!ENTITY a "b">]>', "document type"),
        ('size="32"', 'size="-4"', "negative"),
        ('from-layer="2"', 'from-layer="9"', "one is unknown"),
        ('id="1"', 'id="0"', "two with one id"),
        ("</net>", "", "broken XML"),
        ("<net ", "<graph ", "broken XML|not with <net>"),
        ("<dim>4</dim>", "<dim>four</dim>", "not a number"),
    ],
)
def test_an_ir_with_one_fault_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        openvino.read(builders.IR.replace(old, new, 1).encode(), 32)


def test_entities_are_refused_before_they_expand() -> None:
    bomb = '<!DOCTYPE n [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    with pytest.raises(InvalidModel, match="entities"):
        openvino.read(f"{bomb}]><net version='11'>&j;</net>".encode())


def test_an_ir_whose_weights_are_cut_off_is_refused() -> None:
    with pytest.raises(InvalidModel, match="end at byte 32"):
        openvino.read(builders.IR.encode(), 31)


def test_a_version_that_is_not_known_yet_is_not_called_damaged() -> None:
    with pytest.raises(Unsupported, match="version 12"):
        openvino.read(builders.IR.replace('version="11"', 'version="12"').encode())


@pytest.mark.parametrize("version", [8, 9])
def test_between_the_forms_the_layers_say_which_one_a_file_has(version: int) -> None:
    """Versions 8 and 9: graphs of the old form and of the new one show the same ends as with their own number."""
    for text, own in ((OLD_IR, 6), (builders.IR, 11)):
        renamed = openvino.read(text.replace(f'version="{own}"', f'version="{version}"').encode())
        usual = openvino.read(text.encode())
        assert renamed.version == version
        assert (renamed.inputs, renamed.outputs, renamed.weights_bytes) == (
            usual.inputs, usual.outputs, usual.weights_bytes,
        )  # fmt: skip
        assert renamed.inputs
        assert renamed.outputs


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6, 7])
def test_the_ir_of_the_first_years_shows_its_ends_and_its_weights(version: int) -> None:
    text = OLD_IR.replace('version="6"', f'version="{version}"')
    model = openvino.read(text.encode(), 224)
    assert model.version == version
    assert model.inputs == (TensorSpec("data", "FP16", (1, 3, 8, 8)),)
    assert model.outputs == (TensorSpec("relu", "FP16", (1, 4, 8, 8)),)
    assert [(x.type, x.weights_bytes) for x in model.layers] == [("Input", 0), ("Convolution", 224), ("ReLU", 0)]
    assert model.layers[1].data["strides"] == "1,1"
    with pytest.raises(InvalidModel, match="end at byte 224"):
        openvino.read(text.encode(), 223)


def test_the_weights_of_the_oldest_ir_stand_beside_its_ports() -> None:
    text = OLD_IR.replace('version="6"', 'version="2"').replace("<blobs>", "").replace("</blobs>", "")
    text = text.replace("<data dilations", "<convolution_data dilations")
    model = openvino.read(text.encode(), 224)
    assert model.layers[1].weights_bytes == 224
    assert model.layers[1].data["group"] == "1"


def test_a_real_ir_agrees_with_openvino(tmp_path: Path) -> None:
    package = pytest.importorskip("openvino")
    (tmp_path / "m.onnx").write_bytes(builders.onnx())
    model = package.convert_model(tmp_path / "m.onnx")
    package.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    ours = openvino.read((tmp_path / "m.xml").read_bytes(), (tmp_path / "m.bin").stat().st_size)
    assert [i.name for i in ours.inputs] == [i.any_name for i in model.inputs]
    assert [o.name for o in ours.outputs] == [o.any_name for o in model.outputs]
    # The XML writes some names with other capitals than the API gives.
    theirs = sorted(o.get_type_name().lower() for o in model.get_ops() if o.get_type_name() != "Constant")
    assert sorted(x.type.lower() for x in ours.layers if x.type != "Const") == theirs


def test_an_onnx_model_shows_operators_weights_and_shapes() -> None:
    model = onnx.read(builders.onnx())
    assert (model.ir_version, model.opset, model.name, model.producer) == (8, 13, "g", "test 1")
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [("x", "FP32", (-1, 4))]
    assert [(t.name, t.shape) for t in model.outputs] == [("y", (-1, 2))]
    assert [n.op_type for n in model.nodes] == ["MatMul", "LeakyRelu", "Transpose"]
    assert [dict(n.attributes) for n in model.nodes[1:]] == [{"alpha": 0.5}, {"perm": (0, 1)}]
    assert [(w.name, w.shape, w.size) for w in model.initializers] == [("w", (4, 2), 32)]


def test_an_onnx_model_agrees_with_the_onnx_package() -> None:
    package = pytest.importorskip("onnx")
    theirs = package.load_from_string(builders.onnx())
    package.checker.check_model(theirs)
    ours = onnx.read(theirs.SerializeToString())
    assert [n.op_type for n in ours.nodes] == [n.op_type for n in theirs.graph.node]


def test_the_onnx_packages_own_models_are_read_as_it_reads_them() -> None:
    package = pytest.importorskip("onnx")
    files = sorted((Path(package.__file__).parent / "backend/test/data").rglob("*.onnx"))
    if not files:
        pytest.skip("this build of the onnx package has no test models")
    for path in files:
        theirs = package.load_from_string(path.read_bytes()).graph
        assert detect(path.read_bytes()) == "onnx", path
        ours = onnx.read(path.read_bytes())
        weights = {w.name for w in theirs.initializer}
        assert [n.op_type for n in ours.nodes] == [n.op_type for n in theirs.node], path
        assert [i.name for i in ours.inputs] == [i.name for i in theirs.input if i.name not in weights], path
        assert [(w.name, w.shape) for w in ours.initializers] == [(w.name, tuple(w.dims)) for w in theirs.initializer]


def test_an_onnx_weight_of_the_wrong_size_is_refused() -> None:
    weight = pb((1, 4), (1, 2), (2, 1), (8, "w"), (9, bytes(30)))
    with pytest.raises(InvalidModel, match="'w'"):
        onnx.read(pb((1, 8), (7, pb((5, weight)))))


def test_a_frozen_graph_shows_placeholders_and_ends() -> None:
    graph = tensorflow.read_graphdef(builders.graphdef())
    assert [(t.name, t.datatype, t.shape) for t in graph.inputs] == [("x", "FP32", (-1, 4))]
    assert [t.name for t in graph.outputs] == ["y"]
    assert (graph.producer, graph.operators["MatMul"], graph.variables) == (1395, 1, 0)


def test_a_saved_model_shows_its_signatures() -> None:
    (meta,) = tensorflow.read_saved_model(builders.saved_model())
    assert (meta.tags, meta.tensorflow_version) == (("serve",), "2.21.0")
    assert [(s.key, s.inputs[0].shape, s.outputs[0].name) for s in meta.signatures] == [
        ("serving_default", (-1, 4), "y")
    ]


def test_a_checkpoint_index_lists_its_variables() -> None:
    index = tensorflow.read_checkpoint_index(builders.checkpoint_index())
    assert [(v.name, v.datatype, v.shape) for v in index.variables] == [("b", "FP32", (2,)), ("w", "FP32", (4, 2))]
    assert (index.shards, index.size) == (1, 40)


def test_a_caffe_network_shows_layers_and_the_form_of_its_input() -> None:
    net = caffe.read_prototxt(builders.PROTOTXT.encode())
    assert [(x.name, x.type) for x in net.layers] == [("conv1", "Convolution"), ("relu1", "ReLU"), ("prob", "Softmax")]
    assert [(t.name, t.shape) for t in net.inputs] == [("data", (1, 3, 8, 8))]
    assert (net.input_form, [o.name for o in net.outputs]) == ("input_shape", ["prob"])
    (parameters,) = caffe.messages(net.layers[0].message, "convolution_param")
    assert (caffe.ints(parameters, "kernel_size"), caffe.messages(parameters, "weight_filler")[0]["std"]) == (
        (3,),
        [0.01],
    )


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ('input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8', "input_dim"),
        ('layer { name: "d" type: "Input" top: "data" input_param { shape { dim: [1, 3, 8, 8] } } }', "input_param"),
    ],
)
def test_every_form_of_caffe_input_is_told_apart(head: str, form: str) -> None:
    net = caffe.read_prototxt(f'{head} layer {{ name: "r" type: "ReLU" bottom: "data" top: "r" }}'.encode())
    assert (net.input_form, net.inputs[0].shape) == (form, (1, 3, 8, 8))


@pytest.mark.parametrize("text", ["layer {", "layer { name }", "layer: [", "layer { } }", '"', "a: }", "<"])
def test_broken_caffe_text_says_where(text: str) -> None:
    with pytest.raises(InvalidModel, match="Caffe text"):
        caffe.read_prototxt(text.encode())


def test_deeply_nested_caffe_text_is_refused() -> None:
    with pytest.raises(InvalidModel, match="levels"):
        caffe.parse(b"a {" * 100_000)


def test_caffe_weights_are_measured() -> None:
    net = caffe.read_caffemodel(builders.caffemodel())
    assert [(x.name, x.type, x.size, x.blobs) for x in net.layers] == [
        ("conv1", "Convolution", 448, ((4, 3, 3, 3), (1, 4)))
    ]


def test_a_number_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidModel, match="does not end"):
        list(protobuf.Wire(b"\x08" + b"\xff" * 20, "x").fields())


def test_a_field_longer_than_its_message_is_refused() -> None:
    with pytest.raises(InvalidModel, match="runs past"):
        list(protobuf.Wire(b"\x0a\x7f", "x").fields())


def test_a_zip_bomb_is_refused_by_its_stated_and_by_its_real_size() -> None:
    data = bytearray(builders.archive({"a.txt": bytes(5_000_000)}))
    (entry,) = zipdir.entries(bytes(data))
    with pytest.raises(TooLarge):
        zipdir.read(bytes(data), entry, 1000)
    # The directory lies about the size.
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (900).to_bytes(4, "little")
    (entry,) = zipdir.entries(bytes(data))
    with pytest.raises(InvalidModel, match="size or checksum"):
        zipdir.read(bytes(data), entry, 1000)


def test_a_tar_lists_its_files() -> None:
    (entry,) = tardir.entries(builders.tar())
    assert (entry.name, entry.kind, entry.offset) == ("m/model.kmodel", "0", 512)
    with pytest.raises(InvalidModel, match="checksum"):
        tardir.entries(b"x" + builders.tar()[1:])


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "GNU"])
def test_a_long_path_in_a_tar_keeps_its_suffix(layout: int) -> None:
    name = "/".join(["directory" * 3] * 8) + "/model.tflite"
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=layout) as archive:
        info = tarfile.TarInfo(name)
        info.size = 5
        archive.addfile(info, io.BytesIO(b"model"))
    data = made.getvalue()
    (entry,) = tardir.entries(data)
    assert (entry.name, entry.kind) == (name, "0")
    assert data[entry.offset : entry.offset + entry.size] == b"model"


def test_a_tar_is_refused_beyond_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tardir, "MAX_NAME", 4)
    with pytest.raises(InvalidModel, match="at most 4"):
        tardir.entries(builders.tar())
    monkeypatch.setattr(tardir, "MAX_ENTRIES", 0)
    with pytest.raises(InvalidModel, match="more than 0 entries"):
        tardir.entries(builders.tar())


def test_what_a_saved_model_computes_is_found_behind_functions_that_only_call() -> None:
    graph = tensorflow.read_graphdef(graph_of_functions())
    assert set(graph.functions) == {"wrap", "real", "save"}
    assert [(n.name, n.op) for n in graph.body(("y",))] == [("m", "MatMul"), ("r", "Relu")]
    # Two calls: without a signature nobody knows which of them is meant.
    assert graph.body() == graph.nodes
