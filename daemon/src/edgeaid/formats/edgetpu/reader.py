"""Models compiled for the Edge TPU: what lies inside the `edgetpu-custom-op` operator.

A FlexBuffer map holds a Package (flatbuffer `DWN1`), which holds executables. Slots: google-coral/libedgetpu:
executable/executable.fbs; keys of the map: tflite/custom_op_data.cc. What the runtime accepts: see edgetpu_rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel
from ..tflite.reader import EDGETPU_OP, Operator, TfliteModel
from ..tflite.reader import read as read_tflite
from ..wire.binary import Data, as_view, text, unpack
from ..wire.flatbuffer import Flatbuffer, Table
from ..wire.flexbuffer import Value, decode

STAND_ALONE: Final = "stand-alone"
PARAMETER_CACHING: Final = "parameter-caching"
EXECUTION_ONLY: Final = "execution-only"
EXECUTABLE_TYPES: Final = (STAND_ALONE, PARAMETER_CACHING, EXECUTION_ONLY)

#: data_type of a layer -> (datatype, bytes per element).
LAYER_TYPES: Final[dict[int, tuple[str, int]]] = {
    0: ("UINT8", 1),
    1: ("UINT16", 2),
    2: ("INT32", 4),
    3: ("BF16", 2),
    4: ("FP16", 2),
    5: ("FP32", 4),
    8: ("INT8", 1),
    9: ("INT16", 2),
}

#: Packages in one operator; the compiler writes one.
MAX_PACKAGES: Final = 16


@dataclass(frozen=True, slots=True)
class Layer:
    """An input or output of an executable."""

    name: str
    #: Bytes of one item on the wire, padded.
    size_bytes: int
    y: int
    x: int
    z: int
    scale: float
    zero_point: int
    #: Datatype, or "type <n>" for an unknown number.
    datatype: str
    execution_count: int
    shape: tuple[int, ...]

    @property
    def actual_bytes(self) -> int:
        """Bytes of one item without padding, all executions of the layer together."""
        width = next((size for name, size in LAYER_TYPES.values() if name == self.datatype), 1)
        return self.y * self.x * self.z * width * self.execution_count


@dataclass(frozen=True, slots=True)
class Executable:
    """One program of the chip."""

    #: One of EXECUTABLE_TYPES, or "type <n>".
    type: str
    name: str
    version: int
    chip: str
    batch_size: int
    #: Bytes of host memory the chip uses while it runs.
    scratch_bytes: int
    #: Bytes of each instruction stream.
    bitstreams: tuple[int, ...]
    #: Bytes of parameters: cached once (PARAMETER_CACHING) or sent with every run.
    parameters: int
    #: Executables with the same token share the chip's parameter cache; 0 = no caching.
    token: int
    deterministic_dma: bool
    #: Bytes of narrow memory used per tile (of 196,608).
    narrow_memory: int
    cycles: int
    uses_dram: bool
    inputs: tuple[Layer, ...]
    outputs: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """A serialised Package with its executables."""

    #: "DWN1" in all known files.
    identifier: str
    size: int
    min_runtime: int
    virtual_chip_id: int
    compiler_version: str
    model_identifier: str
    keypair_version: int
    signature_bytes: int
    multi_chip: bool
    executables: tuple[Executable, ...]

    def executable(self, kind: str) -> Executable | None:
        """The executable of a type, None if there is none."""
        return next((e for e in self.executables if e.type == kind), None)

    @property
    def main(self) -> Executable | None:
        """The executable that runs an inference: with caching where both its parts are there."""
        if len(self.executables) == 1:
            return self.executables[0]
        if len(self.executables) == 3:
            return self.executable(STAND_ALONE)
        return self.executable(EXECUTION_ONLY) or self.executable(STAND_ALONE)

    @property
    def caching(self) -> Executable | None:
        """The executable that fills the cache; the runtime uses it only beside exactly one other."""
        return self.executable(PARAMETER_CACHING) if len(self.executables) == 2 else None


@dataclass(frozen=True, slots=True)
class EdgetpuOperator:
    """The compiled part of a model."""

    operator: Operator
    #: Version of the options, 0 in all known files.
    version: int
    #: -1 default, 1 seen; used by NNAPI only.
    execution_preference: int
    #: Number of the chip per executable; None in the oldest style.
    chips: tuple[int, ...] | None
    packages: tuple[Package, ...]


@dataclass(frozen=True, slots=True)
class EdgetpuModel:
    """A compiled model file."""

    tflite: TfliteModel
    operators: tuple[EdgetpuOperator, ...]

    @property
    def package(self) -> Package:
        """The first package; all known files have exactly one."""
        return self.operators[0].packages[0]

    @property
    def token(self) -> int:
        """Caching token; files compiled in one command share it; 0 = nothing is cached."""
        main = self.package.main
        return main.token if main else 0

    @property
    def cached_bytes(self) -> int:
        """Parameters that stay in the chip's memory while the token does not change."""
        caching = self.package.caching
        return caching.parameters if caching else 0

    @property
    def streamed_bytes(self) -> int:
        """Parameters sent with every inference."""
        main = self.package.main
        return main.parameters if main else 0

    @property
    def scratch_bytes(self) -> int:
        """Host memory that the chip uses while running."""
        return max((e.scratch_bytes for e in self.package.executables), default=0)

    @property
    def bitstream_bytes(self) -> int:
        """Instructions of all executables."""
        return sum(sum(e.bitstreams) for e in self.package.executables)

    @property
    def min_runtime(self) -> int:
        """Oldest Edge TPU runtime that runs the file."""
        return max(p.min_runtime for o in self.operators for p in o.packages)

    @property
    def cpu_operators(self) -> tuple[Operator, ...]:
        """Operators that stayed on the CPU."""
        return tuple(o for g in self.tflite.subgraphs for o in g.operators if o.custom_code != EDGETPU_OP)


def read(data: Data, model: TfliteModel | None = None) -> EdgetpuModel:
    """Read a compiled model; `model` saves reading the TFLite part again.

    Raises InvalidModel when the file has no compiled operator or the compiled part is damaged. Files that can be read
    but that the runtime refuses are returned; `rules.check` names them.
    """
    view = as_view(data)
    tflite = model or read_tflite(view)
    operators = tuple(
        _operator(view, operator)
        for graph in tflite.subgraphs
        for operator in graph.operators
        if operator.custom_code == EDGETPU_OP
    )
    if not operators:
        raise InvalidModel("no operator is compiled for the Edge TPU; run edgetpu_compiler on the file first")
    return EdgetpuModel(tflite, operators)


def _operator(view: memoryview, operator: Operator) -> EdgetpuOperator:
    where = operator.custom_options
    what = f"operator {operator.index} ({EDGETPU_OP})"
    if not where.size:
        raise InvalidModel(f"{what} has no options, so no program for the chip; the file is damaged")
    options = decode(view[where.offset : where.offset + where.size])
    if not isinstance(options, dict):
        raise InvalidModel(f"{what}: options are not a map; the file is damaged")
    if not isinstance(options.get("4"), memoryview):
        raise InvalidModel(f"{what}: options hold no package; the file is damaged")
    raw = [options["4"]]
    chips = _chips(options.get("6"), what) if "6" in options else None
    if chips is not None:
        more = options.get("7")
        if not isinstance(more, list) or len(more) != len(chips) - 1:
            raise InvalidModel(f"{what}: {len(chips)} chips need {len(chips) - 1} more packages; the file is damaged")
        raw += more
    if len(raw) > MAX_PACKAGES:
        raise InvalidModel(f"{what}: {len(raw)} packages, more than {MAX_PACKAGES}; the file is damaged")
    return EdgetpuOperator(
        operator=operator,
        version=_int(options.get("1"), 0),
        execution_preference=_int(options.get("5"), -1),
        chips=chips,
        packages=tuple(_package(item, what) for item in raw),
    )


def _chips(value: Value, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidModel(f"{what}: the list of chips is empty; the file is damaged")
    chips = tuple(item for item in value if isinstance(item, int))
    if len(chips) != len(value):
        raise InvalidModel(f"{what}: the list of chips holds other things than numbers; the file is damaged")
    return chips


def _int(value: Value, default: int) -> int:
    return value if isinstance(value, int) else default


def _package(raw: Value, what: str) -> Package:
    if not isinstance(raw, memoryview):
        raise InvalidModel(f"{what}: a package is not binary data; the file is damaged")
    flat = Flatbuffer(raw, f"{what}, package")
    root = flat.root()
    multi = root.raw(1)
    if not multi:
        raise flat.fail("it holds no executables")
    programs = Flatbuffer(multi, f"{what}, executables").root().raws(0, "executables")
    return Package(
        identifier=text(raw[4:8]),
        size=len(raw),
        min_runtime=root.integer(0),
        virtual_chip_id=root.integer(5),
        compiler_version=root.string(4),
        model_identifier=root.string(7),
        keypair_version=root.integer(3),
        signature_bytes=len(root.raw(2)),
        multi_chip=root.has(6),
        executables=tuple(_executable(Flatbuffer(p, f"{what}, executable {i}").root()) for i, p in enumerate(programs)),
    )


def _executable(root: Table) -> Executable:
    kind = root.integer(13, "h")
    hints = root.table(7, "dma_hints")
    return Executable(
        type=EXECUTABLE_TYPES[kind] if 0 <= kind < 3 else f"type {kind}",
        name=root.string(1),
        version=root.integer(0),
        chip=root.string(10),
        batch_size=root.integer(3),
        scratch_bytes=root.integer(4),
        bitstreams=tuple(len(t.raw(0)) for t in root.tables(5, "bitstreams")),
        parameters=root.span(6)[1],
        token=root.integer(14, "Q"),
        deterministic_dma=bool(hints and hints.integer(1, "B")),
        narrow_memory=root.integer(12),
        cycles=root.integer(16, "q") or root.integer(11),
        uses_dram=bool(root.integer(15, "B")),
        inputs=tuple(_layer(t) for t in root.tables(8, "input_layers")),
        outputs=tuple(_layer(t) for t in root.tables(9, "output_layers")),
    )


def _layer(table: Table) -> Layer:
    numerics = table.table(5, "numerics")
    number = table.integer(6, "h")
    shape = table.table(11, "shape")
    ends: tuple[int, ...] = ()
    if shape:
        # A vector of structs {i32 start, i32 end}, both inclusive.
        position, count = shape.span(0, 8)
        ends = unpack(f"<{2 * min(count, 16)}i", table.buffer.view, position, "layer shape")
    return Layer(
        name=table.string(0),
        size_bytes=table.integer(1),
        y=table.integer(2),
        x=table.integer(3),
        z=table.integer(4),
        scale=float(numerics.scalar(1, "f")) if numerics else 0.0,
        zero_point=numerics.integer(0) if numerics else 0,
        datatype=LAYER_TYPES[number][0] if number in LAYER_TYPES else f"type {number}",
        execution_count=table.integer(9, "i", 1),
        shape=tuple(end - start + 1 for start, end in zip(ends[::2], ends[1::2], strict=True)),
    )
