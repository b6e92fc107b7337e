"""Intel Neural Compute Stick 2 (Myriad X) through OpenVINO 2022.3, or any device of any OpenVINO from 2022.3 on.

Device names are OpenVINO's: "MYRIAD" (also for ""), "MYRIAD.1.3-ma2480", "CPU", ...
Options of `open`:
    library   file of libopenvino_c.so; default EDGEAI_OPENVINO_LIBRARY, the system's, else that of the wheel `openvino`
Options of an artifact (.xml with its .bin beside it, or .blob made for exactly this OpenVINO):
    shapes    { "input" = [1, 3, 224, 224] } for inputs of variable size (.xml only)
    threads   CPU device only
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from ...errors import DeviceError, InvalidModel, InvalidRequest, NotFound, Unsupported
from ..base import Array, DeviceFacts, ModelIO, Phases
from ..tflite import interpreter as _tflite
from . import runtime as _openvino


class Ncs2Backend:
    """Backend for target `ncs2`; one object holds one OpenVINO device."""

    def __init__(self) -> None:
        self._ov: _openvino.OpenVino | None = None
        self._device = ""
        self._models: dict[str, _openvino.Request] = {}

    def open(self, device: str, options: Mapping[str, Any]) -> DeviceFacts:
        """Find the library and the device; OpenVINO boots the stick with the first model (seconds).

        Raises Unsupported without a library or when it was built without this device, DeviceError without a stick.
        """
        self.close()
        ov = _openvino.OpenVino(str(options.get("library") or os.environ.get("EDGEAI_OPENVINO_LIBRARY") or ""))
        name = device or "MYRIAD"
        kind = name.partition(".")[0]
        present = ov.devices()
        if not any(p == name or (p.startswith(f"{name}.") and name == kind) for p in present):
            seen = ", ".join(present) or "none"
            if not ov.has_plugin(name):
                raise Unsupported(
                    f"OpenVINO {ov.version} cannot drive {kind} (it has: {seen}); the last release with MYRIAD is "
                    "2022.3, built with ENABLE_INTEL_MYRIAD (image feature ncs2)"
                )
            raise DeviceError(
                f"no {name} is present (seen: {seen}); plug the stick in. After a process ends, a Neural Compute "
                "Stick 2 reboots and is away for 10 to 30 s"
            )
        self._ov, self._device = ov, name
        facts = {"library": ov.path, "openvino": ov.version, "devices": list(present), **_openvino.describe(kind)}
        return DeviceFacts(f"OpenVINO {ov.version}", f"OpenVINO device {name}", facts)

    def load(self, key: str, artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Read and compile a model for the device."""
        if self._ov is None:
            raise InvalidRequest("open the ncs2 backend before loading a model")
        _look_at(artifact)
        properties = {}
        if self._device.startswith("CPU"):
            properties["INFERENCE_NUM_THREADS"] = str(_tflite.threads(options))
        compiled = self._ov.compile(artifact, self._device, _tflite.shapes_option(options), properties)
        request = _openvino.Request(self._ov, compiled)
        self.unload(key)
        self._models[key] = request
        return ModelIO(request.inputs, request.outputs, {"device": self._device, **properties})

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Run once. Any failure is a DeviceError: the stick needs a new process after it."""
        request = self._models.get(key)
        if request is None:
            raise NotFound(f"model {key!r} is not loaded on {self._device}")
        start = perf_counter_ns()
        for own, given in zip(request.input_arrays, inputs, strict=True):
            np.copyto(own, given, casting="no")
        filled = perf_counter_ns()
        request.run()
        done = perf_counter_ns()
        for own, wanted in zip(request.output_arrays, outputs, strict=True):
            np.copyto(wanted, own, casting="no")
        return Phases(filled - start, done - filled, perf_counter_ns() - done)

    def unload(self, key: str) -> None:
        """Free a model on the device."""
        request = self._models.pop(key, None)
        if request is not None:
            request.close()

    def close(self) -> None:
        """Free all models, then the library's Core."""
        for key in tuple(self._models):
            self.unload(key)
        if self._ov is not None:
            self._ov.close()
            self._ov = None


def create() -> Ncs2Backend:
    """A closed backend."""
    return Ncs2Backend()


def _look_at(artifact: Path) -> None:
    """What the library says too late or not clearly."""
    from ...formats.ncs import reader as ncs

    if not artifact.is_file():
        raise InvalidModel(f"{artifact.name} cannot be read: there is no such file")
    if artifact.suffix not in {".xml", ".blob", ".onnx", ".tflite"}:
        raise InvalidModel(
            f"{artifact.name} is nothing OpenVINO runs here; use .xml (with .bin), .blob, .onnx or .tflite"
        )
    if artifact.suffix == ".blob":
        _tflite.read_file(artifact, ncs.read_blob)
    if artifact.suffix == ".xml" and not artifact.with_suffix(".bin").is_file():
        raise InvalidModel(
            f"{artifact.name} needs its weights beside it: {artifact.with_suffix('.bin').name} is missing"
        )
