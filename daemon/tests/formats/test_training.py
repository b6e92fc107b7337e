"""Keras and PyTorch files: layers, shapes and tensors without the frameworks, and nothing in them executed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from edgeaid.errors import InvalidModel
from edgeaid.formats.detect import detect
from edgeaid.formats.exchange import keras, pytorch
from edgeaid.formats.wire import zipdir
from edgeaid.tensors import TensorSpec

from . import builders_training as builders


@pytest.mark.parametrize("data", [builders.keras(), builders.keras_h5()], ids=["keras", "h5"])
def test_a_keras_file_shows_its_layers_and_how_they_hang_together(data: bytes) -> None:
    model = keras.read(data)
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 8, 8, 3)),)
    assert model.outputs == ("y",)
    assert [(x.name, x.kind, x.inputs) for x in model.layers] == [
        ("x", "InputLayer", ()), ("c", "Conv2D", ("x",)), ("y", "Add", ("c", "x")),
    ]  # fmt: skip
    assert model.layers[1].details == "filters 4, kernel_size 3x3, activation relu"
    assert model.layers[2].shape == (-1, 8, 8, 4)


def test_a_keras_file_without_its_metadata_is_read_without_a_version() -> None:
    data = builders.keras().replace(b"metadata.json", b"metadata.jsom")
    assert detect(data) == "keras"
    model = keras.read(data)
    assert model.version == ""
    assert model == replace(keras.read(builders.keras()), version="")


def test_an_hdf5_file_of_weights_is_not_called_a_model() -> None:
    with pytest.raises(InvalidModel, match="weights only"):
        keras.read(b"\x89HDF\r\n\x1a\n" + bytes(200))


def test_an_exported_program_shows_operators_shapes_and_what_is_open() -> None:
    model = pytorch.read(builders.torch_export())
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 3, 8, 8)),)
    assert model.outputs == (TensorSpec("conv2d", "FP32", (-1, 4, 3, 3)),)
    (operator,) = model.operators
    assert (operator.type, operator.inputs, operator.shape) == (
        "aten.conv2d.default", ("x", "p_weight"), (-1, 4, 3, 3),
    )  # fmt: skip
    assert operator.details == "stride [2, 2]"
    assert model.weights_bytes == 432


def test_torchscript_shows_its_modules_in_order() -> None:
    model = pytorch.read(builders.torchscript())
    assert model.name == "Sequential"
    assert [(o.name, o.type) for o in model.operators] == [("0", "Conv2d"), ("relu", "ReLU")]


def test_a_pickle_shows_tensors_by_name() -> None:
    model = pytorch.read(builders.torch_pickle())
    assert [(o.name, o.shape, o.details) for o in model.operators] == [
        ("fc.weight", (2, 4), "FP32"), ("fc.bias", (2,), "FP16"),
    ]  # fmt: skip
    assert model.weights_bytes == 36


def test_nothing_in_a_pickle_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return (Path.touch, (str(mark),))

    harmful = builders.stored({"w/data.pkl": pickle.dumps({"a": Harm()}, 2), "w/version": b"3\n"}, zip64=True)
    assert detect(harmful) == "torch-pickle"
    assert pytorch.read(harmful).operators == ()
    assert not mark.exists()


@pytest.mark.parametrize("operation", [b"j\xff\xff\xff\x7f.", b"\x96" + b"\xff" * 7 + b"\x7f.", b"X\xff\xff\xff\x7f."])
def test_lengths_and_indices_in_a_pickle_allocate_nothing(operation: bytes) -> None:
    content = b"\x80\5}" + operation
    with pytest.raises(InvalidModel, match="cannot be read"):
        pytorch.read(builders.stored({"w/data.pkl": content}, zip64=True))


def test_the_directory_of_a_zip_is_where_the_record_of_zip64_says() -> None:
    files = {"a": b"1", "b/c": b"22"}
    plain, wide = builders.stored(files), builders.stored(files, zip64=True)
    for data in (plain, wide, b"model in front" + wide):
        entries = zipdir.entries(data)
        assert {e.name: zipdir.read(data, e, 10) for e in entries} == files
