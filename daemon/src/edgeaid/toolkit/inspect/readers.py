"""From each reader's dataclasses to a Report. One small function per kind of file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...formats.archives import HDF5_MAGIC
from ...formats.exchange import caffe, keras, onnx, openvino, pytorch, tensorflow
from ...formats.finding import NOTE, WARNING, Finding
from ...formats.ncs import reader as ncs
from ...tensors import TensorSpec
from ..files import load
from .archives import with_parts
from .report import Bar, OperatorRow, Report, TensorRow


def rows(specs: Iterable[TensorSpec]) -> tuple[TensorRow, ...]:
    """Inputs or outputs as rows."""
    return tuple(
        TensorRow(
            s.name,
            s.datatype,
            s.shape,
            s.quantization.scale if s.quantization else (),
            s.quantization.zero_point if s.quantization else (),
        )
        for s in specs
    )


def ncs_report(data: bytes, path: Path, _depth: int) -> Report:
    graph = ncs.read(data)
    operators = tuple(
        OperatorRow(
            index=s.index, name=s.name, type=s.operation, device="NCS",
            inputs=(f"stage {s.index - 1}" if s.index else "input",), outputs=(f"stage {s.index}",), shape=s.output,
            details=f"in {'x'.join(map(str, s.input))}, kernel {s.kernel[0]}x{s.kernel[1]}, stride {s.stride[0]}",
        )
        for s in graph.stages
    )  # fmt: skip
    facts: dict[str, str | int | float] = {
        "NCSDK generation": graph.generation,
        "version": ".".join(map(str, graph.version)),
        "stages": graph.stage_count,
        "SHAVEs": graph.shaves or "the file does not say",
        "input values": graph.input_elements,
        "output values": graph.output_elements,
    }
    if graph.name:
        facts["network"] = graph.name
    findings = ncs.check(graph)
    if operators:
        text = "the file does not store how stages are joined: they are drawn in execution order"
        findings += (Finding(NOTE, "stage-order", text),)
    return Report(
        path=str(path), kind=f"ncs-v{graph.generation}", size=len(data), facts=facts, inputs=rows(graph.inputs),
        outputs=rows(graph.outputs), operators=operators, memory=(Bar("file", graph.sections, 320_000_000),),
        findings=findings,
    )  # fmt: skip


def blob_report(data: bytes, path: Path, _depth: int) -> Report:
    blob = ncs.read_blob(data)
    engines = [n for n, on in (("NCE", blob.uses_hw), ("SHAVE", blob.uses_shaves), ("DMA", blob.uses_dma)) if on]
    text = f"a runtime takes blobs of exactly its own version, here {blob.major}.{blob.minor}"
    return Report(
        path=str(path),
        kind="myriad-blob",
        size=len(data),
        facts={
            "version": f"{blob.major}.{blob.minor}", "inputs": blob.inputs, "outputs": blob.outputs,
            "stages": blob.stages, "input bytes": blob.input_size, "output bytes": blob.output_size,
            "batch": blob.batch, "CMX slices": blob.cmx_slices, "SHAVEs": blob.shaves, "engines": ", ".join(engines),
        },
        memory=(Bar("on the stick", (("file", blob.size), ("working memory", blob.bss_size)), 512 << 20),),
        findings=(Finding(NOTE, "version", text),),
    )  # fmt: skip


def openvino_report(data: bytes, path: Path, _depth: int) -> Report:
    weights = path.with_suffix(".bin")
    bin_size = weights.stat().st_size if weights.is_file() else None
    model = openvino.read(data, bin_size)
    by_id = {layer.id: layer for layer in model.layers}
    shown = [x for x in model.layers if x.type not in ("Const", "Parameter", "Result", "Input")]
    feeds: dict[int, list[str]] = {}
    constants: dict[int, int] = {}
    for source, port, target, _ in model.edges:
        if by_id[source].type == "Const":
            constants[target] = constants.get(target, 0) + by_id[source].weights_bytes
        else:
            feeds.setdefault(target, []).append(f"{source}:{port}")
    operators = tuple(
        OperatorRow(
            x.id, x.name, x.type, "", tuple(feeds.get(x.id, ())), tuple(f"{x.id}:{p.id}" for p in x.outputs),
            x.outputs[0].shape if x.outputs else (), constants.get(x.id, 0) + x.weights_bytes, x.opset,
        )
        for x in shown
    )  # fmt: skip
    findings = []
    if bin_size is None:
        findings.append(Finding(WARNING, "no-bin", f"{weights.name} is not beside it: the weights were not compared"))
    if model.version < 10:
        text = f"version {model.version} runs on OpenVINO 2018 to 2020; 2021.4 and 2022.3 refuse it (measured)"
        findings.append(Finding(WARNING, "version", text))
    if model.version == 11:
        findings.append(Finding(NOTE, "version", "version 11 is read by OpenVINO 2022.1 and later, not by 2021.4"))
    return Report(
        path=str(path), kind="openvino-ir", size=len(data), inputs=rows(model.inputs), outputs=rows(model.outputs),
        facts={"name": model.name, "IR version": model.version, "layers": len(model.layers)}, operators=operators,
        memory=(Bar("files", (("XML", len(data)), ("weights", bin_size or model.weights_bytes))),),
        findings=tuple(findings),
    )  # fmt: skip


def keras_report(data: bytes, path: Path, _depth: int) -> Report:
    model = keras.read(data)
    shown = [x for x in model.layers if x.kind != "InputLayer"]
    operators = tuple(
        OperatorRow(i, x.name, x.kind, "", x.inputs, (x.name,), x.shape, 0, x.details) for i, x in enumerate(shown)
    )
    facts: dict[str, str | int | float] = {"name": model.name, "class": model.kind, "layers": len(shown)}
    if model.version:
        facts["Keras"] = model.version
    return Report(
        path=str(path), kind="keras-h5" if data[:8] == HDF5_MAGIC else "keras", size=len(data), facts=facts,
        inputs=rows(model.inputs), outputs=tuple(TensorRow(n, "", ()) for n in model.outputs), operators=operators,
        memory=(Bar("file", (("weights", model.weights_bytes), ("description", len(data) - model.weights_bytes))),)
        if data[:8] != HDF5_MAGIC else (),
        findings=(Finding(NOTE, "shapes", "the shapes of the list are those of the layers' inputs"),),
    )  # fmt: skip


def torch_report(data: bytes, path: Path, _depth: int) -> Report:
    model = pytorch.read(data)
    operators = tuple(
        OperatorRow(i, o.name, o.type, "", o.inputs, o.outputs, o.shape, 0, o.details)
        for i, o in enumerate(model.operators)
    )
    notes = {
        "torchscript": "TorchScript does not say its input's shape; export the network with torch.export.save (.pt2)",
        "torch-pickle": "a pickle holds tensors by name; the network itself is code that is not in the file",
    }
    findings = (Finding(NOTE, "form", notes[model.kind]),) if model.kind in notes else ()
    return Report(
        path=str(path), kind=model.kind, size=len(data), facts={"name": model.name, "operators": len(operators)},
        inputs=rows(model.inputs), outputs=rows(model.outputs), operators=operators,
        memory=(Bar("file", (("tensors", model.weights_bytes), ("rest", len(data) - model.weights_bytes))),),
        findings=findings,
    )  # fmt: skip


def onnx_report(data: bytes, path: Path, _depth: int) -> Report:
    model = onnx.read(data)
    weights = {i.name: i for i in model.initializers}
    weights |= {n.outputs[0]: n.tensor for n in model.nodes if n.op_type == "Constant" and n.tensor and n.outputs}
    shapes = {v.name: v.shape for v in (*model.values, *model.outputs)}
    operators = tuple(
        OperatorRow(
            i, n.name, n.op_type if not n.domain else f"{n.domain}.{n.op_type}", "",
            tuple(x for x in n.inputs if x and x not in weights), tuple(x for x in n.outputs if x),
            shapes.get(n.outputs[0], ()) if n.outputs else (),
            sum(weights[x].size for x in n.inputs if x in weights),
            ", ".join(f"{k} {v}" for k, v in n.attributes.items())[:200],
        )
        for i, n in enumerate(model.nodes)
        if n.op_type != "Constant" or not n.tensor
    )  # fmt: skip
    findings = []
    if any(w.external for w in weights.values()):
        findings.append(Finding(NOTE, "external", "some weights lie in other files beside this one"))
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets)
    return Report(
        path=str(path), kind="onnx", size=len(data), inputs=rows(model.inputs), outputs=rows(model.outputs),
        facts={"graph": model.name, "IR version": model.ir_version, "opsets": opsets, "producer": model.producer},
        operators=operators, memory=(Bar("file", (("weights", sum(w.size for w in weights.values())),)),),
        findings=tuple(findings),
    )  # fmt: skip


def _tf_operators(nodes: tuple[tensorflow.Node, ...]) -> tuple[OperatorRow, ...]:
    """All but stored values: constants, and variables, whose bytes lie in other files."""
    stored = {n.name: n.constant_bytes for n in nodes if n.op in ("Const", "ReadVariableOp")}
    rows = []
    for i, n in enumerate(nodes):
        sources = [x.split(":", 1)[0] for x in n.inputs if not x.startswith("^")]
        if n.name in stored:
            continue
        rows.append(
            OperatorRow(
                i, n.name, n.op, "", tuple(x for x in sources if x not in stored), (n.name,), n.shape,
                sum(stored.get(x, 0) for x in sources), n.datatype,
            )
        )  # fmt: skip
    return tuple(rows)


def graphdef_report(data: bytes, path: Path, _depth: int) -> Report:
    graph = tensorflow.read_graphdef(data)
    findings = []
    if graph.variables:
        text = f"{graph.variables} variables: the graph is not frozen, their values lie elsewhere"
        findings.append(Finding(WARNING, "not-frozen", text))
    return Report(
        path=str(path), kind="tf-graphdef", size=len(data), inputs=rows(graph.inputs), outputs=rows(graph.outputs),
        facts={"nodes": len(graph.nodes), "functions": len(graph.functions), "producer": graph.producer},
        operators=_tf_operators(graph.body()),
        memory=(Bar("file", (("constants", sum(n.constant_bytes for n in graph.nodes)),)),), findings=tuple(findings),
    )  # fmt: skip


def _meta(meta: tensorflow.MetaGraph, kind: str, size: int, path: Path) -> Report:
    best = next((s for s in meta.signatures if s.key == "serving_default"), None)
    return Report(
        path=str(path),
        kind=kind,
        size=size,
        facts={
            "TensorFlow": meta.tensorflow_version, "tags": ", ".join(meta.tags), "nodes": len(meta.graph.nodes),
            "functions": len(meta.graph.functions), "signatures": ", ".join(s.key for s in meta.signatures),
        },
        inputs=rows(best.inputs if best else meta.graph.inputs),
        outputs=rows(best.outputs if best else meta.graph.outputs),
        operators=_tf_operators(meta.graph.body(best.nodes if best else ())),
    )  # fmt: skip


def saved_model_report(data: bytes, path: Path, _depth: int) -> Report:
    graphs = tensorflow.read_saved_model(data)
    return _meta(graphs[0], "tf-savedmodel", len(data), path)


def metagraph_report(data: bytes, path: Path, _depth: int) -> Report:
    report = _meta(tensorflow.read_meta(data), "tf-metagraph", len(data), path)
    index = path.with_suffix(".index")
    if not index.is_file():
        return report
    return with_parts(report, (checkpoint_report(load(index), index, 0),))


def checkpoint_report(data: bytes, path: Path, _depth: int) -> Report:
    index = tensorflow.read_checkpoint_index(data)
    findings = []
    for shard in range(min(index.shards, 1024)):
        name = f"{path.stem}.data-{shard:05d}-of-{index.shards:05d}"
        if not (path.parent / name).is_file():
            findings.append(Finding(WARNING, "no-data", f"{name} is not beside it: the values are missing"))
            break
    return Report(
        path=str(path), kind="tf-checkpoint-index", size=len(data), findings=tuple(findings),
        facts={"variables": len(index.variables), "shards": index.shards, "bytes of values": index.size},
        memory=(Bar("values", (("variables", index.size),)),),
    )  # fmt: skip


def prototxt_report(data: bytes, path: Path, _depth: int) -> Report:
    net = caffe.read_prototxt(data)
    weights: dict[str, caffe.WeightLayer] = {}
    binary = path.with_suffix(".caffemodel")
    if binary.is_file():
        weights = {x.name: x for x in caffe.read_caffemodel(load(binary)).layers}
    # A blob that a layer works on in place gets a new version at every write, so that edges keep their order.
    version: dict[str, int] = {}
    operators = []
    for i, x in enumerate(net.layers):
        inputs = tuple(f"{b}#{version.get(b, 0)}" for b in x.bottoms)
        for top in x.tops:
            version[top] = version.get(top, 0) + 1
        outputs = tuple(f"{t}#{version[t]}" for t in x.tops)
        size = weights[x.name].size if x.name in weights else 0
        operators.append(OperatorRow(i, x.name, x.type, "", inputs, outputs, (), size))
    missing = [x.name for x in net.layers if weights and x.type == "Convolution" and x.name not in weights]
    findings = [Finding(WARNING, "no-weights", f"{binary.name} has no weights for {missing[0]!r}")] if missing else []
    return Report(
        path=str(path), kind="caffe-prototxt", size=len(data), inputs=rows(net.inputs), outputs=rows(net.outputs),
        facts={"network": net.name, "input form": net.input_form, "layers": len(net.layers),
               "weights": binary.name if weights else "no .caffemodel beside it"},
        operators=tuple(operators), findings=tuple(findings),
        memory=(Bar("weights", tuple((x.name, x.size) for x in weights.values() if x.size)),) if weights else (),
    )  # fmt: skip


def caffemodel_report(data: bytes, path: Path, _depth: int) -> Report:
    net = caffe.read_caffemodel(data)
    operators = tuple(
        OperatorRow(i, x.name, x.type, "", (), (), x.blobs[0] if x.blobs else (), x.size)
        for i, x in enumerate(net.layers)
    )
    return Report(
        path=str(path), kind="caffemodel", size=len(data), facts={"network": net.name, "layers": len(net.layers)},
        operators=operators, memory=(Bar("file", (("weights", sum(x.size for x in net.layers)),)),),
    )  # fmt: skip
