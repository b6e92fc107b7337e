"""What the cpu and edgetpu backends share: one loaded TFLite model and the runtime that runs it.

Three packages offer the same Interpreter class: ai_edge_litert (maintained), tflite_runtime (frozen at 2.14) and full
TensorFlow. Numeric results differ by design (other kernels), so golden outputs are compared per `family`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, TypeVar

import numpy as np

from ...errors import DeviceError, EdgeaiError, InvalidModel, InvalidRequest, Unsupported
from ...tensors import FROM_NUMPY, Quantization, TensorSpec
from ..base import Array, ModelIO, Phases

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


def tensor_spec(details: Mapping[str, Any]) -> TensorSpec:
    """TensorSpec of one entry of get_input_details/get_output_details; raises InvalidModel for strings and the like."""
    name = str(details["name"])
    # ml_dtypes' bfloat16 and numpy's bytes_ have names too, but none that FROM_NUMPY knows.
    datatype = FROM_NUMPY.get(np.dtype(details["dtype"]).name)
    if datatype is None:
        raise InvalidModel(
            f"tensor {name!r} has element type {np.dtype(details['dtype']).name}, which cannot be served"
        )
    parameters = details["quantization_parameters"]
    scales, zero_points = parameters["scales"], parameters["zero_points"]
    quantization = None
    if len(scales):
        # Compressed zero points (a LiteRT option and some exporters): one entry for all channels.
        points = tuple(int(z) for z in zero_points) or (0,)
        if len(points) != len(scales):
            points = points[:1] * len(scales)
        quantization = Quantization(tuple(float(s) for s in scales), points, int(parameters["quantized_dimension"]))
    return TensorSpec(name, datatype, tuple(int(d) for d in details["shape"]), quantization)


class TfliteModel:
    """One interpreter with its tensors allocated, and the shortest way from arrays in to arrays out.

    Inputs are copied once (SetTensor's memcpy), outputs once. No view of the interpreter's memory survives a call:
    the runtime refuses to invoke while one exists.
    """

    def __init__(self, interpreter: Any, shapes: Mapping[str, Sequence[int]], failure: type[EdgeaiError]) -> None:
        """Allocate and measure. `failure` is raised when a later invoke goes wrong.

        Raises InvalidModel when tensors cannot be allocated or a shape option does not fit.
        """
        self._failure = failure
        self._interpreter = interpreter
        _resize(interpreter, shapes)
        try:
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InvalidModel(explain(str(error))) from None
        # The bound method is looked up once: a microsecond per inference on a Pi.
        self._set: Callable[[int, Array], None] = interpreter.set_tensor
        self._invoke: Callable[[], None] = interpreter.invoke
        details = interpreter.get_input_details()
        self._inputs = tuple(int(d["index"]) for d in details)
        self.inputs = tuple(tensor_spec(d) for d in details)
        details = interpreter.get_output_details()
        if any(0 in d["shape"] or not _static(d) for d in details):
            details = self._measure_outputs()
        self._views: tuple[Callable[[], Array], ...] = tuple(interpreter.tensor(int(d["index"])) for d in details)
        self.outputs = tuple(tensor_spec(d) for d in details)

    def _measure_outputs(self) -> Any:
        """Outputs whose shape is only known after a run: run once on zeros and take what comes."""
        for index, spec in zip(self._inputs, self.inputs, strict=True):
            self._set(index, np.zeros(spec.shape, dtype=self._interpreter._get_tensor_details(index, 0)["dtype"]))
        try:
            self._invoke()
        except (RuntimeError, ValueError) as error:
            raise InvalidModel(f"the model cannot run: {explain(str(error))}") from None
        details = self._interpreter.get_output_details()
        for detail in details:
            if 0 in detail["shape"]:
                raise InvalidModel(
                    f"output {detail['name']!r} has no fixed size (shape {[int(d) for d in detail['shape']]} for zero "
                    "inputs); export the model with fixed shapes"
                )
        return details

    def delegated(self) -> int:
        """Number of nodes that run in a delegate (each stands for a whole part of the graph)."""
        return sum(op["op_name"] == "DELEGATE" for op in self._interpreter._get_ops_details())

    def operators(self) -> tuple[str, ...]:
        """Operator names in execution order, delegated parts as DELEGATE."""
        return tuple(str(op["op_name"]) for op in self._interpreter._get_ops_details())

    def io(self, facts: Mapping[str, Any]) -> ModelIO:
        """What Backend.load returns."""
        return ModelIO(self.inputs, self.outputs, facts)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """One inference; errors as Backend.infer."""
        start = perf_counter_ns()
        try:
            for index, array in zip(self._inputs, inputs, strict=True):
                self._set(index, array)
            filled = perf_counter_ns()
            self._invoke()
            done = perf_counter_ns()
        except ValueError as error:  # SetTensor: wrong shape or dtype
            raise InvalidRequest(f"an input does not fit the model: {error}") from None
        except RuntimeError as error:
            raise self._failure(f"inference failed: {explain(str(error))}") from None
        for view, array in zip(self._views, outputs, strict=True):
            _copy_out(view, array)
        return Phases(filled - start, done - filled, perf_counter_ns() - done)


def _copy_out(view: Callable[[], Array], target: Array) -> None:
    """A function of its own so that the view dies here, even when an exception keeps the caller's frame alive."""
    data = view()
    if data.shape != target.shape:  # copyto would broadcast
        shape = list(data.shape)
        del data
        raise InvalidRequest(
            f"the model produced an output of shape {shape} for this input where {list(target.shape)} was expected; "
            "models with data-dependent output sizes cannot be served"
        )
    np.copyto(target, data, casting="no")


def _static(details: Mapping[str, Any]) -> bool:
    return all(d >= 0 for d in details["shape_signature"])


def _resize(interpreter: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Apply the option `shapes`; what stays variable gets the 1 that the runtime puts there."""
    details = {str(d["name"]): d for d in interpreter.get_input_details()}
    for name, shape in shapes.items():
        if name not in details:
            raise InvalidModel(f"option shapes names input {name!r}; the model's inputs are: {', '.join(details)}")
        if not all(isinstance(d, int) and d > 0 for d in shape):
            raise InvalidModel(f"option shapes: {name!r} = {list(shape)} must be positive whole numbers")
        if list(shape) == [int(d) for d in details[name]["shape"]]:
            continue
        try:
            interpreter.resize_tensor_input(int(details[name]["index"]), list(shape), strict=not _static(details[name]))
        except (ValueError, RuntimeError) as error:
            signature = [int(d) for d in details[name]["shape_signature"]]
            raise InvalidModel(f"input {name!r} of shape {signature} cannot become {list(shape)}: {error}") from None


def shapes_option(options: Mapping[str, Any]) -> Mapping[str, Sequence[int]]:
    """The option `shapes` = { "input name" = [1, 224, 224, 3] }."""
    shapes = options.get("shapes", {})
    if not isinstance(shapes, Mapping) or not all(isinstance(s, Sequence) for s in shapes.values()):
        raise InvalidModel(f"option shapes = {shapes!r} is not a table of input names and lists of whole numbers")
    return shapes


def explain(text: str) -> str:
    """The runtime's message with what to do about it in front, where the cause is known."""
    text = " ".join(text.split())
    if "edgetpu-custom-op" in text:
        return (
            "the model was compiled for an Edge TPU and cannot run without one; list it as artifact `edgetpu` and add "
            f"the file it was compiled from as artifact `cpu` (runtime said: {text})"
        )
    lowered = text.lower()
    marker = "unresolved custom op: "
    if marker in lowered:
        name = text[lowered.index(marker) + len(marker) :].split()[0].rstrip(".")
        return f"the model needs the custom operator {name!r}, which this runtime does not have (runtime said: {text})"
    if "didn't find op for builtin opcode" in lowered or "registration failed" in lowered:
        return f"the model was made for a newer runtime than the one installed here (runtime said: {text})"
    return text


def read_file(artifact: Path, reader: Callable[[bytes], _Read]) -> _Read:
    """What `reader` makes of the bytes of `artifact`; raises InvalidModel, with the file's name in front."""
    try:
        return reader(artifact.read_bytes())
    except OSError as error:
        raise InvalidModel(f"{artifact.name} cannot be read: {error}") from None
    except InvalidModel as error:
        raise InvalidModel(f"{artifact.name}: {error}") from None


def open_interpreter(runtime: Runtime, artifact: Path, **arguments: Any) -> Any:
    """An Interpreter that maps `artifact`; raises InvalidModel when the file is missing, damaged or too new."""
    if runtime.family != "litert":
        # These trust every offset in the file: measured, 12 of 40 damaged files killed the process.
        from ...formats.tflite import reader as tflite

        read_file(artifact, tflite.read)
    try:
        return runtime.module.Interpreter(model_path=str(artifact), **arguments)
    except (ValueError, RuntimeError) as error:
        raise InvalidModel(f"{artifact.name} cannot be loaded: {explain(str(error))}") from None
    except SystemError as error:  # tflite_runtime 2.14 and old LiteRT with numpy 2
        raise DeviceError(f"{runtime.name} does not work with numpy {np.__version__}: {error}") from None
