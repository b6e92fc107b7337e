"""OpenVINO's C API 2.0 by ctypes: the part that loads a model and runs it. Same calls from 2022.3 to 2026.

No Python binding is used: OpenVINO 2022.3, the last release that drives a Neural Compute Stick 2, has none for the
Python of either Yocto release. Headers: openvinotoolkit/openvino:src/bindings/c/include/openvino/c/.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import DeviceError, EdgeaiError, InvalidModel, Unsupported
from ...tensors import NUMPY, TensorSpec
from ..base import Array


class _Shape(ctypes.Structure):
    _fields_ = (("rank", c_int64), ("dims", POINTER(c_int64)))


class _Range(ctypes.Structure):
    """`ov_dimension_t` and `ov_rank_t`: equal bounds = fixed."""

    _fields_ = (("min", c_int64), ("max", c_int64))


class _PartialShape(ctypes.Structure):
    _fields_ = (("rank", _Range), ("dims", POINTER(_Range)))


class _Version(ctypes.Structure):
    _fields_ = (("build", c_char_p), ("description", c_char_p))


class _Names(ctypes.Structure):
    _fields_ = (("names", POINTER(c_char_p)), ("count", c_size_t))


#: Versioned names in the library directories of Yocto and Debian, relative to /.
_SYSTEM: Final = (
    "usr/lib/libopenvino_c.so.*",
    "usr/lib64/libopenvino_c.so.*",
    "usr/lib/*-linux-gnu/libopenvino_c.so.*",
)
#: Highest element type number asked about; the enumeration has fewer than this in every release.
_ELEMENT_TYPES: Final = 32


def candidates(explicit: str) -> list[str]:
    """Where libopenvino_c may be: what was asked for, else the system's own, else the one in the `openvino` wheel."""
    if explicit:
        return [explicit]
    paths = ["libopenvino_c.so"]  # a distribution keeps this name in its development package, so also:
    paths += [str(p) for pattern in _SYSTEM for p in sorted(Path("/").glob(pattern))]
    spec = importlib.util.find_spec("openvino")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        paths += [str(p) for p in sorted(Path(directory, "libs").glob("libopenvino_c.so*"))]
    return paths


class OpenVino:
    """A loaded library with one Core."""

    def __init__(self, explicit: str = "") -> None:
        """Raises Unsupported when no library can be loaded."""
        failures = []
        for path in candidates(explicit):
            try:
                self.c = ctypes.CDLL(path)
                self.c.ov_core_create  # noqa: B018  AttributeError = some other library
            except (OSError, AttributeError) as error:
                failures.append(str(error))
                continue
            self.path = path
            break
        else:
            raise Unsupported(
                f"no OpenVINO C library ({'; '.join(failures)}); a Neural Compute Stick 2 needs OpenVINO 2022.3 built "
                "with ENABLE_INTEL_MYRIAD (image feature ncs2); EDGEAI_OPENVINO_LIBRARY names a file"
            )
        for name in ("ov_get_last_err_msg", "ov_get_error_info"):
            if hasattr(self.c, name):
                getattr(self.c, name).restype = c_char_p
        self._core = c_void_p()
        self.check(self.c.ov_core_create(byref(self._core)), DeviceError, "OpenVINO does not start")
        self._types: dict[int, str] | None = None

    def check(self, status: int, kind: type[EdgeaiError], what: str) -> None:
        """Raise `kind` with the library's reason unless `status` is OK."""
        if status == 0:
            return
        reason = None
        if hasattr(self.c, "ov_get_last_err_msg"):  # from 2023.0
            reason = self.c.ov_get_last_err_msg()
        reason = reason or self.c.ov_get_error_info(c_int(status)) or b""
        text = " ".join(reason.decode(errors="replace").split())
        raise kind(f"{what}: {text or f'status {status}'}"[:1000])

    @property
    def version(self) -> str:
        """Build number, for example "2022.3.2-9279-e2c7e4d7b4d"."""
        version = _Version()
        if self.c.ov_get_openvino_version(byref(version)) != 0:
            return "unknown"
        text = (version.build or b"unknown").decode(errors="replace")
        self.c.ov_version_free(byref(version))
        return text

    def devices(self) -> tuple[str, ...]:
        """Names such as "CPU", "MYRIAD" or, with several sticks, "MYRIAD.1.3-ma2480"."""
        names = _Names()
        status = self.c.ov_core_get_available_devices(self._core, byref(names))
        self.check(status, DeviceError, "OpenVINO cannot list its devices")
        devices = tuple(names.names[i].decode(errors="replace") for i in range(names.count))
        self.c.ov_available_devices_free(byref(names))
        return devices

    def has_plugin(self, device: str) -> bool:
        """Whether this build can drive such a device at all, present or not."""
        versions = (c_void_p * 2)()  # {array, count}
        name = device.partition(".")[0].encode()
        if self.c.ov_core_get_versions_by_device_name(self._core, name, versions) != 0:
            return False
        self.c.ov_core_versions_free(versions)
        return True

    def element_type(self, number: int) -> str:
        """OIP datatype of an element type number, "" for types we do not serve.

        The enumeration was renumbered between releases, so its meaning is found by asking for tensors of eight
        elements: the only 8-byte float comes before the integers, which come in the order of their sizes.
        """
        if self._types is None:
            sizes = [self._bytes_of_eight(n) for n in range(_ELEMENT_TYPES)]
            self._types = {}
            if 64 in sizes:
                f64 = sizes.index(64)
                u8 = sizes.index(8, f64 + 7)
                for first, names in ((f64 - 4, "BOOL BF16 FP16 FP32 FP64"), (f64 + 2, "INT8 INT16 INT32 INT64"),
                                     (u8, "UINT8 UINT16 UINT32 UINT64")):  # fmt: skip
                    self._types |= {first + i: name for i, name in enumerate(names.split())}
        return self._types.get(number, "")

    def _bytes_of_eight(self, number: int) -> int:
        dims = (c_int64 * 1)(8)
        tensor, size = c_void_p(), c_size_t()
        if self.c.ov_tensor_create(c_int(number), _Shape(1, dims), byref(tensor)) != 0:
            return 0
        status = self.c.ov_tensor_get_byte_size(tensor, byref(size))
        self.c.ov_tensor_free(tensor)
        return size.value if status == 0 else 0

    def number_of(self, datatype: str) -> int:
        """The element type number of an OIP datatype."""
        self.element_type(0)
        return next(n for n, name in (self._types or {}).items() if name == datatype)

    def compile(
        self, artifact: Path, device: str, shapes: Mapping[str, Sequence[int]], properties: Mapping[str, str]
    ) -> c_void_p:
        """An ov_compiled_model_t from a `.blob` or from anything ov_core_read_model reads (.xml, .onnx, .tflite)."""
        compiled = c_void_p()
        name = device.encode()
        if artifact.suffix == ".blob":
            content = artifact.read_bytes()
            status = self.c.ov_core_import_model(self._core, content, c_size_t(len(content)), name, byref(compiled))
            self._raise_cause(status, device, f"{artifact.name} cannot be imported on {device}")
            return compiled
        model = c_void_p()
        status = self.c.ov_core_read_model(self._core, str(artifact).encode(), None, byref(model))
        self.check(status, InvalidModel, f"{artifact.name} cannot be read by OpenVINO {self.version}")
        try:
            for tensor, shape in shapes.items():
                dims = (_Range * len(shape))(*(_Range(d, d) for d in shape))
                wanted = _PartialShape(_Range(len(shape), len(shape)), dims)
                status = self.c.ov_model_reshape_input_by_name(model, tensor.encode(), wanted)
                self.check(status, InvalidModel, f"input {tensor!r} cannot become {list(shape)}")
            pairs = [c_char_p(text.encode()) for pair in properties.items() for text in pair]
            status = self.c.ov_core_compile_model(
                self._core, model, name, c_size_t(len(pairs)), byref(compiled), *pairs
            )
            self._raise_cause(status, device, f"{artifact.name} cannot be compiled for {device}")
        finally:
            self.c.ov_model_free(model)
        return compiled

    def _raise_cause(self, status: int, device: str, what: str) -> None:
        """The stick's own errors come in the same exception as the model's."""
        try:
            self.check(status, InvalidModel, what)
        except InvalidModel as error:
            if device.startswith("MYRIAD") and any(w in str(error) for w in ("NC_ERROR", "X_LINK", "init Myriad")):
                raise DeviceError(f"{error}; the stick is not reachable") from None
            raise

    def close(self) -> None:
        """Free the Core; the stick reboots and is away for seconds."""
        if self._core:
            self.c.ov_core_free(self._core)
            self._core = c_void_p()


class Request:
    """A compiled model with one infer request and buffers of its own, which both sides keep for good."""

    def __init__(self, ov: OpenVino, compiled: c_void_p) -> None:
        """Takes `compiled` over. Raises InvalidModel for element types or variable shapes that cannot be served."""
        self._ov, self._compiled = ov, compiled
        self._request = c_void_p()
        self._tensors: list[c_void_p] = []
        try:
            c = ov.c
            status = c.ov_compiled_model_create_infer_request(compiled, byref(self._request))
            ov.check(status, DeviceError, "the device gives no infer request")
            self.inputs, self.input_arrays = self._side(
                "input", c.ov_compiled_model_inputs_size, c.ov_compiled_model_input_by_index,
                c.ov_infer_request_set_input_tensor_by_index,
            )  # fmt: skip
            self.outputs, self.output_arrays = self._side(
                "output", c.ov_compiled_model_outputs_size, c.ov_compiled_model_output_by_index,
                c.ov_infer_request_set_output_tensor_by_index,
            )  # fmt: skip
        except EdgeaiError:
            self.close()
            raise

    def run(self) -> None:
        """Input arrays to output arrays; raises DeviceError."""
        self._ov.check(self._ov.c.ov_infer_request_infer(self._request), DeviceError, "inference failed")

    def close(self) -> None:
        """Free request, tensors and model, in this order."""
        c = self._ov.c
        if self._request:
            c.ov_infer_request_free(self._request)
        for tensor in self._tensors:
            c.ov_tensor_free(tensor)
        if self._compiled:
            c.ov_compiled_model_free(self._compiled)
        self._request, self._compiled, self._tensors = c_void_p(), c_void_p(), []

    def _side(
        self, side: str, size: Callable[..., int], port_at: Callable[..., int], attach: Callable[..., int]
    ) -> tuple[tuple[TensorSpec, ...], tuple[Array, ...]]:
        ov = self._ov
        count = c_size_t()
        ov.check(size(self._compiled, byref(count)), InvalidModel, f"the model does not tell its {side}s")
        specs, arrays = [], []
        for index in range(count.value):
            port = c_void_p()
            status = port_at(self._compiled, c_size_t(index), byref(port))
            ov.check(status, InvalidModel, f"the model does not tell its {side} {index}")
            try:
                spec = self._spec(port, f"{side}{index}" if count.value > 1 else side)
            finally:
                ov.c.ov_output_const_port_free(port)
            array = np.zeros(spec.shape, NUMPY[spec.datatype])
            dims = (c_int64 * len(spec.shape))(*spec.shape)
            tensor, address = c_void_p(), array.ctypes.data_as(c_void_p)
            number, shape = c_int(ov.number_of(spec.datatype)), _Shape(len(spec.shape), dims)
            status = ov.c.ov_tensor_create_from_host_ptr(number, shape, address, byref(tensor))
            ov.check(status, InvalidModel, f"tensor {spec.name!r}")
            self._tensors.append(tensor)
            ov.check(attach(self._request, c_size_t(index), tensor), InvalidModel, f"tensor {spec.name!r}")
            specs.append(spec)
            arrays.append(array)
        return tuple(specs), tuple(arrays)

    def _spec(self, port: c_void_p, fallback: str) -> TensorSpec:
        ov = self._ov
        text, number, shape = c_void_p(), c_int(), _Shape()
        name = fallback  # blobs and some IR have no tensor names
        if ov.c.ov_port_get_any_name(port, byref(text)) == 0 and text.value:
            name = ctypes.string_at(text.value).decode(errors="replace") or fallback
            ov.c.ov_free(text)
        ov.check(ov.c.ov_port_get_element_type(port, byref(number)), InvalidModel, f"tensor {name!r}")
        datatype = ov.element_type(number.value)
        if datatype not in NUMPY:
            raise InvalidModel(f"tensor {name!r} has an element type that cannot be served (number {number.value})")
        status = ov.c.ov_const_port_get_shape(port, byref(shape))
        ov.check(status, InvalidModel, f"tensor {name!r} has no fixed shape, set option shapes")
        dims = tuple(int(shape.dims[i]) for i in range(shape.rank))
        ov.c.ov_shape_free(byref(shape))
        return TensorSpec(name, datatype, dims)


def describe(kind: str) -> Mapping[str, Any]:
    """JSON facts about a device of this kind that the library does not tell."""
    return {"computes_in": "FP16"} if kind == "MYRIAD" else {}
