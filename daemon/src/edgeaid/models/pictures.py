"""What a bare .tflite does with pictures, as far as its file says: normalisation, task, order of a detector's outputs.

One rule for normalisation everywhere: the file's metadata, else what its producer is known to do, else an assumption
its pusher is told.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..formats.tflite.metadata import Metadata, TensorMetadata, attached_text, exporter_facts
from ..formats.tflite.model import Operator, Subgraph, TfliteModel
from ..formats.wire.binary import Data, as_view
from ..tensors import TensorSpec
from .rules import SSD_ORDER

#: What is assumed of a model that says nothing: pixels to 0 .. 1.
ASSUMED: Final = (0.0, 255.0)
DETECTION: Final = "TFLite_Detection_PostProcess"
#: Operators that hand on what they were given, as other numbers or in another shape.
_PASSING: Final = frozenset({"QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST", "EXPAND_DIMS", "TRANSPOSE"})
_PROBABILITIES: Final = frozenset({"SOFTMAX", "LOGISTIC", "LOG_SOFTMAX"})
_SCORES: Final = frozenset({"FULLY_CONNECTED", "CONV_2D", "ADD", "MEAN", "AVERAGE_POOL_2D", "BATCH_MATMUL"})
#: Part of a tensor's name -> (producer, mean, std).
_PRODUCERS: Final[Mapping[str, tuple[str, float, float]]] = {
    "MobilenetV1/": ("TensorFlow-Slim (MobilenetV1)", 127.5, 127.5),
    "MobilenetV2/": ("TensorFlow-Slim (MobilenetV2)", 127.5, 127.5),
    "MobilenetV3/": ("TensorFlow-Slim (MobilenetV3)", 127.5, 127.5),
    "MobilenetEdgeTPU/": ("TensorFlow-Slim (MobilenetEdgeTPU)", 127.5, 127.5),
    "InceptionV": ("TensorFlow-Slim (Inception)", 127.5, 127.5),
    "InceptionResnetV2/": ("TensorFlow-Slim (Inception)", 127.5, 127.5),
    "normalized_input_image_tensor": ("the TensorFlow Object Detection API", 127.5, 127.5),
    "FeatureExtractor/": ("the TensorFlow Object Detection API", 127.5, 127.5),
    "dense_Dense": ("Teachable Machine", 127.5, 127.5),
}
#: The same for what the file says of itself.
_AUTHORS: Final[Mapping[str, tuple[str, float, float]]] = {
    "ultralytics": ("Ultralytics", 0.0, 255.0),
    "teachable machine": ("Teachable Machine", 127.5, 127.5),
}
#: A first factor below this turns 0 .. 255 into what networks compute with; one above it expects 0 .. 1.
_PER_PIXEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Normalisation:
    """real = (pixel - mean) / std; both None = raw pixels."""

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    #: Where it comes from.
    why: str
    #: False when the file does not say it.
    known: bool = True
    #: Lines of the manifest that say how the picture is placed in the tensor.
    placing: tuple[str, ...] = ()


#: As Ultralytics' own pre-processing does it.
_BORDERS: Final = ('resize = "letterbox"', "fill = 114")


def normalisation(data: Data, model: TfliteModel, about: Metadata | None, decoder: str = "") -> Normalisation:
    """How pixels become the model's only input, which is a picture; `decoder` = the one known from its outputs."""
    ultralytics = bool(exporter_facts(data))
    if ultralytics or decoder.startswith(("yolov", "yolo-end2end")):
        placing = ('resize = "crop"',) if decoder == "classification" else _BORDERS
        why = "what Ultralytics does" if ultralytics else f"what exporters of {decoder} do"
        return Normalisation((0.0,), (255.0,), why, placing=placing)
    if decoder == "yolox" and model.inputs[0].datatype == "FP32":
        return Normalisation((0.0,), (1.0,), "pixels as they are, as YOLOX takes them")
    rule = _without_decoder(data, model, about)
    if not rule.known and decoder:
        # The detectors and pose estimators that are known from their outputs are TensorFlow's and MediaPipe's.
        return Normalisation((127.5,), (127.5,), f"what models with the decoder {decoder} are trained with")
    return rule


def _without_decoder(data: Data, model: TfliteModel, about: Metadata | None) -> Normalisation:
    spec = model.inputs[0]
    told = about.inputs[0] if about is not None and about.inputs else None
    if told is not None and told.mean and told.std and min(told.std) > 0 and len(told.mean) == len(told.std):
        if spec.datatype in ("UINT8", "INT8") and _is_raw(spec, told):
            return Normalisation(None, None, "raw pixels, which the file's metadata and quantisation agree on")
        return Normalisation(told.mean, told.std, "the file's metadata")
    if spec.datatype in ("UINT8", "INT8"):
        return Normalisation(None, None, "raw pixels, as the input is an integer of 8 bits")
    factor = _first_factor(data, model)
    if factor is not None:
        if factor <= _PER_PIXEL:
            return Normalisation((0.0,), (1.0,), "pixels as they are: the graph itself rescales them")
        return Normalisation((0.0,), (255.0,), "0 to 1: the graph itself normalises that")
    producer = _producer(data, model, about)
    if producer is not None:
        name, mean, std = producer
        return Normalisation((mean,), (std,), f"what {name} does")
    mean, std = ASSUMED
    return Normalisation(
        (mean,), (std,), "an assumption: nothing in the file says how pixels are normalised", known=False
    )


def _is_raw(spec: TensorSpec, told: TensorMetadata) -> bool:
    """Whether normalising and quantising gives the pixels again; if not, a float model's normalisation was copied."""
    quantization = spec.quantization
    if quantization is None or len(quantization.scale) != 1 or quantization.scale[0] <= 0 or len(told.mean) != 1:
        return True
    offset = 128 if spec.datatype == "INT8" else 0
    scale, zero = quantization.scale[0], quantization.zero_point[0]
    stored = [(p - told.mean[0]) / told.std[0] / scale + zero + offset for p in (0, 64, 128, 192, 255)]
    near = all(abs(s - p) <= 2 for s, p in zip(stored, (0, 64, 128, 192, 255), strict=True))
    beyond = sum(not -2 <= s <= 257 for s in stored)
    return near or beyond >= 3


def _first_factor(data: Data, model: TfliteModel) -> float | None:
    """Factor that the graph's first arithmetic gives a pixel, None when it begins with something else."""
    graph = model.subgraphs[0]
    tensor, factor = graph.inputs[0], None
    for _ in range(8):
        users = [o for o in graph.operators if tensor in o.inputs]
        if len(users) != 1 or not users[0].outputs:
            break
        operator = users[0]
        if operator.name in ("MUL", "DIV", "SUB", "ADD"):
            value = _constant(data, model, operator, tensor)
            if value is None:
                break
            if operator.name == "MUL":
                factor = (factor or 1.0) * abs(value)
            elif operator.name == "DIV" and value:
                factor = (factor or 1.0) / abs(value)
            elif factor is None and abs(value) > 2:
                factor = 1e-9  # a mean of pixels is taken away: they are 0 .. 255
        elif operator.name not in _PASSING:
            break
        tensor = operator.outputs[0]
    return factor


def _constant(data: Data, model: TfliteModel, operator: Operator, tensor: int) -> float | None:
    """First value of the float constant beside `tensor`."""
    graph = model.subgraphs[0]
    other = next((graph.tensors[i] for i in operator.inputs if i >= 0 and i != tensor), None)
    if other is None or not other.constant or other.datatype != "FP32":
        return None
    buffer = model.buffers[other.buffer]
    if buffer.size < 4:
        return None
    value: float = struct.unpack_from("<f", as_view(data), buffer.offset)[0]
    return value


def _producer(data: Data, model: TfliteModel, about: Metadata | None) -> tuple[str, float, float] | None:
    texts = (model.description, *((about.author, about.description, about.name) if about else ()), attached_text(data))
    said = " ".join(filter(None, texts))
    for part, known in _AUTHORS.items():
        if part in said.lower():
            return known
    names = [t.name for t in model.subgraphs[0].tensors]
    return next((known for part, known in _PRODUCERS.items() if any(part in name for name in names)), None)


# --- what the outputs mean ------------------------------------------------------------------------------------------


def picture_input(model: TfliteModel) -> tuple[int, int, int] | None:
    """(height, width, channels) of a model whose only input can be a picture, else None."""
    shape = model.inputs[0].shape if len(model.inputs) == 1 else ()
    if len(shape) != 4 or shape[0] != 1 or model.inputs[0].datatype in ("BOOL", "BYTES"):
        return None
    if shape[3] in (1, 3):
        return shape[1], shape[2], shape[3]
    return (shape[2], shape[3], shape[1]) if shape[1] in (1, 3) else None


def task_of(model: TfliteModel, labels: int) -> str:
    """classify, detect, segment or other, from the graph; `labels` = how many names of classes come with the file."""
    size = picture_input(model)
    if size is None:
        return "other"
    shapes = [s.shape for s in model.outputs]
    if len(shapes) == 4 and (ssd_order(model) is not None or _is_ssd(model)):
        return "detect"
    if len(shapes) != 1:
        return "other"
    shape = shapes[0]
    wide = shape[-1] if shape else 0
    if len(shape) == 2 and shape[0] == 1 and wide > 1:
        return "classify"
    if len(shape) == 4 and shape[:3] == (1, 1, 1) and wide > 1:
        return "classify" if labels in (wide, wide - 1) or _ends_in_scores(model) else "other"
    if len(shape) == 3 and shape[0] == 1 and model.outputs[0].datatype.startswith(("INT", "UINT")):
        return "segment" if _near(shape[1:], size) else "other"
    if len(shape) == 4 and shape[0] == 1 and _near(shape[1:3], size):
        # Three channels may be a picture again: only labels tell.
        return "segment" if wide == labels or (wide > 3 and _ends_in_map(model)) else "other"
    return "other"


def _near(grid: tuple[int, ...], size: tuple[int, int, int]) -> bool:
    """Whether a grid has the form of the picture, at its size or a part of it."""
    rows, columns = grid[0], grid[1]
    if rows < 8 or columns < 8 or rows > size[0] or columns > size[1]:
        return False
    return abs(size[0] / rows - size[1] / columns) <= 0.25 * size[0] / rows


def _ends_in_scores(model: TfliteModel) -> bool:
    last = _maker(model, model.subgraphs[0].outputs[0])
    return last is not None and last.name in _PROBABILITIES


def _ends_in_map(model: TfliteModel) -> bool:
    last = _maker(model, model.subgraphs[0].outputs[0])
    return last is not None and last.name in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SOFTMAX")


def activation_of(model: TfliteModel) -> str:
    """What makes probabilities of a classifier's only output: softmax where its graph ends with raw scores."""
    last = _maker(model, model.subgraphs[0].outputs[0])
    return "softmax" if last is not None and last.name in _SCORES else "none"


def _maker(model: TfliteModel, tensor: int) -> Operator | None:
    """The operator that computes a tensor's values, operators that only hand them on left out."""
    graph = model.subgraphs[0]
    for _ in range(8):
        operator = next((o for o in graph.operators if tensor in o.outputs), None)
        if operator is None or operator.name not in _PASSING or not operator.inputs:
            return operator
        tensor = operator.inputs[0]
    return None


def ssd_order(model: TfliteModel) -> tuple[str, ...] | None:
    """What each output is, from the detection post-processing operator: its own outputs have a fixed order."""
    graph = model.subgraphs[0]
    operator = next((o for o in graph.operators if o.custom_code == DETECTION), None)
    if operator is None or len(operator.outputs) != len(SSD_ORDER):
        return None
    meaning = dict(zip(operator.outputs, SSD_ORDER, strict=True))
    order = tuple(_meaning(graph, tensor, meaning) for tensor in graph.outputs)
    return order if sorted(order) == sorted(SSD_ORDER) else None


def _meaning(graph: Subgraph, tensor: int, meaning: Mapping[int, str]) -> str:
    """What an output is: the operator's, or made from one of its outputs."""
    for _ in range(8):
        if tensor in meaning:
            return meaning[tensor]
        maker = next((o for o in graph.operators if tensor in o.outputs), None)
        if maker is None or not maker.inputs:
            break
        tensor = maker.inputs[0]
    return ""


def _is_ssd(model: TfliteModel) -> bool:
    """Whether four outputs have the shapes of boxes, classes, scores and count."""
    return _by_shape([s.shape for s in model.outputs]) is not None


def _by_shape(shapes: list[tuple[int, ...]]) -> tuple[int, int, tuple[int, int]] | None:
    """Positions of boxes, count and the two that have one value per box."""
    boxes = [i for i, s in enumerate(shapes) if len(s) == 3 and s[2] == 4]
    count = [i for i, s in enumerate(shapes) if s in ((1,), (), (1, 1))]
    if len(boxes) != 1 or len(count) != 1:
        return None
    rest = [i for i in range(len(shapes)) if i not in (boxes[0], count[0])]
    per_box = shapes[boxes[0]][:2]
    return (boxes[0], count[0], (rest[0], rest[1])) if all(shapes[i] == per_box for i in rest) else None


#: Words in names and descriptions of outputs -> what the output is.
_WORDS: Final = (
    ("classes", ("class", "categor", "label")),
    ("scores", ("score", "confidence", "probab")),
)


def guessed_order(model: TfliteModel, about: Metadata | None) -> tuple[tuple[str, ...], str] | None:
    """(order, where it comes from) of a detector without the operator: shapes, then metadata or names."""
    known = ssd_order(model)
    if known is not None:
        return known, f"the operator {DETECTION}"
    places = _by_shape([s.shape for s in model.outputs])
    if places is None:
        return None
    order = [""] * 4
    order[places[0]], order[places[1]] = "boxes", "count"
    for source, texts in (
        ("the file's metadata", [f"{t.name} {t.description}".lower() for t in about.outputs] if about else []),
        ("the outputs' names", [s.name.lower() for s in model.outputs]),
    ):
        if len(texts) != 4:
            continue
        said = {i: [what for what, words in _WORDS if any(w in texts[i] for w in words)] for i in places[2]}
        first, second = said[places[2][0]], said[places[2][1]]
        if len(first) == 1 and first != second:
            order[places[2][0]] = first[0]
            order[places[2][1]] = "scores" if first[0] == "classes" else "classes"
            return tuple(order), source
    # Exporters of TensorFlow 2 number the operator's outputs in its own order.
    numbers = [s.name.rpartition(":")[2] for s in model.outputs]
    if sorted(numbers) == ["0", "1", "2", "3"] and numbers[places[0]] in ("0", "3"):
        names = SSD_ORDER if numbers[places[0]] == "0" else ("count", "scores", "classes", "boxes")
        order = [names[int(n)] for n in numbers]
        if order[places[0]] == "boxes" and order[places[1]] == "count":
            return tuple(order), "the outputs' numbers"
    order[places[2][0]], order[places[2][1]] = "classes", "scores"
    return tuple(order), "an assumption"
