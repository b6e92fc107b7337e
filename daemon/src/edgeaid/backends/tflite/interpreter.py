"""What the cpu and edgetpu backends share: the runtime that runs TFLite models, and how it opens one.

Three packages offer the same Interpreter class: ai_edge_litert (maintained), tflite_runtime (frozen at 2.14) and full
TensorFlow. Numeric results differ by design (other kernels), so golden outputs are compared per `family`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from ...errors import DeviceError, InvalidModel, Unsupported

_Read = TypeVar("_Read")

#: family -> (module, distribution name). First that imports wins.
_RUNTIMES: Final = {
    "litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite-runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
    # The same class once more, inside full TensorFlow; seconds to import, so only where there is nothing else.
    "tensorflow": ("tensorflow.lite.python.interpreter", "tensorflow"),
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """An importable TFLite interpreter."""

    #: "litert", "tflite-runtime" or "tensorflow"; the manifest's `[[golden]] runtime` is compared with it.
    family: str
    #: Distribution and version, for example "ai-edge-litert 2.3.0".
    name: str
    #: The module that has Interpreter, load_delegate and OpResolverType.
    module: Any


def find_runtime(family: str = "") -> Runtime:
    """Import the first runtime present, or exactly `family`; raises Unsupported naming what to install."""
    failures = []
    for candidate, (module, distribution) in _RUNTIMES.items():
        if family and family != candidate:
            continue
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            # Not only "no such module": a library compiled for another Python or glibc ends here as well.
            failures.append(f"{distribution}: {error}")
            continue
        return Runtime(candidate, f"{distribution} {_version(distribution)}", loaded)
    if family and not failures:
        raise Unsupported(f"unknown TFLite runtime {family!r}; known: {', '.join(_RUNTIMES)}")
    raise Unsupported(
        f"no TFLite runtime can be imported ({'; '.join(failures)}); on a PC: pip install ai-edge-litert, "
        "on the image: add python3-ai-edge-litert-bin or python3-tflite-runtime"
    )


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # built by a recipe without metadata
        return "(version unknown)"


def threads(options: Mapping[str, Any], fallback: int | None = None) -> int:
    """The option `threads` (1..64); without it `fallback`, or the CPUs this process may use, at most 4."""
    value = options.get("threads", fallback)
    if value is None:
        return min(4, len(os.sched_getaffinity(0)))
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 64:
        raise InvalidModel(f"option threads = {value!r} is not a whole number from 1 to 64")
    return value


def shapes_option(options: Mapping[str, Any]) -> Mapping[str, Sequence[int]]:
    """The option `shapes` = { "input name" = [1, 224, 224, 3] }."""
    shapes = options.get("shapes", {})
    if not isinstance(shapes, Mapping) or not all(isinstance(s, Sequence) for s in shapes.values()):
        raise InvalidModel(f"option shapes = {shapes!r} is not a table of input names and lists of whole numbers")
    return shapes


#: How the names of other people's custom operators begin -> what they are, and what to do.
_FOREIGN_OPERATORS: Final = (
    ("edgetpu-custom-op",
     "the model was compiled for an Edge TPU and cannot run without one; list it as artifact `edgetpu` and add the "
     "file it was compiled from as artifact `cpu`"),
    ("ethos-u", "the model was compiled for Arm's Ethos-U; take the file that it was compiled from"),
    ("dispatch_op",
     "the model was compiled for the neural processor of a phone (Qualcomm, MediaTek or Google Tensor); take the file "
     "that it was compiled from"),
    ("mtkext_", "the model was converted for MediaTek's processors; convert the original with TensorFlow or LiteRT"),
    ("posenetdecoderop",
     "the model ends with Coral's decoder of poses, which only Coral's libraries have; take the file without it "
     "(`..._quant.tflite` for `..._quant_decoder.tflite`)"),
    ("flex",
     "the model uses operators of full TensorFlow (Select TF ops), which this runtime does not have; convert it with "
     "tf.lite.OpsSet.TFLITE_BUILTINS alone, or push it as a SavedModel where TensorFlow is installed"),
    ("tftext:",
     "the model begins with a tokenizer of TensorFlow Text, which this runtime does not have; export it without, and "
     "run the tokenizer in the client"),
    ("signal", "the model needs the signal operators of TensorFlow Lite Micro, which runs on microcontrollers only"),
)  # fmt: skip
_CUSTOM: Final = re.compile(r"unresolved custom op: (\S+?)\.?(?:\s|$)", re.IGNORECASE)
_UNPREPARED: Final = re.compile(r"Node number (\d+) \(([^)]*)\) failed to prepare")
#: How the runtime calls its delegate for the CPU, which refuses some graphs that its own kernels run.
_XNNPACK: Final = re.compile(r"\(TfLiteXNNPackDelegate\) failed to prepare|failed to delegate \w+ node")


def explain(text: str) -> str:
    """The runtime's message with what to do about it in front, where the cause is known."""
    text = " ".join(text.split())
    custom, unprepared = _CUSTOM.search(text), _UNPREPARED.search(text)
    name = custom[1] if custom is not None else unprepared[2] if unprepared is not None else ""
    cause = next((told for start, told in _FOREIGN_OPERATORS if name.lower().startswith(start)), "")
    lowered = text.lower()
    if cause:
        pass
    elif custom is not None:
        cause = (
            f"the model needs the custom operator {name!r}, which this runtime does not have; export it without (such "
            "as with tf.lite.OpsSet.TFLITE_BUILTINS alone)"
        )
    elif "didn't find op for builtin opcode" in lowered or "registration failed" in lowered:
        cause = "the model was made for a newer runtime than the one installed here"
    elif unprepared is not None:
        cause = (
            f"the operator {name} (number {unprepared[1]} of the graph) does not take the tensors or options that the "
            "file gives it; export the model again, with a current converter"
        )
    else:
        return text
    return f"{cause} (runtime said: {text})"


def refused_by_xnnpack(error: Exception) -> bool:
    """Whether a model was refused by XNNPACK only: the runtime's own kernels may run it."""
    return _XNNPACK.search(str(error)) is not None and _CUSTOM.search(str(error)) is None


def read_file(artifact: Path, reader: Callable[[bytes], _Read]) -> _Read:
    """What `reader` makes of the bytes of `artifact`; raises InvalidModel, with the file's name in front."""
    try:
        return reader(artifact.read_bytes())
    except OSError as error:
        raise InvalidModel(f"{artifact.name} cannot be read: {error}") from None
    except InvalidModel as error:
        raise InvalidModel(f"{artifact.name}: {error}") from None


def reopener(runtime: Runtime, artifact: Path, **arguments: Any) -> Callable[..., Any]:
    """What opens `artifact` now and as often as it is called, wherever the file has been moved meanwhile.

    A pushed model is loaded where it waits to be accepted, and its directory is renamed then. InvalidModel.
    """
    try:
        file = open(artifact, "rb")  # noqa: SIM115  it lives as long as what is returned
    except OSError as error:
        raise InvalidModel(f"{artifact.name} cannot be read: {error}") from None
    place = Path(f"/proc/self/fd/{file.fileno()}")

    def reopen(**more: Any) -> Any:
        # `file` is held by naming it here: closed, its number would be another file's.
        return open_interpreter(runtime, artifact if file.closed else place, artifact.name, **arguments, **more)

    return reopen


def open_interpreter(runtime: Runtime, artifact: Path, name: str = "", **arguments: Any) -> Any:
    """An Interpreter that maps `artifact`; raises InvalidModel when the file is missing, damaged or too new.

    Errors call it `name`, where that is given.
    """
    name = name or artifact.name
    if runtime.family != "litert":
        # These trust every offset in the file: measured, 12 of 40 damaged files killed the process.
        from ...formats.tflite import reader as tflite

        read_file(artifact, tflite.read)
    try:
        return runtime.module.Interpreter(model_path=str(artifact), **arguments)
    except (ValueError, RuntimeError) as error:
        raise InvalidModel(f"{name} cannot be loaded: {explain(str(error))}") from None
    except SystemError as error:  # tflite_runtime 2.14 and old LiteRT with numpy 2
        raise DeviceError(f"{runtime.name} does not work with numpy {np.__version__}: {error}") from None
