"""What a conversion is asked for and what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from .compare import Difference

#: Inputs that both models get.
RUNS: Final = 4


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion gave."""

    #: For example "onnx -> tflite".
    route: str
    #: Tool and version as far as it says.
    tool: str
    #: Files written, the model first.
    files: tuple[Path, ...]
    #: Of the output that differs most.
    difference: Difference
    #: Transpose operators in the result: what is left of a change of the data layout.
    transposes: int
    #: Inputs that were NCHW and became NHWC.
    layout_changed: bool
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "files": [p.name for p in self.files]}


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert."""

    #: Fixed shape of the first input, () = as the file says.
    shape: tuple[int, ...] = ()
    #: ONNX: inputs that become constants, by name (a sample rate on which a branch of the model hangs).
    constants: Mapping[str, float] = field(default_factory=dict)
    #: OpenVINO weights in FP16 (what the NCS2 computes in).
    fp16: bool = True
    seed: int = 0
