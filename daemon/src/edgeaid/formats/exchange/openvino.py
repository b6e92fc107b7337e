"""OpenVINO IR: the XML half of a model; the weights in the .bin file are only measured.

Parsed with expat under limits. A document type or entity of its own is refused before it can expand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from ...errors import InvalidModel, TooLarge, Unsupported
from ...tensors import TensorSpec
from ..wire.binary import Data, as_view

MAX_XML_BYTES: Final = 256 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_ELEMENTS: Final = 4_000_000
#: Versions of the IR that are read here. 2021.4 reads 10 and 2022.3 reads 10 and 11; both refuse 2 to 7 as "removed
#: from the product" (tried with 2021.4.2 and 2022.3.2). OpenVINO 2018 to 2020 wrote 2 to 7; 8 and 9 were steps on the
#: way from one form to the other, so that the form is told by the layers.
VERSIONS: Final = tuple(range(2, 12))

_TYPES: Final[dict[str, str]] = {
    "f32": "FP32", "f16": "FP16", "bf16": "BF16", "f64": "FP64", "i8": "INT8", "i16": "INT16", "i32": "INT32",
    "i64": "INT64", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64", "boolean": "BOOL",
    "string": "BYTES", "i4": "INT4", "u4": "UINT4", "u1": "UINT1",
    "fp32": "FP32", "fp16": "FP16", "fp64": "FP64", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Port:
    """One side of an edge."""

    id: int
    datatype: str
    #: -1 = variable.
    shape: tuple[int, ...]
    names: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A node of the graph."""

    id: int
    name: str
    type: str
    opset: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    #: Attributes of <data>: strides, pads, element_type, and offset and size of constants.
    data: dict[str, str]
    #: IR up to 7: (name such as "weights", offset, bytes) of what the layer has in the .bin file.
    blobs: tuple[tuple[str, int, int], ...] = ()

    @property
    def constant(self) -> tuple[int, int]:
        """(offset, bytes) in the .bin file of a Const layer, (0, 0) otherwise."""
        if self.type != "Const":
            return 0, 0
        return _int(self.data.get("offset", "0")), _int(self.data.get("size", "0"))

    @property
    def weights_bytes(self) -> int:
        """Bytes that this layer itself has in the .bin file."""
        return self.constant[1] + sum(size for _, _, size in self.blobs)


@dataclass(frozen=True, slots=True)
class OpenvinoIR:
    """A model in OpenVINO's own format."""

    name: str
    version: int
    layers: tuple[Layer, ...]
    #: (from layer, from port, to layer, to port)
    edges: tuple[tuple[int, int, int, int], ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    #: Bytes the .bin file must have.
    weights_bytes: int


class _Parser:
    """Collects layers and edges of the outermost graph; bodies of loops are passed over."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.left = MAX_ELEMENTS
        self.net: dict[str, str] = {}
        self.layers: list[Layer] = []
        self.edges: list[tuple[int, int, int, int]] = []
        self.layer: dict[str, str] = {}
        self.data: dict[str, str] = {}
        self.ports: dict[str, list[Port]] = {}
        self.blobs: list[tuple[str, int, int]] = []
        self.port: dict[str, str] = {}
        self.dims: list[str] = []
        self.text = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.path.append(tag)
        self.left -= 1
        if len(self.path) > MAX_DEPTH or self.left < 0:
            raise InvalidModel("OpenVINO IR: too many or too deeply nested elements")
        depth = len(self.path)
        if depth == 1:
            if tag != "net":
                raise InvalidModel(f"OpenVINO IR: the XML starts with <{tag[:40]}>, not with <net>")
            self.net = attributes
        elif depth == 3 and self.path[1] == "layers" and tag == "layer":
            self.layer, self.data, self.ports, self.blobs = attributes, {}, {"input": [], "output": []}, []
        elif depth == 3 and self.path[1] == "edges" and tag == "edge":
            a, b, c, d = (_int(attributes.get(k, "0")) for k in ("from-layer", "from-port", "to-layer", "to-port"))
            self.edges.append((a, b, c, d))
        elif self.path[1] == "layers" and depth in (4, 5):
            self._detail(tag, depth, attributes)
        self.text = ""

    def _detail(self, tag: str, depth: int, attributes: dict[str, str]) -> None:
        """What stands inside a layer: <data> (IR 2: <convolution_data> and the like), ports, blobs."""
        if depth == 5 and tag == "port":
            self.port, self.dims = attributes, []
        elif "offset" in attributes and "size" in attributes and (depth == 5) == (self.path[3] == "blobs"):
            if tag != "data":
                self.blobs.append((tag, _int(attributes["offset"]), _int(attributes["size"])))
            else:
                self.data = attributes
        elif depth == 4 and (tag == "data" or tag.endswith("_data")):
            self.data = attributes

    def characters(self, text: str) -> None:
        if len(self.path) == 6 and len(self.text) < 64:
            self.text += text

    def end(self, tag: str) -> None:
        depth = len(self.path)
        if depth == 6 and tag == "dim" and self.path[1] == "layers" and len(self.dims) < 64:
            self.dims.append(self.text.strip())
        elif depth == 5 and tag == "port" and self.path[1] == "layers" and self.path[3] in self.ports:
            # Up to IR 7 the layer says it for all its ports.
            precision = self.port.get("precision") or self.layer.get("precision", "")
            self.ports[self.path[3]].append(
                Port(
                    _int(self.port.get("id", "0")),
                    _datatype(precision),
                    tuple(_int(d) for d in self.dims),
                    self.port.get("names", ""),
                )
            )
        elif depth == 3 and tag == "layer" and self.path[1] == "layers":
            self.layers.append(
                Layer(
                    _int(self.layer.get("id", "")),
                    self.layer.get("name", ""),
                    self.layer.get("type", ""),
                    self.layer.get("version", ""),
                    tuple(self.ports["input"]),
                    tuple(self.ports["output"]),
                    self.data,
                    tuple(self.blobs),
                )
            )
        self.path.pop()


def _int(text: str) -> int:
    try:
        if len(text) <= 20:
            return int(text)
    except ValueError:
        pass
    raise InvalidModel(f"OpenVINO IR: {text[:40]!r} is not a number; the file is damaged")


def _datatype(name: str) -> str:
    """Datatype of an IR precision ("FP32", "I64") or element type ("f32"); unknown ones pass through."""
    lower = name.lower()
    return _TYPES.get(lower, name)


def _refuse(*_: object) -> None:
    raise InvalidModel("OpenVINO IR: it declares a document type or entities, which no model needs; refused")


def read(data: Data, bin_size: int | None = None) -> OpenvinoIR:
    """Read the XML. `bin_size` = bytes of the .bin file beside it, None when it is not at hand.

    Raises InvalidModel for damage and for constants outside the .bin file, TooLarge above MAX_XML_BYTES, Unsupported
    for other versions of the IR.
    """
    view = as_view(data)
    if len(view) > MAX_XML_BYTES:
        raise TooLarge(f"OpenVINO IR: {len(view)} bytes of XML, more than {MAX_XML_BYTES}")
    collected = _Parser()
    parser = expat.ParserCreate(encoding="utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = collected.start
    parser.CharacterDataHandler = collected.characters
    parser.EndElementHandler = collected.end
    try:
        parser.Parse(bytes(view), True)
    except expat.ExpatError as error:
        raise InvalidModel(f"OpenVINO IR: broken XML ({error}); the file is damaged") from None
    version = _int(collected.net.get("version", ""))
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise Unsupported(f"OpenVINO IR version {version}; {known} are read here, convert the model again")
    return _finish(collected, version, bin_size)


def _finish(collected: _Parser, version: int, bin_size: int | None) -> OpenvinoIR:
    layers = tuple(collected.layers)
    by_id = {layer.id: layer for layer in layers}
    if not layers or len(by_id) != len(layers):
        raise InvalidModel("OpenVINO IR: no layers, or two with one id; the file is damaged")
    ports = {(layer.id, port.id): port for layer in layers for port in layer.outputs}
    sources: dict[int, Port] = {}
    for from_layer, from_port, to_layer, _ in collected.edges:
        if from_layer not in by_id or to_layer not in by_id:
            raise InvalidModel(f"OpenVINO IR: an edge joins layers {from_layer} and {to_layer}, one is unknown")
        port = ports.get((from_layer, from_port))
        if port is not None:
            sources.setdefault(to_layer, port)
    weights = 0
    for layer in layers:
        for offset, size in (layer.constant, *(blob[1:] for blob in layer.blobs)):
            if offset < 0 or size < 0:
                raise InvalidModel(f"OpenVINO IR: constant {layer.name!r} has negative bounds; the file is damaged")
            weights = max(weights, offset + size)
    if bin_size is not None and weights > bin_size:
        raise InvalidModel(f"OpenVINO IR: constants end at byte {weights}, the .bin file has {bin_size}; it is cut off")
    inputs = []
    outputs = []
    for layer in layers:
        if layer.type == "Parameter":
            first = layer.outputs[0] if layer.outputs else Port(0, "", (), "")
            datatype = _datatype(layer.data.get("element_type", first.datatype))
            inputs.append(TensorSpec(layer.name, datatype, first.shape))
        elif layer.type == "Result":
            source = sources.get(layer.id) or (layer.inputs[0] if layer.inputs else Port(0, "", (), ""))
            name = source.names.split(",")[0] or layer.name
            outputs.append(TensorSpec(name, source.datatype, source.shape))
    if not any(layer.type in ("Parameter", "Result") for layer in layers):
        # The old form: inputs are layers of type Input, layers hold their own weights, and no layer marks outputs.
        used = {from_layer for from_layer, *_ in collected.edges}
        inputs = [TensorSpec(n.name, p.datatype, p.shape) for n in layers if n.type == "Input" for p in n.outputs[:1]]
        outputs = [TensorSpec(n.name, p.datatype, p.shape) for n in layers if n.id not in used for p in n.outputs]
    return OpenvinoIR(
        collected.net.get("name", ""), version, layers, tuple(collected.edges), tuple(inputs), tuple(outputs), weights
    )
