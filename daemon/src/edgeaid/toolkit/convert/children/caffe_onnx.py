"""Child (environment onnx2tf): a Caffe network becomes ONNX. Usage: python caffe_onnx.py REQUEST.json

Request: layers ([name, type, bottoms, tops, message]; a message is {field: [values]}), inputs ({blob: shape}), weights
(.npz with `<layer>:<blob>`), prototxt and caffemodel (for OpenCV, which computes what the result is compared with),
count, seed, onnx (file to write), made and outputs (.npz to write, `<run>_<number>`), answer.
Answer: inputs and outputs ([name, shape, dtype]), cut (layers left out: [name, type]), opencv (its version).
"""

import json
import sys
from importlib import import_module
from typing import Any

import numpy as np

onnx: Any = import_module("onnx")
layers: Any = import_module("caffe_layers")  # beside this file

#: What only training or a device's own decoder needs. The values that it reads become outputs.
_CUT = {"detectionoutput", "accuracy", "silence", "argmax"}
_LOSSES = {"softmaxwithloss": "softmax", "softmaxloss": "softmax", "sigmoidcrossentropyloss": "sigmoid"}
_SOURCES = {"input", "data", "imagedata", "hdf5data", "dummydata", "memorydata", "annotateddata"}
_SIMPLE = {"sigmoid": "Sigmoid", "tanh": "Tanh", "absval": "Abs", "dropout": "Identity", "bnll": "Softplus"}


def training(message: dict[str, list[Any]]) -> bool:
    """Whether a layer is there for training only."""
    return any(str(layers.one(rule, "phase", "TEST")) in ("TRAIN", "0") for rule in message.get("include", []))


def build(request: dict[str, Any], weights: Any) -> tuple[Any, dict[str, str], list[list[str]]]:
    """The graph, the outputs (blob -> layer that wrote it last), and the layers that were left out."""
    net = layers.Network(weights)
    writer: dict[str, str] = {}
    read: set[str] = set()
    cut: list[list[str]] = []
    for blob, shape in request["inputs"].items():
        net.now[blob] = blob
        net.shapes[blob] = shape
    for entry in request["layers"]:
        layer = layers.Layer(entry, net)
        layer.kind = _LOSSES.get(layer.kind, layer.kind)
        if layer.kind in _SOURCES or training(layer.message):
            continue
        # What reads a label has no such input on a device; a loss becomes what it is computed from.
        unfed = len(layer.inputs) < len(layer.bottoms) and layer.kind not in ("softmax", "sigmoid")
        if layer.kind in _CUT or unfed:
            cut.append([layer.name, entry[1]])
            continue
        read |= set(layer.bottoms) - set(layer.tops)
        if layer.kind == "split":
            net.now |= dict.fromkeys(layer.tops, layer.inputs[0])
            writer |= dict.fromkeys(layer.tops, layer.name)
            continue
        if layer.output in net.shapes:  # a blob or layer of that name is there already
            layer.output = f"{layer.name}/out"
        if layer.kind in _SIMPLE:
            net.add(_SIMPLE[layer.kind], layer.inputs[:1], layer.output, net.shapes[layer.inputs[0]])
        elif layer.kind in layers.LAYERS:
            layers.LAYERS[layer.kind](net, layer)
        else:
            raise SystemExit(
                f"layer {layer.name}: {entry[1]} has no counterpart in ONNX here; cut the network before it"
            )
        if layer.kind != "slice":
            net.now[layer.tops[0]] = layer.output
        writer |= dict.fromkeys(layer.tops, layer.name)
    outputs = {blob: name for blob, name in writer.items() if blob not in read}
    return net, outputs, cut


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    with np.load(request["weights"], allow_pickle=False) as loaded:
        net, outputs, cut = build(request, dict(loaded))
    kind, ends = onnx.TensorProto.FLOAT, {}
    taken = set(net.shapes)
    for blob in outputs:
        ends[blob] = blob if blob not in taken else f"{blob}/output" if f"{blob}/output" not in taken else f"{blob}/end"
        net.add("Identity", [net.now[blob]], ends[blob], net.shapes[net.now[blob]])
    sides = [
        [onnx.helper.make_tensor_value_info(name, kind, net.shapes[name]) for name in names]
        for names in (request["inputs"], ends.values())
    ]
    graph = onnx.helper.make_graph(net.nodes, "caffe", *sides, net.constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, request["onnx"])
    cv2: Any = import_module("cv2")
    reference = cv2.dnn.readNetFromCaffe(request["prototxt"], request["caffemodel"])
    made, results = {}, {}
    for run in range(request["count"]):
        generator = np.random.default_rng([request["seed"], run])
        for number, (blob, shape) in enumerate(request["inputs"].items()):
            made[f"{run}_{number}"] = generator.uniform(-1, 1, shape).astype(np.float32)
            reference.setInput(made[f"{run}_{number}"], blob)
        for number, value in enumerate(reference.forward(list(outputs.values()))):
            results[f"{run}_{number}"] = value
    np.savez(request["made"], **made)
    np.savez(request["outputs"], **results)
    answer = {
        "inputs": [[b, s, "float32"] for b, s in request["inputs"].items()],
        "outputs": [[e, list(results[f"0_{i}"].shape), "float32"] for i, e in enumerate(ends.values())],
        "cut": cut,
        "opencv": cv2.__version__,
    }
    with open(request["answer"], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1])
