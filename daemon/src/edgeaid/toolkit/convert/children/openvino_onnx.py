"""Child (environment openvino): OpenVINO IR becomes ONNX. Usage: python openvino_onnx.py REQUEST.json

Request: model (.xml), shape (of the first input; [] = as the file says), count, seed, onnx (file to write), made and
outputs (.npz to write, `<run>_<number>`), answer. OpenVINO itself computes what the result is compared with.
Answer: inputs and outputs ([name, shape, dtype]), openvino (its version).
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import openvino as ov

onnx: Any = import_module("onnx")

#: Operators of one meaning and no attributes.
_SAME = {
    "Relu": "Relu", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Exp": "Exp", "Log": "Log", "Abs": "Abs", "Sqrt": "Sqrt",
    "Negative": "Neg", "Floor": "Floor", "Ceiling": "Ceil", "Erf": "Erf", "Sin": "Sin", "Cos": "Cos", "Sign": "Sign",
    "SoftPlus": "Softplus", "HSwish": "HardSwish", "Add": "Add", "Subtract": "Sub", "Multiply": "Mul",
    "Divide": "Div", "Power": "Pow", "Maximum": "Max", "Minimum": "Min", "Equal": "Equal", "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual", "Less": "Less", "LessEqual": "LessOrEqual", "LogicalAnd": "And",
    "LogicalOr": "Or", "LogicalNot": "Not", "Select": "Where", "Mish": "Mish",
}  # fmt: skip
#: Everything that only names other axes: the shape of the result says it all.
_RESHAPING = {"Reshape", "Squeeze", "Unsqueeze"}
_REDUCING = {"ReduceMean": "ReduceMean", "ReduceMax": "ReduceMax", "ReduceMin": "ReduceMin", "ReduceSum": "ReduceSum",
             "ReduceProd": "ReduceProd", "ReduceL2": "ReduceL2", "ReduceL1": "ReduceL1"}  # fmt: skip


class Graph:
    """The ONNX graph as it grows."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        #: (node's name, output) -> value's name.
        self.names: dict[tuple[str, int], str] = {}

    def constant(self, name: str, value: Any) -> str:
        """A named constant."""
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """A node."""
        self.nodes.append(onnx.helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))


class Operator:
    """An operator of the IR with what its counterpart needs."""

    def __init__(self, node: Any, graph: Graph) -> None:
        self.node, self.kind, self.graph = node, node.get_type_name(), graph
        self.data: dict[str, Any] = node.get_attributes()
        self.name = node.get_friendly_name()
        self.sources = [value.get_source_output() for value in node.inputs()]
        self.inputs = [graph.names[(s.get_node().get_name(), s.get_index())] for s in self.sources]
        self.outputs = [f"{self.name}:{i}" if i else self.name for i in range(node.get_output_size())]
        for i, output in enumerate(self.outputs):
            graph.names[(node.get_name(), i)] = output

    def shape(self, number: int = 0) -> list[int]:
        """Shape of an input."""
        return [int(d) for d in self.sources[number].get_shape()]

    def result(self, number: int = 0) -> list[int]:
        """Shape of an output."""
        return [int(d) for d in self.node.output(number).get_shape()]

    def value(self, number: int) -> Any:
        """An input that must be constant."""
        node = self.sources[number].get_node()
        if node.get_type_name() == "Convert":
            node = node.input_value(0).get_node()
        if node.get_type_name() != "Constant":
            raise SystemExit(f"operator {self.kind} ({self.name}): input {number} is not constant: export a fixed one")
        return np.array(node.data)

    def made(self, suffix: str, value: Any) -> str:
        """A constant that belongs to the operator."""
        return self.graph.constant(f"{self.name}/{suffix}", value)

    def emit(self, kind: str, inputs: list[str] | None = None, **attributes: Any) -> None:
        """The counterpart."""
        self.graph.add(kind, self.inputs if inputs is None else inputs, self.outputs, **attributes)


def window(op: Operator) -> dict[str, Any]:
    """Strides and padding."""
    options: dict[str, Any] = {"strides": list(op.data["strides"])}
    if op.data.get("auto_pad", "explicit") in ("same_upper", "same_lower"):
        return {**options, "auto_pad": op.data["auto_pad"].upper()}
    valid = op.data.get("auto_pad") == "valid"
    pads = [0] * 2 * len(options["strides"]) if valid else [*op.data["pads_begin"], *op.data["pads_end"]]
    return {**options, "pads": [int(p) for p in pads]}


def convolution(op: Operator) -> None:
    """Groups are an axis of their own in the IR's weights."""
    options = {**window(op), "dilations": list(op.data["dilations"])}
    weights, shape = op.inputs[1], op.shape(1)
    group = 1
    if op.kind.startswith("Group"):
        group = shape[0]
        # Convolution: [group, out, in, ...]; transposed: [group, in, out, ...]: the first two are one axis in ONNX.
        size = op.made("shape", np.array([shape[0] * shape[1], *shape[2:]], np.int64))
        op.graph.add("Reshape", [weights, size], [f"{op.name}/weights"])
        weights = f"{op.name}/weights"
    kind = "Conv"
    if op.kind.endswith("BackpropData"):
        kind = "ConvTranspose"
        if len(op.inputs) > 2:
            options["output_shape"] = [int(d) for d in op.value(2)]
            options.pop("pads", None)
        elif any(op.data.get("output_padding", [])):
            options["output_padding"] = list(op.data["output_padding"])
    op.emit(kind, [op.inputs[0], weights], group=group, **options)


def pool(op: Operator) -> None:
    options = {**window(op), "kernel_shape": list(op.data["kernel"])}
    options["ceil_mode"] = int(op.data.get("rounding_type", "floor") != "floor")
    if op.kind == "MaxPool":
        op.graph.add("MaxPool", op.inputs, op.outputs[:1], **options)
        return
    exclude = op.data.get("exclude-pad", op.data.get("exclude_pad", True))
    op.emit("AveragePool", count_include_pad=int(not exclude), **options)


def reshaping(op: Operator) -> None:
    op.emit("Reshape", [op.inputs[0], op.made("shape", np.array(op.result(), np.int64))])


def matmul(op: Operator) -> None:
    names = []
    for number, side in enumerate("ab"):
        name = op.inputs[number]
        if op.data[f"transpose_{side}"]:
            order = list(range(len(op.shape(number))))
            order[-2:] = order[:-3:-1]
            op.graph.add("Transpose", [name], [f"{op.name}/{side}"], perm=order)
            name = f"{op.name}/{side}"
        names.append(name)
    op.emit("MatMul", names)


def reducing(op: Operator) -> None:
    axes = op.made("axes", np.atleast_1d(op.value(1)).astype(np.int64))
    op.emit(_REDUCING[op.kind], [op.inputs[0], axes], keepdims=int(op.data["keep_dims"]))


def softmax(op: Operator) -> None:
    op.emit("LogSoftmax" if op.kind == "LogSoftmax" else "Softmax", axis=int(op.data["axis"]))


def clamp(op: Operator) -> None:
    kind = op.node.get_output_element_type(0).to_dtype()
    limits = [op.made(side, np.array(op.data[side], kind)) for side in ("min", "max")]
    op.emit("Clip", [op.inputs[0], *limits])


def prelu(op: Operator) -> None:
    size, rank = op.shape(1), len(op.shape())
    slope = op.inputs[1]
    if len(size) == 1 and rank > 2:
        shape = op.made("shape", np.array([*size, *[1] * (rank - 2)], np.int64))
        op.graph.add("Reshape", [slope, shape], [f"{op.name}/slope"])
        slope = f"{op.name}/slope"
    op.emit("PRelu", [op.inputs[0], slope])


def swish(op: Operator) -> None:
    value = op.inputs[0]
    if len(op.inputs) > 1:
        op.graph.add("Mul", op.inputs, [f"{op.name}/scaled"])
        value = f"{op.name}/scaled"
    op.graph.add("Sigmoid", [value], [f"{op.name}/gate"])
    op.emit("Mul", [op.inputs[0], f"{op.name}/gate"])


def gelu(op: Operator) -> None:
    """0.5 x (1 + erf(x / sqrt 2))."""
    half, root = op.made("half", np.float32(0.5)), op.made("root", np.float32(2**-0.5))
    one = op.made("one", np.float32(1))
    for kind, inputs, output in (
        ("Mul", [op.inputs[0], root], "scaled"), ("Erf", [f"{op.name}/scaled"], "erf"),
        ("Add", [f"{op.name}/erf", one], "gate"), ("Mul", [op.inputs[0], half], "halved"),
    ):  # fmt: skip
        op.graph.add(kind, inputs, [f"{op.name}/{output}"])
    op.emit("Mul", [f"{op.name}/halved", f"{op.name}/gate"])


def sliced(op: Operator) -> None:
    """StridedSlice with its masks, or Slice; the shape of the result shows new and dropped axes."""
    shape = op.shape()
    if op.kind == "Slice":
        begin, end, step = (op.value(i).astype(np.int64) for i in (1, 2, 3))
        axes = op.value(4).astype(np.int64) if len(op.inputs) > 4 else np.arange(len(begin))
        parts = {"begin": begin, "end": end, "axes": axes, "step": step}
        op.emit("Slice", [op.inputs[0], *(op.made(name, value) for name, value in parts.items())])
        return
    begin, end = op.value(1).astype(np.int64), op.value(2).astype(np.int64)
    step = op.value(3).astype(np.int64) if len(op.inputs) > 3 else np.ones_like(begin)
    masks = {n: [*op.data.get(f"{n}_mask", []), *[0] * len(begin)] for n in
             ("begin", "end", "new_axis", "shrink_axis", "ellipsis")}  # fmt: skip
    if any(masks["ellipsis"]):
        raise SystemExit(f"operator StridedSlice ({op.name}) has an ellipsis: export it with all axes named")
    chosen: dict[str, list[int]] = {"begin": [], "end": [], "axes": [], "step": []}
    axis = 0
    for number in range(len(begin)):
        if masks["new_axis"][number]:
            continue
        forward = step[number] > 0
        first = int(begin[number]) if not masks["begin"][number] else (0 if forward else shape[axis] - 1)
        last = int(end[number]) if not masks["end"][number] else (shape[axis] if forward else -(1 << 31))
        if masks["shrink_axis"][number]:
            last = first + 1 if first != -1 else 1 << 31
        for key, value in (("begin", first), ("end", last), ("axes", axis), ("step", int(step[number]))):
            chosen[key].append(value)
        axis += 1
    names = [op.made(key, np.array(chosen[key], np.int64)) for key in ("begin", "end", "axes", "step")]
    op.graph.add("Slice", [op.inputs[0], *names], [f"{op.name}/part"])
    op.emit("Reshape", [f"{op.name}/part", op.made("shape", np.array(op.result(), np.int64))])


def split(op: Operator) -> None:
    axis = int(op.value(1))
    sizes = [op.result(i)[axis] for i in range(len(op.outputs))]
    op.emit("Split", [op.inputs[0], op.made("sizes", np.array(sizes, np.int64))], axis=axis)


def interpolate(op: Operator) -> None:
    mode = str(op.data["mode"])
    place = str(op.data.get("coordinate_transformation_mode", "half_pixel"))
    place = "half_pixel" if place == "tf_half_pixel_for_nn" else place
    nearest = str(op.data.get("nearest_mode", "round_prefer_floor"))
    options = {"coordinate_transformation_mode": place}
    if mode == "nearest":
        options["nearest_mode"] = "floor" if nearest == "simple" else nearest
    size = op.made("size", np.array(op.result(), np.int64))
    kind = "nearest" if mode == "nearest" else "cubic" if mode == "cubic" else "linear"
    op.emit("Resize", [op.inputs[0], "", "", size], mode=kind, **options)


def pad(op: Operator) -> None:
    pads = op.made("pads", np.concatenate([op.value(1), op.value(2)]).astype(np.int64))
    mode = str(op.data["pad_mode"])
    names = [op.inputs[0], pads] + (op.inputs[3:4] if mode == "constant" else [])
    op.emit("Pad", names, mode={"constant": "constant", "reflect": "reflect", "edge": "edge"}[mode])


def convert(op: Operator) -> None:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(op.node.get_output_element_type(0).to_dtype()))
    op.emit("Cast", to=kind)


def normalised(op: Operator) -> None:
    """BatchNormInference: gamma, beta, data, mean, variance, in one of two orders."""
    order = [2, 0, 1, 3, 4] if len(op.shape(0)) == 1 else [0, 1, 2, 3, 4]
    op.emit("BatchNormalization", [op.inputs[i] for i in order], epsilon=float(op.data["epsilon"]))


LAYERS: dict[str, Callable[[Operator], None]] = {
    "Convolution": convolution, "GroupConvolution": convolution, "ConvolutionBackpropData": convolution,
    "GroupConvolutionBackpropData": convolution, "MaxPool": pool, "AvgPool": pool, "MatMul": matmul,
    "Softmax": softmax, "SoftMax": softmax, "LogSoftmax": softmax, "Clamp": clamp, "PRelu": prelu, "PReLU": prelu,
    "Swish": swish, "Gelu": gelu, "StridedSlice": sliced, "Slice": sliced, "Split": split, "VariadicSplit": split,
    "Interpolate": interpolate, "Pad": pad, "Convert": convert, "BatchNormInference": normalised,
    "Transpose": lambda op: op.emit("Transpose", op.inputs[:1], perm=[int(a) for a in op.value(1)]),
    "Concat": lambda op: op.emit("Concat", axis=int(op.data["axis"])),
    "Elu": lambda op: op.emit("Elu", alpha=float(op.data["alpha"])),
    "HSigmoid": lambda op: op.emit("HardSigmoid", alpha=1 / 6, beta=0.5),
    "HardSigmoid": lambda op: op.emit(
        "HardSigmoid", op.inputs[:1], alpha=float(op.value(1)), beta=float(op.value(2))
    ),
    "Gather": lambda op: op.emit("Gather", op.inputs[:2], axis=int(op.value(2))),
    "Broadcast": lambda op: op.emit("Expand", [op.inputs[0], op.made("shape", np.array(op.result(), np.int64))]),
    "Tile": lambda op: op.emit("Tile", [op.inputs[0], op.made("repeats", op.value(1).astype(np.int64))]),
    "DepthToSpace": lambda op: op.emit(
        "DepthToSpace", blocksize=int(op.data["block_size"]),
        mode="CRD" if str(op.data["mode"]) == "depth_first" else "DCR",
    ),
}  # fmt: skip
LAYERS |= dict.fromkeys(_RESHAPING, reshaping) | dict.fromkeys(_REDUCING, reducing)


def build(model: Any) -> tuple[Graph, list[str], list[str]]:
    """The graph, and the names of its inputs and outputs."""
    graph = Graph()
    inputs: list[str] = []
    outputs: dict[str, str] = {}
    for number, parameter in enumerate(model.inputs):
        name = next(iter(sorted(parameter.names)), f"input{number}")
        graph.names[(parameter.get_node().get_name(), 0)] = name
        inputs.append(name)
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Constant":
            value = np.array(node.data)
            value = value.astype(np.float32) if value.dtype == np.float16 else value
            graph.names[(node.get_name(), 0)] = graph.constant(node.get_friendly_name(), value)
        elif kind == "Result":
            source = node.input_value(0)
            name = next(iter(sorted(source.names)), f"output{len(outputs)}")
            held = graph.names[(source.get_node().get_name(), source.get_index())]
            name = name if name != held and name not in inputs else f"{name}/output"
            graph.add("Identity", [held], [name])
            outputs[node.get_name()] = name
        elif kind != "Parameter":
            op = Operator(node, graph)
            if kind in _SAME:
                op.emit(_SAME[kind])
            elif kind in LAYERS:
                LAYERS[kind](op)
            else:
                raise SystemExit(
                    f"operator {kind} ({op.name}) has no counterpart in ONNX here; cut the model before it"
                )
    return graph, inputs, [outputs[port.get_node().get_name()] for port in model.outputs]


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    model = ov.Core().read_model(request["model"])
    if request["shape"]:
        model.reshape({model.inputs[0]: ov.PartialShape(request["shape"])})
    if model.is_dynamic():
        shown = ", ".join(f"{p.get_any_name()} {p.partial_shape}" for p in model.inputs)
        raise SystemExit(f"the model leaves shapes open ({shown}); give --shape")
    passes: Any = import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    made: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for run in range(request["count"]):
        generator = np.random.default_rng([request["seed"], run])
        values = []
        for port in model.inputs:
            kind, shape = np.dtype(port.get_element_type().to_dtype()), [int(d) for d in port.get_shape()]
            value = generator.uniform(0, 1, shape) if kind.kind == "f" else generator.integers(0, 256, shape)
            values.append(value.astype(kind))
        answer = compiled(values)
        made |= {f"{run}_{i}": value for i, value in enumerate(values)}
        results |= {f"{run}_{i}": np.array(answer[port]) for i, port in enumerate(compiled.outputs)}
    graph, inputs, outputs = build(model)

    def ends(names: list[str], ports: list[Any]) -> list[Any]:
        return [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(port.get_element_type().to_dtype())),
                [int(d) for d in port.get_shape()],
            )
            for name, port in zip(names, ports, strict=True)
        ]  # fmt: skip

    whole = onnx.helper.make_graph(
        graph.nodes, "openvino", ends(inputs, model.inputs), ends(outputs, model.outputs), graph.constants
    )
    onnx.save(
        onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8), request["onnx"]
    )
    np.savez(request["made"], **made)
    np.savez(request["outputs"], **results)
    specs = {
        "inputs": [[n, list(made[f"0_{i}"].shape), made[f"0_{i}"].dtype.name] for i, n in enumerate(inputs)],
        "outputs": [[n, list(results[f"0_{i}"].shape), results[f"0_{i}"].dtype.name] for i, n in enumerate(outputs)],
    }
    with open(request["answer"], "w") as file:
        json.dump({**specs, "openvino": ov.__version__}, file)


if __name__ == "__main__":
    main(sys.argv[1])
