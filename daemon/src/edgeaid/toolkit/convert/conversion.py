"""What a conversion is asked for and what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidRequest
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
class TorchSource:
    """Where the class is whose weights a PyTorch file holds; empty where the file has the network itself."""

    #: A .py file or a dotted name, and the class in it.
    module: str = ""
    cls: str = ""
    #: JSON: a list or an object of what the class is made with.
    arguments: str = ""
    #: Directories to import from.
    import_paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TorchSource:
        """From the options of the command line. Raises InvalidRequest."""
        if bool(options["module"]) != bool(options["cls"]):
            raise InvalidRequest("--module and --class belong together")
        return cls(options["module"], options["cls"], options["arguments"], tuple(options["import_path"]))

    def request(self) -> dict[str, Any]:
        """As children/torch_module.py takes it."""
        return {
            "module": str(Path(self.module).resolve()) if self.module.endswith(".py") else self.module,
            "cls": self.cls, "arguments": self.arguments,
            "import_paths": [str(Path(path).resolve()) for path in self.import_paths],
        }  # fmt: skip


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
    #: PyTorch: the class of a file of weights.
    torch: TorchSource = field(default_factory=TorchSource)
    #: PyTorch: names of the inputs and outputs of the ONNX model.
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    #: PyTorch to TFLite: through ONNX instead of litert-torch.
    via_onnx: bool = False
    #: Caffe: the .caffemodel, None = beside the prototxt.
    weights: Path | None = None
