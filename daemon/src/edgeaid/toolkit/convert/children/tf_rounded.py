"""Part of tf_convert.py: frozen graphs that were trained with rounding, which carry the ranges of their arrays.

The converter takes these ranges where every array has one. Beside calibrated ones it does not: a pooling between an
array of the graph's range and one of a measured range has two scales, which no kernel allows. So with a gap all ranges
are measured, and the nodes are taken out.
"""

from typing import Any

import numpy as np
import tensorflow as tf

_FAKE = "FakeQuantWithMinMax"
#: Operators behind which a constant stands.
_PASSING = ("Identity", "ReadVariableOp")
_OWN_KERNELS = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def load(path: str) -> Any:
    """A frozen graph."""
    graph = tf.compat.v1.GraphDef()
    with open(path, "rb") as file:
        graph.ParseFromString(file.read())
    return graph


def rounded(graph: Any) -> bool:
    """Whether it has ranges."""
    return any(node.op.startswith(_FAKE) for node in graph.node)


def without(graph: Any, path: str) -> None:
    """Write the graph without its ranges."""
    made = tf.compat.v1.GraphDef()
    made.CopyFrom(graph)
    for node in made.node:
        if node.op.startswith(_FAKE):
            source = node.input[0]
            node.op = "Identity"
            del node.input[:]
            node.input.append(source)
            node.attr.clear()
            node.attr["T"].type = tf.float32.as_datatype_enum
    with open(path, "wb") as file:
        file.write(made.SerializeToString())


def input_range(graph: Any, name: str) -> tuple[float, float] | None:
    """Range of an input, None where the graph has none for it."""
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op.startswith(_FAKE) and node.input[0].split(":")[0] == name:
            if "min" in node.attr:
                return node.attr["min"].f, node.attr["max"].f
            return _constant(nodes, node.input[1]), _constant(nodes, node.input[2])
    return None


def _constant(nodes: dict[str, Any], name: str) -> float:
    return float(tf.make_ndarray(_behind(nodes, name).attr["value"].tensor))


def _behind(nodes: dict[str, Any], name: str) -> Any:
    """The node that makes a value, through those that hand it on."""
    node = nodes[name.split(":", maxsplit=1)[0]]
    while node.op in _PASSING:
        node = nodes[node.input[0].split(":")[0]]
    return node


def with_even_weights(graph: Any, path: str) -> None:
    """Write the graph with ranges of weights as int8 has them: from -127, so that zero is zero.

    Trained for uint8, a weight has 256 steps between -a and a, none of which is zero: the kernels refuse that.
    """
    made = tf.compat.v1.GraphDef()
    made.CopyFrom(graph)
    nodes = {node.name: node for node in made.node}
    for node in made.node:
        if node.op.startswith(_FAKE) and _behind(nodes, node.input[0]).op == "Const":
            node.attr["narrow_range"].b = True
    with open(path, "wb") as file:
        file.write(made.SerializeToString())


def by_own_ranges(request: dict[str, Any], graph: Any, path: str) -> bytes | None:
    """int8 by the graph's own ranges, with the graph that is converted in `path`; None where they do not suffice."""
    name = request["inputs"][0]
    data = np.load(request["representative"], allow_pickle=False)["data"]
    low, high = input_range(graph, name) or (min(0.0, float(data.min())), float(data.max()))
    scale = (high - low) / 255
    if request["io"] != "int8" or not scale > 0:
        return None
    shapes = {name: request["shape"]} if request.get("shape") else None
    make = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph
    with_even_weights(graph, path)
    converter = make(path, request["inputs"], request["outputs"], shapes)
    converter.inference_type = tf.int8
    converter.quantized_input_stats = {name: (float(round(-128 - low / scale)), 1 / scale)}
    try:
        content: bytes = converter.convert()
    except Exception as error:  # the converter raises plain Exceptions and its own errors alike
        print(f"not by the graph's own ranges: {error}", flush=True)
        return None
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=_OWN_KERNELS)
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        print(f"not by the graph's own ranges: {error}", flush=True)
        return None
    floats = [t["name"] for t in interpreter.get_tensor_details() if t["dtype"] == np.float32]
    return None if floats else content
