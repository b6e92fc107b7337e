"""Child (environment onnx2tf): fix an ONNX model's shapes and fold what is constant. Usage: python onnx_simplify.py
REQUEST.json

Request: model, shapes ({input name: shape}), outputs ({output name: shape}), constants ({input name: value}), inputs
(.npz with `<run>_<input>`), simplified (.onnx to write), answer (JSON to write: branches, the If operators that were
decided, and unquantised, the LSTMs that compute in float now).
"""

import json
import re
import sys
from importlib import import_module
from typing import Any

import numpy as np

onnx: Any = import_module("onnx")
ort: Any = import_module("onnxruntime")
onnxsim: Any = import_module("onnxsim")
#: Branches inside of branches at most.
_DEEPEST = 8


def plain(name: str) -> str:
    """A name without what onnx2tf replaces and then does not find again."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name)


def rename(graph: Any, names: dict[str, str]) -> None:
    """Give values other names, in branches too."""
    for node in graph.node:
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g, names)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)


def fix(model: Any, constants: dict[str, float]) -> None:
    """Turn inputs into constants."""
    for name, number in constants.items():
        old = next(i for i in model.graph.input if i.name == name)
        kind = onnx.helper.tensor_dtype_to_np_dtype(old.type.tensor_type.elem_type)
        shape = [max(1, d.dim_value) for d in old.type.tensor_type.shape.dim]
        value = np.full(shape, number, kind)
        model.graph.input.remove(old)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))


def conditions(model: Any, runs: list[dict[str, Any]]) -> dict[str, bool]:
    """Conditions of the If operators of the outermost graph that are the same for all inputs tried."""
    wanted = {n.input[0] for n in model.graph.node if n.op_type == "If"}
    given = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.name in wanted}
    known = {name: bool(value.reshape(-1)[0]) for name, value in given.items()}
    asked = sorted(wanted - set(known))
    if asked:
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        del probe.graph.output[:]
        for name in asked:
            probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, None))
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = np.array([[bool(v.reshape(-1)[0]) for v in session.run(None, feed)] for feed in runs])
        known |= {name: bool(column[0]) for name, column in zip(asked, values.T, strict=True) if len(set(column)) == 1}
    return known


def inline(model: Any, node: Any, taken: bool) -> None:
    """Put the taken branch in the place of an If operator."""
    branch = next(a.g for a in node.attribute if a.name == ("then_branch" if taken else "else_branch"))
    inside = {o for n in branch.node for o in n.output} | {i.name for i in branch.initializer}
    names = {name: f"{node.output[0]}/{name}" for name in inside if name}
    # What the branch gives under its own name, or passes on from outside.
    passed = []
    for source, target in zip(branch.output, node.output, strict=True):
        if source.name in inside and names[source.name].endswith(f"/{source.name}"):
            names[source.name] = target
        else:
            passed.append(onnx.helper.make_node("Identity", [names.get(source.name, source.name)], [target]))
    rename(branch, names)
    place = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for number, made in enumerate([*branch.node, *passed]):
        model.graph.node.insert(place + number, made)
    model.graph.initializer.extend(branch.initializer)


def unquantise(model: Any) -> list[str]:
    """Replace onnxruntime's DynamicQuantizeLSTM, which no converter knows, by a float LSTM of the same weights."""
    weights = {i.name: i for i in model.graph.initializer}
    replaced = []
    for node in [n for n in model.graph.node if n.op_type == "DynamicQuantizeLSTM"]:
        names = [*node.input, *[""] * (12 - len(node.input))]
        if any(names[i] not in weights for i in (1, 2, 8, 9, 10, 11)):
            continue
        for number, (scale, zero) in ((1, (8, 9)), (2, (10, 11))):
            value, factor, offset = (onnx.numpy_helper.to_array(weights[names[i]]) for i in (number, scale, zero))
            # [directions, size, gates]; a scale per direction or per gate and direction.
            factor, offset = (a.reshape(len(value), 1, -1).astype(np.float32) for a in (factor, offset))
            real = ((value.astype(np.float32) - offset) * factor).transpose(0, 2, 1)
            names[number] = f"{node.output[0] or node.name}/float{number}"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(real), names[number]))
        made = onnx.helper.make_node("LSTM", names[:8], list(node.output), name=node.name)
        made.attribute.extend(node.attribute)
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        model.graph.node.insert(place, made)
        replaced.append(node.name or node.output[0])
    return replaced


def decide(model: Any, runs: list[dict[str, Any]]) -> list[str]:
    """Inline the branches whose condition does not change; which ones."""
    decided: list[str] = []
    for _ in range(_DEEPEST):
        known = conditions(model, runs)
        nodes = [n for n in model.graph.node if n.op_type == "If" and n.input[0] in known]
        if not nodes:
            break
        for node in nodes:
            decided.append(node.name or node.output[0])
            inline(model, node, known[node.input[0]])
    return decided


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    model = onnx.load(request["model"])
    # Older files list their weights as inputs, or break that rule.
    model.ir_version = max(model.ir_version, 4)
    fix(model, request["constants"])
    names = list(request["shapes"])
    with np.load(request["inputs"], allow_pickle=False) as data:
        count = len({key.split("_")[0] for key in data.files})
        runs = [{name: data[f"{run}_{i}"] for i, name in enumerate(names)} for run in range(count)]
    branches = decide(model, runs)
    for output in model.graph.output:
        kind = output.type.tensor_type.elem_type
        shaped = onnx.helper.make_tensor_value_info(output.name, kind, request["outputs"][output.name])
        output.CopyFrom(shaped)
    unquantised = unquantise(model)
    made, _ = onnxsim.simplify(model, overwrite_input_shapes=request["shapes"])
    for given in made.graph.input:
        for dim, size in zip(given.type.tensor_type.shape.dim, request["shapes"].get(given.name, ()), strict=False):
            dim.dim_value = size
    rename(made.graph, {v.name: plain(v.name) for v in (*made.graph.input, *made.graph.output)})
    onnx.save(made, request["simplified"])
    with open(request["answer"], "w") as file:
        json.dump({"branches": branches, "unquantised": unquantised}, file)


if __name__ == "__main__":
    main(sys.argv[1])
