"""What a tensor is: name, datatype, shape, quantisation. Pure data, no numpy.

Datatypes carry the names of the Open Inference Protocol (UINT8, FP32, ...): they are what a client sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

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

    #: Name as the model file has it.
    name: str
    #: Open Inference Protocol datatype, a key of ITEMSIZE, or BYTES.
    datatype: str
    #: Dimensions, outermost first; -1 = variable.
    shape: tuple[int, ...]
    #: None for tensors that are not quantised.
    quantization: Quantization | None = None

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
        raise InvalidRequest(f"shape {list(shape)} has more than {MAX_ELEMENTS} elements")
    return count


def nbytes(datatype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of fixed element size; raises InvalidRequest for an unknown datatype or a bad shape."""
    size = ITEMSIZE.get(datatype)
    if size is None:
        raise InvalidRequest(f"datatype {datatype!r} has no fixed element size; use one of {', '.join(ITEMSIZE)}")
    return elements(shape) * size
