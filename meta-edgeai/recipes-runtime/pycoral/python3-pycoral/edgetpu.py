# SPDX-License-Identifier: MIT
"""pycoral.utils.edgetpu on the C interface of libedgetpu, for any Python and any TensorFlow Lite interpreter.

Same names and results as Google's module. What its native half did by reaching into one C++ build of the interpreter is
done here through the interpreter's own Python interface: an input is copied once, DMA buffers are not supported.
"""

import contextlib
import ctypes

import numpy as np

try:
    import ai_edge_litert.interpreter as tflite
except ImportError:
    import tflite_runtime.interpreter as tflite

_LIBRARY = "libedgetpu.so.1"

# enum edgetpu_device_type of edgetpu_c.h
_TYPES = {0: "pci", 1: "usb"}


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("path", ctypes.c_char_p)]


def _library():
    """libedgetpu; asked for at every call, dlopen keeps one copy. OSError where it is not installed."""
    lib = ctypes.CDLL(_LIBRARY)
    lib.edgetpu_list_devices.argtypes = [ctypes.POINTER(ctypes.c_size_t)]
    lib.edgetpu_list_devices.restype = ctypes.POINTER(_Device)
    lib.edgetpu_free_devices.argtypes = [ctypes.POINTER(_Device)]
    lib.edgetpu_free_devices.restype = None
    lib.edgetpu_verbosity.argtypes = [ctypes.c_int]
    lib.edgetpu_verbosity.restype = None
    lib.edgetpu_version.argtypes = []
    lib.edgetpu_version.restype = ctypes.c_char_p
    return lib


def list_edge_tpus():
    """Devices that can be opened now: a list of {"type": "usb" or "pci", "path": ...}."""
    lib = _library()
    count = ctypes.c_size_t(0)
    devices = lib.edgetpu_list_devices(ctypes.byref(count))
    try:
        return [
            {"type": _TYPES.get(devices[i].type, "unknown"), "path": devices[i].path.decode()} for i in range(count.value)
        ]
    finally:
        lib.edgetpu_free_devices(devices)


def get_runtime_version():
    """Version text of libedgetpu."""
    return _library().edgetpu_version().decode()


def set_verbosity(verbosity):
    """How much libedgetpu says on standard error, 0 (nothing) to 10."""
    _library().edgetpu_verbosity(int(verbosity))
    return True


def load_edgetpu_delegate(options=None):
    """The delegate for an interpreter's experimental_delegates."""
    ctypes.CDLL(_LIBRARY)  # the interpreter's own message for a missing library does not name it
    return tflite.load_delegate(_LIBRARY, options or {})


def make_interpreter(model_path_or_content, device=None, delegate=None):
    """An interpreter with the Edge TPU delegate; `device` is None, ":<N>", "usb", "usb:<N>", "pci" or "pci:<N>"."""
    delegates = [delegate or load_edgetpu_delegate({"device": device} if device else {})]
    if isinstance(model_path_or_content, bytes):
        return tflite.Interpreter(model_content=model_path_or_content, experimental_delegates=delegates)
    return tflite.Interpreter(model_path=str(model_path_or_content), experimental_delegates=delegates)


def supports_dmabuf(interpreter_handle):
    """Always False: needs the interpreter's C++ object."""
    del interpreter_handle
    return False


def _bytes_of(input_data):
    """Raw bytes of what run_inference takes: bytes, a numpy array, (pointer, size), or a GStreamer buffer."""
    if isinstance(input_data, (bytes, bytearray, memoryview)):
        return bytes(input_data)
    if isinstance(input_data, np.ndarray):
        return np.ascontiguousarray(input_data).tobytes()
    if isinstance(input_data, tuple) and len(input_data) == 2 and isinstance(input_data[0], ctypes.c_void_p):
        return ctypes.string_at(input_data[0], input_data[1])
    if hasattr(input_data, "extract_dup"):
        return bytes(input_data.extract_dup(0, input_data.get_size()))
    raise TypeError("input data type is not supported.")


def run_inference(interpreter, input_data):
    """Puts `input_data` into the first input and invokes. ValueError where the size does not fit."""
    details = interpreter.get_input_details()[0]
    data = _bytes_of(input_data)
    expected = int(np.prod(details["shape"])) * np.dtype(details["dtype"]).itemsize
    if len(data) != expected:
        raise ValueError(f"input size={len(data)}, expected={expected}.")
    tensor = np.frombuffer(data, dtype=details["dtype"]).reshape(details["shape"])
    interpreter.set_tensor(details["index"], tensor)
    interpreter.invoke()


@contextlib.contextmanager
def opened(model_path_or_content, device=None):
    """make_interpreter for a `with`: the device is free again afterwards (Google's module lacks this)."""
    interpreter = make_interpreter(model_path_or_content, device)
    try:
        interpreter.allocate_tensors()
        yield interpreter
    finally:
        del interpreter
