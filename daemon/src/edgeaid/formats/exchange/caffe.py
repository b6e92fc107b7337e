"""Caffe networks: the text that describes one (prototxt) and the binary that holds its weights (caffemodel).

Field numbers: BVLC/caffe:src/caffe/proto/caffe.proto. The text is protobuf's text format, parsed here under limits into
nested dictionaries: field name -> list of values, as every field may repeat.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel, TooLarge
from ...tensors import TensorSpec
from ..wire.binary import Data, as_view, text
from ..wire.protobuf import Wire, string

MAX_TEXT_BYTES: Final = 32 * 1024 * 1024
MAX_TOKENS: Final = 500_000
MAX_DEPTH: Final = 32

Scalar = str | int | float | bool
#: A message: field name -> values in file order.
Message = dict[str, list["Scalar | Message"]]

_TOKEN: Final = re.compile(
    r"""\s+ | \#[^\n]* | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*') | (?P<mark>[{}<>\[\]:;,])
    | (?P<word>[^\s{}<>\[\]:;,"'\#]+)""",
    re.VERBOSE,
)
_INT: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})\Z")
_FLOAT: Final = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,4})?[fF]?\Z")

#: V1LayerParameter.LayerType -> name, the ones the NCS guide knows.
_V1_TYPES: Final[dict[int, str]] = {
    1: "Accuracy", 2: "BNLL", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 7: "EuclideanLoss", 8: "Flatten",
    14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax", 21: "SoftmaxWithLoss",
    22: "Split", 23: "TanH", 25: "Eltwise", 26: "Power", 33: "Slice", 35: "AbsVal", 39: "Deconvolution",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the text."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    #: Everything the text says about it.
    message: Message


@dataclass(frozen=True, slots=True)
class CaffeNet:
    """A network's text."""

    name: str
    #: As the text gives them; shape () when it does not. Names are blob names.
    inputs: tuple[TensorSpec, ...]
    #: How the input is declared: "input_shape", "input_dim", "input_param" or "none".
    input_form: str
    #: Blobs that no layer reads.
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class WeightLayer:
    """A layer of the binary."""

    name: str
    type: str
    #: Bytes of its blobs.
    size: int
    blobs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class CaffeWeights:
    """A caffemodel."""

    name: str
    layers: tuple[WeightLayer, ...]


def parse(data: Data) -> Message:
    """Any protobuf text as nested dictionaries. Raises InvalidModel, TooLarge."""
    view = as_view(data)
    if len(view) > MAX_TEXT_BYTES:
        raise TooLarge(f"Caffe text of {len(view)} bytes, more than {MAX_TEXT_BYTES}")
    reader = _Reader()
    for kind, word, line in _tokens(bytes(view).decode("utf-8", "replace")):
        reader.take(kind, word, line)
    if len(reader.stack) > 1 or reader.field:
        raise InvalidModel("Caffe text: it ends inside a field; the file is cut off")
    return reader.stack[0][0]


class _Reader:
    """State of `parse`: open messages with their closing marks, and the field that waits for a value."""

    def __init__(self) -> None:
        self.stack: list[tuple[Message, str]] = [({}, "")]
        self.field = ""
        self.in_list = False

    def take(self, kind: str, word: str, line: int) -> None:
        """The next token."""
        closing = self.stack[-1][1]
        if self.field and kind == "mark":
            self._mark(word, line)
        elif self.field:
            self.stack[-1][0].setdefault(self.field, []).append(word[1:-1] if kind == "string" else _scalar(word))
            if not self.in_list:
                self.field = ""
        elif kind == "word":
            self.field = word
        elif word == closing and closing:
            self.stack.pop()
        elif word not in (";", ","):
            raise InvalidModel(f"Caffe text, line {line}: unexpected {word[:40]!r}")

    def _mark(self, word: str, line: int) -> None:
        """A mark where a field's value should be or go on."""
        if word in ("{", "<"):
            if len(self.stack) >= MAX_DEPTH:
                raise InvalidModel(f"Caffe text, line {line}: more than {MAX_DEPTH} levels")
            inner: Message = {}
            self.stack[-1][0].setdefault(self.field, []).append(inner)
            self.stack.append((inner, "}" if word == "{" else ">"))
            self.field = ""
        elif word == "[" and not self.in_list:
            self.in_list = True
        elif word == "]" and self.in_list:
            self.in_list, self.field = False, ""
        elif word != ":" and not (word == "," and self.in_list):
            raise InvalidModel(f"Caffe text, line {line}: {word!r} where the value of {self.field!r} should be")


def _tokens(source: str) -> Iterator[tuple[str, str, int]]:
    pos = count = 0
    line = 1
    while pos < len(source):
        match = _TOKEN.match(source, pos)
        if match is None:
            raise InvalidModel(f"Caffe text, line {line}: cannot read {source[pos : pos + 20]!r}")
        line += source.count("\n", pos, match.end())
        pos = match.end()
        if match.lastgroup:
            count += 1
            if count > MAX_TOKENS:
                raise TooLarge(f"Caffe text: more than {MAX_TOKENS} words")
            yield match.lastgroup, match.group(), line


def _scalar(word: str) -> Scalar:
    if word in ("true", "false"):
        return word == "true"
    if _INT.match(word):
        return int(word, 16 if "x" in word.lower() else 10)
    if _FLOAT.match(word):
        return float(word.rstrip("fF"))
    return word


def texts(message: Message, field: str) -> tuple[str, ...]:
    """All scalar values of a field as text."""
    return tuple(str(v) for v in message.get(field, ()) if not isinstance(v, dict))


def messages(message: Message, field: str) -> tuple[Message, ...]:
    """All messages of a field."""
    return tuple(v for v in message.get(field, ()) if isinstance(v, dict))


def ints(message: Message, field: str) -> tuple[int, ...]:
    """All whole numbers of a field."""
    return tuple(v for v in message.get(field, ()) if isinstance(v, int) and not isinstance(v, bool))


def read_prototxt(data: Data) -> CaffeNet:
    """Read a network's text. Raises InvalidModel, TooLarge."""
    root = parse(data)
    entries = messages(root, "layer") or messages(root, "layers")
    if not entries:
        raise InvalidModel("Caffe text: it has no layers; this is not a network")
    layers = tuple(
        Layer(
            next(iter(texts(m, "name")), ""),
            next(iter(texts(m, "type")), ""),
            texts(m, "bottom"),
            texts(m, "top"),
            m,
        )
        for m in entries
    )
    inputs, form = _inputs(root, layers)
    read_by_others = {b for layer in layers for b in layer.bottoms}
    ends = dict.fromkeys(t for layer in layers for t in layer.tops if t not in read_by_others)
    # In-place layers read and write one blob: the last writer's result is an output when no later layer reads it.
    for layer in layers[-1:]:
        for top in layer.tops:
            ends.setdefault(top)
    return CaffeNet(
        name=next(iter(texts(root, "name")), ""),
        inputs=inputs,
        input_form=form,
        outputs=tuple(TensorSpec(name, "FP32", ()) for name in ends),
        layers=layers,
    )


def _inputs(root: Message, layers: tuple[Layer, ...]) -> tuple[tuple[TensorSpec, ...], str]:
    names = texts(root, "input")
    shapes = [ints(m, "dim") for m in messages(root, "input_shape")]
    form = "input_shape" if shapes else "none"
    if not shapes and ints(root, "input_dim"):
        dims = ints(root, "input_dim")
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
        form = "input_dim"
    specs = [TensorSpec(name, "FP32", shapes[i] if i < len(shapes) else ()) for i, name in enumerate(names)]
    for layer in layers:
        if layer.type != "Input":
            continue
        form = "input_param"
        listed = [ints(s, "dim") for p in messages(layer.message, "input_param") for s in messages(p, "shape")]
        for i, top in enumerate(layer.tops):
            specs.append(TensorSpec(top, "FP32", listed[min(i, len(listed) - 1)] if listed else ()))
    return tuple(specs), form


def read_caffemodel(data: Data) -> CaffeWeights:
    """Read the layers of a caffemodel; values are only measured. Raises InvalidModel."""
    wire = Wire(data, "caffemodel")
    name, layers = "", []
    for number, _, value in wire.fields():
        if number == 1:
            name = string(value)
        elif number in (2, 100) and not isinstance(value, int):
            layers.append(_weights(wire, value, old=number == 2))
    if not layers:
        raise InvalidModel("caffemodel: it has no layers; the file is damaged or of another kind")
    return CaffeWeights(name, tuple(layers))


def _weights(wire: Wire, message: memoryview, *, old: bool) -> WeightLayer:
    name_field, type_field, blob_field = (4, 5, 6) if old else (1, 2, 7)
    name = kind = ""
    size = 0
    blobs = []
    for number, _, value in wire.fields(message):
        if number == name_field:
            name = string(value)
        elif number == type_field:
            kind = _V1_TYPES.get(value, f"type {value}") if isinstance(value, int) else text(value)
        elif number == blob_field and not isinstance(value, int):
            shape, used = _blob(wire, value)
            blobs.append(shape)
            size += used
    return WeightLayer(name, kind, size, tuple(blobs))


def _blob(wire: Wire, message: memoryview) -> tuple[tuple[int, ...], int]:
    """(shape, bytes of values)."""
    old = {}
    shape: list[int] = []
    size = 0
    for number, _, value in wire.fields(message):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number] = value
        elif number in (5, 8):
            size += 4 if isinstance(value, int) else len(value)
        elif number == 7 and not isinstance(value, int):
            for key, _, dims in wire.fields(value):
                if key == 1:
                    shape += wire.ints(dims)
    return tuple(shape) or tuple(old[k] for k in sorted(old)), size


def read_values(data: Data) -> dict[str, list[tuple[tuple[int, ...], str, memoryview]]]:
    """The weights of a caffemodel: layer -> (shape, numpy dtype, bytes) of each blob. Raises InvalidModel."""
    wire = Wire(data, "caffemodel")
    read_caffemodel(data)
    result: dict[str, list[tuple[tuple[int, ...], str, memoryview]]] = {}
    for number, _, layer in wire.fields():
        if number not in (2, 100) or isinstance(layer, int):
            continue
        name_field, blob_field = (4, 6) if number == 2 else (1, 7)
        name, blobs = "", []
        for field, _, value in wire.fields(layer):
            if field == name_field:
                name = string(value)
            elif field == blob_field and not isinstance(value, int):
                blobs.append(_values(wire, value))
        if blobs:
            result[name] = blobs
    return result


def _values(wire: Wire, message: memoryview) -> tuple[tuple[int, ...], str, memoryview]:
    shape, _ = _blob(wire, message)
    for number, _, value in wire.fields(message):
        if number in (5, 8) and not isinstance(value, int):
            kind, width = ("<f4", 4) if number == 5 else ("<f8", 8)
            if math.prod(shape) * width != len(value):
                raise InvalidModel(f"caffemodel: a blob {list(shape)} has {len(value)} bytes; the file is damaged")
            return shape, kind, value
    raise InvalidModel("caffemodel: a blob has no values; the file is damaged")
