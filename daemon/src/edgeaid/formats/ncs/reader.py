"""Movidius graph files of NCSDK 1 and 2, and the header of Myriad blobs.

The v1 host library walks as many stages as the header says without looking at the file's size, so a wrong count makes
it read out of bounds: check first. Offsets: docs/formats.md (decoded from real files). The blob header is known from
source text only: openvinotoolkit/openvino 2021.4, vpu/backend/blob_format.hpp.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ...errors import InvalidModel
from ...tensors import TensorSpec
from ..finding import NOTE, REFUSED, Finding
from ..wire.binary import (
    Data,
    as_view,
    c_text,
    need,
    round_up,
    u32,
    unpack,
)

V1_HEADER: Final = 264
V1_STAGE: Final = 227
#: What the host library of NCSDK 1 accepts, bytes.
V1_MIN_SIZE: Final = 491
MAX_SIZE: Final = 512 * 1024 * 1024
#: Most output values a v1 graph may have.
MAX_OUTPUTS: Final = 64 * 1024 * 1024
#: Stages in one graph; real ones have 10 to 200.
MAX_STAGES: Final = 65536
V2_MAGIC: Final = 8708
BLOB_MAGIC: Final = 9709
_V2_STAGES: Final = 0x50
#: Bytes of the 32-bit ELF header in front of a blob's own.
_BLOB_LEAD: Final = 52

#: Operations seen in real v1 files; others are shown by number.
OPERATIONS: Final[dict[int, str]] = {0: "convolution", 1: "max pooling", 12: "eltwise", 15: "scale"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a v1 graph. Shapes are (x, y, channels)."""

    index: int
    name: str
    operation: str
    #: (width, height); inferred from real files.
    kernel: tuple[int, int]
    stride: tuple[int, int]
    input: tuple[int, int, int]
    output: tuple[int, int, int]
    #: Bytes from one pixel to the next in the output.
    output_stride: int


@dataclass(frozen=True, slots=True)
class NcsGraph:
    """A compiled graph for the NCS. Values are FP16 on the stick in both generations."""

    #: 1 or 2: the generation of the NCSDK.
    generation: int
    #: Version fields of the file: (2,) for v1, (major, minor) for v2.
    version: tuple[int, ...]
    name: str
    size: int
    stage_count: int
    #: Empty for v2, whose stages are not decoded.
    stages: tuple[Stage, ...]
    #: Processors the graph was compiled for; 0 where the file does not say (v1).
    shaves: int
    #: Values per inference.
    input_elements: int
    output_elements: int
    #: (section, bytes) pairs in file order.
    sections: tuple[tuple[str, int], ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The one input, shape as far as the file has it: NHWC for v1, flat for v2."""
        if self.stages:
            x, y, z = self.stages[0].input
            return (TensorSpec("input", "FP16", (1, y, x, z)),)
        return (TensorSpec("input", "FP16", (self.input_elements,)),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The one output, flat."""
        return (TensorSpec("output", "FP16", (self.output_elements,)),)


@dataclass(frozen=True, slots=True)
class MyriadBlob:
    """Header of a blob; the runtime demands exactly its own version. Nothing behind it is decoded."""

    major: int
    minor: int
    size: int
    inputs: int
    outputs: int
    stages: int
    input_size: int
    output_size: int
    batch: int
    #: Working memory on the stick, bytes.
    bss_size: int
    cmx_slices: int
    shaves: int
    #: Whether stages run on the neural compute engine of the Myriad X, on SHAVEs, on the DMA engine.
    uses_hw: bool
    uses_shaves: bool
    uses_dma: bool
    #: (section, byte position) pairs.
    sections: tuple[tuple[str, int], ...]


def read(data: Data) -> NcsGraph:
    """Read a graph of either generation. Raises InvalidModel for damage and for what the host library refuses."""
    view = as_view(data)
    if len(view) > MAX_SIZE:
        raise InvalidModel(f"NCS graph of {len(view)} bytes, the host library takes {MAX_SIZE} at most")
    if len(view) >= 46 and u32(view, 34, "NCS graph header") == V2_MAGIC:
        return _read_v2(view)
    return _read_v1(view)


def _read_v1(view: memoryview) -> NcsGraph:
    what = "NCS graph v1"
    if len(view) < V1_MIN_SIZE:
        raise InvalidModel(f"{what}: {len(view)} bytes, the host library refuses less than {V1_MIN_SIZE}")
    size, version = unpack("<II", view, 32, what)
    if any(view[:32]) or version != 2 or size != len(view):
        raise InvalidModel(
            f"{what}: header says version {version} and {size} bytes, the file has {len(view)}; it is damaged"
        )
    count, data_offset, first_shave, last_shave = struct.unpack_from("<H2xIII", view, 240)
    expected = round_up(V1_HEADER + V1_STAGE * count, 8)
    if not count or expected > len(view):
        raise InvalidModel(f"{what}: {count} stages do not fit in {len(view)} bytes; the file is damaged")
    if data_offset != expected:
        raise InvalidModel(
            f"{what}: data starts at {data_offset}, {count} stages end at {expected}; the file is damaged"
        )
    stages = tuple(_stage(view, i) for i in range(count))
    x, y, _ = stages[-1].output
    outputs = x * y * stages[-1].output_stride // 2
    if outputs > MAX_OUTPUTS:
        raise InvalidModel(f"{what}: {outputs} output values, the host library takes {MAX_OUTPUTS} at most")
    first = stages[0].input
    return NcsGraph(
        generation=1,
        version=(version,),
        name=c_text(view, 40, 200, what),
        size=size,
        stage_count=count,
        stages=stages,
        shaves=last_shave - first_shave + 1 if last_shave > first_shave else 0,
        input_elements=first[0] * first[1] * first[2],
        output_elements=outputs,
        sections=(("header", V1_HEADER), ("stages", data_offset - V1_HEADER), ("data", size - data_offset)),
    )


def _stage(view: memoryview, index: int) -> Stage:
    at = V1_HEADER + V1_STAGE * index
    operation, kernel_x, kernel_y, stride_x, stride_y = struct.unpack_from("<B4x4B", view, at + 100)
    shapes = struct.unpack_from("<3I12x3I12x12x3I", view, at + 112)
    return Stage(
        index=index,
        name=c_text(view, at, 100, "NCS graph v1 stage"),
        operation=OPERATIONS.get(operation, f"operation {operation}"),
        kernel=(kernel_x, kernel_y),
        stride=(stride_x, stride_y),
        input=shapes[:3],
        output=shapes[3:6],
        output_stride=shapes[6],
    )


def _read_v2(view: memoryview) -> NcsGraph:
    what = "NCS graph v2"
    size, major, minor, shaves, stages_at, buffers, relocation, inputs, _ = unpack("<9I", view, 38, what)
    need(view, _V2_STAGES, 12, what)
    count, section, outputs = struct.unpack_from("<3I", view, _V2_STAGES)
    if size != len(view):
        raise InvalidModel(f"{what}: header says {size} bytes, the file has {len(view)}; it is cut off or damaged")
    if stages_at != _V2_STAGES or not _V2_STAGES < buffers < relocation < size or _V2_STAGES + section != buffers:
        raise InvalidModel(
            f"{what}: sections at {stages_at}, {buffers}, {relocation} of {size} bytes contradict each other; damaged"
        )
    if not 0 < count <= MAX_STAGES or count > section:
        raise InvalidModel(f"{what}: {count} stages in {section} bytes; the file is damaged")
    if not inputs or not outputs or max(inputs, outputs) > MAX_OUTPUTS:
        raise InvalidModel(f"{what}: {inputs} input and {outputs} output values; the file is damaged")
    return NcsGraph(
        generation=2,
        version=(major, minor),
        name="",
        size=size,
        stage_count=count,
        stages=(),
        shaves=shaves,
        input_elements=inputs,
        output_elements=outputs,
        sections=(
            ("header", _V2_STAGES),
            ("stages", section),
            ("buffers", relocation - buffers),
            ("relocation", size - relocation),
        ),
    )


def check(graph: NcsGraph) -> tuple[Finding, ...]:
    """Findings about what the sticks accept."""
    findings = []
    if graph.size >= 320_000_000:
        text = f"{graph.size} bytes; the stick takes graphs below 320 MB"
        findings.append(Finding(REFUSED, "graph-size", text))
    if graph.generation == 2 and graph.version != (2, 3):
        text = f"version {graph.version[0]}.{graph.version[1]}; the firmware of NCSDK 2.10 was seen with 2.3 only"
        findings.append(Finding(NOTE, "version", text))
    if graph.shaves > 12:
        findings.append(Finding(REFUSED, "shaves", f"compiled for {graph.shaves} SHAVEs, the stick has 12"))
    return tuple(findings)


def read_blob(data: Data) -> MyriadBlob:
    """Read the header of a Myriad blob. Raises InvalidModel when it is damaged."""
    view = as_view(data)
    what = "Myriad blob"
    fields = unpack("<20I", view, _BLOB_LEAD, what)
    if fields[0] != BLOB_MAGIC or fields[1] != len(view):
        raise InvalidModel(f"{what}: magic {fields[0]} and {fields[1]} bytes stated, the file has {len(view)}; damaged")
    sections = tuple(zip(("input info", "output info", "stages", "constants"), fields[16:20], strict=True))
    for name, offset in sections:
        if offset > len(view):
            raise InvalidModel(f"{what}: section {name} starts at byte {offset} of {len(view)}; the file is cut off")
    if fields[6] > MAX_STAGES:
        raise InvalidModel(f"{what}: {fields[6]} stages; the file is damaged")
    return MyriadBlob(
        size=fields[1], major=fields[2], minor=fields[3], inputs=fields[4], outputs=fields[5], stages=fields[6],
        input_size=fields[7], output_size=fields[8], batch=fields[9], bss_size=fields[10], cmx_slices=fields[11],
        shaves=fields[12], uses_hw=bool(fields[13]), uses_shaves=bool(fields[14]), uses_dma=bool(fields[15]),
        sections=sections,
    )  # fmt: skip
