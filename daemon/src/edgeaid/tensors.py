"""What a tensor is: name, datatype, shape, quantisation. Pure data, no numpy.

Datatypes carry the names of the Open Inference Protocol (UINT8, FP32, ...): they are what a client sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from .errors import InvalidRequest

#: Bytes per element. BYTES is variable and has no entry.
ITEMSIZE: Final[dict[str, int]] = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
    "UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip

#: numpy's name for each datatype that numpy has.
NUMPY: Final[dict[str, str]] = {
    "BOOL": "bool", "UINT8": "uint8", "INT8": "int8", "UINT16": "uint16", "INT16": "int16", "FP16": "float16",
    "UINT32": "uint32", "INT32": "int32", "FP32": "float32", "UINT64": "uint64", "INT64": "int64", "FP64": "float64",
}  # fmt: skip

#: The other way round.
FROM_NUMPY: Final[dict[str, str]] = {v: k for k, v in NUMPY.items()}

#: A product of dimensions above this is refused before anything is allocated.
MAX_ELEMENTS: Final = 1 << 31


class Turn(NamedTuple):
    """A request's place in a sequence of requests that share a model's state."""

    #: The daemon's number of the sequence, 0 = the request stands alone.
    number: int = 0
    #: It is the sequence's first one: state begins anew.
    start: bool = False
    #: It is the last one: the state is not kept.
    end: bool = False


#: A request that belongs to no sequence.
ALONE: Final = Turn()


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantisation: real = scale * (stored - zero_point)."""

    #: One entry (per tensor) or one per index along `axis` (per channel).
    scale: tuple[float, ...]
    #: As many entries as `scale`.
    zero_point: tuple[int, ...]
    #: The dimension along which per-channel entries run; meaningless for one entry.
    axis: int = 0


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model."""

    #: Name that clients use: the manifest's, a signature's, or the file's own.
    name: str
    #: Open Inference Protocol datatype, a key of ITEMSIZE, or BYTES.
    datatype: str
    #: Dimensions, outermost first; -1 = variable.
    shape: tuple[int, ...]
    #: None for tensors that are not quantised.
    quantization: Quantization | None = None
    #: The file's own name of the tensor where `name` is another one.
    alias: str = ""
    #: Bytes kept for a tensor whose size varies from request to request; 0 = it always has `nbytes`.
    room: int = 0

    @property
    def fixed(self) -> bool:
        """True when every request's tensor has the same bytes."""
        return self.room == 0

    @property
    def capacity(self) -> int:
        """Bytes that the largest tensor of a request may have."""
        return self.room or self.nbytes

    @property
    def one(self) -> TensorSpec:
        """This tensor with 1 for every variable dimension."""
        if self.fixed:
            return self
        room = self.room if self.datatype == "BYTES" else 0
        return replace(self, shape=tuple(1 if d < 0 else d for d in self.shape), room=room)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a request's tensor may have this shape."""
        if self.shape == shape:
            return True
        return len(shape) == len(self.shape) and all(d in (-1, got) for d, got in zip(self.shape, shape, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor, row-major and unpadded. Raises InvalidRequest for a variable shape."""
        return nbytes(self.datatype, self.shape)


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements; raises InvalidRequest for negative dimensions or more than MAX_ELEMENTS."""
    if any(d < 0 for d in shape):
        raise InvalidRequest(f"shape {list(shape)} has a negative dimension")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise InvalidRequest(
            f"shape {list(shape)} causes total element count to exceed maximum size of {MAX_ELEMENTS} elements"
        )
    return count


def nbytes(datatype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of fixed element size; raises InvalidRequest for an unknown datatype or a bad shape."""
    size = ITEMSIZE.get(datatype)
    if size is None:
        raise InvalidRequest(f"datatype {datatype!r} has no fixed element size; use one of {', '.join(ITEMSIZE)}")
    return elements(shape) * size
