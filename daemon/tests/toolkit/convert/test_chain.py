"""PyTorch weights, Caffe networks and OpenVINO IR on their way to ONNX and TFLite, compared with their own runtimes."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.formats.exchange import caffe, onnx
from edgeaid.formats.tflite import reader as tflite
from edgeaid.toolkit.check.caffe_shapes import sizes, window
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.run import child

from ...formats.builders_exchange import OLD_IR, pb, varint
from ...support.toolkit import need as interpreter

slow = pytest.mark.slow


def convert(path: Path, output: Path, *more: str) -> tuple[dict[str, object], str]:
    """Report and printed text of a conversion to what the output's suffix says; an empty report where it failed."""
    target = {".onnx": "onnx", ".tflite": "tflite", ".xml": "openvino"}[output.suffix]
    result = CliRunner().invoke(model, ["convert", str(path), "--to", target, "-o", str(output), *more])
    if result.exit_code:
        return {}, str(result.output)
    report: dict[str, object] = json.loads(output.with_suffix(".report.json").read_text())
    return report, str(result.output)


def error_of(report: dict[str, object]) -> float:
    """Largest error by the range."""
    difference = report["difference"]
    assert isinstance(difference, dict)
    return float(difference["relative"])


def need(*names: str) -> None:
    for name in names:
        interpreter(name)


# --- Caffe ------------------------------------------------------------------------------------------------------------

#: A pooling whose last window sticks out, averaging with padding, and what networks of Caffe's years are made of.
NETWORK = """name: "small"
input: "data" input_shape { dim: 1 dim: 3 dim: 30 dim: 30 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layer { name: "dw" type: "Convolution" bottom: "norm1" top: "dw"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 8 bias_term: false } }
layer { name: "prelu" type: "PReLU" bottom: "dw" top: "dw" }
layer { name: "sum" type: "Eltwise" bottom: "norm1" bottom: "dw" top: "sum" eltwise_param { coeff: 1 coeff: -0.5 } }
layer { name: "pool2" type: "Pooling" bottom: "sum" top: "pool2"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "halves" type: "Slice" bottom: "pool2" top: "left" top: "right" slice_param { slice_point: 3 } }
layer { name: "tanh" type: "TanH" bottom: "left" top: "left" }
layer { name: "both" type: "Concat" bottom: "right" bottom: "left" top: "both" }
layer { name: "up" type: "Deconvolution" bottom: "both" top: "up"
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 } }
layer { name: "down" type: "Pooling" bottom: "up" top: "down" pooling_param { pool: AVE global_pooling: true } }
layer { name: "drop" type: "Dropout" bottom: "down" top: "down" }
layer { name: "fc" type: "InnerProduct" bottom: "down" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def shapes_of(layer: caffe.Layer, source: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of a layer's weights."""

    def parameter(name: str) -> caffe.Message:
        return next(iter(caffe.messages(layer.message, f"{name}_param")), {})

    p = parameter("inner_product" if layer.type == "InnerProduct" else "convolution")
    count = next(iter(caffe.ints(p, "num_output")), 0)
    bias = [] if caffe.texts(p, "bias_term") == ("False",) else [(count,)]
    match layer.type:
        case "Convolution" | "Deconvolution":
            group = next(iter(caffe.ints(p, "group")), 1)
            pair = (source[1], count // group) if layer.type == "Deconvolution" else (count, source[1] // group)
            return [(*pair, *window(p)[0]), *bias]
        case "InnerProduct":
            return [(count, math.prod(source[1:])), *bias]
        case "BatchNorm":
            return [(source[1],), (source[1],), (1,)]
        case "Scale":
            return [(source[1],), (source[1],)]
        case "PReLU" | "Normalize":
            return [(source[1],)]
    return []


def weights_for(text: str) -> bytes:
    """A .caffemodel with random weights for a network's text."""
    generator = np.random.default_rng(3)
    net = caffe.read_prototxt(text.encode())
    # What comes after a SLICE has no size in the toolkit's own walk.
    blobs = {"both": (1, 8, 8, 8), "down": (1, 4, 1, 1), **sizes(net).blobs}
    layers = []
    for layer in net.layers:
        made = []
        for number, shape in enumerate(shapes_of(layer, blobs.get(next(iter(layer.bottoms), ""), ()))):
            fan = math.prod(shape[1:]) or 1
            values = generator.normal(0, fan**-0.5, shape)
            if layer.type in ("BatchNorm", "Scale", "Normalize"):
                values = generator.uniform(0.5, 1.5, shape)
            if layer.type == "BatchNorm" and number == 2:
                values = np.array([2.0])  # statistics are sums over two batches
            dims = b"".join(varint(d) for d in shape)
            made.append((7, pb((7, pb((1, dims))), (5, values.astype("<f4").tobytes()))))
        layers.append((100, pb((1, layer.name), (2, layer.type), *made)))
    return pb((1, net.name), *layers)


def test_the_values_of_a_caffemodel_are_read_with_their_shapes() -> None:
    values = caffe.read_values(weights_for(NETWORK))
    (weights, bias) = values["conv1"]
    assert (weights[0], bias[0]) == ((8, 3, 3, 3), (8,))
    assert len(weights[2]) == 8 * 27 * 4
    assert struct.unpack("<f", values["bn1"][2][2]) == (2.0,)


@slow
@pytest.mark.timeout(600)
def test_a_caffe_network_becomes_tflite_and_computes_what_opencv_computes(tmp_path: Path) -> None:
    need("onnx2tf")
    (tmp_path / "net.prototxt").write_text(NETWORK)
    (tmp_path / "net.caffemodel").write_bytes(weights_for(NETWORK))
    report, text = convert(tmp_path / "net.prototxt", tmp_path / "net.tflite")
    assert report, text
    assert error_of(report) < 1e-4
    assert report["route"] == "caffe-prototxt -> onnx -> tflite"
    assert tflite.read((tmp_path / "net.tflite").read_bytes()).inputs[0].shape == (1, 30, 30, 3)


@slow
@pytest.mark.timeout(600)
def test_a_detector_of_caffe_is_converted_up_to_its_boxes(shared_data: Path, tmp_path: Path) -> None:
    need("onnx2tf")
    source = shared_data.parent / "findings/toolkit/MobileNetSSD_deploy.prototxt"
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    (tmp_path / "net.prototxt").write_bytes(source.read_bytes())
    (tmp_path / "net.caffemodel").write_bytes(weights_for(source.read_text()))
    report, text = convert(tmp_path / "net.prototxt", tmp_path / "net.onnx")
    assert report, text
    assert "DetectionOutput" in text
    assert error_of(report) < 1e-3
    made = onnx.read((tmp_path / "net.onnx").read_bytes())
    assert sorted(o.name.split("/")[0] for o in made.outputs) == ["mbox_conf_flatten", "mbox_loc", "mbox_priorbox"]


def test_a_caffe_network_without_its_weights_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NETWORK)
    report, text = convert(tmp_path / "net.prototxt", tmp_path / "net.onnx")
    assert report == {}
    assert "--weights" in text


# --- OpenVINO IR ------------------------------------------------------------------------------------------------------

_MAKE_IR = """
import sys
import numpy as np
import openvino as ov
import openvino.opset13 as o

r = np.random.default_rng(2)
def const(*shape): return o.constant(r.normal(0, 0.3, shape).astype(np.float32))
x = o.parameter([1, 3, 16, 16], np.float32, name="x")
y = o.convolution(x, const(8, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
y = o.relu(o.add(y, const(1, 8, 1, 1)))
z = o.group_convolution(y, const(8, 1, 1, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
z = o.hswish(z)
p = o.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
z = o.concat([z, p.output(0)], 1)
u = o.interpolate(z, o.constant(np.array([1, 16, 24, 24])), "linear", "sizes")
s = o.strided_slice(u, o.constant(np.array([0, 2, 0, 1])), o.constant(np.array([1, 14, 24, 23])),
                    o.constant(np.array([1, 3, 1, 2])), [1, 0, 1, 0], [1, 0, 1, 0])
m = o.reduce_mean(s, o.constant(np.array([2, 3])), False)
f = o.matmul(m, const(5, 4), False, True)
f = o.gelu(o.clamp(f, -1, 1), "erf")
a = o.softmax(f, 1)
a.output(0).set_names({"scores"})
g = o.avg_pool(u, [3, 3], [0, 0], [0, 0], [5, 5], True)
g.output(0).set_names({"grid"})
model = ov.Model([a, g], [x], "net")
x.output(0).set_names({"x"})
ov.save_model(model, sys.argv[1], compress_to_fp16=sys.argv[2] == "half")
"""


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("weights", ["single", "half"])
def test_an_openvino_ir_becomes_tflite_and_computes_what_openvino_computes(weights: str, tmp_path: Path) -> None:
    need("openvino", "onnx2tf")
    (tmp_path / "make.py").write_text(_MAKE_IR)
    python = environments.python("openvino")
    done = child([python, tmp_path / "make.py", tmp_path / "net.xml", weights], timeout=120)
    assert done.status == 0, done.error
    report, text = convert(tmp_path / "net.xml", tmp_path / "net.tflite")
    assert report, text
    assert report["route"] == "openvino-ir -> onnx -> tflite"
    assert error_of(report) < 1e-4
    made = tflite.read((tmp_path / "net.tflite").read_bytes())
    assert sorted(o.shape for o in made.outputs) == [(1, 5), (1, 7, 7, 16)]


@pytest.mark.parametrize("version", [4, 7, 9])
def test_an_ir_of_the_first_years_is_told_what_to_convert_instead(version: int, tmp_path: Path) -> None:
    (tmp_path / "old.xml").write_text(OLD_IR.replace('version="6"', f'version="{version}"'))
    (tmp_path / "old.bin").write_bytes(bytes(224))
    report, text = convert(tmp_path / "old.xml", tmp_path / "net.onnx")
    assert report == {}
    assert f"IR of version {version}" in text
    assert "made from again" in text


# --- PyTorch ----------------------------------------------------------------------------------------------------------

#: A small network of nested U shapes with several outputs, as the salient object detectors are.
_NETWORK = """
import torch
from blocks import Block

class Nested(torch.nn.Module):
    def __init__(self, width=8, stages=2):
        super().__init__()
        self.first = Block(3, width)
        self.stages = torch.nn.ModuleList(Block(width, width) for _ in range(stages))
        self.sides = torch.nn.ModuleList(torch.nn.Conv2d(width, 1, 3, padding=1) for _ in range(stages))
        self.fuse = torch.nn.Conv2d(stages, 1, 1)

    def forward(self, x):
        size, x = x.shape[-2:], self.first(x)
        maps = []
        for stage, side in zip(self.stages, self.sides):
            x = stage(torch.nn.functional.max_pool2d(x, 2, 2, ceil_mode=True))
            maps.append(torch.nn.functional.interpolate(side(x), size, mode="bilinear", align_corners=False))
        return tuple(torch.sigmoid(m) for m in [self.fuse(torch.cat(maps, 1)), *maps])
"""
_BLOCKS = """
import torch

class Block(torch.nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.outer = torch.nn.Sequential(torch.nn.Conv2d(a, b, 3, padding=1), torch.nn.BatchNorm2d(b), torch.nn.ReLU())
        self.inner = torch.nn.Sequential(torch.nn.Conv2d(b, b, 3, padding=2, dilation=2), torch.nn.BatchNorm2d(b))

    def forward(self, x):
        y = self.outer(x)
        return y + torch.relu(self.inner(y))
"""
_SAVE = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
from network import Nested
torch.manual_seed(1)
net = Nested(width=6, stages=3)
torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, sys.argv[3])
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A .pth with the weights of network.py's class, whose blocks lie in another directory."""
    if environments.ready("torch") is None:
        pytest.skip("the torch environment (6 GB) is not there: edgeai model environments torch --create")
    (tmp_path / "library").mkdir()
    (tmp_path / "network.py").write_text(_NETWORK)
    (tmp_path / "library/blocks.py").write_text(_BLOCKS)
    paths = (tmp_path, tmp_path / "library", tmp_path / "net.pth")
    command = [str(environments.python("torch")), "-c", _SAVE, *map(str, paths)]
    done = child(command, timeout=300)
    assert done.status == 0, done.error
    return tmp_path / "net.pth"


@slow
@pytest.mark.timeout(900)
def test_weights_with_their_class_become_onnx_and_tflite_with_all_outputs(weights: Path) -> None:
    need("onnx2tf")
    place = weights.parent
    where = ["--module", str(place / "network.py"), "--class", "Nested", "--import-path",
             str(place / "library"), "--shape", "1,3,40,56", "--arguments", '{"width": 6, "stages": 3}']  # fmt: skip
    names = ["--input-names", "picture", "--output-names", "d0,d1,d2,d3"]
    report, text = convert(weights, place / "net.onnx", *where, *names)
    assert report, text
    assert error_of(report) < 1e-4
    made = onnx.read((place / "net.onnx").read_bytes())
    assert ([i.name for i in made.inputs], [o.name for o in made.outputs]) == (["picture"], ["d0", "d1", "d2", "d3"])
    report, text = convert(weights, place / "net.tflite", *where, "--via-onnx")
    assert report, text
    assert (report["route"], report["layout_changed"]) == ("pytorch -> onnx -> tflite", True)
    assert error_of(report) < 1e-4
    lite = tflite.read((place / "net.tflite").read_bytes())
    assert ([i.shape for i in lite.inputs], len(lite.outputs)) == ([(1, 40, 56, 3)], 4)


@slow
@pytest.mark.timeout(600)
def test_weights_of_another_size_are_refused_with_what_is_missing(weights: Path) -> None:
    place = weights.parent
    where = ["--module", str(place / "network.py"), "--class", "Nested", "--import-path",
             str(place / "library"), "--shape", "1,3,40,56", "--arguments", '{"width": 6, "stages": 4}']  # fmt: skip
    report, text = convert(weights, place / "net.onnx", *where)
    assert report == {}
    assert "--arguments" in text
