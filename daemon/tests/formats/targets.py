"""Which reader is for which kind of file, and a small sound file of each kind to damage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from edgeaid.errors import EdgeaiError
from edgeaid.formats.edgetpu import reader as edgetpu
from edgeaid.formats.edgetpu import rules as edgetpu_rules
from edgeaid.formats.exchange import caffe, keras, onnx, openvino, pytorch, tensorflow
from edgeaid.formats.k210 import kfpkg, kmodel
from edgeaid.formats.ncs import reader as ncs
from edgeaid.formats.tflite import entry, kernels
from edgeaid.formats.tflite import metadata as tflite_metadata
from edgeaid.formats.tflite import reader as tflite
from edgeaid.formats.wire import tardir, zipdir

from .builders import SEEDS


def _tflite(data: bytes) -> None:
    model = tflite.read(data)
    for tensor in model.subgraphs[0].tensors:
        tflite.constant(data, model, tensor)
    for graph in model.subgraphs:
        for operator in graph.operators:
            kernels.problem(operator, graph.tensors)
    for name in (entry.input_names, entry.output_names, entry.state_of, entry.signature_of):
        name(model)
    for look in (tflite_metadata.metadata, tflite_metadata.labels):
        with suppress(EdgeaiError):
            look(data, model)
    tflite_metadata.exporter_labels(tflite_metadata.exporter_facts(data))
    with suppress(EdgeaiError):
        tflite_metadata.attached_text(data)


def _edgetpu(data: bytes) -> None:
    edgetpu_rules.check(edgetpu.read(data))


def _zip(data: bytes) -> None:
    for one in zipdir.entries(data):
        zipdir.read(data, one, 1 << 20)


def _caffemodel(data: bytes) -> None:
    caffe.read_caffemodel(data)
    caffe.read_values(data)


def _graphdef(data: bytes) -> object:
    graph = tensorflow.read_graphdef(data)
    return graph.inputs, graph.outputs, graph.body()


READERS: dict[str, Callable[[bytes], object]] = {
    "tflite": _tflite,
    "edgetpu": _edgetpu,
    "kmodel-v3": lambda d: kmodel.check(kmodel.read(d)),
    "kmodel-v4": lambda d: kmodel.check(kmodel.read(d)),
    "kmodel-v5": lambda d: kmodel.check(kmodel.read(d)),
    "kfpkg": lambda d: kfpkg.check(kfpkg.read(d)),
    "ncs-v1": lambda d: ncs.check(ncs.read(d)),
    "ncs-v2": lambda d: ncs.check(ncs.read(d)),
    "myriad-blob": ncs.read_blob,
    "openvino-ir": lambda d: openvino.read(d, 32),
    "onnx": onnx.read,
    "tf-graphdef": _graphdef,
    "tf-savedmodel": lambda d: [meta.graph.body() for meta in tensorflow.read_saved_model(d)],
    "tf-metagraph": tensorflow.read_meta,
    "tf-checkpoint-index": tensorflow.read_checkpoint_index,
    "caffe-prototxt": caffe.read_prototxt,
    "caffemodel": _caffemodel,
    "keras": keras.read,
    "keras-h5": keras.read,
    "torch-export": pytorch.read,
    "torchscript": pytorch.read,
    "torch-pickle": pytorch.read,
    "zip": _zip,
    "tar": tardir.entries,
}
WORDS = {kind: seed() for kind, seed in SEEDS.items()}


def try_reading(kind: str, data: bytes) -> bool:
    """Whether the reader of `kind` took the data; anything but an EdgeaiError escapes."""
    try:
        READERS[kind](data)
    except EdgeaiError:
        return False
    return True
