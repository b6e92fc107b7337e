"""The CPU through LiteRT or tflite_runtime, and through full TensorFlow for a SavedModel.

`open` takes no device name. Options of `open` and of an artifact:
    threads   CPU threads per inference, 1..64; default: CPUs this process may use, at most 4
    xnnpack   false = the reference kernels without XNNPACK (slower; other rounding), as for a model that it refuses
    runtime   only at open: "litert", "tflite-runtime" or "tensorflow" instead of the first one present
    shapes    only for an artifact: { "input" = [1, 224, 224, 3] } for inputs of variable size
    room      only for an artifact: bytes kept for each tensor whose size varies, 1..256 MiB
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ... import processor
from ...errors import InvalidModel, InvalidRequest, NotFound
from ...formats.tflite import reader
from ...tensors import Turn
from ..base import Array, DeviceFacts, ModelIO, Phases
from . import interpreter as _tflite
from .model import TfliteModel, options_of


class _Model(Protocol):
    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases: ...


class CpuBackend:
    """Backend for target `cpu`."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._options: Mapping[str, Any] = {}
        self._runtime: _tflite.Runtime | None = None

    def open(self, device: str, options: Mapping[str, Any]) -> DeviceFacts:
        """Find a runtime. `device` must be "" or "cpu"; raises Unsupported when no runtime is installed."""
        if device not in {"", "cpu"}:
            raise InvalidRequest(f"the cpu backend has no device {device!r}; leave the name empty")
        self._options = options
        self._runtime = runtime = _tflite.find_runtime(str(options.get("runtime", "")))
        facts = {
            "family": runtime.family,
            "cpus": len(os.sched_getaffinity(0)),
            "threads": _tflite.threads(options),
            "machine": platform.machine(),
        }
        return DeviceFacts(runtime.name, f"CPU {processor.name()}", facts)

    def load(self, key: str, artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Load a .tflite file, or a SavedModel (its directory, or the saved_model.pb in it)."""
        if artifact.is_dir() or artifact.suffix == ".pb":
            from .savedmodel import SavedModel

            saved = SavedModel(artifact, _tflite.shapes_option(options))
            self._models[key] = saved
            return saved.io()
        runtime = self._runtime
        if runtime is None:
            raise InvalidRequest("open the cpu backend before loading a model")
        count = _tflite.threads(options, self._options.get("threads"))
        contents = _tflite.read_file(artifact, reader.read)
        xnnpack = _flag(options, self._options, "xnnpack")
        resolver = runtime.module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES

        def opened(**arguments: Any) -> TfliteModel:
            opener = _tflite.reopener(runtime, artifact, num_threads=count, **arguments)
            return TfliteModel(opener, contents, options_of(options), InvalidModel)

        try:
            model = opened() if xnnpack else opened(experimental_op_resolver_type=resolver)
        except InvalidModel as error:
            if not xnnpack or not _tflite.refused_by_xnnpack(error):
                raise
            model = opened(experimental_op_resolver_type=resolver)
        self._models[key] = model
        operators = model.operators()
        delegated = operators.count("DELEGATE")
        facts = {
            "family": runtime.family,
            "threads": count,
            "operators": len(operators) - delegated,
            "delegated_parts": delegated,
        }
        return model.io(facts)

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Run once. InvalidModel when the graph itself fails (the CPU cannot be broken)."""
        model = self._models.get(key)
        if model is None:
            raise NotFound(f"model {key!r} is not loaded on the cpu")
        return model.run(inputs, outputs)

    def infer_open(self, key: str, inputs: Sequence[Array], turn: Turn) -> tuple[Phases, list[Array]]:
        """Run once on inputs of any shape that the model takes; returns new arrays."""
        model = self._models.get(key)
        if not isinstance(model, TfliteModel):
            raise NotFound(f"model {key!r} is not loaded on the cpu")
        return model.run_open(inputs, turn)

    def unload(self, key: str) -> None:
        """Free the interpreter and its mapping of the file."""
        self._models.pop(key, None)

    def close(self) -> None:
        """Free everything."""
        self._models.clear()


def create() -> CpuBackend:
    """A closed backend."""
    return CpuBackend()


def _flag(options: Mapping[str, Any], fallback: Mapping[str, Any], name: str) -> bool:
    value = options.get(name, fallback.get(name, True))
    if not isinstance(value, bool):
        raise InvalidModel(f"option {name} = {value!r} must be true or false")
    return value
