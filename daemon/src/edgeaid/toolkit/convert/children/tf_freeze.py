"""Child (environment tensorflow): a graph or checkpoint of TensorFlow 1 becomes what the compiler of a stick takes.

Usage: python tf_freeze.py REQUEST.json
Request: model (.meta with its checkpoint beside it, or .pb), inputs and outputs (node names), names ([first, last] new
names, "" = as they are), shape (of the input, with batch), frozen (.pb to write), count, seed, answer.
Answer: nodes ([before, after]), dropout (names of what was taken out), frozen_values ({placeholder: value}), removed
(operator types that are gone), error (largest difference by the range, between the graph as it was and as it is).
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()

_RANDOM = {"RandomUniform", "RandomStandardNormal", "StatelessRandomUniform", "StatelessRandomUniformV2"}
#: Operators that pass a value on.
_PASSING = {"Identity", "StopGradient", "PlaceholderWithDefault"}


def name_of(text: str) -> str:
    """The node of an input's text, `^name` or `name:port`."""
    return text.removeprefix("^").split(":")[0]


def load(path: str, outputs: list[str]) -> Any:
    """The graph with variables as constants."""
    graph = v1.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        if path.endswith(".meta"):
            saver = v1.train.import_meta_graph(path, clear_devices=True)
            saver.restore(session, path.removesuffix(".meta"))
            return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), outputs)
        definition = v1.GraphDef()
        with open(path, "rb") as file:
            definition.ParseFromString(file.read())
        return v1.graph_util.extract_sub_graph(definition, outputs)


def depends_on_random(name: str, nodes: dict[str, Any], depth: int = 12) -> bool:
    """Whether a node's value is drawn at random."""
    node = nodes.get(name)
    if node is None or depth == 0:
        return False
    return node.op in _RANDOM or any(depends_on_random(name_of(i), nodes, depth - 1) for i in node.input)


def mask(name: str, nodes: dict[str, Any]) -> bool:
    """Whether a node is the mask of a dropout: a comparison or rounding of random numbers."""
    node = nodes.get(name)
    while node is not None and node.op in ("Cast", "Identity"):
        node = nodes.get(name_of(node.input[0]))
    return node is not None and node.op in ("Floor", "GreaterEqual") and depends_on_random(node.name, nodes)


def drop_dropout(definition: Any) -> list[str]:
    """Replace x / keep * mask by x."""
    nodes = {n.name: n for n in definition.node}
    instead: dict[str, str] = {}
    for node in definition.node:
        sides = [name_of(i) for i in node.input if not i.startswith("^")]
        if node.op == "Mul" and len(sides) == 2 and any(mask(s, nodes) for s in sides):
            value = next((i for i in node.input if not mask(name_of(i), nodes)), node.input[0])
            scaled = nodes[name_of(value)]
            scope = node.name.rpartition("/")[0]
            inside = scaled.op in ("RealDiv", "Div", "Mul") and scaled.name.rpartition("/")[0] == scope
            instead[node.name] = scaled.input[0] if inside else value
        elif node.op in ("SelectV2", "Select") and mask(sides[0], nodes):
            scaled = nodes[sides[1]]
            instead[node.name] = scaled.input[0] if scaled.op == "Mul" else node.input[1]
    for node in definition.node:
        for number, text in enumerate(node.input):
            while name_of(node.input[number]) in instead and not text.startswith("^"):
                node.input[number] = instead[name_of(node.input[number])]
    return list(instead)


def simplify(definition: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Fix the batch, take dropout and training inputs out, give the ends their names."""
    first, last = request["inputs"][0], request["outputs"][0]
    dropout = drop_dropout(definition)
    values: dict[str, Any] = {}
    for node in definition.node:
        if node.name == first:
            kind = node.attr["dtype"].type or node.attr["T"].type or tf.float32.as_datatype_enum
            node.Clear()
            node.name, node.op = first, "Placeholder"
            node.attr["dtype"].type = kind
            shape = tf.TensorShape(request["shape"]).as_proto()
            node.attr["shape"].shape.CopyFrom(shape)
        elif node.op == "Placeholder":  # whether it trains, or how much is kept
            kind = tf.dtypes.as_dtype(node.attr["dtype"].type)
            values[node.name] = False if kind == tf.bool else 1.0
            constant = tf.make_tensor_proto(values[node.name], dtype=kind, shape=[])
            name = node.name
            node.Clear()
            node.name, node.op = name, "Const"
            node.attr["dtype"].type = kind.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(constant)
    cut = v1.graph_util.extract_sub_graph(definition, [last])
    kept = {n.name for n in cut.node}
    values = {name: value for name, value in values.items() if name in kept}
    cut = v1.graph_util.remove_training_nodes(cut, protected_nodes=[first, last])
    new = {old: name for old, name in ((first, request["names"][0]), (last, request["names"][1])) if name}
    taken = {n.name for n in cut.node} - set(new)
    if clash := taken & set(new.values()):
        raise SystemExit(f"the graph has a node {sorted(clash)[0]!r} already; choose another name")
    for node in cut.node:
        node.name = new.get(node.name, node.name)
        for number, text in enumerate(node.input):
            port = text[len(name_of(text)) + text.startswith("^") :]
            node.input[number] = ("^" if text.startswith("^") else "") + new.get(name_of(text), name_of(text)) + port
    return {"graph": cut, "dropout": dropout, "values": values, "ends": [new.get(first, first), new.get(last, last)]}


def run(definition: Any, first: str, last: str, batches: list[Any], more: dict[str, Any]) -> list[Any]:
    """Values of the last node."""
    graph = v1.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(definition, name="")
        given = {f"{name}:0": value for name, value in more.items()}
        return [session.run(f"{last}:0", {f"{first}:0": batch, **given}) for batch in batches]


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    before = load(request["model"], request["outputs"])
    nodes = {n.name: n for n in before.node}
    for side in ("inputs", "outputs"):
        if request[side][0] not in nodes:
            near = ", ".join(n.name for n in before.node if n.op.startswith("Placeholder"))
            raise SystemExit(f"no node {request[side][0]!r} leads to the output; placeholders: {near or 'none'}")
    original = v1.GraphDef()
    original.CopyFrom(before)
    done = simplify(before, request)
    with open(request["frozen"], "wb") as file_out:
        file_out.write(done["graph"].SerializeToString())
    generator = np.random.default_rng(request["seed"])
    batches = [generator.uniform(0, 1, request["shape"]).astype(np.float32) for _ in range(request["count"])]
    more = {n.name: (False if n.attr["dtype"].type == tf.bool.as_datatype_enum else 1.0)
            for n in original.node if n.op == "Placeholder" and n.name != request["inputs"][0]}  # fmt: skip
    answer: dict[str, Any] = {
        "nodes": [len(original.node), len(done["graph"].node)], "dropout": done["dropout"],
        "frozen_values": done["values"], "ends": done["ends"],
        "removed": sorted({n.op for n in original.node} - {n.op for n in done["graph"].node}),
        "tensorflow": tf.__version__, "error": None,
    }  # fmt: skip
    # With a rate that is constant in the file, its dropout draws at random: nothing to compare with.
    if not done["dropout"] or more:
        a = np.stack(run(original, request["inputs"][0], request["outputs"][0], batches, more))
        b = np.stack(run(done["graph"], done["ends"][0], done["ends"][1], batches, {}))
        answer["error"] = float(np.abs(a - b).max() / (float(np.ptp(a)) or 1.0))
    with open(request["answer"], "w") as file_answer:
        json.dump(answer, file_answer)


if __name__ == "__main__":
    main(sys.argv[1])
