"""Coral Edge TPU, USB or PCIe, through libedgetpu's TFLite delegate.

Device names: see `_edgetpu.choose`. Options of `open` (an artifact may set `threads` too):
    library       file of libedgetpu; default EDGEAI_EDGETPU_LIBRARY, else libedgetpu.so.1
    performance   std (default) | max | high | medium | low
    cache         directory for the record that library and runtime fit; default EDGEAI_CACHE or CACHE_DIRECTORY
    threads       CPU threads for operators that stayed on the CPU
    runtime       "litert" or "tflite-runtime" instead of the first one present
    sysfs         where /sys is; default EDGEAI_SYSFS or /sys
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DeviceError, InvalidModel, InvalidRequest, NotFound
from ...formats.tflite import reader
from ...tensors import Turn
from ..base import Array, DeviceFacts, ModelIO, Phases
from ..tflite import interpreter as _tflite
from ..tflite.model import TfliteModel, options_of
from . import abi as _abi
from . import library as _edgetpu


class EdgeTpuBackend:
    """Backend for target `edgetpu`; one object holds one stick."""

    def __init__(self) -> None:
        self._models: dict[str, TfliteModel] = {}
        self._options: Mapping[str, Any] = {}
        self._runtime: _tflite.Runtime | None = None
        self._library: _edgetpu.Library | None = None
        self._device: _edgetpu.Accelerator | None = None
        #: Keeps the device open while no model is loaded; None until library and runtime are known to fit.
        self._anchor: _edgetpu.Delegate | None = None
        self._name = ""

    def open(self, device: str, options: Mapping[str, Any]) -> DeviceFacts:
        """Find the library and the stick, and open it.

        While it is not known whether library and runtime fit, opening waits for the first `load`, which tries the pair
        in a child process with a real model. Raises Unsupported without library or runtime, DeviceError without device.
        """
        self.close()
        self._options, self._name = options, device
        performance = str(options.get("performance", "std"))
        _edgetpu.performance_for(performance, "usb")  # a bad option is refused before a device is looked for
        self._runtime = runtime = _tflite.find_runtime(str(options.get("runtime", "")))
        path = str(options.get("library") or os.environ.get("EDGEAI_EDGETPU_LIBRARY") or _edgetpu.DEFAULT_LIBRARY)
        self._library = library = _edgetpu.Library(path)
        self._device = next(_edgetpu.choose(device, library.devices()))
        proven = _abi.fits(library, runtime, options)
        if proven:
            self._open_device()
        chosen = self._device
        facts = {
            "family": runtime.family,
            "library": library.version,
            "runtime_version": library.runtime_version,
            "kind": chosen.kind,
            "path": chosen.path,
            "performance": _edgetpu.performance_for(performance, chosen.kind),
            "delegate_abi": "fits" if proven else "to be tried with the first model",
            **_edgetpu.link(chosen),
            **self.health(),
        }
        kind = "USB Accelerator" if chosen.kind == "usb" else "PCIe accelerator"
        description = f"Coral {kind} at {chosen.kind}:{os.path.basename(chosen.path)}"
        return DeviceFacts(f"libedgetpu {library.version} on {runtime.name}", description, facts)

    def _open_device(self) -> None:
        """Open the first of the devices the name can mean that lets itself be opened."""
        assert self._library is not None  # noqa: S101  both callers come after open()
        performance = str(self._options.get("performance", "std"))
        failure: DeviceError | None = None
        for candidate in _edgetpu.choose(self._name, self._library.devices()):
            try:
                self._anchor = self._library.create(candidate, performance)
            except DeviceError as error:
                failure = failure or error
            else:
                self._device = candidate
                return
        raise failure or DeviceError("the Edge TPU went away while it was being opened")

    def load(self, key: str, artifact: Path, options: Mapping[str, Any]) -> ModelIO:
        """Load a compiled `_edgetpu.tflite`; its parameters travel to the chip with the first inference.

        Raises InvalidModel for a file that is not compiled for the Edge TPU or was compiled for a newer runtime.
        """
        if self._runtime is None or self._library is None or self._device is None:
            raise InvalidRequest("open the edgetpu backend before loading a model")
        facts = _file_facts(artifact, self._library.runtime_version)
        performance = str(self._options.get("performance", "std"))
        if self._anchor is None:
            _abi.check(self._library, self._runtime, self._device, artifact, self._options)
            self._open_device()
        threads = _tflite.threads(options, self._options.get("threads"))
        runtime, library, device = self._runtime, self._library, self._device

        reopen = _tflite.reopener(runtime, artifact, num_threads=threads)

        def opener() -> Any:
            delegate = library.create(device, performance)  # shares the open device
            return reopen(experimental_delegates=[delegate])

        contents = _tflite.read_file(artifact, reader.read)
        # What was compiled has its shapes for good: batches are run one after the other.
        model = TfliteModel(opener, contents, options_of(options), DeviceError, resizable=False)
        self._models[key] = model
        return model.io({"family": self._runtime.family, "threads": threads, **facts})

    def infer(self, key: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Phases:
        """Run once. Any failure of the runtime is a DeviceError: the stick is in an unknown state after it."""
        model = self._models.get(key)
        if model is None:
            raise NotFound(f"model {key!r} is not loaded on the Edge TPU")
        return model.run(inputs, outputs)

    def infer_open(self, key: str, inputs: Sequence[Array], turn: Turn) -> tuple[Phases, list[Array]]:
        """Run once, in a sequence or with texts; errors as `infer`."""
        model = self._models.get(key)
        if model is None:
            raise NotFound(f"model {key!r} is not loaded on the Edge TPU")
        return model.run_open(inputs, turn)

    def health(self) -> Mapping[str, Any]:
        """Temperature and throttling now; {} for USB, which does not report them."""
        if self._device is None:
            return {}
        sysfs = self._options.get("sysfs") or os.environ.get("EDGEAI_SYSFS") or "/sys"
        return _edgetpu.thermal(self._device, Path(sysfs))

    def unload(self, key: str) -> None:
        """Free the interpreter; its cached parameters on the chip are gone with the next model that needs the room."""
        self._models.pop(key, None)

    def close(self) -> None:
        """Free the models first, then the device: a delegate must outlive its interpreters."""
        self._models.clear()
        self._anchor = None


def create() -> EdgeTpuBackend:
    """A closed backend."""
    return EdgeTpuBackend()


def _file_facts(artifact: Path, runtime_version: int) -> dict[str, Any]:
    """Token and parameter sizes, for the scheduler's first guess at what a switch costs.

    The rules of the runtime are applied here first: it says no less clearly, and aborts on some files.
    """
    from ...formats.edgetpu import reader as edgetpu
    from ...formats.edgetpu import rules as edgetpu_rules
    from ...formats.finding import REFUSED

    model = _tflite.read_file(artifact, edgetpu.read)
    for finding in edgetpu_rules.check(model, runtime_version or edgetpu_rules.RUNTIME):
        if finding.severity == REFUSED:
            raise InvalidModel(f"the Edge TPU runtime would refuse {artifact.name}: {finding.text}")
    return {
        "token": f"{model.token:016x}",
        "cached_bytes": model.cached_bytes,
        "streamed_bytes": model.streamed_bytes,
        "cpu_operators": len(model.cpu_operators),
    }
