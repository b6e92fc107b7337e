"""Our half of pycoral against a C library with libedgetpu's interface."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rig.paths import TOP

SOURCE = TOP / "meta-edgeai/recipes-runtime/pycoral/python3-pycoral/edgetpu.py"

# The calls of edgetpu_c.h that the module makes, with two devices.
FAKE = """
#include <stdlib.h>
struct edgetpu_device { int type; const char *path; };
int freed, level;
struct edgetpu_device *edgetpu_list_devices(size_t *n) {
  struct edgetpu_device *d = calloc(2, sizeof *d);
  d[0].type = 1; d[0].path = "/sys/bus/usb/devices/2-1";
  d[1].type = 0; d[1].path = "/dev/apex_0";
  *n = 2;
  return d;
}
void edgetpu_free_devices(struct edgetpu_device *d) { freed++; free(d); }
void edgetpu_verbosity(int v) { level = v; }
const char *edgetpu_version(void) { return "BuildLabel(stand-in), RuntimeVersion(14)"; }
"""


class Interpreter:
    """Adds one to a uint8 tensor of four, like the interpreter's own Python interface."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.tensor = np.zeros((1, 4), np.uint8)

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": np.array([1, 4]), "dtype": np.uint8}]

    def set_tensor(self, index: int, value: np.ndarray[Any, Any]) -> None:
        assert index == 0
        self.tensor = value.copy()

    def invoke(self) -> None:
        self.tensor = self.tensor + 1


@pytest.fixture
def edgetpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler")
    (tmp_path / "fake.c").write_text(FAKE)
    library = tmp_path / "libedgetpu.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "fake.c"], check=True)
    runtime: Any = types.ModuleType("ai_edge_litert.interpreter")
    runtime.Interpreter = Interpreter
    runtime.load_delegate = lambda name, options: (name, options)
    package: Any = types.ModuleType("ai_edge_litert")
    package.interpreter = runtime
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", runtime)
    spec = importlib.util.spec_from_file_location("edgetpu_under_test", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._LIBRARY = str(library)
    return module


def test_devices_are_listed_as_googles_module_does_and_freed(edgetpu: Any) -> None:
    assert edgetpu.list_edge_tpus() == [
        {"type": "usb", "path": "/sys/bus/usb/devices/2-1"},
        {"type": "pci", "path": "/dev/apex_0"},
    ]
    assert ctypes.c_int.in_dll(ctypes.CDLL(edgetpu._LIBRARY), "freed").value == 1


def test_version_and_verbosity_come_from_the_library(edgetpu: Any) -> None:
    assert "RuntimeVersion(14)" in edgetpu.get_runtime_version()
    assert edgetpu.set_verbosity(7)
    assert ctypes.c_int.in_dll(ctypes.CDLL(edgetpu._LIBRARY), "level").value == 7


def test_an_interpreter_gets_the_delegate_with_the_wanted_device(edgetpu: Any) -> None:
    interpreter = edgetpu.make_interpreter("model.tflite", device="usb:1")
    assert interpreter.options["model_path"] == "model.tflite"
    assert interpreter.options["experimental_delegates"] == [(edgetpu._LIBRARY, {"device": "usb:1"})]
    assert edgetpu.make_interpreter(b"bytes").options["model_content"] == b"bytes"


def test_inference_takes_bytes_arrays_and_pointers_and_refuses_another_size(edgetpu: Any) -> None:
    interpreter = edgetpu.make_interpreter("model.tflite")
    raw = (ctypes.c_uint8 * 4)(1, 2, 3, 4)
    for value in (bytes([1, 2, 3, 4]), np.array([1, 2, 3, 4], np.uint8), (ctypes.c_void_p(ctypes.addressof(raw)), 4)):
        edgetpu.run_inference(interpreter, value)
        assert interpreter.tensor.tolist() == [[2, 3, 4, 5]]
    with pytest.raises(ValueError, match="input size=3, expected=4"):
        edgetpu.run_inference(interpreter, b"123")
    with pytest.raises(TypeError):
        edgetpu.run_inference(interpreter, 5)


def test_a_missing_library_is_an_error_that_names_it(edgetpu: Any) -> None:
    edgetpu._LIBRARY = "libedgetpu-that-is-not-there.so.1"
    with pytest.raises(OSError, match="libedgetpu-that-is-not-there"):
        edgetpu.load_edgetpu_delegate()
