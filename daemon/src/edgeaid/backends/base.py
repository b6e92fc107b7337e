"""The Protocol that every runtime is driven through, inside a worker process.

A backend module has one function `create() -> Backend`. One backend object is one opened device, used by one thread
of one process. The daemon never imports a backend's runtime; the worker does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..tensors import TensorSpec, Turn

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What `open` found out."""

    #: Runtime and version, for example "ai-edge-litert 2.3.0".
    runtime: str
    #: Human name of the device, for example "Coral USB Accelerator at usb:1-1.3".
    description: str
    #: Anything worth showing in `edgeai devices`: link speed, firmware, ABI, temperature. JSON values only.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelIO:
    """What `load` found out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    #: JSON values only: threads, delegate, cached and streamed bytes.
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: What a run leaves behind for the next one, "" = nothing; each request begins without it unless it has a sequence.
    state: str = ""
    #: Whether the file means the first dimension of each input to be the number of requests in a batch.
    batched: bool = False


class Phases(NamedTuple):
    """Nanoseconds spent in each phase of one inference."""

    input_ns: int
    infer_ns: int
    output_ns: int


class Backend(Protocol):
    """One opened device.

    Errors: `errors.InvalidModel` when the file cannot run here (worker lives on), `errors.DeviceError` when the device
    or runtime is broken (worker is replaced), `errors.Unsupported` when a library is missing (the text says which and
    where it comes from).
    """

    def open(self, device: str, options: Mapping[str, Any]) -> DeviceFacts:
        """Open `device` (a name of this backend's own, "" = the first one)."""

    def load(self, key: str, artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Load a model file under `key`; a loaded key is replaced. `options`: from the manifest's artifact table."""

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Run once. Arrays are C-contiguous views of shared memory with exactly the shapes and dtypes of ModelIO."""

    def unload(self, key: str) -> None:
        """Forget a model; unknown keys are ignored."""

    def close(self) -> None:
        """Give the device back."""


@runtime_checkable
class OpenBackend(Protocol):
    """A backend that takes inputs of variable size, texts and sequences."""

    def infer_open(self, key: str, inputs: Sequence[Array], turn: Turn) -> tuple[Phases, list[Array]]:
        """Run once on arrays that the specs take; returns new arrays. BYTES tensors are object arrays of bytes."""


def as_array(buffer: memoryview, spec: TensorSpec) -> Array:
    """View `buffer` as the tensor `spec` describes, without a copy."""
    from ..tensors import NUMPY

    return np.frombuffer(buffer, dtype=NUMPY[spec.datatype]).reshape(spec.shape)
