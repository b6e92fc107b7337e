"""Triton's own Python examples, unmodified, against a running daemon. Only the transport of the HTTP ones is adapted:
they know no Unix sockets, so a loopback port is forwarded to the daemon's.

`EDGEAI_TRITON_CLIENT` names a checkout or bare copy of github.com/triton-inference-server/client.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeaid.models.repository import EMBEDDED

from ..support import tflite
from ..support.addresses import forwarded
from ..support.daemon import Running
from ..toolkit.tflite_builder import Graph, Op, T, build

pytestmark = pytest.mark.slow
pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("hpack", reason="needs edgeaid[grpc]")

PLACE = "src/python/examples"
LABELS = '[labels]\nfile = "labels.txt"'
#: Example -> why it cannot work here.
IMPOSSIBLE = {
    "simple_http_cudashm_client": "CUDA",
    "simple_grpc_cudashm_client": "CUDA",
    "simple_grpc_custom_repeat": "its model gives many answers to one request; TFLite has none such",
    "simple_grpc_model_control": "it wants INTERNAL for a bad file name, which its own comment calls the wrong status",
}
HTTP = ["infer", "async_infer", "aio_infer", "string_infer", "shm", "shm_string", "sequence_sync_infer"]
GRPC = [*HTTP, "aio_sequence_stream_infer", "sequence_stream_infer", "custom_args", "keepalive"]
#: Example -> arguments beside the address.
EXAMPLES: dict[str, list[str]] = {
    **{f"simple_http_{name}_client": [] for name in HTTP},
    **{f"simple_grpc_{name}_client": [] for name in GRPC},
    "simple_http_health_metadata": [],
    "simple_grpc_health_metadata": [],
    "grpc_client": [],
    "grpc_explicit_byte_content_client": [],
    "grpc_explicit_int8_content_client": [],
    "grpc_explicit_int_content_client": [],
    "reuse_infer_objects_client": ["-i", "http"],
    "reuse_infer_objects_client grpc": ["-i", "grpc"],
    "image_client": ["-m", "pictures", "-c", "1", "PICTURE"],
    "image_client http batch": ["-m", "pictures", "-c", "2", "-b", "2", "PICTURE"],
    "image_client grpc async": ["-m", "pictures", "-i", "grpc", "-a", "-c", "1", "PICTURE"],
    "grpc_image_client": ["-m", "pictures", "-c", "1", "-b", "1", "PICTURE"],
    "ensemble_image_client": ["-m", "pictures", "-c", "2", "PICTURE"],
    "ensemble_image_client grpc": ["-m", "pictures", "-i", "grpc", "-c", "2", "PICTURE"],
    "memory_growth_test": ["-r", "20"],
    "memory_growth_test grpc": ["-i", "grpc", "-r", "20"],
}


def example(name: str) -> str:
    """Text of an example, from a checkout or a bare repository."""
    place = os.environ.get("EDGEAI_TRITON_CLIENT", "")
    if not place:
        pytest.skip("set EDGEAI_TRITON_CLIENT to a copy of github.com/triton-inference-server/client")
    file = Path(place) / PLACE / f"{name}.py"
    if file.is_file():
        return file.read_text()
    command = ["git", "-C", place, "show", f"HEAD:{PLACE}/{name}.py"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip(f"this copy of the examples has no {name}.py")
    return shown.stdout


@dataclass
class Server:
    """A daemon with the models of the examples."""

    running: Running
    http: str
    grpc: str
    picture: Path


def named_like_densenet() -> bytes:
    """data_0 float [3,224,224] -> fc6_1."""
    tensors = [tflite.T("data_0", "FP32", [3, 224, 224]), tflite.T("fc6_1", "FP32", [3, 224, 224])]
    return tflite.build(tflite.Graph(tensors, [tflite.Op("ADD", [0, 0], [1])], [0], [1]))


def identity() -> bytes:
    """INPUT0 int32 [-1,16] -> OUTPUT0, the same."""
    tensors = [T("INPUT0", [1, 16], "INT32", signature=[-1, 16]), T("zero", [1], "INT32", 0),
               T("OUTPUT0", [1, 16], "INT32", signature=[-1, 16])]  # fmt: skip
    return build(Graph(tensors, [Op("ADD", ["INPUT0", "zero"], ["OUTPUT0"])], ["INPUT0"], ["OUTPUT0"]))


def pictures() -> bytes:
    """A classifier of pictures, float [-1,32,32,3] -> [-1,3]."""
    return build(
        Graph(
            [T("in", [1, 32, 32, 3], signature=[-1, 32, 32, 3]), T("axes", [2], "INT32", [1, 2]),
             T("mean", [1, 3], signature=[-1, 3]), T("w", [3, 3], data=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
             T("b", [3], data=0.0), T("out", [1, 3], signature=[-1, 3])],
            [Op("MEAN", ["in", "axes"], ["mean"]), Op("FULLY_CONNECTED", ["mean", "w", "b"], ["out"])],
            ["in"], ["out"],
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(launch: type[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    top = tmp_path_factory.mktemp("triton")
    files = {}
    for name, data in {
        "simple": tflite.sum_and_difference(),
        "simple_int8": tflite.sum_and_difference("INT8"),
        "simple_string": tflite.text_sum(),
        "simple_identity": tflite.echo(),
        "simple_sequence": tflite.sequence(),
        "densenet_onnx": named_like_densenet(),
        "custom_identity_int32": identity(),
    }.items():
        files[name] = top / f"{name}.tflite"
        files[name].write_bytes(data)
    running = launch(top, f"{configuration(top)}[shared_memory]\nenabled = true\n", models=files)
    file = top / "pictures.tflite"
    file.write_bytes(pictures())
    directory = running.store("pictures", file, extra=f'task = "classify"\n{LABELS}\n[input]\nmean = 0\nstd = 255')
    (directory / "labels.txt").write_text("red\ngreen\nblue\n")
    with running.client() as client:
        client.load("pictures")
    picture = sorted((EMBEDDED / "digits" / "1" / "samples").glob("*.png"))[0]
    with forwarded(running) as address:
        yield Server(running, address, f"unix:{top}/run/g.sock", picture)
    running.stop()


def configuration(directory: Path) -> str:
    """Of a daemon that calls itself triton, as one of the examples wants it."""
    return f'[server]\nname = "triton"\ngrpc_socket = "{directory}/run/g.sock"\ngrpc_role = "control"\n'


def run(tmp_path: Path, script: str, arguments: list[str], address: str = "") -> None:
    """Run an example and see it end well. `address` is for those that know their own only."""
    file = tmp_path / f"{script}.py"
    text = example(script)
    file.write_text(re.sub(r"localhost:800[01]", address, text) if address else text)
    # A package that one of them imports and that no Python since 3.10 can.
    (tmp_path / "attrdict.py").write_text(ATTRDICT)
    done = subprocess.run(
        [sys.executable, str(file), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert "error" not in done.stdout.lower(), done.stdout[-1500:]


ATTRDICT = """
class AttrDict(dict):
    def __getattr__(self, name):
        return wrapped(self[name])


def wrapped(value):
    if isinstance(value, dict):
        return AttrDict(value)
    return [wrapped(v) for v in value] if isinstance(value, list) else value
"""


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_unmodified(server: Server, tmp_path: Path, name: str) -> None:
    script, *variant = name.split()
    arguments = [str(server.picture) if a == "PICTURE" else a for a in EXAMPLES[name]]
    address = server.grpc if "grpc" in script or "grpc" in variant else server.http
    if script == "memory_growth_test":  # it takes no address
        run(tmp_path, script, arguments, address)
    else:
        run(tmp_path, script, ["-u", address, *arguments])


def test_models_are_loaded_changed_and_unloaded(start: Callable[..., Running], tmp_path: Path) -> None:
    file = tmp_path / "simple.tflite"
    file.write_bytes(tflite.sum_and_difference())
    names = ["simple", *(f"simple_{n}" for n in range(1, 7))]  # the example wants to see seven
    config = f"{configuration(tmp_path)}[models]\nembedded = false\n"
    running = start(config, models=dict.fromkeys(names, file))
    with forwarded(running) as address:
        run(tmp_path, "simple_http_model_control", ["-u", address])


def test_every_example_is_tried_or_has_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    place = os.environ.get("EDGEAI_TRITON_CLIENT", "")
    if not place:
        pytest.skip("set EDGEAI_TRITON_CLIENT to a copy of github.com/triton-inference-server/client")
    directory = Path(place) / PLACE
    if directory.is_dir():
        names = {f.stem for f in directory.glob("*.py")}
    else:
        command = ["git", "-C", place, "ls-tree", "--name-only", "HEAD", f"{PLACE}/"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        names = {Path(f).stem for f in listed if f.endswith(".py")}
    tried = {n.split()[0] for n in EXAMPLES} | {"simple_http_model_control"}
    with capsys.disabled():
        print(f"\n{len(names)} examples: {len(names & tried)} run unmodified, {len(names & set(IMPOSSIBLE))} cannot")
    assert names <= tried | set(IMPOSSIBLE)
