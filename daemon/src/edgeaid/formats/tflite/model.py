"""What a TFLite model consists of, once `tflite.read` has found it consistent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ...tensors import Quantization, TensorSpec
from . import operators as tflite_ops

#: custom_code of the operator the Edge TPU compiler leaves.
EDGETPU_OP: Final = "edgetpu-custom-op"
_BITS: Final[dict[str, int]] = dict(tflite_ops.TENSOR_TYPES)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Where constant data lies: byte position in the file and bytes; size 0 = none."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a subgraph."""

    index: int
    name: str
    #: As TensorSpec.datatype, plus INT4, COMPLEX64, RESOURCE and others that cannot be inputs of a served model.
    datatype: str
    #: Shape the runtime allocates, outermost first.
    shape: tuple[int, ...]
    #: Shape with -1 where a dimension is variable; () when the file gives none.
    shape_signature: tuple[int, ...]
    quantization: Quantization | None
    #: Index into TfliteModel.buffers; size 0 there = computed or fed, not constant.
    buffer: int
    buffer_size: int
    is_variable: bool
    sparse: bool

    @property
    def constant(self) -> bool:
        """Whether the file holds the values."""
        return self.buffer_size > 0

    @property
    def nbytes(self) -> int:
        """Bytes of the values, sub-byte types packed; 0 for types without a fixed size or a variable shape."""
        bits = _BITS.get(self.datatype, 0)
        return (math.prod(self.shape) * bits + 7) // 8 if all(d >= 0 for d in self.shape) else 0

    @property
    def spec(self) -> TensorSpec:
        """What a client needs to know."""
        return TensorSpec(self.name, self.datatype, self.shape, self.quantization)


@dataclass(frozen=True, slots=True)
class Operator:
    """A node. `inputs` and `outputs` are tensor indices; -1 = an optional input that is left out."""

    index: int
    #: Builtin name such as CONV_2D, or CUSTOM.
    name: str
    #: Name of a custom operator, "" for builtin ones.
    custom_code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    #: Decoded builtin options of common operators (tflite_ops.OPTIONS).
    options: Mapping[str, int | float | bool | str | tuple[int, ...] | tuple[float, ...]]
    #: Byte position and bytes of custom options in the file; size 0 = none.
    custom_options: Buffer

    @property
    def label(self) -> str:
        """The name people know: the custom code, or the builtin name."""
        return self.custom_code or self.name


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A graph of operators; number 0 is the model, others are branches and loop bodies."""

    name: str
    tensors: tuple[Tensor, ...]
    #: Tensor indices.
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """A named entry point: (name, tensor index) pairs of one subgraph."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A model file, read and found consistent."""

    #: Schema version, 3.
    version: int
    description: str
    #: Bytes of the whole file.
    size: int
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    buffers: tuple[Buffer, ...]
    #: (name, buffer index) pairs.
    metadata: tuple[tuple[str, int], ...]
    #: Oldest runtime that runs the file, such as "1.5.0"; "" when the file does not say.
    min_runtime_version: str = field(default="")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the model, in the runtime's order."""
        graph = self.subgraphs[0]
        return tuple(graph.tensors[i].spec for i in graph.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the model, in the runtime's order."""
        graph = self.subgraphs[0]
        return tuple(graph.tensors[i].spec for i in graph.outputs)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators of the main graph."""
        return self.subgraphs[0].operators

    @property
    def custom_codes(self) -> tuple[str, ...]:
        """Custom operators the runtime must know, sorted."""
        return tuple(sorted({o.custom_code for g in self.subgraphs for o in g.operators if o.custom_code}))

    @property
    def edgetpu(self) -> bool:
        """Whether the file is compiled for the Edge TPU."""
        return EDGETPU_OP in self.custom_codes
