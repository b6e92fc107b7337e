"""libmvnc by ctypes, both generations, as one shape: a stick takes graphs and turns FP16 into FP16.

Facts: movidius/ncsdk master (API 1) and ncsdk2 (API 2), api/include/mvnc.h and api/src/mvnc_api.c.
Rule of this module: after a status that means trouble with the stick, nothing of the library is called again. API 1
keeps its device lock after a failed USB write, so that the next call would never return.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_uint, c_void_p, create_string_buffer
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ...errors import DeviceError, InvalidModel, Unsupported
from ..base import Array

#: Tried in this order; EDGEAI_MVNC_LIBRARY or the option `library` names another one.
DEFAULT_LIBRARIES: Final = ("libmvnc.so.0", "libmvnc.so")

_COMMON: Final = {
    0: "OK", -1: "BUSY", -2: "ERROR", -3: "OUT_OF_MEMORY", -4: "DEVICE_NOT_FOUND", -5: "INVALID_PARAMETERS",
    -6: "TIMEOUT", -7: "MVCMD_NOT_FOUND", -10: "UNSUPPORTED_GRAPH_FILE",
}  # fmt: skip
STATUS: Final = {
    1: _COMMON | {-8: "NO_DATA", -9: "GONE", -11: "MYRIAD_ERROR"},
    2: _COMMON | {
        -8: "NOT_ALLOCATED", -9: "UNAUTHORIZED", -11: "UNSUPPORTED_CONFIGURATION_FILE", -12: "UNSUPPORTED_FEATURE",
        -13: "MYRIAD_ERROR", -14: "INVALID_DATA_LENGTH", -15: "INVALID_HANDLE",
    },
}  # fmt: skip
_OUT_OF_MEMORY: Final = -3
_UNSUPPORTED_GRAPH_FILE: Final = -10
_MYRIAD_ERROR: Final = {1: -11, 2: -13}
_NAME_SIZE: Final = 28
#: Thermal statistics are 25 floats; which sensor each one is, is not documented, so the hottest counts.
_THERMAL_FLOATS: Final = 25


class TensorDescriptor(ctypes.Structure):
    """`struct ncTensorDescriptor_t`; strides and total in bytes."""

    _fields_ = tuple(
        (name, c_uint) for name in ("n", "c", "w", "h", "total", "c_stride", "w_stride", "h_stride", "data_type")
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the library says about a loaded graph; None = it does not say (API 1)."""

    #: Height, width, channels.
    input: tuple[int, int, int] | None = None
    output: tuple[int, int, int] | None = None


class Stick(Protocol):
    """One opened stick."""

    generation: int
    name: str

    def facts(self) -> Mapping[str, Any]: ...
    def load(self, key: str, graph: bytes) -> Sizes: ...
    def infer(self, key: str, values: Array, result: Array) -> None: ...
    def unload(self, key: str) -> None: ...
    def health(self) -> Mapping[str, Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded libmvnc."""

    c: ctypes.CDLL
    #: 1 or 2.
    generation: int
    #: The file, as far as it is known; firmware lies beside it in `mvnc/`.
    path: Path


def load_library(name: str) -> Library:
    """Load `name`, or the first of DEFAULT_LIBRARIES; raises Unsupported when there is none."""
    failures = []
    for candidate in (name,) if name else DEFAULT_LIBRARIES:
        try:
            c = ctypes.CDLL(candidate)
        except OSError as error:
            failures.append(str(error))
            continue
        for generation, symbol in ((2, "ncDeviceOpen"), (1, "mvncOpenDevice")):
            if hasattr(c, symbol):
                return Library(c, generation, _path_of(getattr(c, symbol), candidate))
        failures.append(f"{candidate} is not libmvnc")
    raise Unsupported(
        f"no Movidius library ({'; '.join(failures)}); on the image: add libmvnc (feature ncs), elsewhere build it "
        "from movidius/ncsdk; EDGEAI_MVNC_LIBRARY names another file"
    )


class _DlInfo(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("base", c_void_p), ("symbol", c_char_p), ("address", c_void_p))


def _path_of(function: Any, fallback: str) -> Path:
    """The library looks for its firmware beside the file that dladdr names, so we ask the same way."""
    info = _DlInfo()
    if ctypes.CDLL(None).dladdr(ctypes.cast(function, c_void_p), byref(info)) and info.name:
        return Path(os.fsdecode(info.name))
    return Path(fallback)


def require_firmware(library: Library, stick: str) -> None:
    """Raise Unsupported, naming the file and where it comes from, when the stick's firmware is not installed.

    API 2 only says ERROR in this case, so it is looked for before the library is asked.
    """
    if library.generation == 1:
        name, archive = "MvNCAPI.mvcmd", "NCSDK-1.12.01.01"
    else:
        chip = "ma2480" if "ma2480" in stick else "ma2450"
        name, archive = f"MvNCAPI-{chip}.mvcmd", "NCSDK-2.10.01.01"
    file = library.path.parent / "mvnc" / name
    if not file.is_file():
        raise Unsupported(
            f"the stick's firmware {name} is missing; expected at {file}. It is Intel's (Software Tools License "
            f"Agreement, not redistributable): take it from Intel's archive {archive} (ncsdk-<arch>/fw/), or build the "
            "image with mvnc-firmware and LICENSE_FLAGS_ACCEPTED = commercial_intel-movidius"
        )


class StickV1:
    """API 1. The stick holds one graph; the others wait here and are sent when asked for."""

    generation = 1

    def __init__(self, library: Library, name: str) -> None:
        self._c = library.c
        self.name = name
        self._broken = False
        self._graphs: dict[str, bytes] = {}
        self._active = ""
        self._graph = c_void_p()
        self._device = c_void_p()
        self._check("open", self._c.mvncOpenDevice(name.encode(), byref(self._device)))

    @staticmethod
    def names(library: Library) -> tuple[str, ...]:
        """Sticks plugged in, booted or not."""
        names: list[str] = []
        buffer = create_string_buffer(_NAME_SIZE)
        while library.c.mvncGetDeviceName(len(names), buffer, _NAME_SIZE) == 0:
            names.append(buffer.value.decode(errors="replace"))
        return tuple(names)

    def facts(self) -> Mapping[str, Any]:
        return {"graphs_at_once": 1}

    def load(self, key: str, graph: bytes) -> Sizes:
        _usable(self._broken, self.name)
        self._activate(key, graph)
        self._graphs[key] = graph
        return Sizes()

    def infer(self, key: str, values: Array, result: Array) -> None:
        _usable(self._broken, self.name)
        if self._active != key:
            self._activate(key, self._graphs[key])
        address = values.ctypes.data_as(c_void_p)
        self._check("send", self._c.mvncLoadTensor(self._graph, address, c_uint(values.nbytes), None))
        data, length, user = c_void_p(), c_uint(), c_void_p()
        self._check("run", self._c.mvncGetResult(self._graph, byref(data), byref(length), byref(user)))
        if length.value != result.nbytes or not data.value:
            raise DeviceError(f"the stick returned {length.value} bytes where the graph has {result.nbytes}")
        ctypes.memmove(result.ctypes.data, data.value, result.nbytes)

    def unload(self, key: str) -> None:
        self._graphs.pop(key, None)
        if self._active == key and not self._broken:
            self._active = ""
            self._check("unload", self._c.mvncDeallocateGraph(self._graph))

    def health(self) -> Mapping[str, Any]:
        if self._broken or not self._active:
            return {}
        level, data, length = c_int(), POINTER(c_float)(), c_uint()
        self._check("status", self._c.mvncGetDeviceOption(self._device, 1002, byref(level), byref(length)))
        self._check("status", self._c.mvncGetDeviceOption(self._device, 1000, byref(data), byref(length)))
        return _thermal(level.value, [data[i] for i in range(length.value // 4)])

    def close(self) -> None:
        if not self._broken and self._device:
            device, self._device = self._device, c_void_p()
            self._c.mvncCloseDevice(device)

    def _activate(self, key: str, graph: bytes) -> None:
        if self._active:
            self._active = ""
            self._check("unload", self._c.mvncDeallocateGraph(self._graph))
        status = self._c.mvncAllocateGraph(self._device, byref(self._graph), graph, c_uint(len(graph)))
        _refused(1, status)
        self._check("load", status)
        self._active = key

    def _check(self, step: str, status: int) -> None:
        if status == 0:
            return
        detail = ""
        if status == _MYRIAD_ERROR[1]:  # the one error after which the lock is free
            text, length = c_char_p(), c_uint()
            if self._c.mvncGetGraphOption(self._graph, 1001, byref(text), byref(length)) == 0 and text.value:
                detail = f" ({text.value.decode(errors='replace')})"
        self._broken = True
        raise _failure(1, self.name, step, status, detail)


class StickV2:
    """API 2: several graphs at once, each with one input and one output queue of two elements."""

    generation = 2

    def __init__(self, library: Library, name: str) -> None:
        self._c = library.c
        self.name = name
        self._broken = False
        #: key -> (graph, input queue, output queue)
        self._graphs: dict[str, tuple[c_void_p, c_void_p, c_void_p]] = {}
        self._device = c_void_p()
        index = self.names(library).index(name)
        self._check("find", self._c.ncDeviceCreate(index, byref(self._device)))
        self._check("open", self._c.ncDeviceOpen(self._device))

    @staticmethod
    def names(library: Library) -> tuple[str, ...]:
        """Sticks plugged in, booted or not."""
        names: list[str] = []
        handle, buffer = c_void_p(), create_string_buffer(_NAME_SIZE)
        while library.c.ncDeviceCreate(len(names), byref(handle)) == 0:
            length = c_uint(_NAME_SIZE)
            status = library.c.ncDeviceGetOption(handle, 2013, buffer, byref(length))
            names.append(buffer.value.decode(errors="replace") if status == 0 else str(len(names)))
            library.c.ncDeviceDestroy(byref(handle))
        return tuple(names)

    def facts(self) -> Mapping[str, Any]:
        firmware = (c_uint * 4)()
        length = c_uint(ctypes.sizeof(firmware))
        self._check("status", self._c.ncDeviceGetOption(self._device, 2010, firmware, byref(length)))
        return {
            "firmware": ".".join(str(n) for n in firmware),
            "graphs_at_once": self._int(2007),
            "memory_bytes": self._int(2004),
            "chip": {0: "MA2450", 1: "MA2480"}.get(self._int(2015), "unknown"),
        }

    def load(self, key: str, graph: bytes) -> Sizes:
        _usable(self._broken, self.name)
        self.unload(key)
        handle, queue_in, queue_out = c_void_p(), c_void_p(), c_void_p()
        self._check("load", self._c.ncGraphCreate(key.encode()[: _NAME_SIZE - 1], byref(handle)))
        status = self._c.ncGraphAllocateWithFifosEx(
            self._device, handle, graph, c_uint(len(graph)),
            byref(queue_in), 1, 2, 0,   # the host writes, two elements, FP16
            byref(queue_out), 0, 2, 0,  # the host reads
        )  # fmt: skip
        if status in {_OUT_OF_MEMORY, _UNSUPPORTED_GRAPH_FILE}:
            self._c.ncGraphDestroy(byref(handle))
        _refused(2, status)
        self._check("load", status)
        self._graphs[key] = (handle, queue_in, queue_out)
        return Sizes(self._sizes(handle, 1004), self._sizes(handle, 1005))

    def infer(self, key: str, values: Array, result: Array) -> None:
        _usable(self._broken, self.name)
        handle, queue_in, queue_out = self._graphs[key]
        length = c_uint(values.nbytes)
        address = values.ctypes.data_as(c_void_p)
        queue = self._c.ncGraphQueueInferenceWithFifoElem
        self._check("run", queue(handle, queue_in, queue_out, address, byref(length), None), handle)
        length, user = c_uint(result.nbytes), c_void_p()
        address = result.ctypes.data_as(c_void_p)
        self._check("read", self._c.ncFifoReadElem(queue_out, address, byref(length), byref(user)), handle)

    def unload(self, key: str) -> None:
        handles = self._graphs.pop(key, None)
        if handles is None or self._broken:
            return
        graph, queue_in, queue_out = handles
        self._c.ncFifoDestroy(byref(queue_in))
        self._c.ncFifoDestroy(byref(queue_out))
        self._c.ncGraphDestroy(byref(graph))

    def health(self) -> Mapping[str, Any]:
        if self._broken:
            return {}
        thermal = (c_float * _THERMAL_FLOATS)()
        length = c_uint(ctypes.sizeof(thermal))
        self._check("status", self._c.ncDeviceGetOption(self._device, 2000, thermal, byref(length)))
        return _thermal(self._int(2001), list(thermal))

    def close(self) -> None:
        if self._broken or not self._device:
            return
        for key in tuple(self._graphs):
            self.unload(key)
        self._c.ncDeviceClose(self._device)
        self._c.ncDeviceDestroy(byref(self._device))

    def _int(self, option: int) -> int:
        value, length = c_int(), c_uint(4)
        self._check("status", self._c.ncDeviceGetOption(self._device, option, byref(value), byref(length)))
        return value.value

    def _sizes(self, graph: c_void_p, option: int) -> tuple[int, int, int]:
        descriptor = TensorDescriptor()
        length = c_uint(ctypes.sizeof(descriptor))
        self._check("load", self._c.ncGraphGetOption(graph, option, byref(descriptor), byref(length)))
        return descriptor.h, descriptor.w, descriptor.c

    def _check(self, step: str, status: int, graph: c_void_p | None = None) -> None:
        if status == 0:
            return
        detail = ""
        if status == _MYRIAD_ERROR[2] and graph is not None:
            buffer, length = create_string_buffer(120), c_uint(120)
            if self._c.ncGraphGetOption(graph, 1006, buffer, byref(length)) == 0 and buffer.value:
                detail = f" ({buffer.value.decode(errors='replace')})"
        self._broken = True
        raise _failure(2, self.name, step, status, detail)


def _usable(broken: bool, name: str) -> None:
    if broken:
        raise DeviceError(f"Neural Compute Stick {name} failed before; it needs a new process to be opened anew")


def _refused(generation: int, status: int) -> None:
    """Statuses caused by the graph; the stick works after them."""
    if status == _UNSUPPORTED_GRAPH_FILE:
        raise InvalidModel(
            f"the stick's library (NCSDK {generation}) refuses the graph: UNSUPPORTED_GRAPH_FILE; compile it with "
            f"mvNCCompile of NCSDK {generation}"
        )
    if status == _OUT_OF_MEMORY:
        raise InvalidModel("the graph does not fit in the stick's memory together with those already loaded")


def _failure(generation: int, name: str, step: str, status: int, detail: str) -> DeviceError:
    word = STATUS[generation].get(status, f"status {status}")
    advice = {
        "TIMEOUT": "no result within 15 s",
        "GONE": "it was unplugged",
        "ERROR": "USB trouble: unplugged, a weak power supply, or another process has it",
    }.get(word, "the stick is opened anew")
    return DeviceError(f"Neural Compute Stick {name}: {word}{detail} at step `{step}`; {advice}")


def _thermal(level: int, temperatures: list[float]) -> Mapping[str, Any]:
    """Level 1: the stick pauses 100 ms at a time above 85 C; 2: 10 s at a time above 95 C."""
    facts: dict[str, Any] = {"throttled": level > 0, "throttling_level": level}
    plausible = [t for t in temperatures if 0 < t < 200]
    if plausible:
        facts["temperature_c"] = round(max(plausible), 1)
    return facts
