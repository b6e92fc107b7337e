"""Rules NCS: what the NCSDK compiles for the first Neural Compute Stick, and what its host library accepts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ...errors import InvalidModel
from ...formats.exchange import caffe, tensorflow
from ...formats.exchange.caffe import CaffeNet, ints, messages
from ...formats.exchange.tensorflow import GraphDef, Node
from ...formats.ncs import reader as ncs
from .. import compiler_logs as compile_logs
from .caffe_shapes import first, sizes, window
from .rules import Findings

#: Layers of the NCSDK's Caffe parser, lower case without underscores, plus those that vanish at inference.
CAFFE_LAYERS: Final = frozenset(
    {
        "bias", "elu", "prelu", "relu", "scale", "sigmoid", "tanh", "innerproduct", "batchnorm", "lrn", "concat",
        "eltwise", "flatten", "parameter", "reshape", "slice", "softmax", "convolution", "deconvolution", "pooling",
        "input", "dropout", "crop", "split", "permute", "normalize", "priorbox", "detectionoutput",
    }
)  # fmt: skip
#: The last three came with NCSDK 2 (SSD); "dropout" and "split" are removed by the parser.
_CAFFE_V2_ONLY: Final = frozenset({"permute", "normalize", "priorbox", "detectionoutput"})
#: (kernel, stride): the documented ones, and those of networks that the vendor's examples compile: 3x3s2
#: (MobileNet, SqueezeNet 1.1, Inception v3), 1x1s2 (ResNet), 11x11s4 (AlexNet).
KERNELS: Final = frozenset({(1, 1), (3, 1), (5, 1), (7, 1), (7, 2), (7, 4), (3, 2), (1, 2), (11, 4)})
_MAX_GROUPS: Final = 1024
_MAX_SHAVES: Final = 12
_NETWORKS: Final = re.compile(
    r"^(?:InceptionV[1-4]|InceptionResnetV2|MobilenetV1)(?:/|$)|^(?:Mobilenet|mobilenet)[_/]?v1", re.IGNORECASE
)
_MOBILENET_SIZES: Final = (224, 192, 160, 128)
_TRAINING: Final = frozenset({
    "SparseSoftmaxCrossEntropyWithLogits", "SoftmaxCrossEntropyWithLogits", "ApplyGradientDescent", "ApplyAdam",
    "ApplyMomentum", "ApplyRMSProp", "ResourceApplyAdam", "BroadcastGradientArgs", "Assign", "AssignAdd", "SaveV2",
    "L2Loss",
})  # fmt: skip
_SAVER: Final = re.compile(r"save(?:_\d+)?/")
_SAVING: Final = frozenset({"Assign", "AssignVariableOp", "SaveV2", "RestoreV2", "NoOp", "VarIsInitializedOp"})
_DEFAULT_NAME: Final = re.compile(
    r"^(?:Placeholder|Reshape|Softmax|BiasAdd|MatMul|Conv2D|Identity|Relu|Squeeze|Add|Mul)(?:_\d+)?$"
)


def check_caffe(data: bytes, findings: Findings) -> None:
    """A prototxt."""
    net = caffe.read_prototxt(data)
    _inputs(net, findings)
    for layer in net.layers:
        kind = layer.type.lower().replace("_", "")
        if kind not in CAFFE_LAYERS or (findings.profile.ncsdk == "1" and kind in _CAFFE_V2_ONLY):
            findings.add("NCS006", layer.name, layer.type)
        if kind == "crop" and layer.bottoms[1:2] == ("data",):
            findings.add("NCS005", layer.name, "data")
        if kind == "convolution":
            message = next(iter(messages(layer.message, "convolution_param")), {})
            kernel, stride, _ = window(message)
            group = first(message, "group", 1)
            output = first(message, "num_output", 0)
            listed = kernel[0] == kernel[1] and stride[0] == stride[1] and (kernel[0], stride[0]) in KERNELS
            # Inception v3 and v4 are made of 1xn and nx1.
            row = 1 in kernel and stride == (1, 1) and max(kernel) <= 7
            if not listed and not row:
                findings.add("NCS007", layer.name, f"{kernel[1]}x{kernel[0]}s{stride[0]}")
            # One group per channel is a depthwise convolution, which MobileNets have with 1024 channels.
            if group >= _MAX_GROUPS and group != output:
                findings.add("NCS008", layer.name, group)
    measured = sizes(net)
    for name, shape in measured.blobs.items():
        # The stick computes in FP16.
        if 2 * math.prod(shape) >= findings.profile.ncs_layer:
            findings.add("NCS011", name, f"{2 * math.prod(shape)} bytes ({'x'.join(map(str, shape))})")
    graph = 2 * sum(measured.parameters.values())
    if graph >= findings.profile.ncs_graph:
        findings.add("NCS010", "", f"about {graph} bytes")
    findings.facts |= {"layers": len(net.layers), "graph_bytes_about": graph}


def _inputs(net: CaffeNet, findings: Findings) -> None:
    if net.input_form != "input_shape":
        findings.add("NCS001", net.inputs[0].name if net.inputs else "", net.input_form)
    if len(net.inputs) != 1:
        findings.add("NCS004", ", ".join(i.name for i in net.inputs[:5]), len(net.inputs))
    for spec in net.inputs[:1]:
        if spec.name != "data":
            findings.add("NCS002", spec.name, spec.name)
        if spec.shape and spec.shape[0] != 1:
            findings.add("NCS003", spec.name, spec.shape[0])


def check_graphdef(data: bytes, findings: Findings) -> None:
    """A frozen TensorFlow graph."""
    graph = tensorflow.read_graphdef(data)
    _graph(graph, findings)
    if graph.variables:
        findings.add("NCS035", "", f"{graph.variables} variables")


def check_meta(data: bytes, path: Path, findings: Findings) -> None:
    """A MetaGraph (.meta), which mvNCCompile takes with the checkpoint beside it."""
    whole = tensorflow.read_meta(data).graph
    # The parts that write and read checkpoints are in every .meta; they are not part of what is compiled.
    graph = replace(whole, nodes=tuple(n for n in whole.nodes if not _SAVER.match(n.name) and n.op not in _SAVING))
    _graph(graph, findings)
    index, stem = path.with_suffix(".index"), path.with_suffix("").name
    parts = sorted(p.name for p in path.parent.glob(f"{stem}.data-*-of-*"))
    if graph.variables and not (index.is_file() and parts):
        findings.add("NCS036", "", f"{graph.variables} variables, no {index.name} with {stem}.data-00000-of-00001")
    elif index.is_file():
        values = tensorflow.read_checkpoint_index(index.read_bytes())
        findings.facts |= {"checkpoint_bytes": values.size, "graph_bytes_about": values.size // 2}


def _batch(placeholders: Sequence[Node], findings: Findings) -> None:
    """The stick computes one sample at a time, and the shape is fixed when the graph is compiled."""
    for node in placeholders:
        if node.shape and node.shape[0] == -1:
            findings.add("NCS037", node.name, list(node.shape))
        elif node.shape and node.shape[0] != 1 and len(node.shape) in (2, 4):
            findings.add("NCS003", node.name, node.shape[0])
        if any(d == -1 for d in node.shape[1:]):
            findings.add("NCS037", node.name, list(node.shape))


def _graph(graph: GraphDef, findings: Findings) -> None:
    placeholders = [n for n in graph.nodes if n.op in ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2")]
    _batch(placeholders, findings)
    if len(placeholders) != 1:
        findings.add("NCS031", ", ".join(n.name for n in placeholders[:5]), len(placeholders))
    for node in graph.nodes:
        parts = node.name.lower().split("/")
        # A frozen inference graph keeps at most an Identity of the dropout layer; random numbers are the real thing.
        if (node.op in ("RandomUniform", "Dropout") and any("dropout" in p for p in parts)) or node.op == "Dropout":
            findings.add("NCS032", node.name, node.op)
        elif node.op in _TRAINING or "gradients" in parts:
            findings.add("NCS033", node.name, node.op)
    _network(graph, findings)
    for node in (*placeholders[:1], *[n for n in graph.nodes if n.name in {o.name for o in graph.outputs}][:3]):
        if _DEFAULT_NAME.match(node.name):
            findings.add("NCS034", node.name, node.name)
    constants = sum(n.constant_bytes for n in graph.nodes)
    if constants // 2 >= findings.profile.ncs_graph:
        findings.add("NCS010", "", f"about {constants // 2} bytes")
    findings.facts |= {"nodes": len(graph.nodes), "graph_bytes_about": constants // 2}


def _network(graph: GraphDef, findings: Findings) -> None:
    scopes = {m[0].rstrip("/") for n in graph.nodes if (m := _NETWORKS.match(n.name))}
    if not scopes:
        findings.add("NCS030", "", "no scope of a listed network among the nodes")
    elif any("mobilenet" in s.lower() for s in scopes):
        shapes = [n.shape for n in graph.nodes if n.op == "Placeholder" and len(n.shape) == 4]
        if shapes and shapes[0][1] not in _MOBILENET_SIZES and shapes[0][1] != -1:
            findings.add("NCS030", "", f"MobileNet v1 with input {shapes[0][1]}")


def check_graph(data: bytes, findings: Findings) -> None:
    """A compiled graph."""
    try:
        graph = ncs.read(data)
    except InvalidModel as error:
        findings.add("NCS040", "", error)
        return
    if str(graph.generation) != findings.profile.ncsdk:
        findings.add("NCS042", graph.name, f"NCSDK {graph.generation}")
    if graph.size >= findings.profile.ncs_graph:
        findings.add("NCS010", graph.name, f"{graph.size} bytes")
    if graph.shaves > _MAX_SHAVES:
        findings.add("NCS041", graph.name, graph.shaves)
    findings.facts |= {
        "generation": graph.generation, "stages": graph.stage_count, "shaves": graph.shaves, "bytes": graph.size,
    }  # fmt: skip


def check_log(data: bytes, findings: Findings) -> None:
    """What mvNCCompile printed: its errors by rule."""
    log = compile_logs.mvncc(data)
    if not log.version and not log.errors:
        findings.add("NCS000", "", "this text is not a log of mvNCCompile")
    for code, text, rule in log.errors:
        scratch = ints({"n": [int(n) for n in re.findall(r"\d{1,12}", text)[-1:]]}, "n")
        value = f"{scratch[0]} bytes" if rule == "NCS012" and scratch else text
        findings.add(rule or "NCS000", "", f"error {code}: {value}" if code is not None else value)
