"""What is pushed without a manifest: models are described from their files, everything else is named for what it is."""

from __future__ import annotations

import base64
import gzip
import io
import pickle
import tomllib
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeaid.errors import InvalidModel
from edgeaid.formats import labels
from edgeaid.formats.tflite import metadata
from edgeaid.models import bare, catalogue, manifest

from ..formats import builders
from ..toolkit.tflite_builder import Graph, Op, T, build


def wrapped(tmp_path: Path, data: bytes) -> tuple[manifest.Manifest, tuple[str, ...], Path]:
    """Manifest, notes and directory of a bare file."""
    upload, staged = tmp_path / "upload", tmp_path / "staged"
    upload.write_bytes(data)
    staged.mkdir()
    notes = bare.unpack(upload, staged, "m", 1 << 30)
    return manifest.parse((staged / "model.toml").read_bytes(), "m"), notes, staged


def classifier(
    *front: Op, tensors: tuple[T, ...] = (), name: str = "in", last: str = "SOFTMAX", classes: int = 3, **more: Any
) -> bytes:
    """A float picture [1,8,8,3], `front` from `in` to `x` if any, then a mean over the picture and scores."""
    start = "x" if front else name
    return build(
        Graph(
            [T(name, [1, 8, 8, 3]), *tensors, T("axes", [2], "INT32", [1, 2]), T("mean", [1, 3]),
             T("w", [classes, 3], data=1.0), T("b", [classes], data=0.0), T("raw", [1, classes]),
             T("out", [1, classes])],
            [*front, Op("MEAN", [start, "axes"], ["mean"]), Op("FULLY_CONNECTED", ["mean", "w", "b"], ["raw"]),
             *([Op("SOFTMAX", ["raw"], ["out"], [(0, "f", 1.0)])] if last == "SOFTMAX" else [])],
            [name], ["out" if last == "SOFTMAX" else "raw"], **more,
        )
    )  # fmt: skip


def test_a_float_model_that_says_nothing_gets_zero_to_one_and_its_pusher_is_told(tmp_path: Path) -> None:
    written, notes, _ = wrapped(tmp_path, classifier())
    assert written.picture is not None
    assert (written.picture.mean, written.picture.std) == ((0.0,), (255.0,))
    assert any(note.startswith("ASSUMED") and "--mean" in note for note in notes)


def test_a_real_float_model_gets_the_normalisation_of_its_integer_twin(tmp_path: Path, shared_findings: Path) -> None:
    file = shared_findings / "toolkit" / "digits_float.tflite"
    written, _, _ = wrapped(tmp_path, file.read_bytes())
    assert written.task == "classify"
    assert written.picture is not None
    assert (written.picture.color, written.picture.mean, written.picture.std) == ("GRAY", (0.0,), (255.0,))


@pytest.mark.parametrize(
    ("factor", "std"), [(1 / 255, 1.0), (1 / 127.5, 1.0), (4.3668, 255.0)], ids=["0..1", "-1..1", "after 0..1"]
)
def test_a_graph_that_rescales_pixels_itself_gets_what_it_expects(tmp_path: Path, factor: float, std: float) -> None:
    scale = (T("factor", [1], data=factor), T("x", [1, 8, 8, 3]))
    written, notes, _ = wrapped(tmp_path, classifier(Op("MUL", ["in", "factor"], ["x"]), tensors=scale))
    assert written.picture is not None
    assert (written.picture.mean, written.picture.std) == ((0.0,), (std,))
    assert not any(note.startswith("ASSUMED") for note in notes)


def test_a_known_producer_is_named(tmp_path: Path) -> None:
    data = classifier(Op("RELU", ["in"], ["x"]), tensors=(T("x", [1, 8, 8, 3]), T("MobilenetV1/Conv2d_0/w", [1])))
    written, notes, _ = wrapped(tmp_path, data)
    assert written.picture is not None
    assert (written.picture.mean, written.picture.std) == ((127.5,), (127.5,))
    assert any("TensorFlow-Slim" in note for note in notes)


def test_the_files_metadata_decides_before_everything_else(tmp_path: Path) -> None:
    norm = {0: ("f", [10.0]), 1: ("f", [20.0])}
    told = builders.flat({5: "author", 3: [{2: [{0: "image", 4: [{0: ("B", 1), 1: norm}]}]}]}, b"M001")
    data = classifier(
        Op("RELU", ["in"], ["x"]),
        tensors=(T("x", [1, 8, 8, 3]), T("MobilenetV1/w", [1])),
        metadata={"TFLITE_METADATA": told},
    )
    written, notes, _ = wrapped(tmp_path, data)
    assert written.picture is not None
    assert (written.picture.mean, written.picture.std) == ((10.0,), (20.0,))
    assert any("metadata" in note for note in notes)


def test_integers_are_fed_raw_pixels(tmp_path: Path) -> None:
    q = (1 / 255, -128)
    data = build(
        Graph(
            [T("in", [1, 4, 4, 1], "INT8", q=q), T("out", [1, 16], "INT8", q=q), T("shape", [2], "INT32", [1, 16])],
            [Op("RESHAPE", ["in", "shape"], ["out"])], ["in"], ["out"],
        )
    )  # fmt: skip
    written, _, _ = wrapped(tmp_path, data)
    assert written.picture is not None
    assert (written.picture.color, written.picture.mean) == ("GRAY", None)


@pytest.mark.parametrize(("last", "activation"), [("SOFTMAX", "none"), ("", "softmax")])
def test_raw_scores_are_made_probabilities(tmp_path: Path, last: str, activation: str) -> None:
    written, _, _ = wrapped(tmp_path, classifier(last=last))
    assert written.output is not None
    assert (written.task, written.output.decoder, written.output.activation) == (
        "classify",
        "classification",
        activation,
    )


def test_labels_in_the_file_are_taken_over_and_doubts_are_told(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("labels.txt", "0: cat\n2: dog\n")
    written, _, staged = wrapped(tmp_path, classifier() + archive.getvalue())
    from edgeaid.models import repository

    assert repository.labels(repository.StoredModel(staged, written, "1")).names == ("cat", "", "dog")


SHAPES = {"boxes": [1, 10, 4], "classes": [1, 10], "scores": [1, 10], "count": [1]}


def detector(order: list[str], names: dict[str, str] | None = None) -> bytes:
    """A graph that ends in the detection post-processing operator, its outputs in `order`."""
    names = names or {what: what for what in SHAPES}
    outputs = [T(names[what], shape) for what, shape in SHAPES.items()]
    tensors = [T("in", [1, 30, 30, 3], "UINT8", q=(1 / 128, 128)), T("anchors", [10, 4], data=0.5), *outputs]
    post = Op("CUSTOM", ["in", "in", "anchors"], [names[w] for w in SHAPES], custom="TFLite_Detection_PostProcess")
    return build(Graph(tensors, [post], ["in"], [names[what] for what in order]))


@pytest.mark.parametrize(
    "order",
    [
        ["boxes", "classes", "scores", "count"],
        ["scores", "boxes", "count", "classes"],
        ["count", "scores", "classes", "boxes"],
    ],
)
def test_a_detectors_outputs_are_told_apart_whatever_their_order_and_names(tmp_path: Path, order: list[str]) -> None:
    data = detector(order, {"boxes": "a:3", "classes": "a:2", "scores": "a:1", "count": "a:0"})
    written, notes, _ = wrapped(tmp_path, data)
    assert written.output is not None
    assert (written.task, written.output.decoder, list(written.output.order)) == ("detect", "ssd", order)
    assert not any("ASSUMED: the four" in note for note in notes)


def test_a_manifest_with_a_wrong_order_is_refused_with_the_right_line(tmp_path: Path) -> None:
    from edgeaid.models import gate, repository

    written, _, staged = wrapped(tmp_path, detector(["scores", "boxes", "count", "classes"]))
    text = (staged / "model.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("order")]
    (staged / "model.toml").write_text("\n".join(lines))
    written = manifest.parse((staged / "model.toml").read_bytes(), "m")
    with pytest.raises(InvalidModel, match=r'order = \["scores", "boxes", "count", "classes"\]'):
        gate.check_formats(repository.StoredModel(staged, written, "1"))


def test_a_map_of_classes_is_a_segmenter(tmp_path: Path) -> None:
    data = build(
        Graph(
            [T("in", [1, 32, 32, 3], "UINT8"), T("axis", [], "INT32", 3), T("map", [1, 32, 32], "INT64")],
            [Op("ARG_MAX", ["in", "axis"], ["map"])], ["in"], ["map"],
        )
    )  # fmt: skip
    written, _, _ = wrapped(tmp_path, data)
    assert written.output is not None
    assert (written.task, written.output.decoder) == ("segment", "segmentation")


def test_a_mask_of_one_thing_has_its_label_where_the_mask_is_set(tmp_path: Path) -> None:
    tensors = [T("in", [1, 32, 32, 3]), T("axes", [1], "INT32", [3]), T("mask", [1, 32, 32, 1])]
    mean = Op("MEAN", ["in", "axes"], ["mask"], [(0, "?", True)])
    data = build(Graph(tensors, [mean], ["in"], ["mask"])) + archive(labels__txt=b"selfie\n")
    written, _, staged = wrapped(tmp_path, data)
    assert written.output is not None
    assert (written.task, written.output.decoder, written.output.threshold) == ("segment", "segmentation", 0.5)
    assert (staged / "labels.txt").read_text().splitlines() == ["background", "selfie"]


def test_a_picture_out_of_a_picture_is_not_taken_for_classes(tmp_path: Path) -> None:
    data = build(
        Graph([T("in", [1, 32, 32, 3]), T("out", [1, 32, 32, 3])], [Op("RELU", ["in"], ["out"])], ["in"], ["out"])
    )
    assert wrapped(tmp_path, data)[0].task == "other"


def test_a_file_of_the_catalogue_gets_the_catalogues_manifest(tmp_path: Path, shared_data: Path) -> None:
    data = (shared_data / "coral/deeplabv3_mnv2_dm05_pascal_quant.tflite").read_bytes()
    written, notes, _ = wrapped(tmp_path, data)
    entry = catalogue.load()["deeplabv3-mnv2-dm05"]
    assert (written.name, written.task, written.license) == ("m", entry.task, entry.license)
    assert any("edgeai pull deeplabv3-mnv2-dm05" in note for note in notes)


def archive(**files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name.replace("__", "."), content)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "what", "next_step"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>404</html>", "HTML page", "raw"),
        (b"\n\n<html lang=en>", "HTML page", "raw"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100), "JPEG picture", "edgeai classify"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG picture", "edgeai classify"),
        (builders.onnx(), "ONNX", "edgeai model convert"),
        (builders.graphdef(), "GraphDef", "edgeai model quantize"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras", "edgeai model quantize"),
        (archive(config__json=b"{}", model__weights__h5=b""), "Keras", "edgeai model quantize"),
        (archive(model__tflite=b"x"), "zip archive", "model.tflite"),
        (gzip.compress(b"x" * 100), "gzip", "unpack"),
        (b"hello, this is a text\n", "text ('hello", "push"),
        (b"", "empty", "download"),
        (b"<!-- mirror -->\n<!DOCTYPE html><p>404", "HTML page", "raw"),
        (b"/annex/objects/SHA256E-s44--abc.tflite\n", "git-annex pointer", "git annex get"),
        (b"../.git/annex/objects/x/y/SHA256E-s44--abc.tflite", "git-annex pointer", "git annex get"),
        (b"outs:\n- md5: 00\n  path: model.tflite\n", "DVC pointer", "dvc pull"),
        (b'{"format": "graph-model", "generatedBy": "2.0"}', "TensorFlow.js", "push"),
        (b"#include <stdint.h>\nalignas(8) const unsigned char g_model[] = {\n  0x1c, 0x00", "C source", ".tflite"),
        (b"unsigned char model_tflite[] = {0x1c, 0x00};", "C source", ".tflite"),
        (base64.b64encode(bytes([28, 0, 0, 0]) + b"TFL3" + bytes(60)), "base64", "base64 -d"),
        (pickle.dumps({"weights": [1.0] * 50}, protocol=4), "Python pickle", "ONNX"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(60), "a sound", "push"),
        (b"\x10\0\0\0ORTM" + bytes(60), "ONNX Runtime", "convert"),
        (b"\x10\0\0\0ET12" + bytes(60), "ExecuTorch", "ONNX"),
        (b"7767517\n75 83\nInput data 0 1 data\n", "ncnn", "ONNX"),
        (b"LITERTLM\1\0" + bytes(60), "language model", "push"),
        (b'--f00\r\nContent-Disposition: form-data; name="f"\r\n\r\n\x1c\0\0\0TFL3', "a form", "--data-binary"),
        (classifier().replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b""), "taken out", "curl -T"),
        (b"ftrt" + bytes(60), "TensorRT", "ONNX"),
        (b"\0asm\1\0\0\0" + bytes(60), "WebAssembly", "push"),
        (b"\x28\xb5\x2f\xfd" + bytes(60), "Zstandard", "unpack"),
        (b"name: Bug report\nbody:\n- type: input\n  id: layer\n", "text ('name: Bug", "push"),
        (b"module.exports = {\n  input: {\n    layer: 1,\n", "text ('module", "push"),
        (b'name: "net"\nforce_backward: true\nlayer {\n  name: "data"\n}\n', "Caffe network", "caffemodel"),
        (b"abc", "3 bytes", "download"),
        (np.random.default_rng(0).bytes(5000), "not a model", "push"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "error message", "address"),
    ],
    ids=lambda v: v[:12] if isinstance(v, str) else "",
)
def test_what_is_no_model_is_named_for_what_it_is(tmp_path: Path, data: bytes, what: str, next_step: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        wrapped(tmp_path, data)
    assert what in str(caught.value)
    assert next_step in str(caught.value)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("k210/iris_v3.kmodel", "K210 model version 3"),
        ("k210/yolox_nano_224_v5.kmodel", "K210 model version 5"),
        ("ncs/12net.graph", "NCSDK 2"),
        ("ncs/p.graph", "NCSDK 1"),
        ("coral/bird.bmp", "BMP picture"),
        ("coral/parrot.jpg", "JPEG picture"),
        ("coral/imagenet_labels.txt", "text"),
    ],
)
def test_real_files_of_other_kinds_are_named(tmp_path: Path, shared_data: Path, file: str, what: str) -> None:
    with pytest.raises(InvalidModel, match=what):
        wrapped(tmp_path, (shared_data / file).read_bytes())


def test_a_model_cut_short_is_said_to_be_so(tmp_path: Path) -> None:
    data = classifier()
    for size in (8, 100, len(data) // 2):
        directory = tmp_path / str(size)
        directory.mkdir()
        with pytest.raises(InvalidModel, match="cut short"):
            wrapped(directory, data[:size])


@pytest.mark.parametrize(
    ("tensors", "operator", "what"),
    [
        ((T("bias", [3], "INT32", 0, [(1.0, 0)] * 3, axis=3),), Op("ADD", ["in", "in"], ["out"]), "dimension 3"),
        ((T("w", [2, 2], "INT32", 0, [(1.0, 0)] * 3, axis=0),), Op("ADD", ["in", "in"], ["out"]), "3 scales"),
        ((), Op("MAX_POOL_2D", ["in"], ["out"], [(1, "i", 0), (2, "i", 1)]), "stride_w is 0"),
    ],
)
def test_a_whole_file_whose_parts_do_not_go_together_is_not_called_damaged(
    tmp_path: Path, tensors: tuple[T, ...], operator: Op, what: str
) -> None:
    shown = [T("in", [1, 2, 2, 3]), T("out", [1, 2, 2, 3]), *tensors]
    with pytest.raises(InvalidModel, match=what) as refusal:
        wrapped(tmp_path, build(Graph(shown, [operator], ["in"], ["out"])))
    assert "contradicts itself" in str(refusal.value)
    assert "damaged" not in str(refusal.value)


def test_a_manifest_is_valid_toml_whatever_the_names_in_the_file(tmp_path: Path) -> None:
    wrapped(tmp_path, classifier(name='q"\\\n'))
    assert tomllib.loads((tmp_path / "staged" / "model.toml").read_text())["name"] == "m"


@pytest.mark.parametrize(
    "names",
    [("cat", "dog"), ("3 of a kind", "dog"), ("", "dog"), ("id,name", "dog"), ("[cat", "dog"), ("item {", "dog"),
     ("cat\u2028x", "dog"), ("'cat'", "'dog'"), ("cat,0", "dog,1"), ("# cat", "0 dog"), (" cat", "dog"),
     ("names:", "- a")],
)  # fmt: skip
def test_labels_are_written_so_that_they_read_back_the_same(names: tuple[str, ...]) -> None:
    assert labels.parse(bare._written(names)).names == names


def test_of_many_files_behind_a_model_only_some_are_inflated() -> None:
    data = archive(**{f"{number}__txt": bytes(1 << 16) for number in range(1000)})
    tracemalloc.start()
    try:
        metadata.attached_text(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_signatures_that_are_not_served_are_named(tmp_path: Path) -> None:
    tree = builders.tflite_tree()
    other = {**tree[7][0], 2: "encode"}
    _, notes, _ = wrapped(tmp_path, builders.flat({**tree, 7: [other, *tree[7]]}, b"TFL3"))
    assert any("'serving_default' is served" in note and "'encode'" in note for note in notes)
