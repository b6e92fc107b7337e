"""What differs between processors, natively on aarch64: the runtime's kernels, structs by value, wire formats."""

from __future__ import annotations

import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot.conftest import TOP
from rig import packages
from rig.link import Link

STANDINS = TOP / "daemon" / "tests" / "standins"
DATA = Path(os.environ.get("EDGEAI_TEST_DATA", TOP.parent / "shared" / "data"))
#: What the daemon's own tests need in the guest, in the versions of this environment; numpy and the runtimes are the image's.
TEST_TOOLS = (
    "pytest", "pluggy", "iniconfig", "packaging", "hypothesis", "sortedcontainers", "pytest-asyncio", "attrs", "flatbuffers",
)  # fmt: skip
#: The daemon's tests of what depends on the processor: struct layouts, byte order, calls into C, shared memory.
NATIVE = (
    "backends/test_cpu.py",
    "backends/test_edgetpu.py",
    "backends/test_ncs.py",
    "formats/test_tflite.py",
    "formats/test_edgetpu.py",
    "formats/test_devices.py",
    "backends/k210/test_frames.py",
    "api/fast/test_fast_socket.py",
)

DELEGATE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate
def answer(model, delegates):
    interpreter = Interpreter(model, experimental_delegates=delegates, num_threads=1)
    interpreter.allocate_tensors()
    spec = interpreter.get_input_details()[0]
    values = (np.arange(int(np.prod(spec["shape"]))) * 31 % 256).astype(spec["dtype"]).reshape(spec["shape"])
    interpreter.set_tensor(spec["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
outputs = answer("/run/twins/model_edgetpu.tflite", [load_delegate(sys.argv[1], {})])
expected = answer("/run/twins/model.tflite", [])
assert outputs.any() and np.array_equal(outputs, expected), (outputs, expected)
"""

#: open a stick, put a graph on it, send a tensor and take one back, all by way of the C ABI
NCS = """
import sys
import numpy as np
from edgeaid.backends.ncs.backend import NcsBackend
backend = NcsBackend()
backend.open("", {"library": sys.argv[1]})
io = backend.load("m", __import__("pathlib").Path(sys.argv[2]), {})
values = np.random.default_rng(3).normal(size=io.inputs[0].shape).astype(np.float32)
out = np.zeros(io.outputs[0].shape, np.float32)
backend.infer("m", [values], [out])
halves = values.reshape(-1).astype(np.float16)
assert np.array_equal(out.reshape(-1), halves[7 * np.arange(out.size) % halves.size].astype(np.float32))
"""


@pytest.fixture(scope="module")
def libraries(guest: Link, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The stand-ins of libedgetpu and libmvnc, compiled for aarch64 and put into the guest; their directory there."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("aarch64-linux-gnu-gcc is not installed: apt-get install gcc-aarch64-linux-gnu")
    out = tmp_path_factory.mktemp("standins")
    subprocess.run(
        [sys.executable, str(STANDINS / "build.py"), "--target", "aarch64", str(out)], check=True, capture_output=True
    )
    for library in out.glob("*.so"):
        guest.put(f"/run/standins/{library.name}", library.read_bytes(), 0o755)
    for name in ("MvNCAPI.mvcmd", "MvNCAPI-ma2450.mvcmd"):  # a stick boots with firmware from beside the library
        guest.put(f"/run/standins/mvnc/{name}", b"firmware")
    return "/run/standins"


@pytest.fixture(scope="module")
def data() -> Path:
    """Real models of accelerators."""
    if not (DATA / "SHA256SUMS").is_file():
        pytest.skip(f"real models are not here: {DATA} (set EDGEAI_TEST_DATA)")
    return DATA


def test_every_stand_in_library_loads_on_aarch64(guest: Link, libraries: str) -> None:
    guest.python(
        "import ctypes, glob, sys\nlibraries = glob.glob(sys.argv[1] + '/*.so')\nassert len(libraries) == 4, libraries\n"
        "for name in libraries: ctypes.CDLL(name)",
        libraries,
    ).check()


def test_delegate_takes_structs_by_value_as_aarch64_passes_them(guest: Link, libraries: str, data: Path) -> None:
    """They go in registers on one architecture and in memory on the other: only a real call shows it."""
    stem = data / "coral" / "mobilenet_v1_0.25_128_quant"
    guest.put("/run/twins/model.tflite", stem.with_name(stem.name + ".tflite").read_bytes())
    guest.put("/run/twins/model_edgetpu.tflite", stem.with_name(stem.name + "_edgetpu.tflite").read_bytes())
    guest.run(
        ["python3", "-", f"{libraries}/libedgetpu_standin.so"],
        stdin=DELEGATE.encode(),
        env={"EDGETPU_STANDIN_TWINS": "/run/twins", "EDGETPU_STANDIN_TIME": "0"},
    ).check()


@pytest.mark.parametrize(("api", "graph"), [(1, "p.graph"), (2, "graph.facedetect80")])
def test_neural_compute_stick_library_is_driven_on_aarch64(
    guest: Link, libraries: str, data: Path, api: int, graph: str
) -> None:
    guest.put(f"/run/{graph}", (data / "ncs" / graph).read_bytes())
    directory = f"/run/ncs{api}"
    guest.run(
        f"mkdir -p {directory} && cp {libraries}/libmvnc_v{api}_standin.so {directory}/libmvnc.so.0 && cp -r {libraries}/mvnc {directory}/"
    ).check()
    guest.run(
        ["python3", "-", f"{directory}/libmvnc.so.0", f"/run/{graph}"],
        stdin=NCS.encode(),
        env={"MVNC_STANDIN_TIME": "0"},
    ).check()


def _archive(tools: Path, data: Path) -> bytes:
    """The daemon's tests, what runs them, and the models they read, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(tools, "tools")
        for directory in ("tests", "boards", "docs"):
            tar.add(TOP / "daemon" / directory, f"daemon/{directory}", filter=_no_caches)
        tar.add(TOP / "daemon/pyproject.toml", "daemon/pyproject.toml")
        tar.add(data, "data")
    return buffer.getvalue()


def _no_caches(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name else info


@pytest.fixture(scope="module")
def workplace(guest: Link, libraries: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory of the guest with the daemon's tests, pytest and real models; default models where the tests look for them."""
    wheels, tools = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("tools")
    packages.pip_download(wheels, [f"{name}=={importlib.metadata.version(name)}" for name in TEST_TOOLS], wheel=True)
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(tools)
    guest.run("mkdir -p /var/lib/native && tar -x -C /var/lib/native", stdin=_archive(tools, data), timeout=900).check()
    defaults = guest.run("echo /usr/lib/python3*/site-packages/edgeaid/models").check().strip() + "/defaults"
    guest.run(f"ln -sfn /usr/share/edgeai/models {defaults}").check()
    yield "/var/lib/native"
    guest.run(f"rm {defaults}").check()


@pytest.mark.slow
@pytest.mark.parametrize("file", NATIVE)
def test_daemons_own_tests_pass_natively_on_aarch64(guest: Link, workplace: str, libraries: str, file: str) -> None:
    environment = {
        "PYTHONPATH": f"{workplace}/tools",
        "EDGEAI_TEST_DATA": f"{workplace}/data",
        "EDGEAI_TEST_STANDINS": libraries,
        "CI": "1",
        "HOME": "/var/lib/native",
    }
    done = guest.run(
        f"cd {workplace}/daemon && python3 -m pytest -q -x -p no:cacheprovider -m 'not slow and not root' tests/{file} 2>&1",
        env=environment,
        timeout=3600,
    )
    assert done.code == 0, done.out[-6000:]
    print(done.out.splitlines()[-1])
